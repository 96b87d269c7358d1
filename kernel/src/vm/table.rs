//! An address space's page table: making it, looking into it, taking it apart.

use cowslip_abi::Commit;

use crate::{
    mm::{DeadTable, Flush, Frame, Mm, OutOfMemory, phys::NR_ENTRIES},
    vm::{
        commit::Charge,
        cursor::{Cursor, ROOT, USER_END, coverage},
        entry::{Entry, Kind, Slot},
        reap::reserve,
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
    charge: Charge,
}

/// What an address space consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Private pages whose frame nobody else can reach.
    pub private: u64,
    /// Private pages whose frame others can reach too.
    pub cow_shared: u64,
    /// Pages of shared memory.
    pub shared: u64,
    /// Demand-zero pages that nobody has touched.
    pub zero: u64,
    /// Page-table frames, with the root, and with those that other spaces name too.
    pub tables: u64,
}

impl PageTable {
    /// A space with nothing in it, and the kernel's entries in the upper half of its root.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: there is no frame for the root.
    pub fn new(mm: &Mm, kernel_half: &[u64; 256]) -> Result<Self, OutOfMemory> {
        let root = reserve(mm, 1, Commit::Overcommit)?.take();
        mm.map.fill_upper_half(root, kernel_half);
        Ok(Self {
            root,
            charge: Charge::new(),
        })
    }

    /// The root: what CR3 points at, and what names the space in a [`Flush`].
    #[must_use]
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// What the space is charged.
    #[inline(always)]
    pub(super) const fn charge(&self) -> &Charge {
        &self.charge
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
        count(mm, self.root, ROOT, true, &mut stats);
        stats
    }

    /// Releases all pages, all tables and the root, [later](fn@super::reap).
    ///
    /// No CPU may have the space active, nor activate it.
    pub fn destroy(self, mm: &Mm) {
        mm.flush(Flush::all(self.root));
        self.shrink(mm, self.commit());
        mm.bury(DeadTable {
            frame: self.root,
            level: ROOT,
            next: 0,
            left: nr_user_entries(ROOT),
            class: self.class(),
        });
    }
}

/// The entries of a table that are the space's own.
pub(super) fn user_entries(mm: &Mm, table: Frame, level: u32) -> impl Iterator<Item = Slot<'_>> {
    mm.map.table(table)[..nr_user_entries(level)]
        .iter()
        .map(Slot::new)
}

/// How many entries of a table of this level are the space's own: of the root, the lower half.
pub(super) const fn nr_user_entries(level: u32) -> usize {
    if level == ROOT {
        NR_ENTRIES / 2
    } else {
        NR_ENTRIES
    }
}

fn count(mm: &Mm, table: Frame, level: u32, is_own: bool, stats: &mut SpaceStats) {
    stats.tables += 1;
    for entry in user_entries(mm, table, level).map(Slot::get) {
        if let Some(below) = entry.table_below().filter(|_| level > 0) {
            let is_own = is_own && mm.counts.is_one(below);
            count(mm, below, level - 1, is_own, stats);
            continue;
        }
        match entry.kind() {
            Kind::Empty | Kind::Condemned(_) => {}
            Kind::Zero => stats.zero += coverage(level) / coverage(0),
            Kind::Shared(_) => stats.shared += 1,
            Kind::Private(frame) if is_own && mm.counts.is_one(frame) => stats.private += 1,
            Kind::Private(_) => stats.cow_shared += 1,
        }
    }
}
