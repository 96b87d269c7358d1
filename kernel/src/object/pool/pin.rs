//! The object that each CPU has at hand.

use core::cell::UnsafeCell;
use core::mem::{self, size_of};
use core::ptr::NonNull;

use super::chunk::Slot;
use super::{Id, Pool};

/// The object that a CPU has pinned: in a line of the cache that no other CPU uses.
#[repr(align(128))]
pub struct Pin<T>(pub(super) UnsafeCell<Option<NonNull<Slot<T>>>>);

impl<T> Pin<T> {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Where the object is that is pinned.
    ///
    /// # Safety
    ///
    /// Nobody changes the pin meanwhile.
    #[inline]
    pub unsafe fn object(&self) -> Option<*const T> {
        // SAFETY: as the caller promises; a pinned slot holds an object.
        unsafe { (*self.0.get()).map(|slot| (&raw const (*slot.as_ptr()).object).cast()) }
    }

    /// The [number](Id::number) of the object that is pinned, or 0.
    ///
    /// # Safety
    ///
    /// Nobody changes the pin meanwhile.
    #[cfg(feature = "trace")]
    pub unsafe fn number(&self) -> u64 {
        // SAFETY: as the caller promises; a pinned slot holds an object.
        Id::word(unsafe { (*self.0.get()).map(|slot| slot.as_ref().occupant()) })
    }
}

impl<T, const CHUNKS: usize, const PINS: usize> Pool<T, CHUNKS, PINS> {
    /// Where it is said what a CPU has pinned.
    pub fn pin_of(&self, cpu: usize) -> *const Pin<T> {
        &raw const self.pins[cpu]
    }

    /// Lets another CPU act, whose number is below `PINS`.
    pub fn enter(&mut self, cpu: usize) {
        assert!(cpu < PINS);
        self.here = cpu * size_of::<Pin<T>>();
    }

    /// Where it is said what the CPU that acts has pinned.
    #[inline(always)]
    pub(in crate::object) fn pin_here(&self) -> &Pin<T> {
        const { assert!(PINS > 0) };
        // SAFETY: there is a pin.
        unsafe { &*self.pins.as_ptr().byte_add(self.here) }
    }

    #[inline(always)]
    fn slot_here(&self) -> Option<NonNull<Slot<T>>> {
        // SAFETY: nobody writes it while the pool is borrowed.
        unsafe { *self.pin_here().0.get() }
    }

    /// Pins an object for the CPU that acts, in place of the one that it has pinned; `None` pins nothing.
    pub fn pin(&mut self, id: Option<Id<T>>) {
        let slot = id.and_then(|id| self.find(id));
        // SAFETY: the pool is ours alone.
        let old = unsafe { mem::replace(&mut *self.pin_here().0.get(), slot) };
        Self::release(old);
        if let Some(slot) = slot {
            // SAFETY: it is a slot that holds an object.
            let is_free = unsafe { slot.as_ref().claimed.claim() };
            debug_assert!(is_free, "it is pinned elsewhere");
        }
    }

    /// Lets another CPU have nothing pinned.
    pub fn unpin_on(&mut self, cpu: usize) {
        Self::release(self.pins[cpu].0.get_mut().take());
    }

    fn release(pinned: Option<NonNull<Slot<T>>>) {
        if let Some(slot) = pinned {
            // SAFETY: it is a slot that holds an object.
            unsafe { slot.as_ref().claimed.release_once() };
        }
    }

    /// The id of what a CPU has pinned.
    #[must_use]
    pub fn pinned_on(&self, cpu: usize) -> Option<Id<T>> {
        // SAFETY: nobody writes it while the pool is borrowed, and a pinned slot holds an object.
        unsafe { (*self.pins.get(cpu)?.0.get()).map(|slot| slot.as_ref().occupant()) }
    }

    /// The id of what the CPU that acts has pinned.
    #[must_use]
    #[inline]
    pub fn pinned_id(&self) -> Option<Id<T>> {
        // SAFETY: a pinned slot holds an object.
        Some(unsafe { self.slot_here()?.as_ref().occupant() })
    }

    /// What the CPU that acts has pinned.
    #[must_use]
    #[inline]
    pub fn pinned(&self) -> Option<&T> {
        // SAFETY: a pinned slot holds an object, borrowed like the pool.
        Some(unsafe { self.slot_here()?.as_ref().object.assume_init_ref() })
    }

    /// What the CPU that acts has pinned.
    #[inline]
    pub fn pinned_mut(&mut self) -> Option<&mut T> {
        // SAFETY: a pinned slot holds an object, borrowed like the pool.
        Some(unsafe { self.slot_here()?.as_mut().object.assume_init_mut() })
    }
}
