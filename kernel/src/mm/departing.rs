//! References that are on their way out: flushed once, then counted down and freed all together.
//!
//! An operation takes an entry away, notes here which frame the entry named, and goes on. Nothing
//! happens to the frame before [`Departing::finish`] has flushed. The notes are written into a *book*
//! of the [frame allocator](super::frames) from the outset: a frame that nobody else names stays
//! noted there when the allocator takes the book, and costs nothing more.
//!
//! A table that loses its last reference is not free yet: it goes to the [dead](super::DeadTables).
//!
//! A book is a free frame, and there may be none. Then a few frames at a time are noted, flushed and
//! freed: an operation that has begun never fails, and what it frees first may be its next book.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cowslip_abi::Commit;

use super::{Count, CountCursor, DeadTable, Dropped, Flush, Flushed, Frame, Mm};

/// How many frames are noted without a book.
const FEW: usize = 4;

/// In a note: others may name the frame. The bit is zero in every page-table entry.
pub const COUNTED: u64 = 1 << 11;

/// In a note: for a table, one more than its level. The bits are zero in every page-table entry.
const TABLE_SHIFT: u32 = 7;
const TABLE_MASK: u64 = 3 << TABLE_SHIFT;
/// In a note of a table, as in the entry that named it: how many entries are used.
const USED_SHIFT: u32 = 52;

/// Frames that lose a reference once a flush is done.
#[must_use = "references are lost if it is not finished"]
pub struct Departing<'m> {
    mm: &'m Mm,
    class: Commit,
    flush: Flush,
    counts: CountCursor<'m>,
    few: [AtomicU64; FEW],
    book: Option<Frame>,
    len: usize,
    nr_counted: usize,
}

impl<'m> Departing<'m> {
    /// Nothing departs from spaces of this class, nothing is flushed.
    #[inline]
    pub fn new(mm: &'m Mm, class: Commit) -> Self {
        Self {
            mm,
            class,
            flush: Flush::none(),
            counts: CountCursor::new(&mm.counts),
            few: [const { AtomicU64::new(0) }; FEW],
            book: None,
            len: 0,
            nr_counted: 0,
        }
    }

    /// What has to be flushed before the frames go. All of it is flushed whenever frames are let go, so
    /// a range of pages may be added once, before the first of them changes.
    #[inline]
    pub fn flush(&mut self) -> &mut Flush {
        &mut self.flush
    }

    /// Flushes at once what has been added so far.
    #[inline]
    pub fn flush_now(&mut self) -> Flushed {
        self.mm
            .flush(&core::mem::replace(&mut self.flush, Flush::none()))
    }

