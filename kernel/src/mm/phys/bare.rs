//! Physical memory of a machine: at the places that [`layout`](crate::mm::layout) names, and copied by
//! the processor's string instructions.
//!
//! For a copy the compiler would call a function that suits any length and any alignment. What it does
//! before and after the copy is a quarter of a short message.

use core::{arch::asm, sync::atomic::AtomicU64};

use super::{FRAME_SIZE, Frame, PhysAddr, Table};
use crate::mm::layout::{COUNT_WINDOW, DIRECT_MAP, DIRECT_MAP_LEN};

/// Frames end here: what comes next in the kernel's half is not the direct map.
pub(super) const END: u64 = DIRECT_MAP_LEN;

/// Where physical memory is reached: a constant, so that no register and no check is spent on it.
///
/// No [`Frame`] is made from an address beyond [`END`], so every frame is within the direct map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place;

impl Place {
    #[inline(always)]
    pub(super) fn pointer(self, addr: PhysAddr) -> *mut u8 {
        (DIRECT_MAP + addr.0) as *mut u8
    }

    #[inline(always)]
    pub(super) fn frame(self, frame: Frame) -> *mut u8 {
        debug_assert!(frame.0 < END, "{frame:?} is outside the direct map");
        self.pointer(frame.addr())
    }

    /// The frame's count in the window.
    #[inline(always)]
    pub(super) fn count(self, frame: Frame) -> Option<*const AtomicU64> {
        // A frame's address is its number times 4096, and a count has 8 bytes.
        Some((COUNT_WINDOW + (frame.0 >> 9)) as *const AtomicU64)
    }

    /// The page of the window that has the frame's count.
    #[inline(always)]
    pub(super) fn count_block(self, frame: Frame) -> Option<*const Table> {
        Some((COUNT_WINDOW + (frame.0 >> 9) / FRAME_SIZE * FRAME_SIZE) as *const Table)
    }
}

/// Copies `len` bytes upwards, word by word: at once if `len` is known to be a multiple of 8.
///
/// # Safety
///
/// As for [`core::ptr::copy_nonoverlapping`].
#[inline(always)]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    let (mut from, mut to) = (from, to);
    // SAFETY: as the caller promises; Rust code runs with the direction flag clear.
    unsafe {
        asm!(
            "rep movsq",
            inout("rcx") len / 8 => _, inout("rsi") from, inout("rdi") to,
            options(nostack, preserves_flags)
        );
        if !len.is_multiple_of(8) {
            asm!(
                "rep movsb",
                inout("rcx") len % 8 => _, inout("rsi") from => _, inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Fills `len` bytes with zeros, word by word: at once if `len` is known to be a multiple of 8.
///
/// # Safety
///
/// As for [`core::ptr::write_bytes`].
#[inline(always)]
pub(super) unsafe fn clear(place: *mut u8, len: usize) {
    let mut place = place;
    // SAFETY: as the caller promises; Rust code runs with the direction flag clear.
    unsafe {
        asm!(
            "rep stosq",
            inout("rcx") len / 8 => _, inout("rdi") place, in("rax") 0_u64,
            options(nostack, preserves_flags)
        );
        if !len.is_multiple_of(8) {
            asm!(
                "rep stosb",
                inout("rcx") len % 8 => _, inout("rdi") place => _, in("al") 0_u8,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Combines eight neighbouring words with `$bits` by an instruction that reads its operand from memory:
/// one each, where the compiler loads an atomic and then combines it.
macro_rules! combine {
    ($instruction:literal, $bits:ident, $words:ident) => {
        // SAFETY: reads what the reference names; aligned words are read at once, like relaxed atomics.
        unsafe {
            asm!(
                concat!($instruction, " {bits}, [{words}]"),
                concat!($instruction, " {bits}, [{words} + 8]"),
                concat!($instruction, " {bits}, [{words} + 16]"),
                concat!($instruction, " {bits}, [{words} + 24]"),
                concat!($instruction, " {bits}, [{words} + 32]"),
                concat!($instruction, " {bits}, [{words} + 40]"),
                concat!($instruction, " {bits}, [{words} + 48]"),
                concat!($instruction, " {bits}, [{words} + 56]"),
                bits = inout(reg) $bits, words = in(reg) $words,
                options(nostack, readonly)
            );
        }
    };
}

/// The bits that these are or that any of the words has.
#[inline(always)]
pub(super) fn or_eight(mut bits: u64, words: &[AtomicU64; 8]) -> u64 {
    combine!("or", bits, words);
    bits
}

/// Those of the bits that all the words have.
#[inline(always)]
pub(super) fn and_eight(mut bits: u64, words: &[AtomicU64; 8]) -> u64 {
    combine!("and", bits, words);
    bits
}
