//! The global heap: talc, growing by demand-zero mappings in the program's own space.
//!
//! The heap lives in ordinary memory, so a forked child has it too, copy-on-write, and grows its
//! own copy at the same addresses.

use core::alloc::Layout;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::Perm;
use spin::mutex::SpinMutex;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::YieldRelax;
use crate::object::Space;

/// Where the heap starts.
const BASE: u64 = 0x1000_0000_0000;

/// It grows by multiples of this: what one page table covers, so that reserving is one entry.
const STEP: u64 = 1 << 21;

#[global_allocator]
static HEAP: TalcLock<SpinMutex<(), YieldRelax>, Grow> = TalcLock::new(Grow);

/// The end of the heap.
static END: AtomicU64 = AtomicU64::new(BASE);

#[derive(Debug)]
struct Grow;

// SAFETY: `acquire` uses the allocator only through the reference that it is given: system calls
// allocate nothing.
unsafe impl Source for Grow {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the request, its alignment, and the heap's own words.
        let want = (layout.size() + layout.align()) as u64 + 4096;
        let len = want.checked_next_multiple_of(STEP).ok_or(())?;
        let start = END.load(Ordering::Relaxed);
        Space::own().map(start, len, Perm::RW).map_err(|_| ())?;
        END.store(start + len, Ordering::Relaxed);
        // SAFETY: the range was mapped just before, for the heap alone, and stays mapped.
        unsafe { talc.claim(start as *mut u8, len as usize) }
            .map(|_| ())
            .ok_or(())
    }
}
