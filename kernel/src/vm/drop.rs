//! Emptying ranges.
//!
//! An entry that covers nothing but what is to be emptied goes as a whole, whatever is below it; so
//! does a table that would be left empty. What is below is worked off [later](fn@super::reap). So only the
//! two ends of a range lead down into tables, which have to be [opened](super::open).

use core::{ops::Range, sync::atomic::AtomicU64};

use crate::{
    mm::{Departing, Frame, Mm, Reserve, phys::NR_ENTRIES},
    vm::{
        cursor::{Node, ROOT, USER_END, index, is_whole, next_used, part, shift},
        entry::{Entry, Kind, Pattern, Slot, nr_empty},
        open::{is_sole, open_below},
        remap::drop_alike,
    },
};

/// How many frames it takes to empty the range, which is in user memory.
pub(super) fn frames_to_empty(mm: &Mm, root: Frame, range: &Range<u64>) -> usize {
    debug_assert!(range.end <= USER_END);
    let node = Node::root(&mm.map, root);
    frames_below(mm, Origin::Node(node), true, range)
}

/// A table as it is, or as it will be when an entry is split.
#[derive(Clone, Copy)]
enum Origin<'m> {
    Node(Node<'m>),
    Split { entry: Entry, level: u32 },
}

impl Origin<'_> {
    const fn level(self) -> u32 {
        match self {
            Self::Node(node) => node.level,
            Self::Split { level, .. } => level,
        }
    }

    fn entry(self, addr: u64) -> Entry {
        match self {
            Self::Node(node) => node.slot(addr).get(),
            Self::Split { entry, .. } => entry,
        }
    }
}

/// The frames that it takes below a table, which must cover the range. `is_own`: it need not be copied.
fn frames_below(mm: &Mm, table: Origin<'_>, is_own: bool, range: &Range<u64>) -> usize {
    let level = table.level();
    let mut nr_frames = 0;
    // All entries between the first and the last go as a whole.
    let last = range.end - 1;
    let is_one = range.start >> shift(level) == last >> shift(level);
    for addr in [range.start, last].into_iter().skip(usize::from(is_one)) {
        let part = part(range, addr, level);
        let entry = table.entry(addr);
        if Extent::of(mm, entry, level, &part) != Extent::Some {
            continue;
        }
        let (below, is_own) = match entry.table_below() {
            Some(frame) => {
                let is_own = is_own && is_sole(mm, entry, frame);
                let node = Node::new(mm.map.table(frame), level - 1, None, entry);
                (Origin::Node(node), is_own)
            }
            None => {
                let level = level - 1;
                (Origin::Split { entry, level }, false)
            }
        };
        nr_frames += usize::from(!is_own) + frames_below(mm, below, is_own, &part);
    }
    nr_frames
}

/// How much of what an entry stands for lies in a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Nothing,
    Some,
    All,
}

impl Extent {
    /// How much of an entry of this level lies in `part`, which the entry covers.
    fn of(mm: &Mm, entry: Entry, level: u32, part: &Range<u64>) -> Self {
        if entry.is_empty() {
            return Self::Nothing;
        }
        if is_whole(part, level) {
            return Self::All;
        }
        let Some(below) = entry.table_below() else {
            return Self::Some;
        };
        let (table, level) = (mm.map.table(below), level - 1);
        let (first, last) = (index(part.start, level), index(part.end - 1, level));
        // What lies between the first entry and the last one lies in the part with all that it covers.
        let between = table.get(first + 1..last).unwrap_or_default();
        let mut nr_whole = between.len() - nr_empty(between);
        for number in [first, last].into_iter().skip(usize::from(first == last)) {
            let entry = Slot::new(&table[number]).get();
            match Self::of(mm, entry, level, &part_of(part, level, number)) {
                Self::Nothing => {}
                Self::Some => return Self::Some,
                Self::All => nr_whole += 1,
            }
        }
        match nr_whole {
            0 => Self::Nothing,
            _ if nr_whole == entry.nr_used() => Self::All,
            _ => Self::Some,
        }
    }
}

