//! Walking a page table, many neighbouring pages at a time.
//!
//! A [`Cursor`] remembers the last lowest-level table, so that a loop over pages walks from the
//! root once for every 2 MiB. Where an upper-level entry is empty it says how far the hole
//! reaches, so that 128 TiB of emptiness are one step.

use core::{ops::Range, sync::atomic::AtomicU64};

use crate::{
    mm::{Frame, PhysMap, Reserve, Table, phys::FRAME_SIZE},
    vm::entry::{Entry, Slot, are_empty},
};

/// Levels of a page table. Level 0 has the pages.
pub(super) const LEVELS: u32 = 4;

/// Log2 of the bytes that an entry of this level covers.
pub(super) const fn shift(level: u32) -> u32 {
    12 + 9 * level
}

/// Bytes that an entry of this level covers.
pub(super) const fn coverage(level: u32) -> u64 {
    1 << shift(level)
}

/// The index of the entry for `addr` in a table of this level.
pub(super) const fn index(addr: u64, level: u32) -> usize {
    (addr >> shift(level)) as usize % 512
}

/// The start of the 2 MiB that `addr` is in.
const fn block_of(addr: u64) -> u64 {
    addr & !(coverage(1) - 1)
}

/// There is no lowest-level table: where the path to it ends.
pub(super) struct Hole<'m> {
    table: &'m Table,
    level: u32,
}

impl Hole<'_> {
    /// The address of the first non-empty entry behind the empty one for `addr`; the end of what
    /// the table covers if there is none. At `limit` nobody is interested any more.
    fn end(&self, addr: u64, limit: u64) -> u64 {
        let number = index(addr, self.level);
        let start = (addr >> shift(self.level)) - number as u64;
        let wanted = (((limit - 1) >> shift(self.level)) - start + 1).min(512) as usize;
        let next = next_used(self.table, number + 1, wanted).unwrap_or(wanted);
        (start + next as u64) << shift(self.level)
    }
}

/// The first non-empty entry of a table from `from` on and below `end`. Most tables are mostly
/// empty, so entries are looked at eight at a time where that is possible.
#[inline]
pub(super) fn next_used(table: &Table, from: usize, end: usize) -> Option<usize> {
    const GROUP: usize = 8;
    let mut number = from;
    while number < end {
        if number.is_multiple_of(GROUP)
            && let Some(group) = table[number..end].first_chunk::<GROUP>()
            && are_empty(group)
        {
            number += GROUP;
        } else if Slot::new(&table[number]).get().is_empty() {
            number += 1;
        } else {
            return Some(number);
        }
    }
    None
}

/// A table of the lowest level, and what names it.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'m> {
    pub(super) table: &'m Table,
    named_by: Slot<'m>,
}

impl<'m> Leaf<'m> {
    /// The entry for the page that contains `addr`.
    #[inline]
    pub(super) fn slot(self, addr: u64) -> Slot<'m> {
        Slot::new(&self.table[index(addr, 0)])
    }

    /// The entries of the pages from `addr` on: at most `wanted`, and as far as the table goes.
    #[inline]
    pub(super) fn run(self, addr: u64, wanted: u64) -> &'m [AtomicU64] {
        let rest = &self.table[index(addr, 0)..];
        &rest[..rest.len().min(wanted as usize)]
    }

    /// How many entries are not empty.
    #[inline]
    pub(super) fn nr_used(self) -> usize {
        self.named_by.get().nr_used()
    }

    /// Notes that so many empty entries came into use.
    #[inline]
    pub(super) fn add_used(self, nr_entries: usize) {
        let entry = self.named_by.get();
        self.named_by
            .set(entry.with_used(entry.nr_used() + nr_entries));
    }

    /// Notes that so many entries were emptied; whether the table is empty.
    #[inline]
    pub(super) fn subtract_used(self, nr_entries: usize) -> bool {
        let entry = self.named_by.get();
        let left = entry.nr_used() - nr_entries;
        self.named_by.set(entry.with_used(left));
        left == 0
    }
}

