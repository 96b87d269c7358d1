//! Pools of kernel objects that grow by frames.
//!
//! Every kernel object lives in a pool and is named by an [`Id`]: the index of its slot and the
//! generation of its life. An `Id` that outlived its object finds nothing, so queues, handles and
//! tokens hold plain ids and no reference counts. A frame of slots goes back to the allocator with
//! its last object: a pool never keeps memory that it does not use.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, align_of, size_of};
use core::num::NonZeroU64;
use core::ptr::NonNull;

use crate::mm::{Frame, Mm};

const INDEX_BITS: u32 = 24;
const HEADER_BYTES: usize = 64;
const CHUNK_BYTES: usize = cowslip_abi::PAGE_SIZE;

/// Names one object of one pool, for as long as it lives; 0 is no id.
pub struct Id<T> {
    bits: NonZeroU64,
    object: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    fn new(index: usize, generation: u64) -> Self {
        let bits = generation << INDEX_BITS | index as u64;
        let bits = NonZeroU64::new(bits).expect("generations start at 1");
        Self {
            bits,
            object: PhantomData,
        }
    }

    /// The slot in the pool.
    #[must_use]
    pub fn index(self) -> usize {
        (self.bits.get() & ((1 << INDEX_BITS) - 1)) as usize
    }

    /// Which life of the pool's slots this is; lives are numbered from 1 and never reused.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.bits.get() >> INDEX_BITS
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

impl<T> Eq for Id<T> {}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index(), self.generation())
    }
}

/// Why a pool could not take an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Every slot that the pool may ever have is in use.
    Full,
    /// A frame for more slots is missing.
    NoMemory,
}

/// The head of a frame of slots.
#[repr(C, align(64))]
struct Chunk {
    frame: Frame,
    /// Bit `i`: slot `i` holds an object.
    used: u128,
}

struct Slot<T> {
    generation: u64,
    object: MaybeUninit<T>,
}

/// A pool of objects in at most `CHUNKS` frames.
pub struct Pool<T, const CHUNKS: usize> {
    chunks: [Option<NonNull<Chunk>>; CHUNKS],
    /// No chunk below this one has a free slot.
    first_free: usize,
    next_generation: u64,
    len: usize,
    object: PhantomData<T>,
}

// SAFETY: a pool owns its chunks as a `Vec` owns its buffer; they move with it.
unsafe impl<T: Send, const CHUNKS: usize> Send for Pool<T, CHUNKS> {}

impl<T, const CHUNKS: usize> Pool<T, CHUNKS> {
    /// Slots in one frame.
    pub const SLOTS_PER_CHUNK: usize = {
        assert!(size_of::<Chunk>() <= HEADER_BYTES && align_of::<Slot<T>>() <= HEADER_BYTES);
        let fitting = (CHUNK_BYTES - HEADER_BYTES) / size_of::<Slot<T>>();
        assert!(fitting > 0, "an object does not fit a frame");
        if fitting < 128 { fitting } else { 128 }
    };

    const ALL_USED: u128 = u128::MAX >> (128 - Self::SLOTS_PER_CHUNK);

