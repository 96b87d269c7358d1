//! Adding objects to a pool that others share.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Books, Chunk, Id, NO_EPOCH, Pool};
use crate::mm::Mm;

/// A slot that is free. Who has this adds an object: nothing can go wrong any more.
pub struct Room<'p, T, const CHUNKS: usize, const PINS: usize = 0> {
    chunk: NonNull<Chunk>,
    books: &'p mut Books,
    pool: PhantomData<&'p Pool<T, CHUNKS, PINS>>,
}

impl<T, const CHUNKS: usize, const PINS: usize> Pool<T, CHUNKS, PINS> {
    /// Room for one object more, for which a frame may be taken. It must be filled, as no pool keeps a frame for nothing. `None`: there is
    /// none, or nobody has ever added anything.
    ///
    /// # Safety
    ///
    /// Until it is filled nobody else adds or removes anything.
    pub unsafe fn room(&self, mm: &Mm) -> Option<Room<'_, T, CHUNKS, PINS>> {
        // SAFETY: as the caller promises.
        unsafe { self.some_room(Some(mm)) }
    }

    /// The same where no frame is taken. It need not be filled.
    ///
    /// # Safety
    ///
    /// The same.
    pub unsafe fn room_at_hand(&self) -> Option<Room<'_, T, CHUNKS, PINS>> {
        // SAFETY: as the caller promises.
        unsafe { self.some_room(None) }
    }

    unsafe fn some_room(&self, mm: Option<&Mm>) -> Option<Room<'_, T, CHUNKS, PINS>> {
        if self.epoch == NO_EPOCH {
            return None;
        }
        // SAFETY: only who adds or removes looks there.
        let books = unsafe { self.books.beside() };
        let chunk = self.chunk_behind(books, mm).ok()?;
        Some(Room {
            chunk,
            books,
            pool: PhantomData,
        })
    }
}

impl<T, const CHUNKS: usize, const PINS: usize> Room<'_, T, CHUNKS, PINS> {
    /// Makes an object there, with this id. Others find it by that, or by its place, when it is complete.
    #[inline(always)]
    pub fn fill(self, make: impl FnOnce(Id<T>) -> T) -> Id<T> {
        Pool::<T, CHUNKS, PINS>::fill_slot(self.books, self.chunk, make)
    }
}
