//! The memory that contents of files and pipes are in.
//!
//! Contents lie in one piece, so that one message can carry all of a file, in a *slot* of one of three sizes; each begins
//! at a multiple of its size, so that whole page tables can go over.
//!
//! The server never reads or writes contents by itself: a page that it touched might be one that there is no frame for, which
//! would be a fault of the server. The kernel moves all bytes, and a missing frame is an error of the call. Readers get
//! theirs right from a slot, as bytes of a reply; what is written is sent by the server to a thread of its own, the
//! [`Mover`], which receives it where it belongs. So whole pages are shared copy-on-write there as well.

use alloc::vec::Vec;

use libipc::PAGE_SIZE;
use libipc::services::Refusal;
use libipc::services::files::{MAX_FILE, MAX_WRITE};

use super::slab::reserve;

#[cfg(not(target_os = "none"))]
use host as machine;
#[cfg(target_os = "none")]
use target as machine;

pub use machine::{Machine, Mover};

/// Sizes of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// 64 KiB; also that of a pipe.
    Small,
    /// 2 MiB: what one page table covers.
    Medium,
    /// 1 GiB: the largest file.
    Large,
}

impl Size {
    const ALL: [Size; 3] = [Size::Small, Size::Medium, Size::Large];

    /// How long such a slot is.
    #[must_use]
    pub const fn in_bytes(self) -> usize {
        match self {
            Size::Small => 64 << 10,
            Size::Medium => MAX_WRITE,
            Size::Large => MAX_FILE as usize,
        }
    }

    /// The least that has room for so many bytes.
    #[must_use]
    pub fn for_len(len: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|size| len <= size.in_bytes())
    }
}

/// A place for contents. Who drops it without [giving it back](Memory::give) loses its addresses.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its memory is given back by hand"]
pub struct Slot {
    addr: usize,
    size: Size,
}

impl Slot {
    /// How much room there is.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// The bytes from `start` to `end`, for a reply: not to be looked at.
    #[must_use]
    pub fn bytes(&self, start: usize, end: usize) -> &[u8] {
        debug_assert!(start <= end && end <= self.size.in_bytes());
        // SAFETY: the range lies in the slot, where it is mapped, and nobody gives it back or writes to it as long as the
        // slot is borrowed.
        unsafe { core::slice::from_raw_parts((self.addr + start) as *const u8, end - start) }
    }
}

/// Free slots of one size, by address.
#[derive(Debug, Default)]
struct Free {
    /// How many there are altogether.
    nr_slots: usize,
    /// Those that were given back. There is room for all.
    addresses: Vec<usize>,
}

/// The memory of all contents.
#[derive(Debug)]
pub struct Memory {
    free: [Free; 3],
    machine: Machine,
}

impl Memory {
    /// No slots yet.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Memory {
            free: Default::default(),
            machine,
        }
    }

    /// Takes a slot, in which nothing is mapped.
    ///
    /// # Errors
    /// `NoMemory`, `NoSpace`.
    pub fn take(&mut self, size: Size) -> Result<Slot, Refusal> {
        let free = &mut self.free[size as usize];
        if let Some(addr) = free.addresses.pop() {
            return Ok(Slot { addr, size });
        }
        reserve(&mut free.addresses, free.nr_slots + 1)?;
        let addr = self.machine.make(size, free.nr_slots)?;
        free.nr_slots += 1;
        Ok(Slot { addr, size })
    }

    /// Gives a slot back, with all that is mapped in it.
    pub fn give(&mut self, slot: Slot) {
        // Addresses that could not be unmapped are not free.
        if self.machine.unmap(slot.addr, slot.size.in_bytes()).is_ok() {
            self.free[slot.size as usize].addresses.push(slot.addr);
        }
    }

    /// Maps zeros from one page boundary to another one.
    ///
    /// # Errors
    /// `NoMemory`: then nothing has changed.
    pub fn map(&mut self, slot: &Slot, start: usize, end: usize) -> Result<(), Refusal> {
        self.on_pages(slot, start, end, Machine::map)
    }

    /// Unmaps from one page boundary to another one.
    ///
    /// # Errors
    /// `NoMemory`: then nothing has changed.
    pub fn unmap(&mut self, slot: &Slot, start: usize, end: usize) -> Result<(), Refusal> {
        self.on_pages(slot, start, end, Machine::unmap)
    }

    fn on_pages(
        &mut self,
        slot: &Slot,
        start: usize,
        end: usize,
        action: impl FnOnce(&mut Machine, usize, usize) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        debug_assert!(start.is_multiple_of(PAGE_SIZE) && end.is_multiple_of(PAGE_SIZE));
        debug_assert!(end <= slot.size.in_bytes());
        match end.saturating_sub(start) {
            0 => Ok(()),
            len => action(&mut self.machine, slot.addr + start, len),
        }
    }

    /// Moves what is mapped in the first `len` bytes, whole pages, to an empty slot.
    ///
    /// # Errors
    /// `NoMemory`: then nothing has changed.
    pub fn relocate(&mut self, from: &Slot, to: &Slot, len: usize) -> Result<(), Refusal> {
        match len {
            0 => Ok(()),
            len => self.machine.relocate(from.addr, to.addr, len),
        }
    }

    /// Writes bytes to mapped pages. Whole pages are shared copy-on-write where both sides begin at one.
    ///
    /// # Errors
    /// `NoMemory`: then nothing has changed.
    pub fn write(&mut self, slot: &Slot, at: usize, bytes: &[u8]) -> Result<(), Refusal> {
        debug_assert!(at + bytes.len() <= slot.size.in_bytes());
        if bytes.is_empty() {
            return Ok(());
        }
        self.machine.write(slot.addr + at, bytes)
    }

    /// Makes the next so many calls succeed, and no other.
    #[cfg(test)]
    pub(crate) fn fail_after(&mut self, nr_calls: usize) {
        self.machine.fail_after(nr_calls);
    }
}

