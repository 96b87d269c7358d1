//! An address space's page table: making it, looking into it, taking it apart.

use core::{marker::PhantomPinned, ops::Deref};

use cowslip_abi::Commit;

use crate::{
    mm::{DeadTable, Frame, Mm, OutOfMemory, phys::NR_ENTRIES},
    sync::Claimed,
    vm::{
        commit::Charge,
        cursor::{Cursor, ROOT, USER_END, coverage, walk_to_page},
        entry::{Entry, Kind, Slot},
        open::Plan,
        reap::reserve,
        streak::Streak,
    },
};

/// How many lowest-level tables are looked through at once.
const COUNTED_TABLES: usize = 8;

/// How many bytes a lowest-level table covers.
pub const TABLE_SPAN: u64 = coverage(1);

/// A four-level page table: the lower half is the space's own, the upper half the kernel's.
///
/// Owns its root and everything below the lower half. It must be [destroyed](Self::destroy):
/// dropping it leaks its frames.
#[derive(Debug)]
#[must_use = "a page table that is dropped leaks its frames"]
pub struct PageTable {
    root: Frame,
    charge: Charge,
    streak: Streak,
    lock: Claimed,
    /// Who has locked it may use it while another CPU has what it is a part of.
    _is_shared: PhantomPinned,
}

/// The [lock](PageTable::try_lock) of a page table, until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is free again when this is dropped"]
pub struct Locked<'t>(&'t PageTable);

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
        Ok(Self::with_root(mm, root, kernel_half))
    }

    /// The same with this frame, which is the caller's, as its root.
    pub(crate) fn with_root(mm: &Mm, root: Frame, kernel_half: &[u64; 256]) -> Self {
        mm.map.fill_upper_half(root, kernel_half);
        Self {
            root,
            charge: Charge::new(),
            streak: Streak::new(),
            lock: Claimed::new(),
            _is_shared: PhantomPinned,
        }
    }

    /// Lets the caller use the page table, among others that use other ones at the same time. `None`: somebody else
    /// uses it. Nobody waits for one, so locks may be taken in any order.
    ///
    /// Who has all page tables alone needs no lock. Who has one may keep it [apart](crate::sync::Apart) from the kernel.
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        // Only then: what is dropped unlocks.
        self.lock.claim().then(|| Locked(self))
    }

    /// Whether somebody uses it.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.is_claimed()
    }

    /// The root: what CR3 points at, and what names the space in a [`Flush`](crate::mm::Flush).
    #[must_use]
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// What the space is charged.
    #[inline(always)]
    pub(super) const fn charge(&self) -> &Charge {
        &self.charge
    }

    /// Where copy-on-write was broken last.
    #[inline(always)]
    pub(super) const fn streak(&self) -> &Streak {
        &self.streak
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
        let (mut stats, mut addr) = (SpaceStats::default(), 0);
        while addr < USER_END {
            addr = self.count_some(mm, addr, &mut stats);
        }
        stats
    }

    /// Counts what begins at `addr`, which is 0 or where this ended before, in a bounded number of
    /// instructions. Returns where to go on, up to the end of user memory.
    pub fn count_some(&self, mm: &Mm, mut addr: u64, stats: &mut SpaceStats) -> u64 {
        for _ in 0..COUNTED_TABLES {
            if addr >= USER_END {
                break;
            }
            addr = self.count_next(mm, addr, stats);
        }
        addr
    }

    /// Counts the pages of one lowest-level table, or in the place of one, and the tables that begin
    /// there. Returns where what was counted ends.
    fn count_next(&self, mm: &Mm, addr: u64, stats: &mut SpaceStats) -> u64 {
        let found = walk_to_page(&mm.map, self.root, addr);
        let lowest = found.map_or_else(|gap| gap.level, |leaf| leaf.level);
        stats.tables += (lowest..=ROOT)
            .filter(|level| addr.is_multiple_of(coverage(level + 1)))
            .count() as u64;
        match found {
            Ok(leaf) => {
                let is_own = Plan::new(mm, self.root).add(addr, 0);
                let entries = leaf.run(addr, u64::MAX).iter();
                for entry in entries.map(|place| Slot::new(place).get()) {
                    stats.count(mm, entry, is_own);
                }
                addr + coverage(1)
            }
            Err(gap) if gap.entry(addr).is_empty() => gap.end(addr, USER_END),
            Err(gap) => {
                stats.zero += coverage(gap.level) / coverage(0);
                addr + coverage(gap.level)
            }
        }
    }

    /// Releases all pages, all tables and the root, [later](fn@super::reap).
    ///
    /// No CPU may activate the space, and whoever has it active must leave it.
    pub fn destroy(self, mm: &Mm) {
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

impl Deref for Locked<'_> {
    type Target = PageTable;

    fn deref(&self) -> &PageTable {
        self.0
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.lock.release();
    }
}

/// How many entries of a table of this level are the space's own: of the root, the lower half.
pub(super) const fn nr_user_entries(level: u32) -> usize {
    if level == ROOT {
        NR_ENTRIES / 2
    } else {
        NR_ENTRIES
    }
}

impl SpaceStats {
    /// Counts a page. `is_own`: nobody shares its table.
    fn count(&mut self, mm: &Mm, entry: Entry, is_own: bool) {
        match entry.kind() {
            Kind::Empty | Kind::Condemned(_) => {}
            Kind::Zero => self.zero += 1,
            Kind::Shared(_) => self.shared += 1,
            Kind::Private(frame) if is_own && mm.counts.is_one(frame) => self.private += 1,
            Kind::Private(_) => self.cow_shared += 1,
        }
    }
}
