//! What a tracing kernel writes down, and how it lies in memory.
//!
//! A kernel with the feature `trace` has an array of [`TraceRecord`]s behind a [`TraceHeader`] in its image. Whoever can read the
//! machine's memory reads it, at any time: there is nothing to drain, and no device.
//!
//! Threads, spaces and endpoints are named by numbers that are never used twice, each kind of object for itself; 0 is nobody.

/// The first word of the [`TraceHeader`], once the kernel records.
pub const TRACE_MAGIC: u64 = u64::from_le_bytes(*b"cowtrac1");

/// The symbol of the [`TraceHeader`] in the kernel's ELF file.
pub const TRACE_SYMBOL: &str = "COWSLIP_TRACE";

/// Arguments of a record.
pub const TRACE_ARGS: usize = 5;

/// What stands before the records: words of 64 bits, little-endian as everything else here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TraceHeader {
    /// [`TRACE_MAGIC`], or 0 as long as nothing is recorded.
    pub magic: u64,
    /// Ticks per second of the time-stamp counter.
    pub ticks_per_s: u64,
    /// Records that there is room for.
    pub nr_slots: u64,
    /// Records that were to be made. Those for which there was no room are lost.
    pub nr_records: u64,
    /// Nothing yet.
    pub reserved: [u64; 4],
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TraceRecord {
    /// When, by the time-stamp counter.
    pub ticks: u64,
    /// Bits 0..8: the [`TraceKind`]; bits 8..16: the CPU. Written last: 0 is a record that is not complete.
    pub what: u64,
    /// The thread that runs on the CPU.
    pub running: u64,
    /// What the kind says.
    pub args: [u64; TRACE_ARGS],
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TraceKind {
    /// The running thread made a system call: `rax` (number and handle), `rdi`, `rsi`, `rdx`, `r8`.
    Call = 1,
    /// It accessed a page that it could not access, or not yet: address, error code, instruction pointer.
    PageFault = 2,
    /// It was interrupted, or met another exception: vector, instruction pointer.
    Trap = 3,
    /// The CPU goes on with the running thread, in user mode: what its call returns in `rax`, if it has made one.
    Leave = 4,
    /// The CPU has no thread to run, and sleeps.
    Idle = 5,
    /// A message passed: from thread, to thread, by endpoint, tag, bytes. A fault is a message of that kind.
    Message = 6,
    /// A reply passed: from thread, to thread, tag, bytes. The tag of a verdict on a fault is of that kind.
    Reply = 7,
    /// Bits of an endpoint were raised: endpoint, bits.
    Notify = 8,
    /// A thread received such bits: thread, bits.
    Notified = 9,
    /// There is a space: space, the one that created it.
    SpaceCreated = 10,
    /// A space was made after the terms of another one, as a fork is: space, the other one.
    SpaceLike = 11,
    /// A space was given a name: space, three words of text, ended by a zero byte or the end.
    SpaceNamed = 12,
    /// A space is gone: space.
    SpaceEnded = 13,
    /// There is a thread: thread, space, the badge under which its faults arrive.
    ThreadCreated = 14,
    /// A thread is gone: thread.
    ThreadEnded = 15,
    /// What the running thread does changed pages: what became of them ([`TracePages`]), how many.
    Pages = 16,
}

impl TraceKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [TraceKind; 16] = [
        TraceKind::Call,
        TraceKind::PageFault,
        TraceKind::Trap,
        TraceKind::Leave,
        TraceKind::Idle,
        TraceKind::Message,
        TraceKind::Reply,
        TraceKind::Notify,
        TraceKind::Notified,
        TraceKind::SpaceCreated,
        TraceKind::SpaceLike,
        TraceKind::SpaceNamed,
        TraceKind::SpaceEnded,
        TraceKind::ThreadCreated,
        TraceKind::ThreadEnded,
        TraceKind::Pages,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// What became of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TracePages {
    /// Bytes of a message were copied into them.
    Copied = 0,
    /// A message brought them by page table.
    Remapped = 1,
    /// Copied, because somebody wrote to a page that was still shared.
    Broken = 2,
    /// Made writable again, without a copy, for the last owner.
    Reclaimed = 3,
    /// Filled with zeros at the first touch.
    Zeroed = 4,
    /// Freed with their last reference. There are no records of it.
    Freed = 5,
}

impl TracePages {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            0 => Some(Self::Copied),
            1 => Some(Self::Remapped),
            2 => Some(Self::Broken),
            3 => Some(Self::Reclaimed),
            4 => Some(Self::Zeroed),
            5 => Some(Self::Freed),
            _ => None,
        }
    }
}

impl TraceRecord {
    /// The word `what` of an event of this kind on this CPU.
    #[must_use]
    pub const fn what(kind: TraceKind, cpu: usize) -> u64 {
        kind as u64 | (cpu as u64) << 8
    }

    /// What happened; `None` for a record that is not complete, or of another version.
    #[must_use]
    pub fn kind(&self) -> Option<TraceKind> {
        TraceKind::from_number(self.what as u8)
    }

    /// On which CPU.
    #[must_use]
    pub const fn cpu(&self) -> usize {
        (self.what >> 8) as usize & 0xff
    }

    /// The record in so many words.
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> Self {
        let [ticks, what, running, a, b, c, d, e] = words;
        let args = [a, b, c, d, e];
        TraceRecord {
            ticks,
            what,
            running,
            args,
        }
    }
}

const _: () = assert!(size_of::<TraceHeader>() == 64 && size_of::<TraceRecord>() == 64);
