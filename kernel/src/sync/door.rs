//! Where CPUs go in to share a [lock](super::Lock), and where it can be seen what they do.
//!
//! ```text
//!             enter                     shut, by who has it alone
//!          <---------        open      ---------->
//!  inside  --------->   (0 in the word)              shut
//!             leave                    <----------
//!                                      open, by its own CPU, while nobody has it alone
//! ```

use super::MAX_CPUS;
use super::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// Where a CPU goes in to share the lock: a line of the cache that others write only to shut it.
#[repr(align(128))]
pub struct Door(AtomicU32);

/// The doors of all CPUs.
pub trait Doors {
    /// That of one of them.
    fn of(&self, cpu: usize) -> &Door;
}

/// How a CPU knows its own [`Door`].
pub trait Entrance {
    /// Goes in, if the door is open. Nothing that follows happens before that can be seen.
    fn enter(&self) -> bool;
    /// Comes out, and leaves the door open.
    fn leave(&self);
}

impl Door {
    /// In the word: there is no way in, because its CPU is inside, or because it is shut. One bit, as setting and testing
    /// it is one instruction.
    pub const BARRED: u32 = 1 << 0;
    /// In the word: nobody is inside, and it is not shut.
    pub const OPEN: u32 = 0;
    /// Its CPU is inside.
    const INSIDE: u32 = Self::BARRED;
    /// Shut by another CPU.
    const SHUT: u32 = 1 << 1 | Self::BARRED;
    /// Its CPU is not to begin to work [apart](Apart) before it has opened the door.
    const SETTLED: u32 = 1 << 2;
    /// Its CPU works [apart](Apart), whether it is open or shut.
    const APART: u32 = 1 << 3;

    /// A door that is shut.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in constants")]
    pub const fn new() -> Self {
        Self(AtomicU32::new(Self::SHUT))
    }

    /// Shuts it, unless its CPU is inside. Returns whether it is shut.
    pub(super) fn shut(&self) -> bool {
        let word = self.0.load(Relaxed);
        if word == Self::INSIDE {
            return false;
        }
        let open = word & !Self::SHUT;
        let shut = word | Self::SHUT;
        match self.0.compare_exchange(open, shut, Acquire, Relaxed) {
            Ok(_) => true,
            Err(word) => word & Self::SHUT == Self::SHUT,
        }
    }

    /// Lets its CPU not begin to work apart before it has opened the door. Returns whether it does not work apart.
    pub(super) fn settle(&self) -> bool {
        let mut word = self.0.load(Acquire);
        if word & Self::SETTLED == 0 {
            word = self.0.fetch_or(Self::SETTLED, Acquire);
        }
        word & Self::APART == 0
    }

    /// Opens it for its CPU, which goes in: so it cannot be shut before.
    pub(super) fn open_and_enter(&self) {
        self.0.store(Self::INSIDE, Relaxed);
    }

    /// Lets its CPU work apart, unless the door was settled since it was opened last.
    pub(super) fn begin_apart(&self) -> Option<Apart<'_>> {
        if self.0.fetch_or(Self::APART, Relaxed) & Self::SETTLED == 0 {
            return Some(Apart(self));
        }
        self.0.fetch_and(!Self::APART, Relaxed);
        None
    }

    /// Whether its CPU works apart.
    pub(super) fn is_apart(&self) -> bool {
        self.0.load(Acquire) & Self::APART != 0
    }

    /// Whether its CPU is inside, and may read what others replace.
    pub(super) fn is_reading(&self) -> bool {
        self.0.load(Acquire) & (Self::SHUT | Self::APART) == Self::INSIDE
    }
}

impl Entrance for &Door {
    #[inline(always)]
    fn enter(&self) -> bool {
        let is_open = self.0.fetch_or(Door::BARRED, Acquire) & Door::BARRED == 0;
        // Whoever replaces something and then waits for readers sees that, or what it has replaced is seen here.
        fence(SeqCst);
        is_open
    }

    #[inline(always)]
    fn leave(&self) {
        self.0.fetch_and(Door::APART, Release);
    }
}

/// A CPU that had the lock goes on with what it has claimed, though it has the lock no longer, until this is dropped. It looks at nothing
/// else that is locked, and does not go in again.
///
/// It is no reader, and [waits](super::Lock::wait_for_readers) for those who read what it replaces.
#[must_use = "others wait for the CPU until this is dropped"]
pub struct Apart<'l>(&'l Door);

impl<'l> Apart<'l> {
    pub(super) fn begin(door: &'l Door) -> Self {
        // What the CPU has claimed is seen with that by who shuts the door.
        door.0.fetch_or(Door::APART, Relaxed);
        Self(door)
    }
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_and(!Door::APART, Release);
    }
}

impl Doors for [Door; MAX_CPUS] {
    fn of(&self, cpu: usize) -> &Door {
        &self[cpu]
    }
}
