//! A claim: somebody uses something. Nobody waits for one.

use core::fmt;

use super::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Whether something is in use.
pub struct Claimed(AtomicU32);

/// A bit, as setting and testing it is one instruction.
const CLAIMED: u32 = 1;

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

    /// Whether it is claimed.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.0.load(Relaxed) == CLAIMED
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
