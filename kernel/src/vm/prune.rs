//! Freeing page-table frames when the last page below them goes.
//!
//! The hardware caches upper-level entries too, so a table may be freed only after a flush. It is
//! condemned first, like a page: its entry becomes non-present and keeps the address. One flush
//! then covers pages and tables.

use core::ops::Range;

use crate::{
    mm::{Flush, Flushed, Frame, Mm},
    vm::{
        cursor::{LEVELS, coverage, index, next_used},
        entry::{Entry, Slot},
        table::nr_user_entries,
    },
};

/// Condemns the tables that will be empty when every page in `range` is.
pub(super) fn condemn_tables(mm: &Mm, root: Frame, range: &Range<u64>, flush: &mut Flush) {
    for (slot, part) in parts(mm, root, LEVELS - 1, range) {
        condemn(mm, root, LEVELS - 1, slot, &part, flush);
    }
}

/// Condemns the table that the entry at `level` names, if nothing will be left below. `range` is
/// the part of the dying pages that lies below.
fn condemn(
    mm: &Mm,
    root: Frame,
    level: u32,
    slot: Slot<'_>,
    range: &Range<u64>,
    flush: &mut Flush,
) {
    let Some(table) = slot.get().table_below() else {
        return;
    };
    let level_below = level - 1;
    if level_below > 0 {
        for (slot, part) in parts(mm, table, level_below, range) {
            condemn(mm, root, level_below, slot, &part, flush);
        }
    }
    let dying = index(range.start, level_below)..index(range.end - 1, level_below) + 1;
    let table = mm.map.table(table);
    let mut number = 0;
    let is_dead = loop {
        let Some(used) = next_used(table, number, nr_user_entries(level_below)) else {
            break true;
        };
        let entry = Slot::new(&table[used]).get();
        if level_below == 0 && dying.contains(&used) {
            number = dying.end;
        } else if entry.is_condemned() {
            number = used + 1;
        } else {
            break false;
        }
    };
    if is_dead {
        slot.set(slot.get().condemned());
        flush.add(root, range.start);
    }
}

/// Frees the tables in `range` that are condemned still. Their pages have been released.
pub(super) fn free_tables(mm: &Mm, root: Frame, range: &Range<u64>, flushed: &Flushed) {
    free(mm, root, LEVELS - 1, range, flushed);
}

fn free(mm: &Mm, table: Frame, level: u32, range: &Range<u64>, flushed: &Flushed) {
    for (slot, part) in parts(mm, table, level, range) {
        let entry = slot.get();
        let Some(below) = entry.table_below() else {
            continue;
        };
        if level > 1 {
            free(mm, below, level - 1, &part, flushed);
        }
        if entry.is_condemned() {
            slot.set(Entry::EMPTY);
            mm.release(below, flushed);
        }
    }
}

/// The entries of a table for `range`, each with its part of the range. The table must cover all of
/// the range.
fn parts<'m>(
    mm: &'m Mm,
    table: Frame,
    level: u32,
    range: &Range<u64>,
) -> impl Iterator<Item = (Slot<'m>, Range<u64>)> {
    let Range { mut start, end } = *range;
    let table = mm.map.table(table);
    core::iter::from_fn(move || {
        if start >= end {
            return None;
        }
        let part = start..end.min((start | (coverage(level) - 1)) + 1);
        start = part.end;
        Some((Slot::new(&table[index(part.start, level)]), part))
    })
}
