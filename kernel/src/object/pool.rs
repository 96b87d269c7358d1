//! Pools of kernel objects that grow by frames.
//!
//! Every kernel object lives in a pool and is named by an [`Id`]: the index of its slot and the
//! generation of its life. An `Id` that outlived its object finds nothing, so queues, handles and
//! tokens hold plain ids and no reference counts. A frame of slots goes back to the allocator with
//! its last object: a pool never keeps memory that it does not use.
//!
//! Whoever has a pool alone uses its objects as the borrow checker lets him. CPUs that [share](Claims) it use those
//! that they have claimed, and one at a time may [add](Room) some.

mod berth;
mod chunk;
mod claim;
mod hint;
mod id;
mod pin;
mod room;

use core::mem::{MaybeUninit, size_of};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Guarded;
use crate::mm::Mm;
use crate::sync::Claimed;
pub use berth::{Berth, BerthClaim};
use chunk::{CHUNK_BYTES, CHUNK_SHIFT, Chunk, ChunkPlace, HEAD_ONLY, MAX_SLOTS, Slot, slot_shift};
pub use claim::{Claim, Claims, Pinned};
pub use hint::Hint;
use hint::NO_EPOCH;
pub use id::Id;
pub(super) use id::PLACE_BITS;
pub use pin::Pin;
use room::Room;

/// Why a pool could not take an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Every slot that the pool may ever have is in use.
    Full,
    /// A frame for more slots is missing.
    NoMemory,
}

/// What a pool must know to add an object.
struct Books {
    /// No chunk below this one has a free slot.
    first_free: usize,
    next_generation: u64,
    len: usize,
}

/// A pool of objects in at most `CHUNKS` frames, a power of two.
///
/// Slot 0 of each frame is the frame's head, which no id names, and chunks that do not exist read
/// as empty. So every place can be looked at, and one comparison tells whether it holds what an id
/// names.
///
/// Each of `PINS` CPUs can have *pinned* an object: then it is found without looking, claimed by that CPU, and not
/// removed.
pub struct Pool<T, const CHUNKS: usize, const PINS: usize = 0> {
    chunks: [ChunkPlace; CHUNKS],
    books: Guarded<Books>,
    /// Each holds an object, if it is a slot at all.
    pins: [Pin<T>; PINS],
    /// How many bytes into `pins` that of the CPU is which acts.
    here: usize,
    epoch: u64,
}

// SAFETY: a pool owns its chunks as a `Vec` owns its buffer; they move with it.
unsafe impl<T: Send, const CHUNKS: usize, const PINS: usize> Send for Pool<T, CHUNKS, PINS> {}

impl<T, const CHUNKS: usize, const PINS: usize> Pool<T, CHUNKS, PINS> {
    const SLOT_BYTES: usize = 1 << slot_shift::<T>();

    /// Slots in one frame, its head among them.
    const SLOTS: usize = {
        assert!(
            Self::SLOT_BYTES * 2 <= CHUNK_BYTES,
            "an object does not fit a frame"
        );
        assert!(Self::SLOT_BYTES >= size_of::<Chunk>());
        CHUNK_BYTES / Self::SLOT_BYTES
    };

    /// The most objects that the pool can hold.
    pub const CAPACITY: usize = CHUNKS * (Self::SLOTS - 1);

    /// Indices are below this number.
    pub const INDEX_END: usize = CHUNKS * Self::SLOTS;

    const ALL_USED: u64 = u64::MAX >> (MAX_SLOTS - Self::SLOTS);