/// The lowest-level table for `addr`, or the hole there: one walk from the root.
#[inline]
pub(super) fn walk(map: &PhysMap, root: Frame, addr: u64) -> Result<Leaf<'_>, Hole<'_>> {
    let mut table = map.table(root);
    for level in (2..LEVELS).rev() {
        let entry = Slot::new(&table[index(addr, level)]).get();
        let Some(below) = entry.table_below() else {
            return Err(Hole { table, level });
        };
        table = map.table(below);
    }
    let named_by = Slot::new(&table[index(addr, 1)]);
    match named_by.get().table_below() {
        Some(below) => Ok(Leaf {
            table: map.table(below),
            named_by,
        }),
        None => Err(Hole { table, level: 1 }),
    }
}

/// A place in a page table.
pub(super) struct Cursor<'m> {
    map: &'m PhysMap,
    root: Frame,
    /// The table of the 2 MiB from this address.
    leaf: Option<(u64, Leaf<'m>)>,
}

impl<'m> Cursor<'m> {
    #[inline]
    pub(super) const fn new(map: &'m PhysMap, root: Frame) -> Self {
        Self {
            map,
            root,
            leaf: None,
        }
    }

    /// The entry for the page that contains `addr`, or the hole that does.
    #[inline]
    pub(super) fn slot(&mut self, addr: u64) -> Result<Slot<'m>, Hole<'m>> {
        self.leaf(addr).map(|leaf| leaf.slot(addr))
    }

    /// The lowest-level table for `addr`, or the hole there.
    #[inline]
    pub(super) fn leaf(&mut self, addr: u64) -> Result<Leaf<'m>, Hole<'m>> {
        match self.recent(addr) {
            Some(leaf) => Ok(leaf),
            None => self.walk(addr),
        }
    }

    /// The lowest-level table for `addr`, if it is the one that was used last.
    #[inline]
    fn recent(&self, addr: u64) -> Option<Leaf<'m>> {
        let (block, leaf) = self.leaf?;
        (block == block_of(addr)).then_some(leaf)
    }

    #[inline(never)]
    fn walk(&mut self, addr: u64) -> Result<Leaf<'m>, Hole<'m>> {
        let leaf = walk(self.map, self.root, addr)?;
        self.leaf = Some((block_of(addr), leaf));
        Ok(leaf)
    }

    /// The value of the entry for `addr`; empty where there is no table.
    #[inline]
    pub(super) fn get(&mut self, addr: u64) -> Entry {
        self.slot(addr).map_or(Entry::EMPTY, Slot::get)
    }

    /// The first non-empty entry in the range, which then starts behind it.
    #[inline]
    pub(super) fn next(&mut self, range: &mut Range<u64>) -> Option<(u64, Slot<'m>)> {
        let addr = range.start;
        if addr < range.end
            && let Some(leaf) = self.recent(addr)
        {
            let slot = leaf.slot(addr);
            if !slot.get().is_empty() {
                range.start += FRAME_SIZE;
                return Some((addr, slot));
            }
        }
        self.seek(range)
    }

    /// The same, where it is not the next entry of the same table.
    #[inline(never)]
    fn seek(&mut self, range: &mut Range<u64>) -> Option<(u64, Slot<'m>)> {
        while range.start < range.end {
            let addr = range.start;
            let hole = match self.leaf(addr) {
                Ok(leaf) => {
                    let slot = leaf.slot(addr);
                    if !slot.get().is_empty() {
                        range.start += FRAME_SIZE;
                        return Some((addr, slot));
                    }
                    Hole {
                        table: leaf.table,
                        level: 0,
                    }
                }
                Err(hole) => hole,
            };
            range.start = hole.end(addr, range.end);
        }
        None
    }

    /// The part of the range that is in the next lowest-level table, with that table; the range then
    /// starts behind it. Where there are no tables, nothing is.
    pub(super) fn next_leaf(&mut self, range: &mut Range<u64>) -> Option<(Range<u64>, Leaf<'m>)> {
        while range.start < range.end {
            let start = range.start;
            match self.leaf(start) {
                Ok(leaf) => {
                    let end = range.end.min(block_of(start) + coverage(1));
                    range.start = end;
                    return Some((start..end, leaf));
                }
                Err(hole) => range.start = hole.end(start, range.end),
            }
        }
        None
    }

    /// The lowest-level table for `addr`; missing tables are made of frames from the reserve.
    #[inline]
    pub(super) fn make_leaf(&mut self, addr: u64, reserve: &mut Reserve<'_>) -> Leaf<'m> {
        match self.recent(addr) {
            Some(leaf) => leaf,
            None => self.make_tables(addr, reserve),
        }
    }

    #[inline(never)]
    fn make_tables(&mut self, addr: u64, reserve: &mut Reserve<'_>) -> Leaf<'m> {
        let mut table = self.map.table(self.root);
        let mut named_by: Option<Slot<'m>> = None;
        for level in (1..LEVELS).rev() {
            let slot = Slot::new(&table[index(addr, level)]);
            let below = match slot.get().table_below() {
                Some(below) => below,
                None => {
                    let made = reserve.take_zeroed();
                    slot.set(Entry::table(made));
                    if let Some(upper) = named_by {
                        let entry = upper.get();
                        upper.set(entry.with_used(entry.nr_used() + 1));
                    }
                    made
                }
            };
            named_by = Some(slot);
            table = self.map.table(below);
        }
        let named_by = named_by.expect("there are upper levels");
        let leaf = Leaf { table, named_by };
        self.leaf = Some((block_of(addr), leaf));
        leaf
    }

    /// How many tables exist on the path to the page at `addr`, without the root.
    fn depth(&self, addr: u64) -> u32 {
        match walk(self.map, self.root, addr) {
            Ok(_) => LEVELS - 1,
            Err(hole) => LEVELS - 1 - hole.level,
        }
    }
}

/// Counts the tables that have to be made for pages at ascending addresses.
pub(super) struct Missing<'m> {
    cursor: Cursor<'m>,
    /// For each upper level, the last address (without the bits below) that was looked at.
    last: [u64; LEVELS as usize],
    nr_tables: usize,
}

