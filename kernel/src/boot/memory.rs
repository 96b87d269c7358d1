//! The memory map made tidy: which frames are free.
//!
//! Firmware gives its map in any order, with overlaps, and with the kernel's image and the boot
//! archive in the middle of what it calls usable. [`FreeRanges`] holds whole pages that nobody
//! else uses, in no particular order.

use core::ops::Range;

use super::{BootInfo, MemoryKind, info::MAX_RANGES};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// What the first program and the servers need at the very least, in bytes.
const LEAST_FREE: u64 = MIB;

/// A page below 1 MiB that is left alone: other CPUs start there, in real mode.
pub const TRAMPOLINE: u64 = 0x8000;

/// Checks that the loader has found places of their own for image and archive: one that knows too
/// little memory for both puts one onto the other.
///
/// # Panics
///
/// If they overlap.
pub fn check_places(boot: &BootInfo, image_len: u64) {
    let image = boot.image..boot.image + image_len;
    let overlaps = |archive: &Range<u64>| archive.start < image.end && image.start < archive.end;
    assert!(
        !boot.archive.as_ref().is_some_and(overlaps),
        "not enough memory: kernel and boot archive overlap; {} MiB at least",
        least_mib(boot, image_len)
    );
}

/// Checks that this is enough free memory to go on with.
///
/// # Panics
///
/// If not.
pub fn check_free(boot: &BootInfo, image_len: u64, free: u64) {
    assert!(
        free >= LEAST_FREE,
        "not enough memory: {} KiB are free; {} MiB at least",
        free / 1024,
        least_mib(boot, image_len)
    );
}

/// The least memory of a machine that boots this, in MiB, if all of it starts at address 0.
fn least_mib(boot: &BootInfo, image_len: u64) -> u64 {
    let archive = boot.archive.clone().unwrap_or_default();
    (boot.image + image_len + (archive.end - archive.start) + LEAST_FREE).div_ceil(MIB)
}

/// Set of pages, as disjoint ranges of physical addresses.
pub struct FreeRanges {
    ranges: [Range<u64>; MAX_RANGES],
    len: usize,
}

impl FreeRanges {
    /// No pages.
    pub const fn new() -> Self {
        Self {
            ranges: [const { 0..0 }; MAX_RANGES],
            len: 0,
        }
    }

    /// The pages of this kind that are free to use: not named by another line of the memory map,
    /// and neither page 0, nor the [trampoline](TRAMPOLINE), the image or the archive.
    pub fn of_kind(boot: &BootInfo, image_len: u64, kind: MemoryKind) -> Self {
        let mut free = Self::new();
        for range in boot.ranges().iter().filter(|range| range.kind == kind) {
            // Two lines that overlap must not give the same page twice.
            free.remove(range.start..range.end);
            free.add(range.start..range.end);
        }
        for range in boot.ranges().iter().filter(|range| range.kind != kind) {
            free.remove(range.start..range.end);
        }
        free.remove(0..PAGE);
        free.remove(TRAMPOLINE..TRAMPOLINE + PAGE);
        free.remove(boot.image..boot.image + image_len);
        if let Some(archive) = &boot.archive {
            free.remove(archive.clone());
        }
        free
    }

    /// Takes one page, below 4 GiB: what the doors' page tables reach.
    pub fn take_low(&mut self) -> Option<u64> {
        let low = |range: &&mut Range<u64>| !range.is_empty() && range.end <= 1 << 32;
        let range = self.ranges[..self.len]
            .iter_mut()
            .filter(low)
            .max_by_key(|range| range.end)?;
        range.end -= PAGE;
        Some(range.end)
    }

    /// The ranges, each of whole pages.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges[..self.len]
            .iter()
            .filter(|range| !range.is_empty())
            .cloned()
    }

    /// Adds the whole pages of a range, which must not be in the set. What does not fit into the
    /// table is left out.
    fn add(&mut self, range: Range<u64>) {
        let pages = range.start.next_multiple_of(PAGE)..range.end & !(PAGE - 1);
        if !pages.is_empty() && self.len < MAX_RANGES {
            self.ranges[self.len] = pages;
            self.len += 1;
        }
    }

    /// Removes all pages that the range touches.
    fn remove(&mut self, range: Range<u64>) {
        let hole = range.start & !(PAGE - 1)..range.end.next_multiple_of(PAGE);
        for index in 0..self.len {
            let found = self.ranges[index].clone();
            if found.start < hole.end && hole.start < found.end {
                self.ranges[index] = found.start..hole.start.max(found.start);
                self.add(hole.end.min(found.end)..found.end);
            }
        }
    }
}
