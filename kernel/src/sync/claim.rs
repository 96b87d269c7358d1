//! A claim: somebody uses something. Nobody waits for one.

use core::{fmt, ptr};

use super::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Whether something is in use.
pub struct Claimed(AtomicU32);

/// A bit, as setting and testing it is one instruction.
const CLAIMED: u32 = 1 << 0;
/// It is claimed twice: by somebody, and by the place where it is to stay when that one lets go of it.
const KEPT: u32 = 1 << 1 | CLAIMED;

impl Claimed {
    /// Nobody uses it.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Claims it. `false`: somebody else uses it.
    #[inline(always)]
    pub fn claim(&self) -> bool {
        self.0.fetch_or(CLAIMED, Acquire) & CLAIMED == 0
    }

    /// Lets go of what the caller has claimed.
    #[inline(always)]
    pub fn release(&self) {
        self.0.store(0, Release);
    }

    /// Claims it for a place where it is to stay, though somebody may have claimed it and not [let go](Self::release_once)
    /// of it so far. Nobody else uses it.
    pub fn keep(&self) {
        let is_claimed = self.is_claimed();
        self.0
            .store(if is_claimed { KEPT } else { CLAIMED }, Relaxed);
    }

    /// Lets go of what the caller has claimed; if it was to be kept somewhere since, it stays claimed. Nobody else uses it.
    pub fn release_once(&self) {
        let is_kept = self.0.load(Relaxed) == KEPT;
        self.0.store(if is_kept { CLAIMED } else { 0 }, Release);
    }

    /// Whether it is claimed.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_claimed() { "claimed" } else { "free" })
    }
}

impl Default for Claimed {
    fn default() -> Self {
        Self::new()
    }
}

/// A place with a pointer or none, which one at a time has taken out to use what is kept there: claiming the place and reading
/// it are one instruction.
pub struct Keep<T>(AtomicPtr<T>);

impl<T> Keep<T> {
    /// In the place of the pointer that somebody has taken out.
    const TAKEN: *mut T = ptr::without_provenance_mut(1);

    /// Nothing is kept there.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Takes out what is there. `None`: somebody else has.
    #[inline(always)]
    pub fn take(&self) -> Option<*mut T> {
        let content = self.0.swap(Self::TAKEN, Acquire);
        (content != Self::TAKEN).then_some(content)
    }

    /// Takes out nothing, if nothing is there and what else there is to look at is 0. Returns whether that is so.
    ///
    /// Somebody else may have taken out what is there while `what_else` looks; then the answer is no, whatever it finds.
    #[inline(always)]
    pub fn take_nothing(&self, what_else: impl FnOnce() -> u64) -> bool {
        let content = self.0.swap(Self::TAKEN, Acquire);
        let is_quiet = content.addr() as u64 | what_else() == 0;
        if !is_quiet {
            self.put_back(content);
        }
        is_quiet
    }

    /// Puts something back, unless somebody else has it.
    #[cold]
    #[inline(never)]
    fn put_back(&self, content: *mut T) {
        if content != Self::TAKEN {
            self.put(content);
        }
    }

    /// Puts something into the place whose content the caller has taken out, or nothing.
    #[inline(always)]
    pub fn put(&self, content: *mut T) {
        self.0.store(content, Release);
    }

    /// What is there, for who knows that nobody has taken it out.
    #[inline(always)]
    pub fn get(&self) -> *mut T {
        self.0.load(Relaxed)
    }
}

impl<T> Default for Keep<T> {
    fn default() -> Self {
        Self::new()
    }
}
