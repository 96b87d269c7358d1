//! Walking a page table, many neighbouring pages at a time.
//!
//! A [`Cursor`] remembers the last lowest-level table, so that a loop over pages walks from the
//! root once for every 2 MiB. Where an upper-level entry is empty it says how far the hole
//! reaches, so that 128 TiB of emptiness are one step.

use core::ops::Range;

use crate::{
    mm::{Frame, PhysMap, Reserve, Table, phys::FRAME_SIZE},
    vm::entry::{Entry, Slot},
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

/// There is no lowest-level table: where the path to it ends.
pub(super) struct Hole<'m> {
    table: &'m Table,
    level: u32,
}

impl Hole<'_> {
    /// The address of the first non-empty entry behind the empty one for `addr`; the end of what
    /// the table covers if there is none. At `limit` nobody is interested any more.
    fn end(&self, addr: u64, limit: u64) -> u64 {
        let start = addr >> shift(self.level);
        let most = (limit - 1 >> shift(self.level)) - start;
        let behind = &self.table[index(addr, self.level) + 1..];
        let nr_empty = behind
            .iter()
            .take(most as usize)
            .take_while(|place| Slot::new(place).get().is_empty())
            .count();
        (start + 1 + nr_empty as u64) << shift(self.level)
    }
}

/// A place in a page table.
pub(super) struct Cursor<'m> {
    map: &'m PhysMap,
    root: Frame,
    /// The table of the 2 MiB from this address.
    leaf: Option<(u64, &'m Table)>,
}

impl<'m> Cursor<'m> {
    pub(super) const fn new(map: &'m PhysMap, root: Frame) -> Self {
        Self {
            map,
            root,
            leaf: None,
        }
    }

    /// The entry for the page that contains `addr`, or the hole that does.
    pub(super) fn slot(&mut self, addr: u64) -> Result<Slot<'m>, Hole<'m>> {
        self.leaf(addr)
            .map(|table| Slot::new(&table[index(addr, 0)]))
    }

    /// The lowest-level table for `addr`, or the hole there.
    fn leaf(&mut self, addr: u64) -> Result<&'m Table, Hole<'m>> {
        let block = addr & !(coverage(1) - 1);
        if let Some((cached, table)) = self.leaf
            && cached == block
        {
            return Ok(table);
        }
        let mut table = self.map.table(self.root);
        for level in (1..LEVELS).rev() {
            let entry = Slot::new(&table[index(addr, level)]).get();
            let Some(below) = entry.table_below() else {
                return Err(Hole { table, level });
            };
            table = self.map.table(below);
        }
        self.leaf = Some((block, table));
        Ok(table)
    }

    /// The value of the entry for `addr`; empty where there is no table.
    pub(super) fn get(&mut self, addr: u64) -> Entry {
        self.slot(addr).map_or(Entry::EMPTY, Slot::get)
    }

    /// The first non-empty entry in the range, which then starts behind it.
    pub(super) fn next(&mut self, range: &mut Range<u64>) -> Option<(u64, Slot<'m>)> {
        while range.start < range.end {
            let addr = range.start;
            range.start = match self.leaf(addr) {
                Ok(table) => match Slot::new(&table[index(addr, 0)]) {
                    slot if slot.get().is_empty() => Hole { table, level: 0 }.end(addr, range.end),
                    slot => {
                        range.start += FRAME_SIZE;
                        return Some((addr, slot));
                    }
                },
                Err(hole) => hole.end(addr, range.end),
            };
        }
        None
    }

    /// The entry for `addr`; missing tables are made of frames from the reserve, and condemned
    /// ones are taken back into use.
    pub(super) fn make_slot(&mut self, addr: u64, reserve: &mut Reserve<'_>) -> Slot<'m> {
        let block = addr & !(coverage(1) - 1);
        if let Some((cached, table)) = self.leaf
            && cached == block
        {
            return Slot::new(&table[index(addr, 0)]);
        }
        let mut table = self.map.table(self.root);
        for level in (1..LEVELS).rev() {
            let slot = Slot::new(&table[index(addr, level)]);
            let below = match slot.get().table_below() {
                Some(below) => below,
                None => reserve.take_zeroed(),
            };
            let entry = slot.get();
            if entry.is_empty() || entry.is_condemned() {
                slot.set(Entry::table(below));
            }
            table = self.map.table(below);
        }
        self.leaf = Some((block, table));
        Slot::new(&table[index(addr, 0)])
    }

    /// How many tables exist on the path to the page at `addr`, without the root.
    fn depth(&self, addr: u64) -> u32 {
        let mut table = self.map.table(self.root);
        for level in (1..LEVELS).rev() {
            match Slot::new(&table[index(addr, level)]).get().table_below() {
                Some(below) => table = self.map.table(below),
                None => return LEVELS - 1 - level,
            }
        }
        LEVELS - 1
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

    /// The page at `addr` will be mapped.
    pub(super) fn add(&mut self, addr: u64) {
        if self.last[1] == addr >> shift(1) {
            return;
        }
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
            (0..nr_pages).for_each(|n| missing.add(addr + n * FRAME_SIZE));
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
