//! Where objects are, as long as a pool has lost none.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::chunk::Slot;
use super::{Id, Pool};

/// The last epoch of any pool. An epoch belongs to one pool and ends when it loses an object.
static LAST_EPOCH: AtomicU64 = AtomicU64::new(0);

/// The epoch of pools that have never held an object: no hint is of it.
pub(super) const NO_EPOCH: u64 = u64::MAX;

fn new_epoch() -> u64 {
    LAST_EPOCH.fetch_add(1, Relaxed) + 1
}

/// Where an object is, which is true for one epoch of its pool: then the object is found without
/// looking. Later the hint finds nothing.
pub struct Hint<T> {
    slot: NonNull<Slot<T>>,
    epoch: u64,
}

impl<T> Hint<T> {
    /// Finds nothing.
    pub(in crate::object) const NONE: Self = Self {
        slot: NonNull::dangling(),
        epoch: 0,
    };
}

// SAFETY: a hint is good for nothing but to be shown to its pool.
unsafe impl<T> Send for Hint<T> {}

impl<T> Clone for Hint<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Hint<T> {}

impl<T> fmt::Debug for Hint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in epoch {}", self.epoch)
    }
}

impl<T, const CHUNKS: usize, const PINS: usize> Pool<T, CHUNKS, PINS> {
    /// Where an object is, for this epoch.
    #[must_use]
    pub fn hint(&self, id: Id<T>) -> Option<Hint<T>> {
        let slot = self.find(id)?;
        Some(Hint {
            slot,
            epoch: self.epoch,
        })
    }

    /// Whether a hint still finds something.
    #[must_use]
    #[inline]
    pub fn is_current(&self, hint: Hint<T>) -> bool {
        hint.epoch == self.epoch
    }

    /// The object that a hint of this epoch is about.
    #[must_use]
    #[inline(always)]
    pub fn hinted(&self, hint: Hint<T>) -> Option<(Id<T>, &T)> {
        if hint.epoch != self.epoch {
            return None;
        }
        // SAFETY: the pool has lost no object since, so the slot still holds that one, borrowed like the pool.
        Some(unsafe { hint.slot.as_ref().content() })
    }

    /// Lets every hint find nothing.
    pub fn end_epoch(&mut self) {
        self.epoch = new_epoch();
    }
}
