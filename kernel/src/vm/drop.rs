//! Emptying ranges: pages go, and tables when the last entry below them goes.
//!
//! One pass from the root takes entries away and notes what they named. The hardware caches
//! upper-level entries too, so tables wait for the flush as pages do. How many entries a table has in
//! use stands in the entry that names it, so nobody has to look through a table to find it empty.

use core::ops::Range;

use cowslip_abi::USER_END;

use crate::{
    mm::{Departing, Frame, Mm},
    vm::{
        cursor::{LEVELS, coverage, index, next_used},
        entry::{Entry, Kind, Pattern, Slot},
        remap::drop_alike,
    },
};

/// Empties the pages in `range`, which is in user memory, and takes away the tables that are empty
/// then, or were before.
pub(super) fn drop_range(mm: &Mm, root: Frame, range: &Range<u64>, departing: &mut Departing<'_>) {
    debug_assert!(range.end <= USER_END);
    if !range.is_empty() {
        drop_below(mm, root, root, LEVELS - 1, range, departing);
    }
}

/// Empties what is in `range` below the table, which must cover all of it. Returns how many of the
/// table's entries were emptied.
fn drop_below(
    mm: &Mm,
    root: Frame,
    table: Frame,
    level: u32,
    range: &Range<u64>,
    departing: &mut Departing<'_>,
) -> usize {
    if level == 0 {
        return drop_pages(mm, root, table, range, departing);
    }
    let table = mm.map.table(table);
    let end = index(range.end - 1, level) + 1;
    let (mut number, mut nr_emptied) = (index(range.start, level), 0);
    while let Some(used) = next_used(table, number, end) {
        number = used + 1;
        let slot = Slot::new(&table[used]);
        let entry = slot.get();
        let Some(below) = entry.table_below() else {
            continue;
        };
        let part = part(range, level, used);
        let left = entry.nr_used() - drop_below(mm, root, below, level - 1, &part, departing);
        if left > 0 {
            slot.set(entry.with_used(left));
        } else {
            slot.set(Entry::EMPTY);
            departing.flush().add(root, part.start);
            departing.add_sole(below);
            nr_emptied += 1;
        }
    }
    nr_emptied
}

/// The part of the range that the entry with this number covers.
fn part(range: &Range<u64>, level: u32, number: usize) -> Range<u64> {
    let table_start = range.start & !(coverage(level + 1) - 1);
    let start = table_start + number as u64 * coverage(level);
    start.max(range.start)..(start + coverage(level)).min(range.end)
}

fn drop_pages(
    mm: &Mm,
    root: Frame,
    table: Frame,
    range: &Range<u64>,
    departing: &mut Departing<'_>,
) -> usize {
    let table = mm.map.table(table);
    let (mut number, end) = (index(range.start, 0), index(range.end - 1, 0) + 1);
    let (mut nr_emptied, mut is_flushed) = (0, false);
    while let Some(used) = next_used(table, number, end) {
        let slot = Slot::new(&table[used]);
        let entry = slot.get();
        if entry.kind() != Kind::Zero && !is_flushed {
            is_flushed = true;
            departing.flush().add_range(root, range.start, range.end);
        }
        let mut nr_pages = 1;
        if let Some(pattern) = Pattern::like(entry, &mm.counts) {
            let places = &table[used..end];
            let room = departing.room(places.len());
            let (nr_alike, nr_counted) = drop_alike(places, pattern, room);
            departing.noted(nr_alike, nr_counted);
            nr_pages = nr_alike;
        } else {
            slot.set(Entry::EMPTY);
            if let Kind::Shared(frame) = entry.kind() {
                departing.add(frame);
            }
        }
        nr_emptied += nr_pages;
        number = used + nr_pages;
    }
    nr_emptied
}
