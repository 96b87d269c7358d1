//! What a share takes, and whether it may be done: the first of its two phases.

use core::ops::Range;

use cowslip_abi::{Error, ShareMode};

use super::{Share, parts::Part};
use crate::vm::{
    Effort, VmError,
    commit::{self, Loss, NewTables},
    cursor::{USER_END, View, is_vacant},
    open::Plan,
};

/// What a share takes, as far as it was checked.
pub(super) struct Planned {
    pub(super) nr_bytes: u64,
    pub(super) nr_src_frames: usize,
    nr_dst_frames: usize,
    /// What the destination is charged.
    pub(super) charge: u64,
}

impl Planned {
    pub(super) const fn nr_frames(&self) -> usize {
        self.nr_src_frames + self.nr_dst_frames
    }
}

impl<'m> Share<'m> {
    /// Checks both sides as far as the effort goes, and counts the frames that it takes.
    pub(super) fn plan(&self, limit: Effort) -> Result<Planned, VmError> {
        let Range { start, end } = self.range;
        let target = self.to_dst(start)..self.to_dst(start) + (end - start);
        let is_known_vacant = self.tables[1].is_empty();
        if !is_known_vacant && !is_vacant(&self.mm.map, self.dst, &target) {
            return Err(Error::Occupied);
        }
        let mut dst = Plan::new(self.mm, self.dst);
        let mut src = Plan::new(self.mm, self.src);
        let (mut nr_pages, mut left) = (0, limit);
        // Where every page keeps its rights and no bytes are copied, nothing can be wrong with one.
        let is_plain = self.perm.is_none() && self.mode != ShareMode::Shared && !self.crosses;
        let (mut expected, mut rest) = (start, self.range.clone());
        let mut counted = self.counted();
        while !left.is_spent()
            && let Some(mut part) = self.next_part(&mut rest)
        {
            if self.perm.is_some() && part.addr != expected {
                return Err(Error::NotMapped);
            }
            dst.add(self.to_dst(part.addr), part.level);
            if counted.is_some() && part.level > 1 {
                part.nr_entries = part.nr_entries.min(left.times(Effort::SCAN));
                rest.start = part.end();
                left.spend(Effort::SCAN, part.nr_entries as usize);
            }
            let is_own = match self.mode {
                ShareMode::CopyOnWrite => true,
                _ => src.add(part.addr, part.level),
            };
            if is_plain {
                left.spend(Effort::PAGE, part.nr_entries as usize);
            } else {
                nr_pages += self.plan_entries(&mut part, is_own, &mut left)?;
                rest.start = part.end();
            }
            if let Some((tables, charge)) = &mut counted {
                *charge += tables.above(self.to_dst(part.addr), part.level) + self.charge(part);
            }
            expected = part.end();
            // Much memory may be reserved, and what cannot be had need not be counted to the end.
            if nr_pages as u64 > self.mm.frames.total_count() {
                return Err(Error::NoMemory);
            }
        }
        let reached = if left.is_spent() { rest.start } else { end };
        if self.perm.is_some() && expected != reached {
            return Err(Error::NotMapped);
        }
        let charge = match counted {
            _ if reached == start => 0,
            Some((_, charge)) => charge,
            None if self.perm.is_some() => {
                let target = target.start..self.to_dst(reached);
                commit::of_vacant(self.mm, self.dst, &target) - self.nr_tables_before(target.start)
            }
            None if reached < end => 0,
            None => self.tables[0].commit() - self.tables[1].commit(),
        };
        let nr_src_pages = match self.mode {
            ShareMode::Shared => nr_pages,
            _ => 0,
        };
        Ok(Planned {
            nr_bytes: reached - start,
            nr_src_frames: src.nr_frames() + nr_src_pages,
            nr_dst_frames: dst.nr_frames() + nr_pages - nr_src_pages,
            charge,
        })
    }

    /// Counts what the destination is charged, where it has to be counted: not if there are no holes
    /// in the source, and not if an empty space gets all that another one has at once.
    fn counted(&self) -> Option<(NewTables<'m>, u64)> {
        let is_all = self.range.start == 0 && self.range.end >= USER_END && self.distance == 0;
        let is_copy = self.is_whole && is_all && self.tables[1].is_empty();
        if self.perm.is_some() || is_copy {
            return None;
        }
        let mut tables = NewTables::new(self.mm, self.dst);
        let (start, before) = (self.range.start, self.nr_before);
        if before > 0 {
            let is_counted = |nr_bytes: u64| {
                let counted = start - nr_bytes.min(before)..start;
                !is_vacant(&self.mm.map, self.src, &counted)
            };
            tables.skip(self.to_dst(start), is_counted);
        }
        Some((tables, 0))
    }

    /// How many of the tables that are missing at `addr` of the destination are charged with what is
    /// before it, if all of that is mapped.
    fn nr_tables_before(&self, addr: u64) -> u64 {
        match self.nr_before {
            0 => 0,
            _ => commit::nr_begun(self.mm, self.dst, addr),
        }
    }

    /// What the entries of a part are charged.
    fn charge(&self, part: Part) -> u64 {
        match self.source(part) {
            View::Entries(places) => commit::of_entries(self.mm, places, part.level),
            View::Gap(_, len) => len as u64 * commit::of_zero(part.level),
        }
    }

    /// What the source of a move is charged less.
    pub(super) fn loss(&self) -> u64 {
        let is_filled = |block: &Range<u64>| {
            let (mm, src) = (self.mm, self.src);
            src == self.dst && commit::brings_into(mm, src, &self.range, self.distance, block)
        };
        let loss = Loss {
            mm: self.mm,
            is_filled: &is_filled,
        };
        loss.of(self.src, &self.range)
    }

    /// Checks the entries of a part, which ends where the effort does. Returns how many frames their
    /// pages take.
    fn plan_entries(
        &self,
        part: &mut Part,
        is_own: bool,
        left: &mut Effort,
    ) -> Result<usize, VmError> {
        let source = self.source(*part);
        let mut nr_pages = 0;
        for number in 0..source.len() {
            let entry = source.get(number);
            left.spend(Effort::PAGE, 1);
            if entry.is_empty() {
                if self.perm.is_some() {
                    return Err(Error::NotMapped);
                }
            } else if entry.table_below().is_none() || part.level == 0 {
                self.check_rights(entry)?;
                if self.takes_frame(entry, is_own) {
                    nr_pages += 1;
                    left.spend(Effort::BYTES, 1);
                }
            }
            if left.is_spent() {
                part.nr_entries = number as u64 + 1;
                break;
            }
        }
        Ok(nr_pages)
    }
}