#[cfg(target_os = "none")]
mod target {
    use libipc::services::Refusal;
    use libipc::thread::{self, PRIORITY, Supervisor};
    use libipc::{
        Endpoint, Error, Handle, Message, PAGE_SIZE, PageBuffer, Perm, Received, ShareMode, Space,
    };

    use super::Size;

    /// Where slots of each size begin: above all that programs and the library use.
    const STARTS: [usize; 3] = [0x4000_0000_0000, 0x4100_0000_0000, 0x4200_0000_0000];

    /// The most slots of a size.
    const MAX_SLOTS: usize = 1 << 14;

    /// The stack of the mover, in bytes.
    const STACK: usize = 2 * PAGE_SIZE;

    /// A thread that receives bytes where they are to be.
    ///
    /// Each message says where the bytes of the next one go, so two of them write: one that says where, and one with the bytes.
    #[derive(Clone, Copy, Debug)]
    pub struct Mover(Handle);

    impl Mover {
        /// Starts the thread, which lives as long as the program.
        ///
        /// # Errors
        /// Those of the calls that it takes.
        pub fn start() -> Result<Self, Error> {
            let endpoint = Endpoint::create()?.into_raw();
            let mut stack = PageBuffer::new(STACK)?;
            // All that it will ever have.
            stack.fill(0);
            let supervisor = Supervisor::Process;
            let running = thread::spawn_at(run, endpoint.0.into(), stack, supervisor, PRIORITY)?;
            core::mem::forget(running);
            Ok(Mover(endpoint))
        }

        /// Writes bytes to memory of this program that is mapped for writing.
        ///
        /// # Errors
        /// Those of the call `send`: then nothing was written.
        pub fn write(self, to: usize, bytes: &[u8]) -> Result<(), Error> {
            let endpoint = Endpoint::borrow(self.0);
            let place = Message::new(0).with_words([to as u64, bytes.len() as u64]);
            endpoint.call(place)?;
            let outcome = endpoint.send(Message::new(0), bytes, &mut []);
            if outcome.is_err() {
                // It still waits with the place.
                endpoint.call(Message::new(0))?;
            }
            outcome.map(|_| ())
        }
    }

    /// The mover's loop.
    fn run(endpoint: u64) {
        let endpoint = Endpoint::borrow(Handle(endpoint as u32));
        let mut next = endpoint.recv(&mut []);
        while let Ok(Received::Message(incoming)) = next {
            let [to, len, ..] = incoming.message.words;
            // SAFETY: `Mover::write` passes the place of contents, which nobody looks at before it has returned; or
            // nothing.
            let room = unsafe { room(to as *mut u8, len as usize) };
            next = endpoint.reply_recv(incoming.token, Message::new(0), &[], room);
        }
    }