    /// The count of a frame that may depart.
    #[inline]
    pub fn count(&mut self, frame: Frame) -> Count<'m> {
        self.counts.of(frame)
    }

    /// Notes a frame whose entry is gone. What is to be flushed for it has been added before.
    #[inline]
    pub fn add(&mut self, frame: Frame) {
        if self.count(frame).is_one() {
            self.add_sole(frame);
        } else {
            self.note(frame.addr().0 | COUNTED);
            self.nr_counted += 1;
        }
    }

    /// Notes a table of this level, by the entry that named it and is gone.
    pub fn add_table(&mut self, entry: u64, level: u32) {
        self.note(note_of_table(entry, level));
        self.nr_counted += 1;
    }

    /// Notes a frame whose only reference is gone.
    #[inline]
    pub fn add_sole(&mut self, frame: Frame) {
        self.note(frame.addr().0);
    }

    #[inline]
    fn note(&mut self, note: u64) {
        if self.len == self.capacity() {
            self.make_room();
        }
        self.places()[self.len].store(note, Relaxed);
        self.len += 1;
    }

    /// Places, at least one, for the entries of frames that lose a reference: each is to be stored
    /// there as it was, with [`COUNTED`] unless it was the frame's only one, and that of a table as
    /// [`note_of_table`] says. [`Self::noted`] says how many there are.
    #[inline]
    pub fn room(&mut self, wanted: usize) -> &[AtomicU64] {
        if self.capacity() - self.len < wanted.min(FEW + 1) {
            self.make_room();
        }
        &self.places()[self.len..]
    }

    /// So many of the places of [`Self::room`] were used, so many of these with [`COUNTED`].
    #[inline]
    pub fn noted(&mut self, nr_frames: usize, nr_counted: usize) {
        debug_assert!(self.len + nr_frames <= self.capacity());
        self.len += nr_frames;
        self.nr_counted += nr_counted;
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.places().len()
    }

    #[inline]
    fn places(&self) -> &[AtomicU64] {
        match self.book {
            Some(book) => &self.mm.map.table(book)[1..],
            None => &self.few,
        }
    }

    /// Moves on to a book, if there is a frame for it; otherwise lets go of what is noted.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self) {
        if self.book.is_some() {
            self.let_go();
        }
        let Some(book) = self.mm.frames.alloc() else {
            self.let_go();
            return;
        };
        let places = &self.mm.map.table(book)[1..];
        for (place, note) in places.iter().zip(&self.few[..self.len]) {
            place.store(note.load(Relaxed), Relaxed);
        }
        self.book = Some(book);
    }

    /// Flushes, and lets go of the frames.
    #[inline]
    pub fn finish(&mut self) -> Flushed {
        self.let_go()
    }

    #[inline]
    fn let_go(&mut self) -> Flushed {
        let flushed = self.mm.flush(&self.flush);
        let is_empty = self.len == 0 && self.book.is_none();
        if is_empty {
            return flushed;
        }
        #[cfg(all(not(target_os = "none"), debug_assertions))]
        for place in &self.places()[..self.len] {
            super::sim::check_release(self.mm.map, Frame::of_entry(place.load(Relaxed)));
        }
        if self.nr_counted > 0 {
            self.count_down();
        }
        let (mm, len) = (self.mm, core::mem::take(&mut self.len));
        match self.book.take() {
            Some(book) => mm.frames.free_book(book, len, self.class),
            None => {
                let notes = self.few[..len].iter();
                let frames = notes.map(|note| Frame::of_entry(note.load(Relaxed)));
                mm.frames.free_all(frames, self.class);
            }
        }
        mm.stats.freed.add(len as u64);
        flushed
    }

    /// Counts down where there may be more than one reference, and strikes out frames that have others
    /// still, and tables.
    #[inline(never)]
    fn count_down(&mut self) {
        let notes = match self.book {
            Some(book) => &self.mm.map.table(book)[1..],
            None => &self.few,
        };
        let (mut nr_kept, mut nr_seconds) = (0, 0);
        for note in &notes[..self.len] {
            let note = note.load(Relaxed);
            let frame = Frame::of_entry(note);
            if note & COUNTED == 0 {
                notes[nr_kept].store(note, Relaxed);
                nr_kept += 1;
                continue;
            }
            match self.counts.of(frame).decrement() {
                Dropped::Remaining => {}
                Dropped::Second => nr_seconds += 1,
                Dropped::Last if note & TABLE_MASK != 0 => {
                    self.mm.bury(dead_table(note, self.class));
                }
                Dropped::Last => {
                    notes[nr_kept].store(note, Relaxed);
                    nr_kept += 1;
                }
            }
        }
        self.mm.counts.subtract_shared(nr_seconds);
        self.len = nr_kept;
        self.nr_counted = 0;
    }
}

/// How a table of this level is [noted](Departing::room), by the entry that named it.
#[inline(always)]
pub const fn note_of_table(entry: u64, level: u32) -> u64 {
    debug_assert!(level < 3, "a root departs with its space");
    entry | COUNTED | ((level + 1) as u64) << TABLE_SHIFT
}

/// The table of a note, of which nothing has been worked off.
fn dead_table(note: u64, class: Commit) -> DeadTable {
    DeadTable {
        frame: Frame::of_entry(note),
        level: ((note & TABLE_MASK) >> TABLE_SHIFT) as u32 - 1,
        next: 0,
        left: (note >> USED_SHIFT) as usize % 1024,
        class,
    }
}
