//! Simulated physical memory and TLBs, for tests on the host.
//!
//! [`SimMemory`] is real memory that stands for the machine's, with an [`Mm`] over it. The TLBs are
//! as stubborn as hardware may be: they keep every translation and every lower-level table that a
//! [`Cpu`] ever used until a flush names it. When a count is about to fall, the simulation panics if
//! a TLB still has a translation that the page table has taken back.
//!
//! TLBs belong to the thread, so tests in parallel do not disturb each other; a thread uses one
//! `SimMemory` at a time.

extern crate std;

use core::{cell::RefCell, sync::atomic::Ordering::Acquire};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    collections::BTreeMap,
    vec::Vec,
};

use cowslip_abi::{Access, PAGE_SIZE};

use super::{
    Flush, FlushPages, Mm,
    phys::{FRAME_SIZE, Frame, PhysAddr, PhysMap},
};

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
        Self {
            memory,
            layout,
            mm: Mm::new(map, flush),
        }
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
    /// Page-table entries as they were when they were used.
    pages: BTreeMap<Page, u64>,
    /// Lowest-level tables, by the first address that they cover.
    tables: BTreeMap<Page, Frame>,
    flushes: Vec<Flush>,
}

impl Tlb {
    fn walk(&mut self, map: PhysMap, page: Page) -> Option<u64> {
        let (_, root, addr) = page;
        let table = match self.tables.get(&block(page)) {
            Some(table) => *table,
            None => {
                let table = walk_to(map, root, addr, 1)?;
                self.tables.insert(block(page), table);
                table
            }
        };
        Some(map.table(table)[index(addr, 0)].load(Acquire))
    }
}

fn block((cpu, root, addr): Page) -> Page {
    (cpu, root, addr >> 21 << 21)
}

fn index(addr: u64, level: u32) -> usize {
    (addr >> (12 + 9 * level)) as usize % 512
}

fn allows(entry: u64, access: Access) -> bool {
    match access {
        Access::Read => true,
        Access::Write => entry & WRITABLE != 0,
        Access::Execute => entry & NO_EXECUTE == 0,
    }
}

/// The frame named by the present entry of this level, as the hardware walks.
fn walk_to(map: PhysMap, root: Frame, addr: u64, level: u32) -> Option<Frame> {
    (level..4).rev().try_fold(root, |table, level| {
        let entry = map.table(table)[index(addr, level)].load(Acquire);
        (entry & PRESENT != 0).then(|| Frame::of_entry(entry))
    })
}

/// The hook of [`Mm`].
fn flush(flush: &Flush) {
    TLB.with_borrow_mut(|tlb| {
        tlb.flushes.push(*flush);
        for space in flush.spaces() {
            tlb.pages
                .retain(|&(_, root, page), _| root != space.root || !covers(space.pages, page));
            // An INVLPG drops all cached upper-level entries of the space.
            tlb.tables.retain(|&(_, root, _), _| root != space.root);
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

impl Tlb {
    /// Panics if there is more in a TLB than in the page tables, for the frames selected.
    fn check(&self, map: PhysMap, selected: impl Fn(Frame) -> bool) {
        for (&(cpu, root, addr), &cached) in &self.pages {
            let frame = Frame::of_entry(cached);
            if !selected(frame) {
                continue;
            }
            let live = walk_to(map, root, addr, 1)
                .map_or(0, |table| map.table(table)[index(addr, 0)].load(Acquire));
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
        for (&(cpu, root, addr), &table) in &self.tables {
            let stale = selected(table) && walk_to(map, root, addr, 1) != Some(table);
            assert!(
                !stale,
                "{cpu:?} has {table:?} cached as the table of {addr:#x}"
            );
        }
    }
}
