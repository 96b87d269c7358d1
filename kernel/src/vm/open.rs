//! Opening a table: making it and all above it this space's own, so that it may be edited.
//!
//! On the way from the root, always from the top down:
//!
//! | what names the next table | what is done | frames |
//! | --- | --- | --- |
//! | a table with W | nothing | |
//! | a table without W, count one | taken back: it gets W, nothing below changes | |
//! | a table without W, others name it too | copied | 1 |
//! | zero | split: a table of 512 such entries | 1 |
//! | empty | an empty table | 1 |
//!
//! Nothing of that changes what the space has, so it may be done before anything else is decided.
//!
//! A copy counts everything up that the table names, and takes W from it in both tables, as it has two
//! references now. The old table keeps its reference until the flush: another CPU of this space may
//! still walk through it.

use core::sync::atomic::AtomicU64;

use crate::{
    mm::{CountCursor, Departing, Frame, Mm, Reserve, phys::NR_ENTRIES},
    vm::{
        cursor::{LEVELS, Node, index, next_present, next_used, shift},
        entry::{Entry, Kind, Pattern, Slot},
        remap::Run,
    },
};

/// Counts the frames that it takes to open tables, at ascending addresses.
pub(super) struct Plan<'m> {
    mm: &'m Mm,
    root: Frame,
    /// For each level, the entry (as a number of entries since address 0) that was looked at last.
    last: [u64; LEVELS as usize],
    nr_frames: usize,
}

impl<'m> Plan<'m> {
    pub(super) const fn new(mm: &'m Mm, root: Frame) -> Self {
        Self {
            mm,
            root,
            last: [u64::MAX; LEVELS as usize],
            nr_frames: 0,
        }
    }

    /// The table of this level for `addr` will be opened. Returns whether its entries keep their
    /// counts: no table on the way has to be copied.
    pub(super) fn add(&mut self, addr: u64, level: u32) -> bool {
        let map = &self.mm.map;
        let mut table = Some(map.table(self.root));
        let mut is_own = true;
        for level in (level + 1..LEVELS).rev() {
            let entry = table.map_or(Entry::EMPTY, |table| {
                Slot::new(&table[index(addr, level)]).get()
            });
            let below = entry.table_below();
            let takes_frame = match below {
                Some(frame) => {
                    is_own = is_own && is_sole(self.mm, entry, frame);
                    !is_own
                }
                None => true,
            };
            table = below.map(|frame| map.table(frame));
            let number = addr >> shift(level);
            if takes_frame && self.last[level as usize] != number {
                self.nr_frames += 1;
            }
            self.last[level as usize] = number;
        }
        is_own
    }

    /// So many frames are needed.
    pub(super) const fn nr_frames(&self) -> usize {
        self.nr_frames
    }
}

/// Whether an entry is the only one that names its table: then it need not be copied, if no table above
/// it has to be.
#[inline(always)]
pub(super) fn is_sole(mm: &Mm, entry: Entry, below: Frame) -> bool {
    entry.is_writable() || mm.counts.is_one(below)
}

/// What is going to be done with an open table's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// What is plain stays so.
    Keep,
    /// Perhaps not: the tables on the way do not say any more that they are plain.
    Change,
}

/// Opens the table of this level for `addr`, as planned.
pub(super) fn open<'m>(
    mm: &'m Mm,
    root: Frame,
    addr: u64,
    level: u32,
    edit: Edit,
    reserve: &mut Reserve<'_>,
    departing: &mut Departing<'_>,
) -> Node<'m> {
    let mut node = Node::root(&mm.map, root);
    while node.level > level {
        node = open_below(mm, node, root, addr, reserve, departing);
        if edit == Edit::Change {
            node.set_not_plain();
        }
    }
    node
}

