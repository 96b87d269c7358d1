//! Finding places in a page table.
//!
//! A walk goes down from the root to a table of the level that is asked for, or ends at a *gap*: an
//! entry on the way that names no table and stands for all that is below it, empty or demand-zero.
//! So 128 TiB of either are one step.

use core::{ops::Range, sync::atomic::AtomicU64};

use crate::{
    mm::{
        Frame, PhysMap, Table,
        phys::{FRAME_SIZE, INDEX_BITS, NR_ENTRIES, any_bits},
    },
    vm::entry::{Entry, Slot, are_empty},
};

/// Levels of a page table. The entries of level 0 stand for pages.
pub(super) const LEVELS: u32 = 4;
/// The level of the root.
pub(super) const ROOT: u32 = LEVELS - 1;

/// The end of user memory: half of what the root covers, without the last page.
pub const USER_END: u64 = coverage(ROOT) * (NR_ENTRIES as u64 / 2) - FRAME_SIZE;

const _: () = assert!(USER_END == cowslip_abi::USER_END || cfg!(feature = "small-tables"));

/// Log2 of the bytes that an entry of this level covers.
pub(super) const fn shift(level: u32) -> u32 {
    12 + INDEX_BITS * level
}

/// Bytes that an entry of this level covers.
pub(super) const fn coverage(level: u32) -> u64 {
    1 << shift(level)
}

/// The index of the entry for `addr` in a table of this level.
pub(super) const fn index(addr: u64, level: u32) -> usize {
    (addr >> shift(level)) as usize % NR_ENTRIES
}

/// The part of the range that an entry covers, which stands for `addr` and others in a table of this
/// level.
pub(super) const fn part(range: &Range<u64>, addr: u64, level: u32) -> Range<u64> {
    let start = addr & !(coverage(level) - 1);
    let end = start + coverage(level);
    let start = if start > range.start {
        start
    } else {
        range.start
    };
    start..if end < range.end { end } else { range.end }
}

/// Whether the range is all that one entry of this level covers.
pub(super) const fn is_whole(range: &Range<u64>, level: u32) -> bool {
    range.end - range.start == coverage(level)
}

/// The highest level of which the first entry at `addr` lies in `addr..end` with all that it covers,
/// which must be a page at least.
pub(super) const fn highest_level(addr: u64, end: u64) -> u32 {
    let mut level = 0;
    while level < ROOT
        && addr.is_multiple_of(coverage(level + 1))
        && end - addr >= coverage(level + 1)
    {
        level += 1;
    }
    level
}

/// The highest level at which addresses that lie so far apart, modulo 2^64, have the same place in what
/// an entry covers.
pub(super) const fn congruent_level(distance: u64) -> u32 {
    let mut level = 0;
    while level < ROOT && distance.is_multiple_of(coverage(level + 1)) {
        level += 1;
    }
    level
}

/// The first non-empty entry of a table from `from` on and below `end`.
#[inline]
pub(super) fn next_used(table: &[AtomicU64], from: usize, end: usize) -> Option<usize> {
    next_where(&table[..end], from, u64::MAX)
}

/// The first present entry from `from` on.
#[inline]
pub(super) fn next_present(places: &[AtomicU64], from: usize) -> Option<usize> {
    next_where(places, from, 1)
}

/// The first entry from `from` on that has one of these bits. Often it is this one; otherwise most
/// tables are mostly empty, so many entries are looked at together.
#[inline]
fn next_where(places: &[AtomicU64], from: usize, bits: u64) -> Option<usize> {
    let has = |number: &usize| any_bits(&places[*number..=*number]) & bits != 0;
    if from < places.len() && has(&from) {
        return Some(from);
    }
    let mut number = from;
    number += nr_without::<32>(places.get(number..)?, bits);
    number += nr_without::<8>(&places[number..], bits);
    (number..places.len()).find(has)
}

/// How many entries at the start have none of these bits, as a multiple of `N`.
#[inline(always)]
fn nr_without<const N: usize>(places: &[AtomicU64], bits: u64) -> usize {
    let (groups, _) = places.as_chunks::<N>();
    let without = groups
        .iter()
        .take_while(|group| any_bits(*group) & bits == 0);
    without.count() * N
}

/// A table, and how it was found.
#[derive(Clone, Copy)]
pub(super) struct Node<'m> {
    pub(super) table: &'m Table,
    pub(super) level: u32,
    /// The entry that names it; nothing names a root.
    pub(super) named_by: Option<Slot<'m>>,
    /// What the entries on the way have in common.
    path: Entry,
}

