//! Frames that are set aside.

use cowslip_abi::Commit;

use super::{super::stock::Stock, Frame, FrameAllocator, OrderedGuard};

/// Numbers of frames, by the class of the space that they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass {
    /// For overcommit spaces, or for strict ones that have not been charged for them yet.
    pub overcommit: u64,
    /// For strict spaces, out of what is promised to them.
    pub strict: u64,
}

impl PerClass {
    /// Only frames for a space of this class.
    #[must_use]
    pub const fn of(class: Commit, nr_frames: usize) -> Self {
        let nr_frames = nr_frames as u64;
        match class {
            Commit::Overcommit => Self {
                overcommit: nr_frames,
                strict: 0,
            },
            Commit::Strict => Self {
                overcommit: 0,
                strict: nr_frames,
            },
        }
    }

    /// For both classes.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.overcommit + self.strict
    }

    /// The lesser of both numbers, for each class.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            overcommit: self.overcommit.min(other.overcommit),
            strict: self.strict.min(other.strict),
        }
    }
}

impl core::ops::AddAssign for PerClass {
    fn add_assign(&mut self, other: Self) {
        self.overcommit += other.overcommit;
        self.strict += other.strict;
    }
}

impl core::ops::SubAssign for PerClass {
    fn sub_assign(&mut self, other: Self) {
        self.overcommit -= other.overcommit;
        self.strict -= other.strict;
    }
}

/// A number of frames set aside for one operation.
///
/// Dropping it gives back what was not taken.
#[must_use]
pub struct Reserve<'a> {
    pub(super) allocator: &'a FrameAllocator,
    /// How many are left in the pool; below 0, how many are left in a stock.
    pub(super) left: isize,
    /// The CPU whose stock that is.
    pub(super) stock: u8,
    pub(super) class: Commit,
}

impl Reserve<'_> {
    /// One of the frames. Its contents are undefined.
    ///
    /// # Panics
    ///
    /// If none is left: the plan that sized the reserve was wrong.
    #[inline(never)]
    pub fn take(&mut self) -> Frame {
        if self.left <= 0 {
            return self.take_here();
        }
        self.left -= 1;
        self.allocator.pop(self.allocator.pool.lock())
    }

    /// One of the frames, filled with zeros.
    ///
    /// # Panics
    ///
    /// If none is left: the plan that sized the reserve was wrong.
    pub fn take_zeroed(&mut self) -> Frame {
        let frame = self.take();
        self.allocator.map.zero(frame);
        frame
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.left.unsigned_abs()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Gives back what is left; the same as dropping it.
    pub fn release(self) {}

    fn stock(&self) -> OrderedGuard<'_, Stock> {
        self.allocator.stocks[usize::from(self.stock)].lock()
    }

    #[cold]
    #[inline(never)]
    fn take_here(&mut self) -> Frame {
        assert!(self.left < 0, "more frames taken than reserved");
        self.left += 1;
        self.stock().take()
    }

    #[cold]
    #[inline(never)]
    fn give_back_here(&self) {
        self.stock().give_back(self.len());
    }

    /// Keeps what is left set aside for longer than this value lives.
    pub(super) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Reserve<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        if self.left < 0 {
            return self.give_back_here();
        }
        let mut pool = self.allocator.pool.lock();
        pool.free += self.left as u64;
        pool.returned(self.len(), self.class);
    }
}