/// Opens the next table on the way to `addr` below an open one.
pub(super) fn open_below<'m>(
    mm: &'m Mm,
    node: Node<'m>,
    root: Frame,
    addr: u64,
    reserve: &mut Reserve<'_>,
    departing: &mut Departing<'_>,
) -> Node<'m> {
    let slot = node.slot(addr);
    let entry = slot.get();
    let below = node.level - 1;
    let opened = match entry.table_below() {
        Some(_) if entry.is_writable() => entry,
        Some(frame) if mm.counts.is_one(frame) => entry.exclusive(),
        Some(frame) => {
            let copy = Entry::table_like(reserve.take(), entry);
            copy_table(mm, frame, copy, below);
            departing.flush().add(root, addr);
            departing.add_table(entry.note(), below);
            copy
        }
        None if entry.is_empty() => {
            node.add_used(1);
            Entry::table(reserve.take_zeroed())
        }
        None => split(mm, entry, reserve.take()),
    };
    if opened != entry {
        slot.set(opened);
    }
    let frame = Frame::of_entry(opened.note());
    Node::new(mm.map.table(frame), below, Some(slot), opened)
}

/// A table of entries like this one of the next level up, in this frame.
fn split(mm: &Mm, entry: Entry, frame: Frame) -> Entry {
    mm.map.fill(frame, entry.note());
    Entry::table_full_of(frame, entry)
}

/// Fills the table that `to` names, of this level, like the one in `from`: all that both name has one
/// more reference, and may not be written in either.
fn copy_table(mm: &Mm, from: Frame, to: Entry, level: u32) {
    let (nr_used, to) = (to.nr_used(), Frame::of_entry(to.note()));
    let source = &mm.map.table(from)[..NR_ENTRIES];
    let _turn = mm.turns.take(source);
    let nr_seconds = if level == 0 {
        mm.map.copy_frame(from, to);
        let run = Run::of(source, &mm.map.table(to)[..NR_ENTRIES]);
        share_pages(mm, run, nr_used)
    } else {
        let nr_seconds = share_tables(mm, source, nr_used);
        mm.map.copy_frame(from, to);
        nr_seconds
    };
    mm.counts.add_shared(nr_seconds);
}

/// Counts up what a table names that is to be copied, and takes W from it. Returns how many frames got
/// their second reference. Behind the last entry that is used there is nothing to look for.
// A function of its own, so that the loops have the registers for themselves.
#[inline(never)]
fn share_tables(mm: &Mm, source: &[AtomicU64], nr_used: usize) -> u64 {
    let mut counts = CountCursor::new(&mm.counts);
    let (mut next, mut nr_seen, mut nr_seconds) = (0, 0, 0);
    while nr_seen < nr_used
        && let Some(number) = next_used(source, next, source.len())
    {
        let rest = &source[number..];
        let mut nr_alike = share_own_tables(&mut counts, rest);
        nr_seconds += nr_alike as u64;
        for slot in rest[nr_alike..].iter().map(Slot::new) {
            let entry = slot.get();
            if entry.is_empty() {
                break;
            }
            nr_alike += 1;
            if let Some(below) = entry.table_below() {
                nr_seconds += u64::from(counts.of(below).increment());
                slot.set(entry.lent());
            }
        }
        nr_seen += nr_alike;
        next = number + nr_alike;
    }
    nr_seconds
}

/// The same for the tables at the start that have one reference each, as their entries say. Returns how
/// many there are.
#[inline(always)]
fn share_own_tables(counts: &mut CountCursor<'_>, source: &[AtomicU64]) -> usize {
    let mut nr_tables = 0;
    for slot in source.iter().map(Slot::new) {
        let entry = slot.get();
        if !entry.is_writable() {
            break;
        }
        counts.of(Frame::of_entry(entry.note())).make_two();
        slot.set(entry.lent());
        nr_tables += 1;
    }
    nr_tables
}

/// The same for a table of pages, and its copy.
fn share_pages(mm: &Mm, run: Run<'_>, nr_used: usize) -> u64 {
    let (mut next, mut nr_seen, mut nr_seconds) = (0, 0, 0);
    while nr_seen < nr_used
        && let Some(number) = next_present(run.src, next)
    {
        let rest = run.skip(number);
        let entry = rest.page(0).0.get();
        let mut nr_alike = 1;
        if let Some(pattern) = Pattern::like(entry, &mm.counts) {
            let lent = rest.fork(&mm.counts, pattern, None);
            nr_seconds += lent.nr_seconds;
            nr_alike = lent.nr_pages;
        } else if let Kind::Shared(frame) = entry.kind() {
            nr_seconds += u64::from(mm.counts.of(frame).increment());
        }
        nr_seen += nr_alike;
        next = number + nr_alike;
    }
    nr_seconds
}