/// The part of the range that the entry with this number covers, in a table that covers all of it.
fn part_of(range: &Range<u64>, level: u32, number: usize) -> Range<u64> {
    let first = range.start >> shift(level);
    let number = first - first % NR_ENTRIES as u64 + number as u64;
    part(range, number << shift(level), level)
}

/// Empties the range, which is in user memory, as planned.
pub(super) fn empty(
    mm: &Mm,
    root: Frame,
    range: &Range<u64>,
    reserve: &mut Reserve<'_>,
    departing: &mut Departing<'_>,
) {
    let node = Node::root(&mm.map, root);
    debug_assert_eq!(node.level, ROOT);
    empty_below(mm, root, node, range, reserve, departing);
}

fn empty_below(
    mm: &Mm,
    root: Frame,
    node: Node<'_>,
    range: &Range<u64>,
    reserve: &mut Reserve<'_>,
    departing: &mut Departing<'_>,
) {
    node.set_not_plain();
    let level = node.level;
    if level == 0 {
        node.subtract_used(empty_pages(mm, root, node.table, range, departing));
        return;
    }
    let (mut number, end) = (index(range.start, level), index(range.end - 1, level) + 1);
    let mut nr_emptied = 0;
    while let Some(used) = next_used(node.table, number, end) {
        number = used + 1;
        let part = part_of(range, level, used);
        let slot = Slot::new(&node.table[used]);
        let entry = slot.get();
        match Extent::of(mm, entry, level, &part) {
            Extent::Nothing => continue,
            Extent::Some => {
                let below = open_below(mm, node, root, part.start, reserve, departing);
                empty_below(mm, root, below, &part, reserve, departing);
                continue;
            }
            Extent::All => {}
        }
        slot.set(Entry::EMPTY);
        nr_emptied += 1;
        if entry.table_below().is_some() {
            departing.flush().add_range(root, part.start, part.end);
            departing.add_table(entry.note(), level - 1);
        }
    }
    node.subtract_used(nr_emptied);
}

/// Takes away the tables in the range that were emptied entry by entry.
pub(super) fn prune(mm: &Mm, root: Frame, range: &Range<u64>, departing: &mut Departing<'_>) {
    prune_below(mm, root, Node::root(&mm.map, root), range, departing);
}

fn prune_below(
    mm: &Mm,
    root: Frame,
    node: Node<'_>,
    range: &Range<u64>,
    departing: &mut Departing<'_>,
) {
    let level = node.level;
    let (mut number, end) = (index(range.start, level), index(range.end - 1, level) + 1);
    let mut nr_emptied = 0;
    while let Some(used) = next_used(node.table, number, end) {
        number = used + 1;
        let slot = Slot::new(&node.table[used]);
        // What others may share was not emptied.
        let Some(below) = slot
            .get()
            .table_below()
            .filter(|_| slot.get().is_writable())
        else {
            continue;
        };
        let part = part_of(range, level, used);
        if level > 1 {
            let below = Node::new(mm.map.table(below), level - 1, Some(slot), slot.get());
            prune_below(mm, root, below, &part, departing);
        }
        let entry = slot.get();
        if entry.nr_used() == 0 {
            slot.set(Entry::EMPTY);
            nr_emptied += 1;
            departing.flush().add_range(root, part.start, part.end);
            departing.add_table(entry.note(), level - 1);
        }
    }
    node.subtract_used(nr_emptied);
}

/// Empties pages of an open table. Returns how many there were.
fn empty_pages(
    mm: &Mm,
    root: Frame,
    table: &[AtomicU64],
    range: &Range<u64>,
    departing: &mut Departing<'_>,
) -> usize {
    departing.flush().add_range(root, range.start, range.end);
    let (mut number, end) = (index(range.start, 0), index(range.end - 1, 0) + 1);
    let mut nr_emptied = 0;
    while let Some(used) = next_used(table, number, end) {
        let slot = Slot::new(&table[used]);
        let entry = slot.get();
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
