//! The free frames.
//!
//! Frames that were freed are listed in *books*. A book is itself a free frame: its first word leads
//! to the next book, the others name up to 511 free frames, and once these are gone the book is
//! handed out too. So freeing and allocating are constant time and need no memory, a free frame is
//! not touched, and an operation that frees many writes a book of its own, which is put on top of
//! the others in one step. Frames that were never used are handed out by bumping a pointer through
//! the usable ranges, so booting does not touch all of memory. The count of free frames is exact.
//!
//! ```text
//!  pool: top, len     word 0                      1     2    ..   len
//!          |         +---------------------------+-----+-----+---+-----+
//!          +-------> | next book, its len        | frame addresses    | (unused)
//!                    +---------------------------+-----+-----+---+-----+
//! ```
//!
//! A [`Reserve`] is a number of frames set aside: an operation reserves what it may need before it
//! changes anything, and gives back what is left. Only the number is set aside: the frames stay where
//! they are, among the free ones, but are not counted as free.
//!
//! Frames are set aside for the [strict](Commit::Strict) spaces in the same way, so that everybody else
//! goes short before one of them does. How many is one number, the *promise*:
//!
//! | | frames that are there | promise |
//! | --- | --- | --- |
//! | a strict space commits itself to `n` more frames | | +n, or it fails |
//! | it needs `n` less | | -n |
//! | it takes `n` frames | -n | -n |
//! | it gives `n` frames back | +n | +n |
//!
//! So the promise is the commit of all strict spaces without the frames that they have already. A dead
//! table is nobody's commit and still has frames: for a while the promise may be below zero. Then nothing
//! is set aside; what is missing comes back when that table is worked off.
//!
//! Where several CPUs run threads, each takes frames from a *stock* of its own, and gives them back there: up to 60 frames that are
//! counted as free. It is filled from the books and emptied into them by halves. What is for strict spaces, or
//! for longer than an operation, never is in a stock. Nobody hears that memory is short before all
//! stocks were *gathered*: all of them are locked at once, so there was a moment when it was short. So is the number of free frames
//! found.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use cowslip_abi::Commit;

use super::{
    OutOfMemory,
    phys::{FRAME_SIZE, Frame, PhysAddr, PhysMap},
    stock::{CAPACITY, CpuStock, Stock},
};
use crate::sync::{Held, MAX_CPUS, Ordered, OrderedGuard, Rank};

/// How many frames a book lists.
pub const BOOK_LEN: usize = 511;

/// How many separate usable ranges are remembered; a firmware memory map has a few dozen.
pub const MAX_RANGES: usize = 64;

/// Hands out frames and takes them back.
#[repr(C)]
pub struct FrameAllocator {
    /// First, as most instructions go there.
    pool: Ordered<Pool>,
    map: PhysMap,
    /// Whether stocks are used now.
    is_shared: AtomicBool,
    /// How many stocks may have frames.
    nr_stocks: AtomicUsize,
    /// The number of the CPU that asks.
    here: fn() -> usize,
    stocks: [CpuStock; MAX_CPUS],
}

impl FrameAllocator {
    /// An allocator with no frames.
    #[must_use]
    pub const fn new(map: PhysMap, here: fn() -> usize) -> Self {
        let untouched = [Range { next: 0, end: 0 }; MAX_RANGES];
        Self {
            map,
            pool: Ordered::new(
                Rank::Frames,
                Pool {
                    books: Book::NONE,
                    untouched,
                    nr_ranges: 0,
                    free: 0,
                    promise: 0,
                    total: 0,
                },
            ),
            stocks: [const { CpuStock::new() }; MAX_CPUS],
            nr_stocks: AtomicUsize::new(0),
            is_shared: AtomicBool::new(false),
            here,
        }
    }

    /// Lets so many CPUs have stocks, before there is more than one.
    pub fn stock_up(&self, nr_cpus: usize) {
        self.nr_stocks.store(nr_cpus, Relaxed);
    }

