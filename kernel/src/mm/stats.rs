//! Event counters: what copy-on-write did, and what it saved.

use core::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts `n` events.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The events so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pages since boot, by what happened to them.
#[derive(Debug, Default)]
pub struct Stats {
    /// Destination pages of a transfer whose bytes were copied.
    pub copied: Counter,
    /// Destination pages of a transfer that were remapped instead.
    pub remapped: Counter,
    /// Copied because somebody wrote to a page that was still shared.
    pub cow_broken: Counter,
    /// Made writable again, without a copy, by the last owner.
    pub reclaimed: Counter,
    /// Demand-zero pages that got a frame.
    pub zero_filled: Counter,
    /// Frames freed because their last reference went.
    pub freed: Counter,
}

impl Stats {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            copied: Counter::new(),
            remapped: Counter::new(),
            cow_broken: Counter::new(),
            reclaimed: Counter::new(),
            zero_filled: Counter::new(),
            freed: Counter::new(),
        }
    }
}
