//! Simulated physical memory and TLBs, for tests on the host.
//!
//! [`SimMemory`] is real memory that stands for the machine's, with an [`Mm`] over it. The TLBs are
//! as stubborn as hardware may be: they keep every translation and every table of any level that a
//! [`Cpu`] ever used, with the right to write below it, until a flush names it. When a count is about to fall, the simulation panics if
//! a TLB still has a translation that the page table has taken back.
//!
//! TLBs belong to the thread, so tests in parallel do not disturb each other; a thread uses one
//! `SimMemory` at a time.

extern crate std;

use core::{
    cell::RefCell,
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed},
    },
};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    collections::BTreeMap,
    vec::Vec,
};

use cowslip_abi::{Access, PAGE_SIZE};

use super::{
    Flush, FlushPages, Mm,
    phys::{FRAME_SIZE, Frame, INDEX_BITS, NR_ENTRIES, PhysAddr, PhysMap},
};
use crate::sync::MAX_CPUS;

/// The level of the root.
const ROOT: u32 = 3;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const NO_EXECUTE: u64 = 1 << 63;

/// Memory that stands for a machine's.
pub struct SimMemory {
    memory: *mut u8,
    layout: Layout,
    mm: Mm,
}

impl SimMemory {
    /// `nr_frames` frames from physical address 0, all usable but frame 0.
    #[must_use]
    pub fn new(nr_frames: usize) -> Self {
        let sim = Self::at(0, nr_frames);
        let end = PhysAddr(nr_frames as u64 * FRAME_SIZE);
        let covered = sim.mm.cover(PhysAddr(0), end);
        covered.expect("a few frames more");
        sim
    }

    /// `nr_frames` usable frames from physical address `start`, without room for their counts. There
    /// is nothing below.
    #[must_use]
    pub fn at(start: u64, nr_frames: usize) -> Self {
        let sim = Self::with_start(start, nr_frames);
        let end = start + nr_frames as u64 * FRAME_SIZE;
        sim.mm.frames.add_range(PhysAddr(start), PhysAddr(end));
        sim
    }

    /// `nr_frames` frames from physical address 0, none of them added to the allocator.
    #[must_use]
    pub fn empty(nr_frames: usize) -> Self {
        Self::with_start(0, nr_frames)
    }

    fn with_start(start: u64, nr_frames: usize) -> Self {
        let layout = Layout::from_size_align(nr_frames * PAGE_SIZE, PAGE_SIZE)
            .expect("a sensible number of frames");
        assert!(nr_frames > 0);
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        TLB.with_borrow_mut(|tlb| *tlb = Tlb::default());
        let base = memory.wrapping_sub(start as usize);
        // SAFETY: the memory lives as long as `mm`, and only the map reaches it; tests pass no
        // frame below `start`.
        let map = unsafe { PhysMap::new(base, start + nr_frames as u64 * FRAME_SIZE) };
        let mm = Mm::new(map, flush, here);
        mm.frames.stock_up(MAX_CPUS);
        Self { memory, layout, mm }
    }

    /// The memory as the kernel sees it.
    #[must_use]
    pub fn mm(&self) -> &Mm {
        &self.mm
    }

    /// Panics if a TLB allows anything that the page tables do not: an operation forgot to flush.
    pub fn check_tlbs(&self) {
        TLB.with_borrow(|tlb| tlb.check(self.mm.map, |_| true));
    }

    /// How many flushes were done.
    #[must_use]
    pub fn nr_flushes(&self) -> usize {
        TLB.with_borrow(|tlb| tlb.flushes.len())
    }

    /// The flushes done since the last call.
    #[must_use]
    pub fn take_flushes(&self) -> Vec<Flush> {
        TLB.with_borrow_mut(|tlb| core::mem::take(&mut tlb.flushes))
    }
}

