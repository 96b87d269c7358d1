//! Physical memory: frames, how often each is named, and when a name may be forgotten.
//!
//! The module promises three things to everything above it:
//!
//! - **Every frame is accounted for.** A frame is free, or a node of the reference counts, or named
//!   by the entries that [`RefCounts`] has counted; the numbers add up at any time.
//! - **What can fail fails first.** Operations [reserve](FrameAllocator::reserve) frames before they
//!   change anything, and cannot fail afterwards. Counting never fails.
//! - **No stale translation outlives a reference.** A count falls only in [`Mm::release`], which
//!   asks for the [`Flushed`] token that a finished TLB flush returns, and in [`Departing`], which
//!   flushes itself.
//!
//! Nothing here knows about address spaces; `unsafe` is confined to [`phys`].

pub mod asid;
pub mod counts;
mod dead;
mod departing;
pub mod flush;
pub mod frames;
pub mod layout;
pub mod phys;
#[cfg(not(target_os = "none"))]
pub mod sim;
pub mod stats;
mod stock;
mod turns;

pub use counts::{Count, CountCursor, Dropped, RefCounts, Sample};
pub use dead::{DeadTable, DeadTables};
pub use departing::{COUNTED, Departing, note_of_table};
pub use flush::{Flush, FlushPages, Flushed, SpaceFlush};
pub use frames::{FrameAllocator, PerClass, Reserve};
pub use phys::{Frame, PhysAddr, PhysMap, Table};
pub use stats::{Counter, Stats};
pub use turns::Turns;

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use cowslip_abi::Commit;

/// See [`Mm::remap_min_pages`].
const DEFAULT_REMAP_MIN_PAGES: u64 = 1;

/// There are not enough free frames. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

impl From<OutOfMemory> for cowslip_abi::Error {
    fn from(_: OutOfMemory) -> Self {
        cowslip_abi::Error::NoMemory
    }
}

/// The machine's memory, shared by every CPU.
pub struct Mm {
    /// Where physical memory can be reached.
    pub map: PhysMap,
    /// The free frames.
    pub frames: FrameAllocator,
    /// How many entries name each frame.
    pub counts: RefCounts,
    /// Tables that nothing names, and that still name others.
    pub dead: DeadTables,
    /// Who shares what which table names.
    pub turns: Turns,
    /// What has been done since boot.
    pub stats: Stats,
    remap_min_pages: AtomicU64,
    /// The frames that are [kept](Self::keep), as the addresses where they begin and end.
    kept: [AtomicU64; 2],
    flush: fn(&Flush),
}

impl Mm {
    /// Memory with no frames yet; add them with [`FrameAllocator::add_range`].
    ///
    /// `flush` returns only when no CPU can use a translation that the flush names; `here` returns the number of the CPU that
    /// calls it.
    #[must_use]
    pub const fn new(map: PhysMap, flush: fn(&Flush), here: fn() -> usize) -> Self {
        Self {
            map,
            frames: FrameAllocator::new(map, here),
            counts: RefCounts::new(map),
            dead: DeadTables::new(),
            turns: Turns::new(),
            stats: Stats::new(),
            remap_min_pages: AtomicU64::new(DEFAULT_REMAP_MIN_PAGES),
            kept: [const { AtomicU64::new(0) }; 2],
            flush,
        }
    }

    /// Flushes on every CPU, and returns the proof that [`release`](Self::release) asks for.
    ///
    /// A flush that names nothing costs nothing.
    #[inline]
    pub fn flush(&self, flush: &Flush) -> Flushed {
        if !flush.is_empty() {
            (self.flush)(flush);
        }
        Flushed::new()
    }

    /// Makes room to count references to the frames in `start..end` (bytes): before any entry names
    /// one of them. The room is kept for ever.
    pub fn cover(&self, start: PhysAddr, end: PhysAddr) -> Result<(), OutOfMemory> {
        self.counts.cover(start.0..end.0, &self.frames)
    }

