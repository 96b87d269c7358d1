//! The parts that a share consists of: what it does at once, of the highest level possible.

use core::{ops::Range, sync::atomic::AtomicU64};

use cowslip_abi::{Perm, ShareMode};

use super::Share;
use crate::{
    mm::phys::NR_ENTRIES,
    vm::{
        cursor::{Gap, View, congruent_level, highest_level, index, shift, walk},
        entry::{Entry, Slot},
    },
};

/// Entries of the source in one table, whose places in the destination are in one table too. The first
/// one is not empty. Above level 0 all of them go as they are.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) addr: u64,
    pub(super) level: u32,
    pub(super) nr_entries: u64,
}

impl Part {
    /// The end of what the entries cover.
    pub(super) const fn end(self) -> u64 {
        self.addr + (self.nr_entries << shift(self.level))
    }
}

impl<'m> Share<'m> {
    /// The next part of the range that has something; the range then starts behind it.
    pub(super) fn next_part(&self, rest: &mut Range<u64>) -> Option<Part> {
        while rest.start < rest.end {
            let addr = rest.start;
            let mut level = match self.mode {
                ShareMode::Shared => 0,
                _ => highest_level(addr, rest.end).min(congruent_level(self.distance)),
            };
            let empty = loop {
                match walk(&self.mm.map, self.src, addr, level) {
                    Ok(node) => {
                        let entry = node.slot(addr).get();
                        if entry.is_empty() {
                            break Gap::at(node);
                        }
                        if level == 0 || self.goes(entry) {
                            return Some(self.part(rest, level, node.run(addr, u64::MAX)));
                        }
                        level -= 1;
                    }
                    Err(gap) if gap.entry(addr).is_empty() => break gap,
                    Err(_) => return Some(self.part(rest, level, &[])),
                }
            };
            rest.start = empty.end(addr, rest.end);
        }
        None
    }

    /// The part that begins with the range, at entries of this level or in a gap.
    fn part(&self, rest: &mut Range<u64>, level: u32, entries: &[AtomicU64]) -> Part {
        let addr = rest.start;
        let numbers = [index(addr, level), index(self.to_dst(addr), level)];
        let room = NR_ENTRIES - numbers[0].max(numbers[1]);
        let mut nr_entries = (room as u64).min((rest.end - addr) >> shift(level));
        if level > 0 && !entries.is_empty() && (self.perm.is_some() || self.crosses) {
            let going = entries.iter().take(nr_entries as usize);
            let going = going.take_while(|place| self.goes(Slot::new(place).get()));
            nr_entries = going.count() as u64;
        }
        let part = Part {
            addr,
            level,
            nr_entries,
        };
        rest.start = part.end();
        part
    }

    /// Whether an entry above level 0 goes as it is.
    #[inline]
    fn goes(&self, entry: Entry) -> bool {
        match self.perm {
            _ if self.crosses => entry.table_below().is_none(),
            None => true,
            Some(perm) if entry.table_below().is_some() => perm == Perm::RW && entry.is_plain(),
            Some(_) => true,
        }
    }

    pub(super) fn source(&self, part: Part) -> View<'m> {
        let Part {
            addr,
            level,
            nr_entries,
        } = part;
        View::of(&self.mm.map, self.src, addr, level, nr_entries)
    }
}
