//! An address space's page table: making it, looking into it, taking it apart.

use core::ops::Range;

use cowslip_abi::{PAGE_SIZE, USER_END};

use crate::{
    mm::{Flush, Flushed, Frame, Mm, OutOfMemory},
    vm::{
        cursor::{Cursor, LEVELS, next_used},
        entry::{Entry, Kind, Slot},
    },
};

/// A four-level page table: the lower half is the space's own, the upper half the kernel's.
///
/// Owns its root and everything below the lower half. It must be [destroyed](Self::destroy):
/// dropping it leaks its frames.
#[derive(Debug)]
#[must_use = "a page table that is dropped leaks its frames"]
pub struct PageTable {
    root: Frame,
}

/// What an address space consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Private pages whose frame nobody else names.
    pub private: u64,
    /// Private pages whose frame others name too.
    pub cow_shared: u64,
    /// Pages of shared memory.
    pub shared: u64,
    /// Demand-zero pages that nobody has touched.
    pub zero: u64,
    /// Page-table frames, with the root.
    pub tables: u64,
}

impl PageTable {
    /// A space with nothing in it, and the kernel's entries in the upper half of its root.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: there is no frame for the root.
    pub fn new(mm: &Mm, kernel_half: &[u64; 256]) -> Result<Self, OutOfMemory> {
        let root = mm.frames.alloc_zeroed().ok_or(OutOfMemory)?;
        let upper = &mm.map.table(root)[256..];
        for (place, entry) in upper.iter().zip(kernel_half) {
            place.store(*entry, core::sync::atomic::Ordering::Relaxed);
        }
        Ok(Self { root })
    }

    /// The root: what CR3 points at, and what names the space in a [`Flush`].
    #[must_use]
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// The entry for the page that contains the user address `addr`.
    #[must_use]
    pub fn lookup(&self, mm: &Mm, addr: u64) -> Entry {
        if addr < USER_END {
            Cursor::new(&mm.map, self.root).get(addr)
        } else {
            Entry::EMPTY
        }
    }

    /// Counts the pages by kind, and the tables.
    #[must_use]
    pub fn statistics(&self, mm: &Mm) -> SpaceStats {
        let mut stats = SpaceStats::default();
        count(mm, self.root, LEVELS - 1, &mut stats);
        stats
    }

    /// Releases all pages, all tables and the root.
    ///
    /// No CPU may have the space active, nor activate it.
    pub fn destroy(self, mm: &Mm) {
        let flushed = mm.flush(Flush::all(self.root));
        release_below(mm, self.root, LEVELS - 1, &flushed);
        mm.release(self.root, &flushed);
    }
}

/// The addresses of the pages from `addr` on.
pub(super) fn pages(range: Range<u64>) -> impl Iterator<Item = u64> {
    debug_assert!(range.start.is_multiple_of(PAGE_SIZE as u64));
    range.step_by(PAGE_SIZE)
}

/// The entries of a table that are the space's own.
pub(super) fn user_entries(mm: &Mm, table: Frame, level: u32) -> impl Iterator<Item = Slot<'_>> {
    mm.map.table(table)[..nr_user_entries(level)]
        .iter()
        .map(Slot::new)
}

/// How many entries of a table of this level are the space's own: of the root, the lower half.
pub(super) const fn nr_user_entries(level: u32) -> usize {
    if level == LEVELS - 1 { 256 } else { 512 }
}

fn count(mm: &Mm, table: Frame, level: u32, stats: &mut SpaceStats) {
    stats.tables += 1;
    for entry in user_entries(mm, table, level).map(Slot::get) {
        if level > 0 {
            if let Some(below) = entry.table_below() {
                count(mm, below, level - 1, stats);
            }
            continue;
        }
        match entry.kind() {
            Kind::Empty | Kind::Condemned(_) => {}
            Kind::Zero => stats.zero += 1,
            Kind::Shared(_) => stats.shared += 1,
            Kind::Private(frame) if mm.counts.get(frame) == 1 => stats.private += 1,
            Kind::Private(_) => stats.cow_shared += 1,
        }
    }
}

fn release_below(mm: &Mm, table: Frame, level: u32, flushed: &Flushed) {
    let (table, nr_entries) = (mm.map.table(table), nr_user_entries(level));
    let mut number = 0;
    while let Some(used) = next_used(table, number, nr_entries) {
        number = used + 1;
        let slot = Slot::new(&table[used]);
        let entry = slot.get();
        slot.set(Entry::EMPTY);
        if level > 0 {
            if let Some(below) = entry.table_below() {
                release_below(mm, below, level - 1, flushed);
                mm.release(below, flushed);
            }
        } else if let Kind::Private(frame) | Kind::Shared(frame) = entry.kind() {
            mm.release(frame, flushed);
        }
    }
}
