//! The free frames of all CPUs, but for those in [stocks](super::super::stock).
//!
//! Frames that were freed are listed in *books*. A book is itself a free frame: its first word leads
//! to the next book, the others name up to 511 free frames, and once these are gone the book is
//! handed out too. So freeing and allocating are constant time and need no memory, a free frame is
//! not touched, and an operation that frees many writes a book of its own, which is put on top of
//! the others in one step. Frames that were never used are handed out by bumping a pointer through
//! the usable ranges, so booting does not touch all of memory.
//!
//! ```text
//!  pool: top, len     word 0                      1     2    ..   len
//!          |         +---------------------------+-----+-----+---+-----+
//!          +-------> | next book, its len        | frame addresses    | (unused)
//!                    +---------------------------+-----+-----+---+-----+
//! ```

use core::sync::atomic::Ordering::Relaxed;

use cowslip_abi::Commit;

use super::{
    super::stock::Stock, BOOK_LEN, FRAME_SIZE, Frame, MAX_RANGES, OutOfMemory, PhysAddr, PhysMap,
};

/// A book and how many frames it lists; frame 0 for none.
#[derive(Clone, Copy)]
pub(super) struct Book {
    pub(super) frame: Frame,
    pub(super) len: usize,
}

impl Book {
    const NONE: Self = Self::of_word(0);

    const fn is_some(self) -> bool {
        self.frame.number() != 0
    }

    const fn to_word(self) -> u64 {
        self.frame.addr().0 | self.len as u64
    }

    const fn of_word(word: u64) -> Self {
        Self {
            frame: Frame::of_entry(word),
            len: (word % FRAME_SIZE) as usize,
        }
    }
}

/// See the module.
pub(super) struct Pool {
    /// The book that frames are taken from and added to.
    books: Book,
    /// Memory that was never handed out, from `next` to `end`.
    untouched: [Range; MAX_RANGES],
    pub(super) nr_ranges: usize,
    /// Frames in books and ranges that are not set aside.
    pub(super) free: u64,
    /// See the module.
    pub(super) promise: i64,
    pub(super) total: u64,
}

#[derive(Clone, Copy)]
struct Range {
    next: u64,
    end: u64,
}

impl Pool {
    /// One with no frames.
    pub(super) const fn new() -> Self {
        Self {
            books: Book::NONE,
            untouched: [Range { next: 0, end: 0 }; MAX_RANGES],
            nr_ranges: 0,
            free: 0,
            promise: 0,
            total: 0,
        }
    }

    /// How many frames are set aside for strict spaces.
    pub(super) fn set_aside(&self) -> u64 {
        self.promise.max(0) as u64
    }

    /// So many frames more are there, and so many more are promised.
    pub(super) fn settle(&mut self, frames: i64, promised: i64) -> Result<(), OutOfMemory> {
        let there = (self.free + self.set_aside()) as i64 + frames;
        let promise = self.promise + promised;
        let free = there - promise.max(0);
        self.free = u64::try_from(free).map_err(|_| OutOfMemory)?;
        self.promise = promise;
        Ok(())
    }

    /// So many of the free frames were taken back just now from spaces of this class. What a strict one gives back
    /// is promised to it again, before anybody else can take it.
    #[inline]
    pub(super) fn returned(&mut self, nr_frames: usize, class: Commit) {
        if class == Commit::Strict {
            self.promise_again(nr_frames);
        }
    }

    /// Apart, so that overcommit spaces have only a comparison in their way.
    #[cold]
    #[inline(never)]
    fn promise_again(&mut self, nr_frames: usize) {
        let settled = self.settle(0, nr_frames as i64);
        debug_assert!(settled.is_ok(), "these frames are there");
    }

    /// Sets so many of the free frames aside for a space of this class.
    #[inline(always)]
    pub(super) fn reserve(&mut self, nr_frames: usize, class: Commit) -> Result<(), OutOfMemory> {
        if class == Commit::Strict {
            return self.settle(-(nr_frames as i64), -(nr_frames as i64));
        }
        let free = self.free.checked_sub(nr_frames as u64);
        self.free = free.ok_or(OutOfMemory)?;
        Ok(())
    }

    /// Takes a frame that was taken off `free`.
    pub(super) fn pop(&mut self, map: &PhysMap) -> Frame {
        self.pop_listed(map).unwrap_or_else(|| self.pop_book(map))
    }

    /// The same, if the book lists one.
    #[inline(always)]
    pub(super) fn pop_listed(&mut self, map: &PhysMap) -> Option<Frame> {
        let Book { frame, len } = self.books;
        self.books.len = len.checked_sub(1)?;
        Some(Frame::of_entry(map.table(frame)[len % 512].load(Relaxed)))
    }

    /// Adds a free frame.
    #[inline(always)]
    pub(super) fn add(&mut self, map: &PhysMap, frame: Frame) {
        debug_assert!(self.free < self.total, "{frame:?} freed twice");
        self.free += 1;
        self.push(map, frame);
    }

    /// Adds so many frames of a stock, or all that are not set aside there.
    #[inline(never)]
    pub(super) fn add_from(&mut self, map: &PhysMap, stock: &mut Stock, nr_frames: usize) {
        for _ in 0..nr_frames.min(stock.nr_spare()) {
            self.add(map, stock.pop());
        }
    }

    /// The book itself, or else a frame from the last range.
    pub(super) fn pop_book(&mut self, map: &PhysMap) -> Frame {
        if self.books.is_some() {
            let book = self.books.frame;
            self.books = Book::of_word(linked(map, book));
            return book;
        }
        assert!(self.nr_ranges > 0, "the count of free frames is wrong");
        let range = &mut self.untouched[self.nr_ranges - 1];
        let frame = Frame::containing(PhysAddr(range.next));
        range.next += FRAME_SIZE;
        if range.next == range.end {
            self.nr_ranges -= 1;
        }
        frame
    }

    #[inline(always)]
    pub(super) fn push(&mut self, map: &PhysMap, frame: Frame) {
        let Book { frame: book, len } = self.books;
        if self.books.is_some() && len < BOOK_LEN {
            self.books.len = len + 1;
            map.table(book)[(len + 1) % 512].store(frame.addr().0, Relaxed);
        } else {
            self.put_on_top(map, Book { frame, len: 0 });
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn put_on_top(&mut self, map: &PhysMap, book: Book) {
        link(map, book.frame, self.books.to_word());
        self.books = book;
    }

    /// Remembers `start..end`, joined to a neighbour if there is one; false if there is no room.
    pub(super) fn add_untouched(&mut self, start: u64, end: u64) -> bool {
        for range in &mut self.untouched[..self.nr_ranges] {
            if range.end == start {
                range.end = end;
                return true;
            }
            if range.next == end {
                range.next = start;
                return true;
            }
        }
        let Some(slot) = self.untouched.get_mut(self.nr_ranges) else {
            return false;
        };
        *slot = Range { next: start, end };
        self.nr_ranges += 1;
        true
    }
}

/// The whole frames within `start..end`, without frame 0; `None` if there are none.
pub(super) fn whole_frames(start: PhysAddr, end: PhysAddr) -> Option<(u64, u64)> {
    let start = start.0.max(1).next_multiple_of(FRAME_SIZE);
    let end = end.0 & !(FRAME_SIZE - 1);
    (start < end).then_some((start, end))
}

fn link(map: &PhysMap, frame: Frame, next: u64) {
    map.table(frame)[0].store(next, Relaxed);
}

fn linked(map: &PhysMap, frame: Frame) -> u64 {
    map.table(frame)[0].load(Relaxed)
}
