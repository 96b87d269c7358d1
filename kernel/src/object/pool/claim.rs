//! Pools that several CPUs share.
//!
//! None of them may remove objects meanwhile, one at a time may [add](Room) some, and each uses only the objects that it has claimed. **Nobody waits
//! for a claim**: who does not get one gives up and asks to have everything alone. So claims can be made in any
//! order.
//!
//! A claim goes with the object: from the CPU where a thread runs to the [berth](super::Berth) where it waits, and from there
//! to the CPU of whoever finds it, without being let go.

use core::marker::PhantomData;
use core::mem::{self, ManuallyDrop};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Acquire;

use super::{Id, Pin, Pool, Room, Slot};
use crate::mm::Mm;

/// A pool whose objects are used by who has claimed them.
pub struct Claims<'p, T, const CHUNKS: usize, const PINS: usize = 0>(&'p Pool<T, CHUNKS, PINS>);

/// An object that nobody else uses until this is dropped.
pub struct Claim<'p, T> {
    slot: NonNull<Slot<T>>,
    pool: PhantomData<&'p Slot<T>>,
}

/// What a CPU has pinned.
pub struct Pinned<'p, T> {
    pin: &'p mut Option<NonNull<Slot<T>>>,
    /// What `pin` says, as the compiler does not know that nobody else writes there.
    slot: Option<NonNull<Slot<T>>>,
}

impl<T, const CHUNKS: usize, const PINS: usize> Pool<T, CHUNKS, PINS> {
    /// A pool that a CPU shares with others, or has alone, and what that CPU has pinned, as this pin of the pool says.
    ///
    /// # Safety
    ///
    /// Until both are gone nobody else uses the pin, and the pool is used by nothing but the like.
    #[inline(always)]
    pub unsafe fn share<'p>(
        pool: *const Self,
        pin: *const Pin<T>,
    ) -> (Claims<'p, T, CHUNKS, PINS>, Pinned<'p, T>) {
        // SAFETY: as the caller promises: others, too, have nothing but shared references to the pool, and the
        // place of this CPU's pin is a cell that they do not look at.
        unsafe {
            let pin = &mut *(*pin).0.get();
            let slot = *pin;
            (Claims(&*pool), Pinned { pin, slot })
        }
    }
}

impl<'p, T, const CHUNKS: usize, const PINS: usize> Claims<'p, T, CHUNKS, PINS> {
    /// Claims an object, if it still lives and nobody else has it.
    #[inline(always)]
    pub fn claim(&self, id: Id<T>) -> Option<Claim<'p, T>> {
        Claim::of(self.0.find(id)?)
    }

    /// Claims the object at a [place](Id::place), whatever that says.
    #[inline(always)]
    pub fn claim_at(&self, place: u64) -> Option<Claim<'p, T>> {
        let slot = self.0.at_beside(place);
        // SAFETY: the head and every slot begin with an id.
        let is_empty = unsafe { (*slot.as_ptr()).id.load(Acquire) } == 0;
        if is_empty { None } else { Claim::of(slot) }
    }

    /// [Room](Pool::room) for one object more.
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn room(&self, mm: &Mm) -> Option<Room<'p, T, CHUNKS, PINS>> {
        // SAFETY: as the caller promises.
        unsafe { self.0.room(mm) }
    }
}

impl<'p, T> Claim<'p, T> {
    /// Claims the object in a slot, which holds one as long as `'p`.
    #[inline(always)]
    fn of(slot: NonNull<Slot<T>>) -> Option<Self> {
        // SAFETY: the slot is one of a pool.
        let is_ours = unsafe { (*slot.as_ptr()).claimed.claim() };
        // Only then: a claim that is dropped lets go of the object.
        is_ours.then(|| Self {
            slot,
            pool: PhantomData,
        })
    }

    /// The claim of an object that has been claimed already.
    ///
    /// # Safety
    ///
    /// The slot holds an object as long as `'p`, and whoever has claimed it does not use it any more, nor let go of it.
    #[inline(always)]
    pub(super) unsafe fn taken_over(slot: NonNull<Slot<T>>) -> Self {
        Self {
            slot,
            pool: PhantomData,
        }
    }

    /// The slot of the object, which stays claimed.
    #[inline(always)]
    pub(super) fn hand_over(self) -> NonNull<Slot<T>> {
        ManuallyDrop::new(self).slot
    }

    /// The object's id.
    #[must_use]
    #[inline(always)]
    pub fn id(&self) -> Id<T> {
        // SAFETY: the slot holds an object, which is ours.
        unsafe { self.slot.as_ref().occupant() }
    }
}

impl<T> Deref for Claim<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the slot holds an object, which is ours.
        unsafe { (*self.slot.as_ptr()).object.assume_init_ref() }
    }
}

impl<T> DerefMut for Claim<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { (*self.slot.as_ptr()).object.assume_init_mut() }
    }
}

impl<T> Drop for Claim<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the slot is one of a pool.
        unsafe { (*self.slot.as_ptr()).claimed.release() };
    }
}

impl<'p, T> Pinned<'p, T> {
    /// The pinned object's id.
    #[must_use]
    #[inline(always)]
    pub fn id(&self) -> Option<Id<T>> {
        // SAFETY: a pinned slot holds an object.
        Some(unsafe { self.slot?.as_ref().occupant() })
    }

    /// The pinned object.
    #[must_use]
    #[inline(always)]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: the slot holds an object, which is this CPU's.
        Some(unsafe { (*self.slot?.as_ptr()).object.assume_init_ref() })
    }

    /// The pinned object.
    #[inline(always)]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: as above.
        Some(unsafe { (*self.slot?.as_ptr()).object.assume_init_mut() })
    }

    /// Pins another object, and returns the one that was pinned, which stays claimed.
    #[inline(always)]
    pub fn replace(&mut self, other: Claim<'p, T>) -> Option<Claim<'p, T>> {
        self.set(Some(other.hand_over()))
    }

    /// Pins nothing, and lets go of the object that was pinned.
    pub fn release(&mut self) {
        self.set(None);
    }

    #[inline(always)]
    fn set(&mut self, slot: Option<NonNull<Slot<T>>>) -> Option<Claim<'p, T>> {
        *self.pin = slot;
        let old = mem::replace(&mut self.slot, slot)?;
        // SAFETY: the slot is one of the pool. The object was claimed for this CPU's pin, which has another one.
        Some(unsafe { Claim::taken_over(old) })
    }
}