impl<'m> Node<'m> {
    pub(super) const fn new(
        table: &'m Table,
        level: u32,
        named_by: Option<Slot<'m>>,
        path: Entry,
    ) -> Self {
        Self {
            table,
            level,
            named_by,
            path,
        }
    }

    /// The root, which belongs to its space alone.
    pub(super) fn root(map: &'m PhysMap, root: Frame) -> Self {
        let path = Entry::table(root);
        Self::new(map.table(root), ROOT, None, path)
    }

    /// Whether this table and all above it belong to this space alone, as their entries say: it may
    /// be edited, and what it says counts.
    #[inline(always)]
    pub(super) const fn is_exclusive(self) -> bool {
        self.path.has_w()
    }

    /// The entry for `addr`.
    #[inline]
    pub(super) fn slot(self, addr: u64) -> Slot<'m> {
        Slot::new(&self.table[index(addr, self.level)])
    }

    /// The entries from `addr` on: at most `wanted`, and as far as the table goes.
    #[inline]
    pub(super) fn run(self, addr: u64, wanted: u64) -> &'m [AtomicU64] {
        let rest = &self.table[index(addr, self.level)..NR_ENTRIES];
        &rest[..rest.len().min(wanted as usize)]
    }

    /// How many entries are not empty. Not known of a root.
    #[inline]
    pub(super) fn nr_used(self) -> usize {
        self.named_by
            .map_or(NR_ENTRIES, |named_by| named_by.get().nr_used())
    }

    /// Notes that so many empty entries came into use.
    #[inline]
    pub(super) fn add_used(self, nr_entries: usize) {
        self.change_name(|entry| entry.with_more_used(nr_entries));
    }

    /// Notes that so many entries were emptied.
    #[inline]
    pub(super) fn subtract_used(self, nr_entries: usize) {
        self.change_name(|entry| entry.with_fewer_used(nr_entries));
    }

    /// Notes that not all entries below are plain any more.
    #[inline]
    pub(super) fn set_not_plain(self) {
        self.change_name(Entry::not_plain);
    }

    /// Takes the table, which is not a root, out of the hardware's reach. What TLBs have of it is to be
    /// flushed.
    #[inline]
    pub(super) fn withdraw(self) {
        self.change_name(Entry::withdrawn);
    }

    /// Undoes [`Self::withdraw`].
    #[inline]
    pub(super) fn put_back(self) {
        self.change_name(Entry::put_back);
    }

    /// Lets nobody write below the table, as if others named it too. What TLBs have of it is to be flushed.
    #[inline]
    pub(super) fn protect(self) {
        self.change_name(Entry::lent);
    }

    /// Undoes [`Self::protect`], of an exclusive table.
    #[inline]
    pub(super) fn unprotect(self) {
        self.change_name(Entry::exclusive);
    }

    #[inline(always)]
    fn change_name(self, change: impl FnOnce(Entry) -> Entry) {
        if let Some(named_by) = self.named_by {
            named_by.set(change(named_by.get()));
        }
    }

    /// Whether all entries are known to be plain.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.named_by
            .is_some_and(|named_by| named_by.get().is_plain())
    }
}

/// Where a walk ended early: an entry that stands for all that is below it.
#[derive(Clone, Copy)]
pub(super) struct Gap<'m> {
    table: &'m Table,
    pub(super) level: u32,
}

impl<'m> Gap<'m> {
    /// An entry of this table as a gap.
    pub(super) const fn at(node: Node<'m>) -> Self {
        Self {
            table: node.table,
            level: node.level,
        }
    }

    /// The entry: empty or zero.
    #[inline]
    pub(super) fn entry(self, addr: u64) -> Entry {
        Slot::new(&self.table[index(addr, self.level)]).get()
    }

    /// The address of the first non-empty entry behind the one for `addr`; the end of what the table
    /// covers if there is none; at most `limit`.
    pub(super) fn end(self, addr: u64, limit: u64) -> u64 {
        let number = index(addr, self.level);
        let start = (addr >> shift(self.level)) - number as u64;
        let wanted =
            (((limit - 1) >> shift(self.level)) - start + 1).min(NR_ENTRIES as u64) as usize;
        let next = next_used(self.table, number + 1, wanted).unwrap_or(wanted);
        ((start + next as u64) << shift(self.level)).min(limit)
    }
}