    /// An empty pool, which owns no frame.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(CHUNKS.is_power_of_two() && CHUNKS * CHUNK_BYTES <= 1 << PLACE_BITS);
        }
        Self {
            chunks: [const { ChunkPlace::new() }; CHUNKS],
            books: Guarded::new(Books {
                first_free: 0,
                next_generation: 1,
                len: 0,
            }),
            pins: [const { Pin::new() }; PINS],
            here: 0,
            epoch: NO_EPOCH,
        }
    }

    /// How many objects live in the pool.
    #[must_use]
    pub fn len(&self) -> usize {
        self.books.len
    }

    /// Whether no object lives in the pool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.books.len == 0
    }

    /// The frames that the pool has.
    #[cfg(any(not(target_os = "none"), debug_assertions))]
    pub fn frames(&self) -> impl Iterator<Item = crate::mm::Frame> {
        // SAFETY: as in `next_id`.
        let heads = self
            .chunks
            .iter()
            .map(|chunk| unsafe { chunk.get().as_ref() });
        heads.filter(|head| head.used != 0).map(|head| head.frame)
    }

    /// Moves an object into the pool, or gives it back.
    pub fn insert(&mut self, mm: &Mm, object: T) -> Result<Id<T>, (PoolError, T)> {
        match self.chunk_with_room(mm) {
            Ok(chunk) => Ok(Self::fill_slot(&mut self.books, chunk, |_| object)),
            Err(error) => Err((error, object)),
        }
    }

    /// Moves the object in a slot, whatever the number, to another pool, where it lives under the id
    /// that is returned. `None`: there is no object, or it may not go, or there is no room for it; then
    /// nothing has changed.
    #[inline(always)]
    pub fn move_to(
        &mut self,
        mm: &Mm,
        index: usize,
        other: &mut Self,
        may_go: impl FnOnce(Id<T>, &T) -> bool,
    ) -> Option<Id<T>> {
        let slot = self.occupied(index)?;
        debug_assert!(!Self::is_claimed(slot));
        // SAFETY: the slot holds an object, borrowed like the pool.
        let (id, object) = unsafe { slot.as_ref().content() };
        if !may_go(id, object) {
            return None;
        }
        let chunk = other.chunk_with_room(mm).ok()?;
        // SAFETY: nothing reads the object here again, as the slot is vacated.
        let moved = Self::fill_slot(&mut other.books, chunk, |_| unsafe {
            slot.as_ref().object.assume_init_read()
        });
        self.vacate(mm, slot, index);
        Some(moved)
    }

    /// Makes an object in a free slot of what `chunk_with_room` has returned.
    #[inline(always)]
    fn fill_slot(books: &mut Books, chunk: NonNull<Chunk>, make: impl FnOnce(Id<T>) -> T) -> Id<T> {
        // SAFETY: `chunk_with_room` returns a chunk of this pool, and nobody else adds or removes anything.
        let used = unsafe { &mut (*chunk.as_ptr()).used };
        let slot = (!*used).trailing_zeros() as usize;
        *used |= 1 << slot;

        let generation = books.next_generation;
        books.next_generation += 1;
        books.len += 1;
        let offset = slot * Self::SLOT_BYTES;
        let place = books.first_free << CHUNK_SHIFT | offset;
        let id = generation << PLACE_BITS | place as u64;
        let id = Id::from_bits(id).expect("a generation is not 0");
        // SAFETY: the slot is within the chunk and holds no object. Others may look at its id meanwhile, which says so until
        // the rest is there.
        unsafe {
            let slot = chunk.byte_add(offset).cast::<Slot<T>>().as_ptr();
            (&raw mut (*slot).object).write(MaybeUninit::new(make(id)));
            (&raw mut (*slot).claimed).write(Claimed::new());
            (*slot).id.store(id.bits.get(), Release);
        }
        id
    }

    /// Moves an object out of the pool that is neither pinned nor in a [berth](Berth).
    pub fn remove(&mut self, mm: &Mm, id: Id<T>) -> Option<T> {
        let slot = self.find(id)?;
        if Self::is_claimed(slot) {
            debug_assert!(false, "{id:?} is pinned or waits");
            return None;
        }
        // SAFETY: `find` returns a slot that holds an object, which nothing reads here again, as the
        // slot is vacated.
        let object = unsafe { slot.as_ref().object.assume_init_read() };
        self.vacate(mm, slot, id.index());
        Some(object)
    }

    /// Lets the slot with this index hold nothing, whose object has been moved out.
    #[inline(always)]
    fn vacate(&mut self, mm: &Mm, mut slot: NonNull<Slot<T>>, index: usize) {
        self.end_epoch();
        // SAFETY: the slot is one of this pool. It says from here on that it holds nothing, and neither
        // pin nor hint finds it.
        unsafe { *slot.as_mut().id.get_mut() = 0 };

        let number = index / Self::SLOTS % CHUNKS;
        let slot = index % Self::SLOTS;
        // SAFETY: the chunk has a slot, so it is one of this pool, which nobody else uses.
        let head = unsafe { self.chunks[number].get().as_mut() };
        head.used &= !(1 << slot);
        self.books.len -= 1;
        self.books.first_free = self.books.first_free.min(number);
        if head.used == HEAD_ONLY {
            self.chunks[number] = ChunkPlace::new();
            mm.frames.free(head.frame);
        }
    }

    /// The object, if it still lives.
    #[must_use]
    #[inline]
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        let slot = self.find(id)?;
        // SAFETY: the slot holds an object, borrowed like the pool.
        Some(unsafe { slot.as_ref().object.assume_init_ref() })
    }

    /// The same where another CPU may be adding objects, and nobody knows that this one lives.
    #[must_use]
    pub fn get_beside(&self, id: Id<T>) -> Option<&T> {
        let slot = self.at_beside(id.place());
        // SAFETY: the head and every slot begin with an id, and where it is this one the rest is there.
        unsafe {
            let is_there = (*slot.as_ptr()).id.load(Acquire) == id.bits.get();
            is_there.then(|| slot.as_ref().object.assume_init_ref())
        }
    }

    /// The object, if it still lives.
    #[inline]
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let mut slot = self.find(id)?;
        // SAFETY: the slot holds an object, borrowed like the pool.
        Some(unsafe { slot.as_mut().object.assume_init_mut() })
    }

    /// Two objects that are not the same.
    #[inline(always)]
    pub fn two_mut(&mut self, a: Id<T>, b: Id<T>) -> Option<(&mut T, &mut T)> {
        let (mut a, mut b) = (self.find(a)?, self.find(b)?);
        if a == b {
            return None;
        }
        // SAFETY: both slots hold objects, which are not the same, borrowed like the pool.
        unsafe {
            Some((
                a.as_mut().object.assume_init_mut(),
                b.as_mut().object.assume_init_mut(),
            ))
        }
    }

    /// An object that stays where it is, in a pool that others use, whatever they do with the object.
    ///
    /// # Safety
    ///
    /// The object lives, and goes on living meanwhile.
    #[inline]
    pub unsafe fn living(pool: *const Self, id: Id<T>) -> *const T {
        // SAFETY: as the caller promises, the object keeps its chunk.
        let slot = unsafe { Self::slot_at(pool, id.place()) };
        // SAFETY: the slot holds the object.
        unsafe { (&raw const (*slot.as_ptr()).object).cast() }
    }

    /// Whether an object is claimed, which is then pinned or in a berth if nobody shares the pool.
    fn is_claimed(slot: NonNull<Slot<T>>) -> bool {
        // SAFETY: the slot is one of a pool and holds an object.
        unsafe { slot.as_ref().claimed.is_claimed() }
    }

    /// The id of the object in a slot, whatever the number.
    #[must_use]
    #[inline]
    pub fn id_at(&self, index: usize) -> Option<Id<T>> {
        Some(self.object_at(index)?.0)
    }

    /// The object in a slot, whatever the number, and its id.
    #[must_use]
    #[inline(always)]
    pub fn object_at(&self, index: usize) -> Option<(Id<T>, &T)> {
        // SAFETY: the slot holds an object, borrowed like the pool.
        Some(unsafe { self.occupied(index)?.as_ref().content() })
    }

    /// The slot with this index, whatever the number, if it holds an object.
    #[inline(always)]
    fn occupied(&self, index: usize) -> Option<NonNull<Slot<T>>> {
        if index >= Self::INDEX_END {
            return None;
        }
        let slot = self.at((index as u64) << slot_shift::<T>());
        // SAFETY: the head and every slot begin with an id; and where that is not 0 the slot holds an
        // object.
        (unsafe { *(*slot.as_ptr()).id.as_ptr() } != 0).then_some(slot)
    }

    /// The id of the object at a [place](Id::place), whatever that says.
    #[must_use]
    pub fn id_at_place(&self, place: u64) -> Option<Id<T>> {
        // SAFETY: the head and every slot begin with an id.
        Id::from_bits(unsafe { (*self.at(place).as_ptr()).id.load(Relaxed) })
    }

    /// The first object at or behind a slot: `next_id(0)`, then `next_id(id.index() + 1)` and so
    /// on visit all of them.
    #[must_use]
    pub fn next_id(&self, index: usize) -> Option<Id<T>> {
        let first = index / Self::SLOTS;
        let mut slot = index % Self::SLOTS;
        for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
            // SAFETY: a chunk begins with a head, and what stands for none is large enough for one.
            let used = unsafe { chunk.get().as_ref() }.used & !HEAD_ONLY & (u64::MAX << slot);
            if used != 0 {
                return self.id_at(number * Self::SLOTS + used.trailing_zeros() as usize);
            }
            slot = 0;
        }
        None
    }

    /// The first chunk with a free slot, made if there is none; `first_free` names it.
    #[inline(always)]
    fn chunk_with_room(&mut self, mm: &Mm) -> Result<NonNull<Chunk>, PoolError> {
        match self.chunk_at_hand(&self.books) {
            Some(chunk) => Ok(chunk),
            None => self.find_room(mm),
        }
    }

    #[inline(never)]
    fn find_room(&mut self, mm: &Mm) -> Result<NonNull<Chunk>, PoolError> {
        if self.epoch == NO_EPOCH {
            self.end_epoch();
        }
        // SAFETY: the pool is ours alone.
        let books = unsafe { self.books.beside() };
        self.chunk_behind(books, Some(mm))
    }

    /// The chunk that `first_free` names, if it is there and has a free slot.
    #[inline(always)]
    fn chunk_at_hand(&self, books: &Books) -> Option<NonNull<Chunk>> {
        let chunk = self.chunks.get(books.first_free)?.get();
        // SAFETY: as in `next_id`.
        let used = unsafe { (*chunk.as_ptr()).used };
        (used != 0 && used != Self::ALL_USED).then_some(chunk)
    }

    /// That one, or the first of those behind it. None is made without an `mm`.
    fn chunk_behind(
        &self,
        books: &mut Books,
        mm: Option<&Mm>,
    ) -> Result<NonNull<Chunk>, PoolError> {
        while let Some(place) = self.chunks.get(books.first_free) {
            let chunk = place.get();
            // SAFETY: as in `next_id`.
            match unsafe { (*chunk.as_ptr()).used } {
                used if used == Self::ALL_USED => books.first_free += 1,
                0 => {
                    let chunk = mm.and_then(Self::new_chunk).ok_or(PoolError::NoMemory)?;
                    place.put(chunk);
                    return Ok(chunk);
                }
                _ => return Ok(chunk),
            }
        }
        Err(PoolError::Full)
    }

    fn new_chunk(mm: &Mm) -> Option<NonNull<Chunk>> {
        let frame = mm.frames.alloc()?;
        let chunk = NonNull::new(mm.map.pointer(frame.addr()).cast::<Chunk>())
            .expect("the direct map does not start at null");
        // SAFETY: the frame is ours alone, page-aligned and larger than a head, and divided
        // into slots, which begin with an id. Nothing else is read of a slot that is empty.
        unsafe {
            for slot in 1..Self::SLOTS {
                chunk
                    .byte_add(slot * Self::SLOT_BYTES)
                    .cast::<u64>()
                    .write(0);
            }
            chunk.write(Chunk {
                id: 0,
                frame,
                used: HEAD_ONLY,
            });
        }
        Some(chunk)
    }

    /// The slot at a place, whatever that says and whatever it holds; a head has only an id.
    #[inline]
    fn at(&self, place: u64) -> NonNull<Slot<T>> {
        // SAFETY: this is a pool, and borrowed.
        unsafe { Self::slot_at(self, place) }
    }

    /// The same where another CPU may be adding objects.
    #[inline]
    fn at_beside(&self, place: u64) -> NonNull<Slot<T>> {
        let (chunk, offset) = Self::split(place);
        // SAFETY: as below.
        unsafe { self.chunks[chunk].get_beside().byte_add(offset).cast() }
    }

    /// The same in a pool that others use.
    ///
    /// # Safety
    ///
    /// Nobody makes or ends the chunk meanwhile.
    #[inline(always)]
    unsafe fn slot_at(pool: *const Self, place: u64) -> NonNull<Slot<T>> {
        let (chunk, offset) = Self::split(place);
        // SAFETY: nobody changes this entry, as the caller promises. The offset is within the chunk, or within what stands for
        // none, and a slot's.
        unsafe { (*pool).chunks[chunk].get().byte_add(offset).cast() }
    }

    /// Chunk and byte offset of the slot at a place.
    #[inline(always)]
    fn split(place: u64) -> (usize, usize) {
        let place = place as usize;
        (
            place >> CHUNK_SHIFT & (CHUNKS - 1),
            place & (CHUNK_BYTES - Self::SLOT_BYTES),
        )
    }

    #[inline]
    fn find(&self, id: Id<T>) -> Option<NonNull<Slot<T>>> {
        let slot = self.at(id.place());
        // SAFETY: the place is that of an id, so the head or a slot is there, which begins with an
        // id; and where that is not 0 the slot holds an object.
        (unsafe { *(*slot.as_ptr()).id.as_ptr() } == id.bits.get()).then_some(slot)
    }
}

impl<T, const CHUNKS: usize, const PINS: usize> Default for Pool<T, CHUNKS, PINS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