    /// # Safety
    /// `at` is where `len` bytes are mapped that nobody else refers to, if `len` is not 0.
    unsafe fn room<'a>(at: *mut u8, len: usize) -> &'a mut [u8] {
        if len == 0 {
            return &mut [];
        }
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(at, len) }
    }

    /// Kernel calls on the server's own space.
    #[derive(Debug)]
    pub struct Machine(Mover);

    impl Machine {
        /// One whose bytes the mover writes.
        #[must_use]
        pub fn new(mover: Mover) -> Self {
            Machine(mover)
        }

        pub(super) fn make(&mut self, size: Size, number: usize) -> Result<usize, Refusal> {
            if number == MAX_SLOTS {
                return Err(Refusal::NoSpace);
            }
            Ok(STARTS[size as usize] + number * size.in_bytes())
        }

        pub(super) fn map(&mut self, addr: usize, len: usize) -> Result<(), Refusal> {
            Ok(Space::own().map(addr as u64, len as u64, Perm::RW)?)
        }

        pub(super) fn unmap(&mut self, addr: usize, len: usize) -> Result<(), Refusal> {
            Ok(Space::own().unmap(addr as u64, len as u64)?)
        }

        pub(super) fn relocate(
            &mut self,
            from: usize,
            to: usize,
            len: usize,
        ) -> Result<(), Refusal> {
            let own = Space::own();
            let mode = ShareMode::Move;
            Ok(own.share(&own, from as u64, to as u64, len as u64, mode, None)?)
        }

        pub(super) fn write(&mut self, to: usize, bytes: &[u8]) -> Result<(), Refusal> {
            Ok(self.0.write(to, bytes)?)
        }
    }
}

#[cfg(not(target_os = "none"))]
mod host {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::collections::BTreeMap;

    use libipc::services::Refusal;
    use libipc::{Error, PAGE_SIZE};

    use super::Size;

    /// Writes like the real one, in the same thread.
    #[derive(Clone, Copy, Debug)]
    pub struct Mover(());

    impl Mover {
        /// Starts nothing.
        ///
        /// # Errors
        /// None.
        pub fn start() -> Result<Self, Error> {
            Ok(Mover(()))
        }

        /// Writes bytes to memory that nobody refers to.
        ///
        /// # Errors
        /// None.
        pub fn write(self, to: usize, bytes: &[u8]) -> Result<(), Error> {
            // SAFETY: callers pass the place of contents, or of their own buffer.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
            Ok(())
        }
    }

    /// Memory of the test's own, where mapping is nothing and unmapping is writing zeros. It fails when it is told to.
    #[derive(Debug)]
    pub struct Machine {
        mover: Mover,
        /// By address.
        slots: BTreeMap<usize, Made>,
        calls_left: usize,
    }

    #[derive(Debug)]
    struct Made {
        layout: Layout,
        /// From here on nothing was ever written.
        end: usize,
    }

    impl Machine {
        /// One that never fails.
        #[must_use]
        pub fn new(mover: Mover) -> Self {
            Machine {
                mover,
                slots: BTreeMap::new(),
                calls_left: usize::MAX,
            }
        }

        #[cfg(test)]
        pub(super) fn fail_after(&mut self, nr_calls: usize) {
            self.calls_left = nr_calls;
        }

        fn call(&mut self) -> Result<(), Refusal> {
            self.calls_left = self.calls_left.checked_sub(1).ok_or(Refusal::NoMemory)?;
            Ok(())
        }

        /// The slot that an address lies in.
        fn slot(&mut self, addr: usize) -> &mut Made {
            let (_, made) = self.slots.range_mut(..=addr).next_back().expect("a slot");
            made
        }

        pub(super) fn make(&mut self, size: Size, _: usize) -> Result<usize, Refusal> {
            self.call()?;
            let layout =
                Layout::from_size_align(size.in_bytes(), PAGE_SIZE).expect("a power of two");
            // SAFETY: the length is not 0.
            let addr = unsafe { alloc_zeroed(layout) } as usize;
            assert_ne!(addr, 0, "out of memory");
            self.slots.insert(addr, Made { layout, end: addr });
            Ok(addr)
        }

        pub(super) fn map(&mut self, _: usize, _: usize) -> Result<(), Refusal> {
            self.call()
        }

        pub(super) fn unmap(&mut self, addr: usize, len: usize) -> Result<(), Refusal> {
            self.call()?;
            let end = self.slot(addr).end.min(addr + len);
            // SAFETY: the bytes lie in a slot, and nobody refers to them.
            unsafe { core::ptr::write_bytes(addr as *mut u8, 0, end.saturating_sub(addr)) };
            Ok(())
        }

        pub(super) fn relocate(
            &mut self,
            from: usize,
            to: usize,
            len: usize,
        ) -> Result<(), Refusal> {
            self.call()?;
            self.slot(to).end = to + len;
            // SAFETY: both lie in slots, and nobody refers to them.
            unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, len) };
            // SAFETY: as above.
            unsafe { core::ptr::write_bytes(from as *mut u8, 0, len) };
            Ok(())
        }

        pub(super) fn write(&mut self, to: usize, bytes: &[u8]) -> Result<(), Refusal> {
            self.call()?;
            let slot = self.slot(to);
            slot.end = slot.end.max(to + bytes.len());
            Ok(self.mover.write(to, bytes)?)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            for (&addr, made) in &self.slots {
                // SAFETY: `make` allocated it with this layout.
                unsafe { dealloc(addr as *mut u8, made.layout) };
            }
        }
    }
}
