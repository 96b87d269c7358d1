//! Physical memory on the host: a piece of the process's memory, whose bounds are always checked.

use core::{
    ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Frame, PHYS_BITS, PhysAddr, Table};

/// Frames end here.
pub(super) const END: u64 = 1 << PHYS_BITS;

/// Where physical memory is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Where physical address 0 is, or would be.
    base: *mut u8,
    /// Physical addresses end here.
    limit: u64,
}

impl Place {
    pub(super) const fn new(base: *mut u8, limit: u64) -> Self {
        Self { base, limit }
    }

    #[inline]
    pub(super) fn pointer(self, addr: PhysAddr) -> *mut u8 {
        self.base.wrapping_add(addr.0 as usize)
    }

    #[inline]
    pub(super) fn frame(self, frame: Frame) -> *mut u8 {
        assert!(frame.0 < self.limit, "{frame:?} is outside the direct map");
        self.pointer(frame.addr())
    }

    /// Nothing: no hardware walks the reference counts here.
    #[inline]
    pub(super) fn count(self, _frame: Frame) -> Option<*const AtomicU64> {
        None
    }

    /// Nothing either.
    #[inline]
    pub(super) fn count_block(self, _frame: Frame) -> Option<*const Table> {
        None
    }
}

/// Copies `len` bytes.
///
/// # Safety
///
/// As for [`ptr::copy_nonoverlapping`].
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe { ptr::copy_nonoverlapping(from, to, len) }
}

/// Fills `len` bytes with zeros.
///
/// # Safety
///
/// As for [`ptr::write_bytes`].
pub(super) unsafe fn clear(place: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe { ptr::write_bytes(place, 0, len) }
}

/// The bits that these are or that any of the words has.
pub(super) fn or_eight(bits: u64, words: &[AtomicU64; 8]) -> u64 {
    let or = |bits, word: &AtomicU64| bits | word.load(Relaxed);
    words.iter().fold(bits, or)
}

/// Those of the bits that all the words have.
pub(super) fn and_eight(bits: u64, words: &[AtomicU64; 8]) -> u64 {
    let and = |bits, word: &AtomicU64| bits & word.load(Relaxed);
    words.iter().fold(bits, and)
}
