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
        entry::{Entry, Kind, Slot},
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
    let end = index(range.end - 1, 0) + 1;
    let mut nr_emptied = 0;
    let mut is_named = false;
    for place in &table[index(range.start, 0)..end] {
        let slot = Slot::new(place);
        let entry = slot.get();
        if !entry.is_empty() {
            slot.set(Entry::EMPTY);
            nr_emptied += 1;
            if let Kind::Private(frame) | Kind::Shared(frame) = entry.kind() {
                if !is_named {
                    is_named = true;
                    departing.flush().add_range(root, range.start, range.end);
                }
                departing.add(frame);
            }
        }
    }
    nr_emptied
}
