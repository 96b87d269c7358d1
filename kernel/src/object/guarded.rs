//! What the lock of creation guards.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// A part of what CPUs [share](super::Here) that only one of them uses: who has the kernel alone; or who shares it, and
/// is the [`Creator`](super::Creator).
#[derive(Debug, Default)]
pub struct Guarded<T>(UnsafeCell<T>);

// SAFETY: one CPU at a time uses it.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Guards a value.
    pub(super) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value, in what others share.
    ///
    /// # Safety
    ///
    /// Nobody else looks at it meanwhile.
    #[allow(clippy::mut_from_ref, reason = "that is what the caller promises")]
    pub(super) unsafe fn beside(&self) -> &mut T {
        // SAFETY: as the caller promises.
        unsafe { &mut *self.0.get() }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: who changes it beside others does so while nobody else looks.
        unsafe { &*self.0.get() }
    }
}

impl<T> DerefMut for Guarded<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}