    /// Whether several CPUs run threads from now on: then they use their stocks. Nothing goes wrong if others do not see that at once.
    pub fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Relaxed);
    }

    #[inline(always)]
    fn is_shared(&self) -> bool {
        self.is_shared.load(Relaxed)
    }

    /// Adds the whole frames in `start..end` (bytes) to the free ones, untouched for the moment.
    ///
    /// Frame 0 is never added: address 0 ends the list. The range must be memory that nothing uses
    /// and that was not added before. If the table of ranges is full, the range goes to the list
    /// frame by frame.
    pub fn add_range(&self, start: PhysAddr, end: PhysAddr) {
        let Some((start, end)) = whole_frames(start, end) else {
            return;
        };
        let mut pool = self.pool.lock();
        let nr_frames = (end - start) / FRAME_SIZE;
        pool.total += nr_frames;
        pool.free += nr_frames;
        if !pool.add_untouched(start, end) {
            for addr in (start..end).step_by(FRAME_SIZE as usize) {
                pool.push(&self.map, Frame::containing(PhysAddr(addr)));
            }
        }
    }

    /// Adds the whole frames in `start..end` (bytes) to the total as frames that are in use, such
    /// as those of boot modules. Each may be passed to [`free`](Self::free) once.
    pub fn adopt_range(&self, start: PhysAddr, end: PhysAddr) {
        if let Some((start, end)) = whole_frames(start, end) {
            self.pool.lock().total += (end - start) / FRAME_SIZE;
        }
    }

    /// A free frame. Its contents are undefined.
    #[inline(always)]
    #[must_use]
    pub fn alloc(&self) -> Option<Frame> {
        if self.is_shared() {
            return self.alloc_here();
        }
        let mut pool = self.pool.lock();
        if pool.free == 0 {
            drop(pool);
            return self.alloc_gathered();
        }
        pool.free -= 1;
        Some(self.pop(pool))
    }

    #[cold]
    #[inline(never)]
    fn alloc_here(&self) -> Option<Frame> {
        let mut stock = self.stock().lock();
        if self.fill(&mut stock, 1) {
            return Some(stock.pop());
        }
        drop(stock);
        self.alloc_gathered()
    }

    /// A frame for one that found none in the pool.
    #[cold]
    #[inline(never)]
    fn alloc_gathered(&self) -> Option<Frame> {
        let mut pool = self.gathered();
        pool.free = pool.free.checked_sub(1)?;
        Some(self.pop(pool))
    }

    /// A free frame filled with zeros.
    #[must_use]
    pub fn alloc_zeroed(&self) -> Option<Frame> {
        let frame = self.alloc()?;
        self.map.zero(frame);
        Some(frame)
    }

    /// Takes back a frame that nothing names any more.
    #[inline(always)]
    pub fn free(&self, frame: Frame) {
        self.free_of(frame, Commit::Overcommit);
    }

    /// The same for a frame that a space of this class had.
    #[inline(always)]
    pub fn free_of(&self, frame: Frame, class: Commit) {
        if self.is_shared() {
            return self.free_one_here(frame, class);
        }
        let mut pool = self.pool.lock();
        pool.add(&self.map, frame);
        pool.returned(1, class);
    }

    /// Takes back many frames that spaces of this class had.
    pub fn free_all(&self, frames: impl IntoIterator<Item = Frame>, class: Commit) {
        if self.is_shared() {
            return self.free_here(frames, class);
        }
        self.free_to_pool(frames, class);
    }

    fn free_to_pool(&self, frames: impl IntoIterator<Item = Frame>, class: Commit) {
        let mut pool = self.pool.lock();
        let before = pool.free;
        for frame in frames {
            pool.add(&self.map, frame);
        }
        let nr_frames = pool.free - before;
        pool.returned(nr_frames as usize, class);
    }

    #[cold]
    #[inline(never)]
    fn free_one_here(&self, frame: Frame, class: Commit) {
        self.free_here([frame], class);
    }

    /// Puts frames into the stock, if they may be there and there is room.
    fn free_here(&self, frames: impl IntoIterator<Item = Frame>, class: Commit) {
        if class == Commit::Strict {
            return self.free_to_pool(frames, class);
        }
        let mut stock = self.stock().lock();
        for frame in frames {
            if stock.room() == 0 {
                self.pool
                    .lock()
                    .add_from(&self.map, &mut stock, CAPACITY / 2);
            }
            if stock.room() > 0 {
                stock.push(frame);
            } else {
                self.pool.lock().add(&self.map, frame);
            }
        }
    }

    /// Takes back a book, which is a frame from [`alloc`](Self::alloc), with `len` frames that spaces of this
    /// class had. Their addresses stand in its words from the second on. The lowest 12 bits and those above the
    /// address are ignored there.
    pub fn free_book(&self, book: Frame, len: usize, class: Commit) {
        assert!(len <= BOOK_LEN, "a book with too many frames");
        if self.is_shared() && len < CAPACITY / 2 {
            return self.free_listed_here(book, len, class);
        }
        let mut pool = self.pool.lock();
        pool.free += 1 + len as u64;
        debug_assert!(pool.free <= pool.total, "a frame freed twice");
        pool.put_on_top(&self.map, Book { frame: book, len });
        pool.returned(len, class);
    }

    /// The same for a book and the frames that it lists.
    #[cold]
    #[inline(never)]
    fn free_listed_here(&self, book: Frame, len: usize, class: Commit) {
        let listed = self.map.table(book)[1..=len].iter();
        self.free_here(
            listed.map(|word| Frame::of_entry(word.load(Relaxed))),
            class,
        );
        // The book was not theirs.
        self.free(book);
    }

    /// Sets `nr_frames` frames aside, for a space of this class. All or nothing.
    #[inline(always)]
    pub fn reserve(&self, nr_frames: usize, class: Commit) -> Result<Reserve<'_>, OutOfMemory> {
        if self.is_shared() {
            return self.reserve_here(nr_frames, class);
        }
        self.reserve_of_pool(nr_frames, class)
    }

    /// Sets them aside in the stock, if they may be there and it can have so many, or else in the pool.
    #[cold]
    #[inline(never)]
    fn reserve_here(&self, nr_frames: usize, class: Commit) -> Result<Reserve<'_>, OutOfMemory> {
        if class == Commit::Overcommit {
            let here = (self.here)();
            let mut stock = self.stocks[here].lock();
            if self.fill(&mut stock, nr_frames) {
                stock.reserve(nr_frames);
                return Ok(Reserve {
                    allocator: self,
                    left: -(nr_frames as isize),
                    stock: here as u8,
                    class,
                });
            }
        }
        self.reserve_of_pool(nr_frames, class)
    }

    #[inline(always)]
    fn reserve_of_pool(&self, nr_frames: usize, class: Commit) -> Result<Reserve<'_>, OutOfMemory> {
        if nr_frames > 0 && self.pool.lock().reserve(nr_frames, class).is_err() {
            self.reserve_gathered(nr_frames, class)?;
        }
        Ok(Reserve {
            allocator: self,
            left: nr_frames as isize,
            stock: 0,
            class,
        })
    }

    #[cold]
    #[inline(never)]
    fn reserve_gathered(&self, nr_frames: usize, class: Commit) -> Result<(), OutOfMemory> {
        self.gathered().reserve(nr_frames, class)
    }

    /// Sets so many frames aside, for longer than a [`Reserve`] lives: until they are
    /// [given back](Self::give_back). All or nothing.
    pub fn set_aside(&self, nr_frames: PerClass) -> Result<(), OutOfMemory> {
        let of_pool = |nr_frames, class| self.reserve_of_pool(nr_frames as usize, class);
        let overcommit = of_pool(nr_frames.overcommit, Commit::Overcommit)?;
        of_pool(nr_frames.strict, Commit::Strict)?.keep();
        overcommit.keep();
        Ok(())
    }

    /// Gives frames back that were [set aside](Self::set_aside).
    pub fn give_back(&self, nr_frames: PerClass) {
        let nr_all = nr_frames.total();
        if nr_all > 0 {
            let mut pool = self.pool.lock();
            pool.free += nr_all;
            pool.returned(nr_frames.strict as usize, Commit::Strict);
        }
    }

    /// Gives so many frames back that were set aside, or all that are left of them. What is set aside is
    /// the rest then.
    pub fn draw(&self, aside: &mut PerClass, nr_frames: PerClass) {
        let drawn = aside.min(nr_frames);
        *aside -= drawn;
        self.give_back(drawn);
    }

    /// Promises so many frames more to strict spaces.
    pub fn promise(&self, nr_frames: u64) -> Result<(), OutOfMemory> {
        let promised = self.pool.lock().settle(0, nr_frames as i64);
        promised.or_else(|_| self.gathered().settle(0, nr_frames as i64))
    }

    /// Strict spaces need so many frames less.
    #[cold]
    #[inline(never)]
    pub fn forgo(&self, nr_frames: u64) {
        let settled = self.pool.lock().settle(0, -(nr_frames as i64));
        debug_assert!(settled.is_ok(), "less is set aside than before");
    }

    /// The stock of the CPU that asks.
    fn stock(&self) -> &CpuStock {
        &self.stocks[(self.here)()]
    }

    /// Lets a stock have so many frames that are not set aside, and some more. Returns whether it has, which it cannot if memory is short
    /// or there is no room.
    #[inline]
    fn fill(&self, stock: &mut Stock, nr_frames: usize) -> bool {
        stock.nr_spare() >= nr_frames || self.fill_more(stock, nr_frames)
    }

    #[cold]
    #[inline(never)]
    fn fill_more(&self, stock: &mut Stock, nr_frames: usize) -> bool {
        let nr_missing = nr_frames - stock.nr_spare();
        if nr_missing > stock.room() {
            return false;
        }
        let mut pool = self.pool.lock();
        let nr_more = nr_missing.max(stock.room().min(CAPACITY / 2)) as u64;
        let nr_more = nr_more.min(pool.free);
        pool.free -= nr_more;
        for _ in 0..nr_more {
            stock.push(pool.pop(&self.map));
        }
        stock.nr_spare() >= nr_frames
    }

    /// The pool, with all frames of all stocks that are not set aside.
    #[inline(never)]
    fn gathered(&self) -> OrderedGuard<'_, Pool> {
        let nr_stocks = self.nr_stocks.load(Relaxed);
        if nr_stocks == 0 {
            return self.pool.lock();
        }
        // All at once, in the order of their numbers.
        let held = Held::new(Rank::Stocks);
        let mut stocks: [_; MAX_CPUS] =
            core::array::from_fn(|cpu| (cpu < nr_stocks).then(|| self.stocks[cpu].lock_as_noted()));
        let mut pool = self.pool.lock();
        for stock in stocks.iter_mut().flatten() {
            pool.add_from(&self.map, stock, CAPACITY);
        }
        drop((stocks, held));
        pool
    }

    /// Takes a frame that the caller has taken off `free`: the one that was freed last, which may still
    /// be in a cache, or else one from the last range. Unlocks the pool.
    #[inline(always)]
    fn pop(&self, mut pool: OrderedGuard<'_, Pool>) -> Frame {
        match pool.pop_listed(&self.map) {
            Some(frame) => frame,
            None => self.pop_book(pool),
        }
    }

    /// The same without a line in the book; the lock goes along, so that the call is the last thing
    /// that callers do.
    #[inline(never)]
    fn pop_book(&self, mut pool: OrderedGuard<'_, Pool>) -> Frame {
        pool.pop_book(&self.map)
    }

    /// How many frames are free, with those that are promised. Those that are set aside for an operation
    /// are not.
    #[must_use]
    pub fn free_count(&self) -> u64 {
        let pool = self.gathered();
        pool.free + pool.set_aside()
    }

    /// How many frames are free for everybody.
    #[must_use]
    pub fn spare_count(&self) -> u64 {
        self.gathered().free
    }

    /// The commit of all strict spaces, less the frames that they have or had until they died. Below zero
    /// only while tables are dead.
    #[must_use]
    pub fn promised(&self) -> i64 {
        self.pool.lock().promise
    }

    /// How many frames there are, free or not.
    #[must_use]
    pub fn total_count(&self) -> u64 {
        self.pool.lock().total
    }
}