impl Drop for SimMemory {
    fn drop(&mut self) {
        TLB.with_borrow_mut(|tlb| *tlb = Tlb::default());
        // SAFETY: allocated in `with_start` with this layout, and nothing refers to it any more.
        unsafe { dealloc(self.memory, self.layout) }
    }
}

/// A number for each thread, as if it were a CPU.
pub fn here() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static HERE: usize = NEXT.fetch_add(1, Relaxed) % MAX_CPUS;
    }
    HERE.with(|here| *here)
}

/// A CPU, as far as memory is concerned: a number that names its TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(pub u8);

impl Cpu {
    /// The frame that an access of user code reaches, or `None` for a page fault.
    ///
    /// As in hardware, a fault drops what the TLB has for the page, on this CPU only. The table
    /// stays cached: hardware may have walked to it again, speculatively.
    #[must_use]
    pub fn translate(self, mm: &Mm, root: Frame, addr: u64, access: Access) -> Option<Frame> {
        TLB.with_borrow_mut(|tlb| {
            let page = (self, root, addr & !(FRAME_SIZE - 1));
            let found = match tlb.pages.get(&page) {
                Some(cached) => Some(*cached),
                None => tlb.walk(mm.map, page).filter(|entry| entry & PRESENT != 0),
            };
            match found.filter(|entry| allows(*entry, access)) {
                Some(entry) => {
                    tlb.pages.insert(page, entry);
                    Some(Frame::of_entry(entry))
                }
                None => {
                    tlb.pages.remove(&page);
                    None
                }
            }
        })
    }
}

type Page = (Cpu, Frame, u64);

std::thread_local! {
    static TLB: RefCell<Tlb> = RefCell::default();
}

/// The TLBs of all CPUs.
#[derive(Default)]
struct Tlb {
    /// Page-table entries as they were when they were used; writable only if all entries on the way
    /// were.
    pages: BTreeMap<Page, u64>,
    /// Tables below the root, by the first address that they cover and their level.
    tables: BTreeMap<(Page, u32), Table>,
    flushes: Vec<Flush>,
}

/// A table, as a TLB knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Table {
    frame: Frame,
    /// Whether all entries on the way allow writing.
    is_writable: bool,
}

impl Table {
    /// The root, and the tables on the way to `addr`, with their levels.
    fn path(map: PhysMap, root: Frame, addr: u64) -> impl Iterator<Item = (u32, Self)> {
        let first = Self {
            frame: root,
            is_writable: true,
        };
        let next = move |(level, table): &(u32, Self)| {
            let below = table.below(map, addr, *level)?;
            Some((*level - 1, below))
        };
        core::iter::successors(Some((ROOT, first)), next).take(ROOT as usize + 1)
    }

    /// The next table on the way to `addr`.
    fn below(self, map: PhysMap, addr: u64, level: u32) -> Option<Self> {
        if level == 0 {
            return None;
        }
        // Without W if this table has none.
        let entry = self.entry(map, addr, level);
        (entry & PRESENT != 0).then(|| Self {
            frame: Frame::of_entry(entry),
            is_writable: entry & WRITABLE != 0,
        })
    }

    /// The entry for `addr`, writable only if this table is.
    fn entry(self, map: PhysMap, addr: u64, level: u32) -> u64 {
        let entry = map.table(self.frame)[index(addr, level)].load(Acquire);
        if self.is_writable {
            entry
        } else {
            entry & !WRITABLE
        }
    }
}

impl Tlb {
    /// The entry for a page, from the lowest table that is cached on, and perhaps not up to date. All
    /// tables on the way are cached then.
    fn walk(&mut self, map: PhysMap, page: Page) -> Option<u64> {
        let (_, root, addr) = page;
        let cached = (0..ROOT).find_map(|level| {
            let table = self.tables.get(&(block(page, level), level))?;
            Some((level, *table))
        });
        let top = Table {
            frame: root,
            is_writable: true,
        };
        let (mut level, mut table) = cached.unwrap_or((ROOT, top));
        while level > 0 {
            table = table.below(map, addr, level)?;
            level -= 1;
            self.tables.insert((block(page, level), level), table);
        }
        Some(table.entry(map, addr, 0))
    }
}