    /// Keeps the frames in `start..end` (bytes), which are in use, whatever becomes of those who name
    /// them: the kernel reads them. Once, at boot.
    pub fn keep(&self, start: PhysAddr, end: PhysAddr) {
        for addr in (start.0..end.0).step_by(phys::FRAME_SIZE as usize) {
            self.counts.increment(Frame::containing(PhysAddr(addr)));
        }
        self.kept[0].store(start.0, Relaxed);
        self.kept[1].store(end.0, Relaxed);
    }

    /// The frames that are [kept](Self::keep).
    #[cfg(any(not(target_os = "none"), debug_assertions))]
    pub fn kept(&self) -> impl Iterator<Item = Frame> {
        let [start, end] = self.kept.each_ref().map(|addr| addr.load(Relaxed));
        (start..end)
            .step_by(phys::FRAME_SIZE as usize)
            .map(|addr| Frame::containing(PhysAddr(addr)))
    }

    /// Whether a frame is [kept](Self::keep).
    #[cfg(any(not(target_os = "none"), debug_assertions))]
    pub fn keeps(&self, frame: Frame) -> bool {
        let [start, end] = self.kept.each_ref().map(|addr| addr.load(Relaxed));
        (start..end).contains(&frame.addr().0)
    }

    /// Whole pages of a message are remapped if there are at least so many in a row; fewer are
    /// copied, where the destination's pages can be written in place.
    #[inline]
    #[must_use]
    pub fn remap_min_pages(&self) -> u64 {
        self.remap_min_pages.load(Relaxed)
    }

    /// Sets [`remap_min_pages`](Self::remap_min_pages); at boot.
    pub fn set_remap_min_pages(&self, nr_pages: u64) {
        self.remap_min_pages.store(nr_pages, Relaxed);
    }

    /// Forgets one reference of a space of this class to `frame`, and frees it if it was the last.
    ///
    /// The token says that the entry that held the reference has been flushed everywhere.
    #[inline]
    pub fn release(&self, frame: Frame, class: Commit, flushed: &Flushed) {
        self.release_counted(frame, self.counts.of(frame), class, flushed);
    }

    /// The same for a frame whose count is at hand.
    #[inline(always)]
    pub fn release_counted(
        &self,
        frame: Frame,
        count: Count<'_>,
        class: Commit,
        _flushed: &Flushed,
    ) {
        #[cfg(all(not(target_os = "none"), debug_assertions))]
        sim::check_release(self.map, frame);
        match count.decrement() {
            Dropped::Last => {
                self.stats.freed.add(1);
                self.frames.free_of(frame, class);
            }
            Dropped::Second => self.counts.subtract_shared(1),
            Dropped::Remaining => {}
        }
    }

    /// Forgets one reference of a space of this class to a table, of which `left` entries at most are used. If it was the last,
    /// returns the table, for [`bury`](Self::bury).
    pub fn release_table(
        &self,
        frame: Frame,
        level: u32,
        left: usize,
        class: Commit,
        _flushed: &Flushed,
    ) -> Option<DeadTable> {
        #[cfg(all(not(target_os = "none"), debug_assertions))]
        sim::check_release(self.map, frame);
        match self.counts.of(frame).decrement() {
            Dropped::Last => {
                return Some(DeadTable {
                    frame,
                    level,
                    next: 0,
                    left,
                    class,
                });
            }
            Dropped::Second => self.counts.subtract_shared(1),
            Dropped::Remaining => {}
        }
        None
    }

    /// Adds a table that nothing names to the dead ones.
    pub fn bury(&self, dead: DeadTable) {
        self.dead.push(&self.counts, dead);
    }

    /// Takes the dead table that is to be worked off next.
    pub fn exhume(&self) -> Option<DeadTable> {
        self.dead.pop(&self.counts)
    }
}