/// The table of this level for `addr`, or the gap there: one walk from the root.
#[inline(always)]
pub(super) fn walk(map: &PhysMap, root: Frame, addr: u64, level: u32) -> Result<Node<'_>, Gap<'_>> {
    let mut node = Node::root(map, root);
    while node.level > level {
        let slot = node.slot(addr);
        let entry = slot.get();
        let Some(below) = entry.table_below() else {
            return Err(Gap::at(node));
        };
        node = Node {
            table: map.table(below),
            level: node.level - 1,
            named_by: Some(slot),
            path: node.path.and(entry),
        };
    }
    Ok(node)
}

/// The lowest-level table for `addr`, or the gap there.
#[inline(always)]
pub(super) fn walk_to_page(map: &PhysMap, root: Frame, addr: u64) -> Result<Node<'_>, Gap<'_>> {
    walk(map, root, addr, 0)
}

/// Neighbouring entries of one table, or what stands for them.
#[derive(Clone, Copy)]
pub(super) enum View<'m> {
    Entries(&'m [AtomicU64]),
    /// So many like this one.
    Gap(Entry, usize),
}

impl<'m> View<'m> {
    /// The entries of this level from `addr` on, at most `wanted`, and as far as one table goes.
    #[inline(always)]
    pub(super) fn of(map: &'m PhysMap, root: Frame, addr: u64, level: u32, wanted: u64) -> Self {
        match walk(map, root, addr, level) {
            Ok(node) => Self::Entries(node.run(addr, wanted)),
            Err(gap) => {
                let rest = NR_ENTRIES - index(addr, level);
                Self::Gap(gap.entry(addr), rest.min(wanted as usize))
            }
        }
    }

    pub(super) const fn len(self) -> usize {
        match self {
            Self::Entries(places) => places.len(),
            Self::Gap(_, len) => len,
        }
    }

    #[inline]
    pub(super) fn get(self, number: usize) -> Entry {
        match self {
            Self::Entries(places) => Slot::new(&places[number]).get(),
            Self::Gap(entry, _) => entry,
        }
    }
}

/// Whether nothing is mapped in the range.
pub(super) fn is_vacant(map: &PhysMap, root: Frame, range: &Range<u64>) -> bool {
    let Range { mut start, end } = *range;
    while start < end {
        match walk_to_page(map, root, start) {
            Ok(leaf) => {
                let run = leaf.run(start, (end - start) / FRAME_SIZE);
                if !are_empty(run) {
                    return false;
                }
                start += run.len() as u64 * FRAME_SIZE;
            }
            Err(gap) if gap.entry(start).is_empty() => start = gap.end(start, end),
            Err(_) => return false,
        }
    }
    true
}

/// Reads entries page by page, and remembers the last lowest-level table.
pub(super) struct Cursor<'m> {
    map: &'m PhysMap,
    root: Frame,
    /// The number of the 2 MiB, and their table.
    leaf: Option<(u64, &'m Table)>,
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

    /// The entry that stands for the page that contains `addr`.
    #[inline]
    pub(super) fn get(&mut self, addr: u64) -> Entry {
        match self.leaf(addr) {
            Ok(leaf) => Slot::new(&leaf[index(addr, 0)]).get(),
            Err(gap) => gap.entry(addr),
        }
    }

    /// The place of the entry for the page that contains `addr`.
    ///
    /// # Panics
    ///
    /// If there is no table for it.
    pub(super) fn open_slot(&mut self, addr: u64) -> Slot<'m> {
        match self.leaf(addr) {
            Ok(leaf) => Slot::new(&leaf[index(addr, 0)]),
            Err(_) => panic!("the table for {addr:#x} is not open"),
        }
    }

    /// The lowest-level table for `addr`, or the gap there.
    #[inline]
    fn leaf(&mut self, addr: u64) -> Result<&'m Table, Gap<'m>> {
        match self.leaf {
            Some((block, leaf)) if block == addr >> shift(1) => Ok(leaf),
            _ => self.walk(addr),
        }
    }

    #[inline(never)]
    fn walk(&mut self, addr: u64) -> Result<&'m Table, Gap<'m>> {
        let leaf = walk_to_page(self.map, self.root, addr)?.table;
        self.leaf = Some((addr >> shift(1), leaf));
        Ok(leaf)
    }
}