/// What a table of this level covers.
fn block((cpu, root, addr): Page, level: u32) -> Page {
    let shift = 12 + INDEX_BITS * (level + 1);
    (cpu, root, addr >> shift << shift)
}

fn index(addr: u64, level: u32) -> usize {
    (addr >> (12 + INDEX_BITS * level)) as usize % NR_ENTRIES
}

fn allows(entry: u64, access: Access) -> bool {
    match access {
        Access::Read => true,
        Access::Write => entry & WRITABLE != 0,
        Access::Execute => entry & NO_EXECUTE == 0,
    }
}

/// The entry for a page, as a TLB finds it that has nothing cached.
fn live_entry(map: PhysMap, root: Frame, addr: u64) -> u64 {
    match Table::path(map, root, addr).last() {
        Some((0, table)) => table.entry(map, addr, 0),
        _ => 0,
    }
}

/// The hook of [`Mm`].
fn flush(flush: &Flush) {
    TLB.with_borrow_mut(|tlb| {
        tlb.flushes.push(*flush);
        for space in flush.spaces() {
            tlb.pages
                .retain(|&(_, root, page), _| root != space.root || !covers(space.pages, page));
            // An INVLPG drops all cached upper-level entries of the space.
            tlb.tables
                .retain(|&((_, root, _), _), _| root != space.root);
        }
    });
}

fn covers(pages: FlushPages, page: u64) -> bool {
    match pages {
        FlushPages::Range { start, end } => (start..end).contains(&page),
        FlushPages::All => true,
    }
}

/// Panics if a TLB can reach `frame` in a way that the page tables no longer allow.
pub(super) fn check_release(map: PhysMap, frame: Frame) {
    TLB.with_borrow(|tlb| tlb.check(map, |named| named == frame));
}

/// The frames of some entries: what they name before an operation, to be
/// [checked](Self::check_released) when it is done.
pub struct Named(Vec<Frame>);

impl Named {
    /// The frames that the present entries name.
    #[must_use]
    pub fn by(places: &[AtomicU64]) -> Self {
        let entries = places.iter().map(|place| place.load(Acquire));
        let present = entries.filter(|entry| entry & PRESENT != 0);
        Self(present.map(Frame::of_entry).collect())
    }

    /// The same check as whenever a count falls, for counts that fell while their table was out of
    /// reach.
    pub fn check_released(self, map: PhysMap) {
        self.0
            .into_iter()
            .for_each(|frame| check_release(map, frame));
    }
}

impl Tlb {
    /// Panics if there is more in a TLB than in the page tables, for the frames selected.
    fn check(&self, map: PhysMap, selected: impl Fn(Frame) -> bool) {
        for (&(cpu, root, addr), &cached) in &self.pages {
            let frame = Frame::of_entry(cached);
            if !selected(frame) {
                continue;
            }
            let live = live_entry(map, root, addr);
            let allowed = live & PRESENT != 0
                && Frame::of_entry(live) == frame
                && [Access::Write, Access::Execute]
                    .into_iter()
                    .all(|access| allows(live, access) || !allows(cached, access));
            assert!(
                allowed,
                "{cpu:?} has a stale translation of {addr:#x} to {frame:?}"
            );
        }
        for (&((cpu, root, addr), level), &cached) in &self.tables {
            if !selected(cached.frame) {
                continue;
            }
            let live = Table::path(map, root, addr).find(|(live_level, _)| *live_level == level);
            let is_stale = live.is_none_or(|(_, live)| {
                live.frame != cached.frame || cached.is_writable && !live.is_writable
            });
            assert!(
                !is_stale,
                "{cpu:?} has {:?} cached as the table of level {level} for {addr:#x}",
                cached.frame
            );
        }
    }
}
