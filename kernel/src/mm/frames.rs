//! The free frames.
//!
//! Frames that were freed are listed in [books](pool), and those that were never used are in ranges: so freeing and allocating are
//! constant time and need no memory, and a free frame is not touched. The count of free frames is exact.
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

mod pool;
mod reserve;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use cowslip_abi::Commit;

use pool::{Book, Pool, whole_frames};
pub use reserve::{PerClass, Reserve};

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
        Self {
            map,
            pool: Ordered::new(Rank::Frames, Pool::new()),
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

#[cfg(test)]
mod tests;
