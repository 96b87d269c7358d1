//! Physical memory: frames, how often each is named, and when a name may be forgotten.
//!
//! The module promises three things to everything above it:
//!
//! - **Every frame is accounted for.** A frame is free, or a node of the reference counts, or named
//!   by the entries that [`RefCounts`] has counted; the numbers add up at any time.
//! - **What can fail fails first.** Operations [reserve](FrameAllocator::reserve) frames and
//!   [prepare](RefCounts::ensure) counts before they change anything, and cannot fail afterwards.
//! - **No stale translation outlives a reference.** A count falls only in [`Mm::release`], which
//!   asks for the [`Flushed`] token that a finished TLB flush returns.
//!
//! Nothing here knows about address spaces; `unsafe` is confined to [`phys`].

pub mod counts;
pub mod flush;
pub mod frames;
pub mod phys;
#[cfg(not(target_os = "none"))]
pub mod sim;
pub mod stats;

pub use counts::{Dropped, RefCounts};
pub use flush::{Flush, FlushPages, Flushed, SpaceFlush};
pub use frames::{FrameAllocator, Reserve};
pub use phys::{Frame, PhysAddr, PhysMap, Table};
pub use stats::{Counter, Stats};

use core::fmt;

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
    /// What has been done since boot.
    pub stats: Stats,
    flush: fn(&Flush),
}

impl Mm {
    /// Memory with no frames yet; add them with [`FrameAllocator::add_range`].
    ///
    /// `flush` returns only when no CPU can use a translation that the flush names.
    #[must_use]
    pub const fn new(map: PhysMap, flush: fn(&Flush)) -> Self {
        Self {
            map,
            frames: FrameAllocator::new(map),
            counts: RefCounts::new(map),
            stats: Stats::new(),
            flush,
        }
    }

    /// Flushes on every CPU, and returns the proof that [`release`](Self::release) asks for.
    ///
    /// A flush that names nothing costs nothing.
    pub fn flush(&self, flush: Flush) -> Flushed {
        if !flush.is_empty() {
            (self.flush)(&flush);
        }
        Flushed::new()
    }

    /// Makes room to count references to `frame`. Must precede the first
    /// [`RefCounts::increment`]; the room is kept for ever.
    pub fn ensure_counted(&self, frame: Frame) -> Result<(), OutOfMemory> {
        self.counts.ensure(frame, &self.frames)
    }

    /// Forgets one reference to `frame`, and frees it if it was the last.
    ///
    /// The token says that the entry that held the reference has been flushed everywhere.
    pub fn release(&self, frame: Frame, _flushed: &Flushed) {
        #[cfg(all(not(target_os = "none"), debug_assertions))]
        sim::check_release(self.map, frame);
        if self.counts.decrement(frame) == Dropped::Last {
            self.stats.freed.add(1);
            self.frames.free(frame);
        }
    }
}