/// Numbers of frames, by the class of the space that they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass {
    /// For overcommit spaces, or for strict ones that have not been charged for them yet.
    pub overcommit: u64,
    /// For strict spaces, out of what is promised to them.
    pub strict: u64,
}

impl PerClass {
    /// Only frames for a space of this class.
    #[must_use]
    pub const fn of(class: Commit, nr_frames: usize) -> Self {
        let nr_frames = nr_frames as u64;
        match class {
            Commit::Overcommit => Self {
                overcommit: nr_frames,
                strict: 0,
            },
            Commit::Strict => Self {
                overcommit: 0,
                strict: nr_frames,
            },
        }
    }

    /// For both classes.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.overcommit + self.strict
    }

    /// The lesser of both numbers, for each class.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            overcommit: self.overcommit.min(other.overcommit),
            strict: self.strict.min(other.strict),
        }
    }
}

impl core::ops::AddAssign for PerClass {
    fn add_assign(&mut self, other: Self) {
        self.overcommit += other.overcommit;
        self.strict += other.strict;
    }
}

impl core::ops::SubAssign for PerClass {
    fn sub_assign(&mut self, other: Self) {
        self.overcommit -= other.overcommit;
        self.strict -= other.strict;
    }
}

/// A number of frames set aside for one operation.
///
/// Dropping it gives back what was not taken.
#[must_use]
pub struct Reserve<'a> {
    allocator: &'a FrameAllocator,
    /// How many are left in the pool; below 0, how many are left in a stock.
    left: isize,
    /// The CPU whose stock that is.
    stock: u8,
    class: Commit,
}