    /// An empty pool, which owns no frame.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            chunks: [None; CHUNKS],
            first_free: 0,
            next_generation: 1,
            len: 0,
            object: PhantomData,
        }
    }

    /// How many objects live in the pool.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no object lives in the pool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves an object into the pool, or gives it back.
    pub fn insert(&mut self, mm: &Mm, object: T) -> Result<Id<T>, (PoolError, T)> {
        let mut chunk = match self.chunk_with_room(mm) {
            Ok(chunk) => chunk,
            Err(error) => return Err((error, object)),
        };
        // SAFETY: `chunks` holds pointers to live, initialised chunks that only this pool uses.
        let header = unsafe { chunk.as_mut() };
        let slot = (!header.used).trailing_zeros() as usize;
        header.used |= 1 << slot;

        let generation = self.next_generation;
        self.next_generation += 1;
        self.len += 1;
        let content = Slot {
            generation,
            object: MaybeUninit::new(object),
        };
        // SAFETY: the slot is within the chunk and held no object.
        unsafe { Self::slot(chunk, slot).write(content) };
        Ok(Id::new(
            self.first_free * Self::SLOTS_PER_CHUNK + slot,
            generation,
        ))
    }

    /// Moves an object out of the pool.
    pub fn remove(&mut self, mm: &Mm, id: Id<T>) -> Option<T> {
        let slot = self.find(id)?;
        // SAFETY: `find` returns a slot that holds an object; clearing its bit below makes sure
        // that nothing reads it again.
        let object = unsafe { slot.as_ref().object.assume_init_read() };

        let (index, bit) = (
            id.index() / Self::SLOTS_PER_CHUNK,
            id.index() % Self::SLOTS_PER_CHUNK,
        );
        let mut chunk = self.chunks[index]?;
        // SAFETY: as in `insert`.
        let header = unsafe { chunk.as_mut() };
        header.used &= !(1 << bit);
        self.len -= 1;
        self.first_free = self.first_free.min(index);
        if header.used == 0 {
            self.chunks[index] = None;
            mm.frames.free(header.frame);
        }
        Some(object)
    }

    /// The object, if it still lives.
    #[must_use]
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        let slot = self.find(id)?;
        // SAFETY: the slot holds an object, borrowed like the pool.
        Some(unsafe { slot.as_ref().object.assume_init_ref() })
    }

    /// The object, if it still lives.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let mut slot = self.find(id)?;
        // SAFETY: the slot holds an object, borrowed like the pool.
        Some(unsafe { slot.as_mut().object.assume_init_mut() })
    }

    /// The id of the object in a slot.
    #[must_use]
    pub fn id_at(&self, index: usize) -> Option<Id<T>> {
        let slot = self.occupied(index)?;
        // SAFETY: `occupied` returns initialised slots only.
        Some(Id::new(index, unsafe { slot.as_ref() }.generation))
    }

    /// The first object at or behind a slot: `next_id(0)`, then `next_id(id.index() + 1)` and so
    /// on visit all of them.
    #[must_use]
    pub fn next_id(&self, index: usize) -> Option<Id<T>> {
        let first = index / Self::SLOTS_PER_CHUNK;
        let mut slot = index % Self::SLOTS_PER_CHUNK;
        for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
            if let Some(chunk) = chunk {
                // SAFETY: as in `insert`.
                let used = unsafe { chunk.as_ref() }.used & (u128::MAX << slot);
                if used != 0 {
                    let slot = used.trailing_zeros() as usize;
                    return self.id_at(number * Self::SLOTS_PER_CHUNK + slot);
                }
            }
            slot = 0;
        }
        None
    }

    /// The first chunk with a free slot, made if there is none; `first_free` names it.
    fn chunk_with_room(&mut self, mm: &Mm) -> Result<NonNull<Chunk>, PoolError> {
        while let Some(entry) = self.chunks.get_mut(self.first_free) {
            match entry {
                // SAFETY: as in `insert`.
                Some(chunk) if unsafe { chunk.as_ref() }.used == Self::ALL_USED => {
                    self.first_free += 1;
                }
                Some(chunk) => return Ok(*chunk),
                None => {
                    let frame = mm.frames.alloc().ok_or(PoolError::NoMemory)?;
                    let chunk = NonNull::new(mm.map.pointer(frame.addr()).cast::<Chunk>())
                        .expect("the direct map does not start at null");
                    // SAFETY: the frame is ours alone, page-aligned and larger than a chunk.
                    unsafe { chunk.write(Chunk { frame, used: 0 }) };
                    *entry = Some(chunk);
                    return Ok(chunk);
                }
            }
        }
        self.first_free = CHUNKS;
        Err(PoolError::Full)
    }

    /// Slot `slot` of a chunk, whatever it holds.
    fn slot(chunk: NonNull<Chunk>, slot: usize) -> NonNull<Slot<T>> {
        debug_assert!(slot < Self::SLOTS_PER_CHUNK);
        // SAFETY: the slots lie behind the header, within the chunk's frame.
        unsafe { chunk.byte_add(HEADER_BYTES).cast::<Slot<T>>().add(slot) }
    }

    /// The slot with this index, if it holds an object.
    fn occupied(&self, index: usize) -> Option<NonNull<Slot<T>>> {
        let chunk = (*self.chunks.get(index / Self::SLOTS_PER_CHUNK)?)?;
        let slot = index % Self::SLOTS_PER_CHUNK;
        // SAFETY: as in `insert`.
        let used = unsafe { chunk.as_ref() }.used >> slot & 1 == 1;
        used.then(|| Self::slot(chunk, slot))
    }

    fn find(&self, id: Id<T>) -> Option<NonNull<Slot<T>>> {
        let slot = self.occupied(id.index())?;
        // SAFETY: `occupied` returns initialised slots only.
        (unsafe { slot.as_ref() }.generation == id.generation()).then_some(slot)
    }
}