impl<'m> Missing<'m> {
    pub(super) const fn new(map: &'m PhysMap, root: Frame) -> Self {
        Self {
            cursor: Cursor::new(map, root),
            last: [u64::MAX; LEVELS as usize],
            nr_tables: 0,
        }
    }

    /// The pages of the range, at least one, will be mapped.
    pub(super) fn add(&mut self, range: Range<u64>) {
        let mut addr = range.start;
        while addr < range.end {
            if self.last[1] != addr >> shift(1) {
                self.add_block(addr);
            }
            addr = block_of(addr) + coverage(1);
        }
    }

    fn add_block(&mut self, addr: u64) {
        let depth = self.cursor.depth(addr);
        for level in 1..LEVELS {
            let block = addr >> shift(level);
            if LEVELS - level > depth && self.last[level as usize] != block {
                self.nr_tables += 1;
            }
            self.last[level as usize] = block;
        }
    }

    /// So many frames are needed.
    pub(super) const fn nr_tables(&self) -> usize {
        self.nr_tables
    }
}

#[cfg(test)]
mod tests {
    use cowslip_abi::Perm;

    use super::*;
    use crate::{mm::sim::SimMemory, vm::PageTable};

    const GIB: u64 = 1 << 30;

    #[test]
    #[cfg_attr(miri, ignore = "slow")]
    fn missing_tables_are_counted_exactly() {
        let sim = SimMemory::new(64);
        let mm = sim.mm();
        let table = PageTable::new(mm, &[0; 256]).unwrap();
        for (addr, nr_pages) in [
            (0, 1),
            (FRAME_SIZE, 511),
            (coverage(1), 1),
            (3 * GIB - FRAME_SIZE, 2),
            (coverage(3) - 2 * FRAME_SIZE, 4),
            (2 * coverage(3) - 700 * FRAME_SIZE, 1400),
        ] {
            let len = nr_pages * FRAME_SIZE;
            let mut missing = Missing::new(&mm.map, table.root());
            missing.add(addr..addr + len);
            let before = table.statistics(mm).tables;
            table.map_zero(mm, addr, len, Perm::R).unwrap();
            let made = table.statistics(mm).tables - before;
            assert_eq!(
                missing.nr_tables() as u64,
                made,
                "{nr_pages} pages at {addr:#x}"
            );
        }
        table.destroy(mm);
    }
}