impl Reserve<'_> {
    /// One of the frames. Its contents are undefined.
    ///
    /// # Panics
    ///
    /// If none is left: the plan that sized the reserve was wrong.
    #[inline(never)]
    pub fn take(&mut self) -> Frame {
        if self.left <= 0 {
            return self.take_here();
        }
        self.left -= 1;
        self.allocator.pop(self.allocator.pool.lock())
    }

    /// One of the frames, filled with zeros.
    ///
    /// # Panics
    ///
    /// If none is left: the plan that sized the reserve was wrong.
    pub fn take_zeroed(&mut self) -> Frame {
        let frame = self.take();
        self.allocator.map.zero(frame);
        frame
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.left.unsigned_abs()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Gives back what is left; the same as dropping it.
    pub fn release(self) {}

    fn stock(&self) -> OrderedGuard<'_, Stock> {
        self.allocator.stocks[usize::from(self.stock)].lock()
    }

    #[cold]
    #[inline(never)]
    fn take_here(&mut self) -> Frame {
        assert!(self.left < 0, "more frames taken than reserved");
        self.left += 1;
        self.stock().take()
    }

    #[cold]
    #[inline(never)]
    fn give_back_here(&self) {
        self.stock().give_back(self.len());
    }

    /// Keeps what is left set aside for longer than this value lives.
    fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Reserve<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        if self.left < 0 {
            return self.give_back_here();
        }
        let mut pool = self.allocator.pool.lock();
        pool.free += self.left as u64;
        pool.returned(self.len(), self.class);
    }
}

