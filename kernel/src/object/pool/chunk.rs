//! The frames of a pool, and the slots in them.

use core::mem::{MaybeUninit, size_of};
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Release},
};

use super::Id;
use crate::mm::Frame;
use crate::sync::Claimed;

pub(super) const CHUNK_BYTES: usize = cowslip_abi::PAGE_SIZE;
pub(super) const CHUNK_SHIFT: u32 = CHUNK_BYTES.ilog2();
/// A chunk has at most this many slots, one bit of a word each.
pub(super) const MAX_SLOTS: usize = 64;
const _: () = assert!(CHUNK_BYTES as u64 == crate::mm::phys::FRAME_SIZE);

/// The head of a chunk, in place of its slot 0.
#[repr(C)]
pub(super) struct Chunk {
    /// Where a slot has its id; 0, which is none.
    pub(super) id: u64,
    pub(super) frame: Frame,
    /// Bit `i`: slot `i` holds an object.
    pub(super) used: u64,
}

/// [`Chunk::used`] of a chunk without objects.
pub(super) const HEAD_ONLY: u64 = 1;

/// A place for an object.
#[repr(C)]
pub(super) struct Slot<T> {
    /// The bits of the object's id; 0: empty. Where it is not 0 the rest can be used.
    pub(super) id: AtomicU64,
    /// Whether a CPU uses the object.
    pub(super) claimed: Claimed,
    pub(super) object: MaybeUninit<T>,
}

impl<T> Slot<T> {
    /// The id of the object in the slot.
    ///
    /// # Safety
    ///
    /// There is one.
    #[inline(always)]
    pub(super) unsafe fn occupant(&self) -> Id<T> {
        // SAFETY: as the caller promises; an id is not 0.
        unsafe { Id::from_bits(*self.id.as_ptr()).unwrap_unchecked() }
    }

    /// The object in the slot, and its id.
    ///
    /// # Safety
    ///
    /// There is one.
    #[inline(always)]
    pub(super) unsafe fn content(&self) -> (Id<T>, &T) {
        // SAFETY: as the caller promises.
        unsafe { (self.occupant(), self.object.assume_init_ref()) }
    }
}

/// The binary logarithm of a slot's size: a power of two, so that finding a slot takes shifts.
pub(super) const fn slot_shift<T>() -> u32 {
    let size = size_of::<Slot<T>>().next_power_of_two();
    let least = CHUNK_BYTES / MAX_SLOTS;
    if size > least {
        size.ilog2()
    } else {
        least.ilog2()
    }
}

/// What stands for a chunk that there is not: its slots are empty.
#[repr(align(4096))]
struct NoChunk {
    _zeros: [AtomicU64; CHUNK_BYTES / 8],
}

static NO_CHUNK: NoChunk = NoChunk {
    _zeros: [const { AtomicU64::new(0) }; CHUNK_BYTES / 8],
};

/// Where a chunk is, or what stands for none.
pub(super) struct ChunkPlace(AtomicPtr<Chunk>);

impl ChunkPlace {
    /// There is no chunk.
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new((&raw const NO_CHUNK).cast_mut().cast()))
    }

    /// For who knows that nobody makes one there meanwhile.
    #[inline(always)]
    pub(super) fn get(&self) -> NonNull<Chunk> {
        // SAFETY: nobody writes it, and it is a static, or was put there as this.
        unsafe { NonNull::new_unchecked(*self.0.as_ptr()) }
    }

    /// For everybody.
    #[inline(always)]
    pub(super) fn get_beside(&self) -> NonNull<Chunk> {
        // SAFETY: it is a static, or was put there as this.
        unsafe { NonNull::new_unchecked(self.0.load(Acquire)) }
    }

    /// Whoever finds the chunk also finds what it is now.
    pub(super) fn put(&self, chunk: NonNull<Chunk>) {
        self.0.store(chunk.as_ptr(), Release);
    }
}
