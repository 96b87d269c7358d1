//! Topics, fields and operations of the small calls.

/// What [`Info`](crate::Call::Info) is asked for, with the results in order
/// `rdi rsi rdx r8 r9 r10 r12 r13 r14 r15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum InfoTopic {
    /// No handle. Nanoseconds since boot; time-stamp counter ticks per second.
    Clock = 0,
    /// System (OBSERVE). Frames: total, free, named more than once, used for reference counts.
    /// Pages since boot: copied by messages, remapped by messages, copied on a write fault,
    /// reclaimed by their last owner, filled with zeros, freed.
    Memory = 1,
    /// Space (READ). 1 if alive; private pages; pages shared copy-on-write (named more than
    /// once); shared-memory pages; untouched demand-zero pages; page-table frames; threads;
    /// handles.
    Space = 2,
    /// Thread (READ). [`ThreadState`]; nanoseconds run; base priority; effective priority.
    Thread = 3,
    /// Space (READ). 1 if alive; [`Commit`](crate::Commit), as a number; its commit and its budget in
    /// frames, 0 for no budget.
    Commit = 4,
    /// System (OBSERVE). Frames that are free but promised to strict spaces.
    Promise = 5,
    /// System (OBSERVE), and in debug builds of the kernel only: counts all references and frames again.
    /// 0 if all is well, or else what is wrong, as a number; the physical address of the frame that it
    /// is about, or 0; what was counted; what was found.
    Audit = 6,
    /// Space (READ), and the number of a thread of it, or 0: the thread created next, or the first. Its number, or 0 if there is none;
    /// [`ThreadState`]; nanoseconds run; effective priority; the number of the endpoint where it waits; those of the
    /// thread and of the space that it waits for; that of the endpoint where it received last; when it gives up
    /// waiting, in nanoseconds since boot, or 0.
    Member = 7,
    /// Endpoint (SEND). Numbers: its own; of the thread that received there last; of that thread's space.
    Endpoint = 8,
    /// Space (READ), and the address of a page. Where what begins there ends; [`RangeKind`]; rights; the most
    /// references of one of its pages; how many bytes the largest shared table covers on the way there, or 0.
    Range = 9,
    /// Space (READ), and 0 or where the last such call ended. Where the count ends; pages as for `Space`, and page-table
    /// frames.
    Pages = 10,
    /// Space (READ), and the number of a thread of it. Its instruction, stack and frame pointers.
    Registers = 11,
}

impl InfoTopic {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_user(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Clock),
            1 => Some(Self::Memory),
            2 => Some(Self::Space),
            3 => Some(Self::Thread),
            4 => Some(Self::Commit),
            5 => Some(Self::Promise),
            6 => Some(Self::Audit),
            7 => Some(Self::Member),
            8 => Some(Self::Endpoint),
            9 => Some(Self::Range),
            10 => Some(Self::Pages),
            11 => Some(Self::Registers),
            _ => None,
        }
    }
}

/// What a thread waits for, in numbers; 0 stands for nobody, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// The endpoint where it sends or receives.
    pub endpoint: u64,
    /// The thread that has received its message or passes it; while that is queued, the one that received last at the endpoint.
    pub thread: u64,
    /// The space that owes it an answer: that of the thread, which may be gone.
    pub space: u64,
    /// When it gives up waiting, or wakes: nanoseconds since boot.
    pub until_ns: u64,
}

/// What a range of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum RangeKind {
    /// Nothing is mapped.
    Empty = 0,
    /// Demand-zero pages that nobody has touched.
    Untouched = 1,
    /// Pages that this space alone can reach.
    Private = 2,
    /// Private pages whose frames others can reach too, until somebody writes.
    CopyOnWrite = 3,
    /// Shared memory.
    Shared = 4,
}

impl RangeKind {
    /// Decodes a result.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Untouched,
            2 => Self::Private,
            3 => Self::CopyOnWrite,
            4 => Self::Shared,
            _ => Self::Empty,
        }
    }
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum ThreadState {
    /// Created and not started.
    Stopped = 0,
    /// Running or ready to run.
    Runnable = 1,
    /// Waits in a send for a receiver.
    Sending = 2,
    /// Waits in a receive.
    Receiving = 3,
    /// Its message arrived; waits for the reply.
    AwaitingReply = 4,
    /// Faulted; waits for its supervisor.
    Faulted = 5,
    /// Exited or killed.
    Dead = 6,
    /// Waits for the clock.
    Sleeping = 7,
}

impl ThreadState {
    /// Decodes a result.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Stopped,
            1 => Self::Runnable,
            2 => Self::Sending,
            3 => Self::Receiving,
            4 => Self::AwaitingReply,
            5 => Self::Faulted,
            7 => Self::Sleeping,
            _ => Self::Dead,
        }
    }
}

/// What [`ThreadSet`](crate::Call::ThreadSet) changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum ThreadField {
    /// Base priority, 0 (idle work) to 31; never above the caller's own.
    Priority = 0,
    /// Base address of the `fs` segment (thread-local storage).
    FsBase = 1,
    /// The CPUs that the thread may run on, a bit each; at least one that there is.
    Affinity = 2,
}

impl ThreadField {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_user(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Priority),
            1 => Some(Self::FsBase),
            2 => Some(Self::Affinity),
            _ => None,
        }
    }
}

/// What [`PortIo`](crate::Call::PortIo) does: width in bytes, plus 8 for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum PortIo {
    /// Reads 8 bits.
    Read8 = 1,
    /// Reads 16 bits.
    Read16 = 2,
    /// Reads 32 bits.
    Read32 = 4,
    /// Writes 8 bits.
    Write8 = 9,
    /// Writes 16 bits.
    Write16 = 10,
    /// Writes 32 bits.
    Write32 = 12,
}

impl PortIo {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_user(value: u64) -> Option<Self> {
        match value {
            1 => Some(Self::Read8),
            2 => Some(Self::Read16),
            4 => Some(Self::Read32),
            9 => Some(Self::Write8),
            10 => Some(Self::Write16),
            12 => Some(Self::Write32),
            _ => None,
        }
    }

    /// How many ports the operation touches, starting at the one named.
    #[must_use]
    pub const fn width(self) -> u64 {
        self as u64 & 7
    }

    /// Whether the operation writes.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self as u64 & 8 != 0
    }
}
