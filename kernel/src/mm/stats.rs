//! Event counters: what copy-on-write did, and what it saved.

use core::sync::atomic::{AtomicU64, Ordering};

use cowslip_abi::TracePages;

#[cfg(feature = "trace")]
use crate::trace;

/// A number of pages that only grows.
#[derive(Debug)]
pub struct Counter {
    nr_pages: AtomicU64,
    /// What became of them.
    #[cfg(feature = "trace")]
    what: TracePages,
}

impl Counter {
    /// A counter at zero.
    #[must_use]
    pub const fn new(what: TracePages) -> Self {
        let _ = what;
        Self {
            nr_pages: AtomicU64::new(0),
            #[cfg(feature = "trace")]
            what,
        }
    }

    /// Counts `n` pages.
    pub fn add(&self, n: u64) {
        self.nr_pages.fetch_add(n, Ordering::Relaxed);
        #[cfg(feature = "trace")]
        trace::pages(self.what, n);
    }

    /// The pages so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.nr_pages.load(Ordering::Relaxed)
    }
}

/// Pages since boot, by what happened to them.
#[derive(Debug)]
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
    pub(super) const fn new() -> Self {
        Self {
            copied: Counter::new(TracePages::Copied),
            remapped: Counter::new(TracePages::Remapped),
            cow_broken: Counter::new(TracePages::Broken),
            reclaimed: Counter::new(TracePages::Reclaimed),
            zero_filled: Counter::new(TracePages::Zeroed),
            freed: Counter::new(TracePages::Freed),
        }
    }
}
