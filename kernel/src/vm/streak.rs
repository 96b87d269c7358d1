//! Writes in order: how many pages the next break of copy-on-write takes at once.
//!
//! Who has written to one page after the other, each with a fault and a copy or a take-back, will write to the next one, too. So a break that
//! begins exactly where the last one ended takes twice as many pages as that, up to [`MAX`]; every other takes its own page alone:
//!
//! ```text
//!  writes      p  p+1     p+3            p+7         ...
//!  pages       1   2       4              8      16  16  16
//! ```
//!
//! So a program that stops writing has had at most as many pages copied in vain as it had written to in order, and never more
//! than fifteen. What it saves is all of a fault but the copy: entry and exit, the walk, the flush.
//!
//! This is a guess at what comes, and no more than that: whatever it says, a [run](super::fault()) takes only pages that a write
//! to them would break in the same way.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::mm::phys::FRAME_SIZE;

/// The most pages that are broken at once. What a fault takes beside its pages is some 200 instructions, so the last doubling saves
/// a dozen a page, and the next would save six.
pub(super) const MAX: u64 = 16;

/// Where the last break of a space ended.
///
/// Only who has locked the space's table reads or writes it.
#[derive(Debug)]
pub(super) struct Streak {
    /// The address behind its last page. At first that of no page.
    end: AtomicU64,
    /// How many pages it took.
    nr_pages: AtomicU64,
}

impl Streak {
    /// Nothing has been broken.
    pub(super) const fn new() -> Self {
        Self {
            end: AtomicU64::new(u64::MAX - FRAME_SIZE),
            nr_pages: AtomicU64::new(0),
        }
    }

    /// Whether the last break ended where the page begins that contains `addr`.
    #[inline(always)]
    pub(super) fn goes_on_at(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.end.load(Relaxed)) < FRAME_SIZE
    }

    /// How many pages a break is to take that goes on there.
    pub(super) fn nr_next(&self) -> usize {
        (2 * self.nr_pages.load(Relaxed) as usize).min(MAX as usize)
    }

    /// Notes a break of so many pages from the one at `page` on.
    #[inline(always)]
    pub(super) fn note(&self, page: u64, nr_pages: usize) {
        self.end.store(page + nr_pages as u64 * FRAME_SIZE, Relaxed);
        self.nr_pages.store(nr_pages as u64, Relaxed);
    }
}