impl<T, const CHUNKS: usize> Default for Pool<T, CHUNKS> {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(CHUNK_BYTES as u64 == crate::mm::phys::FRAME_SIZE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::sim::SimMemory;

    type Small = Pool<[u64; 60], 3>;

    #[test]
    fn an_id_that_outlived_its_object_finds_nothing() {
        let memory = SimMemory::new(16);
        let mut pool = Small::new();
        let first = pool.insert(memory.mm(), [1; 60]).unwrap();
        assert_eq!(pool.remove(memory.mm(), first), Some([1; 60]));
        let second = pool.insert(memory.mm(), [2; 60]).unwrap();
        assert_eq!(first.index(), second.index());
        assert!(pool.get(first).is_none());
        assert_eq!(pool.get(second), Some(&[2; 60]));
    }

    #[test]
    fn a_pool_owns_no_frame_without_objects() {
        let memory = SimMemory::new(16);
        let before = memory.mm().frames.free_count();
        let mut pool = Small::new();
        let ids: Vec<_> = (0..3 * Small::SLOTS_PER_CHUNK)
            .map(|i| pool.insert(memory.mm(), [i as u64; 60]).unwrap())
            .collect();
        assert_eq!(memory.mm().frames.free_count(), before - 3);
        assert!(matches!(
            pool.insert(memory.mm(), [0; 60]),
            Err((PoolError::Full, _))
        ));
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(pool.get(*id), Some(&[i as u64; 60]));
        }
        for id in ids.into_iter().rev() {
            assert!(pool.remove(memory.mm(), id).is_some());
        }
        assert_eq!(memory.mm().frames.free_count(), before);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_full_pool_takes_an_object_into_the_slot_that_became_free() {
        let memory = SimMemory::new(16);
        let mut pool = Small::new();
        let ids: Vec<_> = (0..3 * Small::SLOTS_PER_CHUNK)
            .map(|_| pool.insert(memory.mm(), [0; 60]).unwrap())
            .collect();
        pool.remove(memory.mm(), ids[4]);
        assert_eq!(
            pool.insert(memory.mm(), [9; 60]).unwrap().index(),
            ids[4].index()
        );
    }

    #[test]
    fn next_id_visits_every_object_once() {
        let memory = SimMemory::new(16);
        let mut pool = Small::new();
        let ids: Vec<_> = (0..2 * Small::SLOTS_PER_CHUNK)
            .map(|_| pool.insert(memory.mm(), [0; 60]).unwrap())
            .collect();
        pool.remove(memory.mm(), ids[0]);
        pool.remove(memory.mm(), ids[5]);
        let mut seen = Vec::new();
        let mut index = 0;
        while let Some(id) = pool.next_id(index) {
            seen.push(id);
            index = id.index() + 1;
        }
        let expected: Vec<_> = ids
            .iter()
            .copied()
            .filter(|id| *id != ids[0] && *id != ids[5])
            .collect();
        assert_eq!(seen, expected);
    }
}
