//! The entry that holds a count, and how CPUs count with it at the same time.
//!
//! `kernel/models` tries it with every order of loads and stores that the orderings allow.

use super::{
    Flushed,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

/// The count that means "very many", for ever.
pub const PINNED: u64 = PIN >> EXTRA_SHIFT;

const EXTRA_SHIFT: u32 = 12;
/// One extra reference.
pub(super) const EXTRA: u64 = 1 << EXTRA_SHIFT;
/// From here on a count is pinned.
pub(super) const PIN: u64 = 1 << 51;
/// Where a pinned count is put.
pub(super) const DEEP_IN_PIN: u64 = PIN + PIN / 2;

/// What is left after one reference went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Nothing: the caller owns the frame alone, and frees it.
    Last,
    /// One other reference.
    Second,
    /// Other references.
    Remaining,
}

/// The count of one frame.
#[derive(Clone, Copy)]
pub struct Count<'m>(pub(super) &'m AtomicU64);

impl<'m> Count<'m> {
    /// The count at this place of a lowest-level node.
    #[inline]
    #[must_use]
    pub const fn new(place: &'m AtomicU64) -> Self {
        Self(place)
    }

    /// Whether there is one reference. If so, read under the lock of the space that holds the
    /// reference, that stays so until the space gives it away.
    #[inline]
    #[must_use]
    pub fn is_one(self) -> bool {
        self.0.load(Acquire) == 0
    }

    /// How many references there are.
    #[must_use]
    pub fn get(self) -> u64 {
        let extra = self.0.load(Acquire);
        if extra >= PIN {
            PINNED
        } else {
            (extra >> EXTRA_SHIFT) + 1
        }
    }

    /// Counts a second reference to a frame that has one. The caller adds to the number of
    /// [shared](super::RefCounts::add_shared) frames.
    #[inline]
    pub fn make_two(self) {
        self.0.fetch_add(EXTRA, Relaxed);
    }

    /// Counts one more reference; whether it is the second one.
    #[inline]
    pub fn increment(self) -> bool {
        let before = self.0.fetch_add(EXTRA, Relaxed);
        if before >= PIN {
            self.pin();
        }
        before == 0
    }

    #[cold]
    #[inline(never)]
    fn pin(self) {
        self.0.store(DEEP_IN_PIN, Relaxed);
    }

    /// The count, for [`increment_from`](Self::increment_from) and [`release_from`](Self::release_from).
    #[inline]
    #[must_use]
    pub fn sample(self) -> Sample {
        let extra = self.0.load(Acquire);
        if extra < PIN - EXTRA {
            Sample(extra)
        } else {
            Sample::NONE
        }
    }

    /// Counts one more reference if the count is still the same; whether it was.
    #[inline(always)]
    pub fn increment_from(self, sample: Sample) -> bool {
        let more = sample.0.wrapping_add(EXTRA);
        let result = self.0.compare_exchange(sample.0, more, Relaxed, Relaxed);
        result.is_ok()
    }

    /// Counts one reference less, which is flushed, if the count is still the same, and was not one;
    /// whether it was.
    #[inline(always)]
    pub fn release_from(self, sample: Sample, _flushed: &Flushed) -> bool {
        let less = sample.0.wrapping_sub(EXTRA);
        let result = self.0.compare_exchange(sample.0, less, AcqRel, Relaxed);
        result.is_ok()
    }

    /// Counts one reference less, which is flushed. The caller frees the frame if it was the last,
    /// and [says so](super::RefCounts::subtract_shared) if it was the last but one.
    #[inline]
    pub fn release(self, _flushed: &Flushed) -> Dropped {
        self.decrement()
    }

    /// What stands in the place of the count of a frame that no entry names.
    pub(in crate::mm) fn word(self) -> u64 {
        self.0.load(Acquire)
    }

    /// Uses the place of the count of a frame that no entry names. Zero makes it a count again.
    pub(in crate::mm) fn set_word(self, word: u64) {
        self.0.store(word, Release);
    }

    /// Counts one reference less. Use [`Mm::release`](crate::mm::Mm::release), which insists on a flush.
    ///
    /// Release, so that what was done with the frame before the reference went is seen by whoever
    /// finds the count at one (acquire) and writes to it.
    #[inline]
    pub(in crate::mm) fn decrement(self) -> Dropped {
        let extra = self.0.load(Acquire);
        if extra == 0 {
            return Dropped::Last;
        }
        if extra >= PIN {
            return Dropped::Remaining;
        }
        match self.0.fetch_sub(EXTRA, AcqRel) {
            0 => {
                // Another CPU was faster, and gave the last but one reference away: nobody else
                // can look at the count any more.
                self.0.store(0, Relaxed);
                Dropped::Last
            }
            EXTRA => Dropped::Second,
            _ => Dropped::Remaining,
        }
    }
}

/// What a count was when somebody looked. Neighbouring frames mostly have the same count, so one sample
/// does for all of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sample(u64);

impl Sample {
    /// In the place of a count that is pinned, or may be so soon: no count is like it.
    const NONE: Self = Self(u64::MAX);

    /// One reference.
    #[must_use]
    pub const fn is_one(self) -> bool {
        self.0 == 0
    }

    /// Two references.
    #[must_use]
    pub const fn is_two(self) -> bool {
        self.0 == EXTRA
    }
}
