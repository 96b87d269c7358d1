//! Objects that are found without looking, where they wait for somebody to use them.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::{Claim, Claims, Id, Pool, Slot};
use crate::sync::Keep;

/// A place where an object of a pool can wait. It is claimed as long as it does, so it is neither removed nor used by
/// anybody but who claims the berth.
pub struct Berth<T>(Keep<Slot<T>>);

/// A berth that nobody else uses until this is dropped.
pub struct BerthClaim<'p, T> {
    berth: &'p Berth<T>,
    /// The object in it, if any, which is claimed.
    content: *mut Slot<T>,
    object: PhantomData<&'p Slot<T>>,
}

impl<T> Berth<T> {
    /// Nothing waits here.
    #[must_use]
    pub const fn new() -> Self {
        Self(Keep::new())
    }

    /// What waits here. Nobody shares it.
    #[inline]
    pub fn id(&self) -> Option<Id<T>> {
        let slot = NonNull::new(self.0.get())?;
        // SAFETY: what waits is not removed, and its id never changes.
        Some(unsafe { slot.as_ref().occupant() })
    }

    /// Whether nothing waits here. Nobody shares it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }
}

impl<T> Default for Berth<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Berth<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

impl<T, const CHUNKS: usize, const PINS: usize> Pool<T, CHUNKS, PINS> {
    /// Lets an object wait in a berth where none does. It may be pinned for a moment still.
    pub fn park(&mut self, berth: &mut Berth<T>, id: Id<T>) {
        debug_assert!(berth.is_empty());
        if let Some(slot) = self.find(id) {
            // SAFETY: the slot holds an object.
            unsafe { slot.as_ref().claimed.keep() };
            berth.0.put(slot.as_ptr());
        }
    }

    /// Takes the object out that waits in a berth.
    pub fn unpark(&mut self, berth: &mut Berth<T>) -> Option<Id<T>> {
        let id = berth.id()?;
        debug_assert!(self.find(id).map(NonNull::as_ptr) == Some(berth.0.get()));
        berth.0.put(ptr::null_mut());
        let slot = self.find(id)?;
        // SAFETY: the slot holds an object.
        unsafe { slot.as_ref().claimed.release() };
        Some(id)
    }
}

impl<'p, T, const CHUNKS: usize, const PINS: usize> Claims<'p, T, CHUNKS, PINS> {
    /// Claims a berth, with what waits there of this pool.
    #[inline(always)]
    pub fn claim_berth(&self, berth: &'p Berth<T>) -> Option<BerthClaim<'p, T>> {
        let content = berth.0.take()?;
        Some(BerthClaim::new(berth, content))
    }

    /// Claims a berth where nothing waits, if what else there is to look at then is 0.
    #[inline(always)]
    pub fn claim_empty_berth(
        &self,
        berth: &'p Berth<T>,
        what_else: impl FnOnce() -> u64,
    ) -> Option<BerthClaim<'p, T>> {
        let is_empty = berth.0.take_nothing(what_else);
        is_empty.then(|| BerthClaim::new(berth, ptr::null_mut()))
    }
}

impl<'p, T> BerthClaim<'p, T> {
    #[inline(always)]
    fn new(berth: &'p Berth<T>, content: *mut Slot<T>) -> Self {
        Self {
            berth,
            content,
            object: PhantomData,
        }
    }

    /// The object in the berth.
    #[inline(always)]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: the slot holds an object, which is ours with the berth.
        Some(unsafe {
            (*NonNull::new(self.content)?.as_ptr())
                .object
                .assume_init_mut()
        })
    }

    /// The object's id.
    #[must_use]
    #[inline(always)]
    pub fn id(&self) -> Option<Id<T>> {
        // SAFETY: the slot holds an object.
        Some(unsafe { NonNull::new(self.content)?.as_ref().occupant() })
    }

    /// Takes the object out of the berth.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Claim<'p, T>> {
        let slot = NonNull::new(core::mem::replace(&mut self.content, ptr::null_mut()))?;
        // SAFETY: the object is claimed, and the berth does not know it any more.
        Some(unsafe { Claim::taken_over(slot) })
    }

    /// Puts an object into the berth, which is empty.
    #[inline(always)]
    pub fn put(&mut self, object: Claim<'p, T>) {
        debug_assert!(self.content.is_null());
        self.content = object.hand_over().as_ptr();
    }
}

impl<T> Drop for BerthClaim<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.berth.0.put(self.content);
    }
}
