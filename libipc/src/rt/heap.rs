//! The global heap: talc, growing by demand-zero mappings among the page buffers.
//!
//! The heap lives in ordinary memory, so a forked child has it too, copy-on-write, and grows its
//! own copy at the same addresses.

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spin::mutex::SpinMutex;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::YieldRelax;
use crate::buffer::memory;

/// It grows by as much as it has, but at least so much, and at most what one page table covers.
const STEP: core::ops::RangeInclusive<usize> = 1 << 16..=1 << 21;

#[global_allocator]
static HEAP: TalcLock<SpinMutex<(), YieldRelax>, Grow> = TalcLock::new(Grow);

/// Bytes of the heap.
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Whether it grows by memory that is there.
static IS_BACKED: AtomicBool = AtomicBool::new(false);

pub(super) fn back() {
    IS_BACKED.store(true, Ordering::Relaxed);
}

#[derive(Debug)]
struct Grow;

// SAFETY: `acquire` uses the allocator only through the reference that it is given: mapping memory
// allocates nothing.
unsafe impl Source for Grow {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the request, its alignment, and the heap's own words.
        let want = layout.size() + layout.align() + 4096;
        let old = LEN.load(Ordering::Relaxed);
        let step = old.clamp(*STEP.start(), *STEP.end());
        let len = want.checked_next_multiple_of(step).ok_or(())?;
        let start = memory::map(len).map_err(|_| ())?;
        if IS_BACKED.load(Ordering::Relaxed) && memory::make_shared(start, len).is_err() {
            memory::unmap(start, len);
            return Err(());
        }
        LEN.store(old + len, Ordering::Relaxed);
        // SAFETY: the range was mapped just before, for the heap alone, and stays mapped.
        unsafe { talc.claim(start as *mut u8, len) }
            .map(|_| ())
            .ok_or(())
    }
}