/// A book and how many frames it lists; frame 0 for none.
#[derive(Clone, Copy)]
struct Book {
    frame: Frame,
    len: usize,
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

struct Pool {
    /// The book that frames are taken from and added to.
    books: Book,
    /// Memory that was never handed out, from `next` to `end`.
    untouched: [Range; MAX_RANGES],
    nr_ranges: usize,
    /// Frames in books and ranges that are not set aside.
    free: u64,
    /// See the module.
    promise: i64,
    total: u64,
}

#[derive(Clone, Copy)]
struct Range {
    next: u64,
    end: u64,
}

impl Pool {
    /// How many frames are set aside for strict spaces.
    fn set_aside(&self) -> u64 {
        self.promise.max(0) as u64
    }

    /// So many frames more are there, and so many more are promised.
    fn settle(&mut self, frames: i64, promised: i64) -> Result<(), OutOfMemory> {
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
    fn returned(&mut self, nr_frames: usize, class: Commit) {
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
    fn reserve(&mut self, nr_frames: usize, class: Commit) -> Result<(), OutOfMemory> {
        if class == Commit::Strict {
            return self.settle(-(nr_frames as i64), -(nr_frames as i64));
        }
        let free = self.free.checked_sub(nr_frames as u64);
        self.free = free.ok_or(OutOfMemory)?;
        Ok(())
    }

    /// Takes a frame that was taken off `free`.
    fn pop(&mut self, map: &PhysMap) -> Frame {
        self.pop_listed(map).unwrap_or_else(|| self.pop_book(map))
    }

    /// The same, if the book lists one.
    #[inline(always)]
    fn pop_listed(&mut self, map: &PhysMap) -> Option<Frame> {
        let Book { frame, len } = self.books;
        self.books.len = len.checked_sub(1)?;
        Some(Frame::of_entry(map.table(frame)[len % 512].load(Relaxed)))
    }

    /// Adds a free frame.
    #[inline(always)]
    fn add(&mut self, map: &PhysMap, frame: Frame) {
        debug_assert!(self.free < self.total, "{frame:?} freed twice");
        self.free += 1;
        self.push(map, frame);
    }

    /// Adds so many frames of a stock, or all that are not set aside there.
    #[inline(never)]
    fn add_from(&mut self, map: &PhysMap, stock: &mut Stock, nr_frames: usize) {
        for _ in 0..nr_frames.min(stock.nr_spare()) {
            self.add(map, stock.pop());
        }
    }

    /// The book itself, or else a frame from the last range.
    fn pop_book(&mut self, map: &PhysMap) -> Frame {
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
    fn push(&mut self, map: &PhysMap, frame: Frame) {
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
    fn put_on_top(&mut self, map: &PhysMap, book: Book) {
        link(map, book.frame, self.books.to_word());
        self.books = book;
    }

    /// Remembers `start..end`, joined to a neighbour if there is one; false if there is no room.
    fn add_untouched(&mut self, start: u64, end: u64) -> bool {
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
fn whole_frames(start: PhysAddr, end: PhysAddr) -> Option<(u64, u64)> {
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

#[cfg(test)]
mod tests;
