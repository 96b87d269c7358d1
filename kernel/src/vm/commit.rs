//! What a space is charged: its *commit*, the frames that it would have if nothing of it were shared and
//! all of it were there.
//!
//! | charged | |
//! | --- | --- |
//! | each page that is not empty, whatever its rights | 1 |
//! | each table that has such a page in what it covers, there or not | 1 |
//! | the root | 1 |
//!
//! (That has nothing to do with the second phase of an operation, which is called commit too.)
//!
//! Reads, writes, faults, messages, the reaper: nothing that happens to pages changes the commit, as
//! each of them and each table was charged when it was mapped. Only `map`, `unmap` and `share` change it.
//! What they add or take is counted without looking at pages one by one: a demand-zero entry stands for
//! a number that depends on its level alone, and an entry that names a table of pages says how many of
//! them are used.
//!
//! ```text
//! map of a range:     pages | tables that it lies in, less those that were there
//!
//!          +--+--+--+--+--+--+          tables that lie in it with all that they cover: new, as the
//!   table  | old |  new |  new|         range was empty
//!          +--+--+--+--+--+--+          the two in which it begins and ends: new, unless there was
//!             |<- range  ->|            something else in them
//! ```
//!
//! A space is of one of two [classes](Commit). For a *strict* one the machine sets frames aside whenever
//! its commit grows, or refuses: every one of its pages has its frame from then on, whatever others do.
//! That is the eager way. An *overcommit* space finds out when it touches a page: the lazy way.
//!
//! **A frame belongs to one class.** Strict spaces share pages and tables with strict ones only, so each
//! frame that they have is part of a commit that somebody answers for; where a page goes from one class
//! to the other its bytes are copied. Otherwise a strict space that sends a page to an overcommit one and
//! writes to it would need a second frame that nobody has been charged for.

use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use cowslip_abi::{Commit, Error};

use crate::{
    mm::{
        Frame, Mm, Table,
        phys::{FRAME_SIZE, INDEX_BITS, NR_ENTRIES},
    },
    vm::{
        PageTable, VmError,
        cursor::{
            LEVELS, ROOT, coverage, index, is_vacant, is_whole, next_used, part, shift,
            walk_to_page,
        },
        entry::{Entry, Slot},
        reap::reap,
    },
};

/// The budget of a space that has none.
pub const NO_BUDGET: u64 = u64::MAX;

/// The commit of a space with nothing in it: its root.
const EMPTY: u64 = 1;

/// How much a space is charged, and how much it may be.
#[derive(Debug)]
pub(super) struct Charge {
    /// Frames.
    commit: AtomicU64,
    /// The most that it may be, in frames.
    budget: AtomicU64,
    /// Below this, one page more is a matter of the space alone: the budget, or 0 in a strict space.
    at_will: AtomicU64,
    /// A [`Commit`].
    class: AtomicU64,
}

impl Charge {
    /// An empty space's: overcommit, without a budget.
    pub(super) const fn new() -> Self {
        Self {
            commit: AtomicU64::new(EMPTY),
            budget: AtomicU64::new(NO_BUDGET),
            at_will: AtomicU64::new(NO_BUDGET),
            class: AtomicU64::new(Commit::Overcommit as u64),
        }
    }

    fn set(&self, budget: u64, class: Commit) {
        let at_will = match class {
            Commit::Overcommit => budget,
            Commit::Strict => 0,
        };
        self.budget.store(budget, Relaxed);
        self.at_will.store(at_will, Relaxed);
        self.class.store(class as u64, Relaxed);
    }
}

impl PageTable {
    /// The frames that the space would have if nothing were shared and everything there.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.charge().commit.load(Relaxed)
    }

    /// The most that the commit may be, in frames; [`NO_BUDGET`] if there is no limit.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.charge().budget.load(Relaxed)
    }

    /// Limits the commit to so many frames. One that is above the limit already only cannot grow.
    pub fn set_budget(&self, nr_frames: u64) {
        self.charge().set(nr_frames, self.class());
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commit() == EMPTY
    }

    /// Whether frames for the commit are set aside.
    #[inline(always)]
    #[must_use]
    pub fn class(&self) -> Commit {
        if self.charge().class.load(Relaxed) == Commit::Overcommit as u64 {
            Commit::Overcommit
        } else {
            Commit::Strict
        }
    }

    /// Whether the other space is of another class.
    #[inline(always)]
    #[must_use]
    pub(super) fn crosses(&self, other: &Self) -> bool {
        self.charge().class.load(Relaxed) != other.charge().class.load(Relaxed)
    }

    /// Chooses the class.
    ///
    /// # Errors
    ///
    /// `BadState`: the space is not empty. What it has might be shared with others of its class.
    pub fn set_class(&self, class: Commit) -> Result<(), VmError> {
        if !self.is_empty() {
            return Err(Error::BadState);
        }
        // The root is there: the commit and what the space has grow by the same number.
        self.charge().set(self.budget(), class);
        Ok(())
    }

    /// Gives a space with nothing in it the class and the budget of another one.
    pub fn take_terms(&self, other: &Self) {
        debug_assert!(self.is_empty());
        self.charge().set(other.budget(), other.class());
    }

    /// Whether so many frames more are within the budget.
    ///
    /// # Errors
    ///
    /// `OverBudget`: they are not.
    pub fn check_budget(&self, nr_frames: u64) -> Result<(), VmError> {
        if nr_frames > 0 && self.commit() + nr_frames > self.budget() {
            return Err(Error::OverBudget);
        }
        Ok(())
    }

    /// Charges one page more.
    ///
    /// # Errors
    ///
    /// As for [`grow`](Self::grow).
    #[inline(always)]
    pub(super) fn grow_by_page(&self, mm: &Mm) -> Result<(), VmError> {
        let charge = self.charge();
        let commit = charge.commit.load(Relaxed);
        if commit < charge.at_will.load(Relaxed) {
            charge.commit.store(commit + 1, Relaxed);
            Ok(())
        } else {
            self.grow(mm, 1)
        }
    }

    /// Charges so many frames more.
    ///
    /// # Errors
    ///
    /// `OverBudget`: the budget does not allow it. `NoMemory`: the space is strict, and the machine has
    /// not so many frames that are free and not promised.
    #[inline(never)]
    pub(super) fn grow(&self, mm: &Mm, nr_frames: u64) -> Result<(), VmError> {
        let commit = self.commit() + nr_frames;
        self.check_budget(nr_frames)?;
        if self.class() == Commit::Strict {
            let mut promised = mm.frames.promise(nr_frames);
            if promised.is_err() && !mm.dead.is_empty() {
                reap(mm);
                promised = mm.frames.promise(nr_frames);
            }
            promised?;
        }
        self.charge().commit.store(commit, Relaxed);
        Ok(())
    }

    /// Charges so many frames less.
    #[inline(always)]
    pub(super) fn shrink(&self, mm: &Mm, nr_frames: u64) {
        let charge = self.charge();
        let commit = charge.commit.load(Relaxed);
        debug_assert!(commit >= nr_frames, "less is charged than was mapped");
        charge.commit.store(commit - nr_frames, Relaxed);
        if self.class() == Commit::Strict {
            mm.frames.forgo(nr_frames);
        }
    }
}

/// What demand-zero memory is charged that an entry of this level stands for: its pages and all tables.
pub(super) const fn of_zero(level: u32) -> u64 {
    OF_ZERO[level as usize]
}

const OF_ZERO: [u64; LEVELS as usize] = {
    let mut charges = [1; LEVELS as usize];
    let mut level = 1;
    while level < charges.len() {
        charges[level] = 1 + NR_ENTRIES as u64 * charges[level - 1];
        level += 1;
    }
    charges
};

/// What is charged for an entry of this level.
pub(super) fn of_entry(mm: &Mm, entry: Entry, level: u32) -> u64 {
    if entry.is_empty() {
        return 0;
    }
    match entry.table_below() {
        Some(below) if level > 1 => {
            1 + of_entries(mm, &mm.map.table(below)[..NR_ENTRIES], level - 1)
        }
        Some(_) if level == 1 => 1 + entry.nr_used() as u64,
        _ => of_zero(level),
    }
}

/// What is charged for entries of this level, which are neighbours.
pub(super) fn of_entries(mm: &Mm, places: &[AtomicU64], level: u32) -> u64 {
    let of_all = of_zero(level);
    let (mut next, mut charged) = (0, 0);
    while let Some(number) = next_used(places, next, places.len()) {
        // Most neighbours are used too.
        let rest = places[number..].iter().map(|place| Slot::new(place).get());
        let mut nr_used = 0;
        for entry in rest.take_while(|entry| !entry.is_empty()) {
            // Of what is plain, all is there.
            charged += if entry.is_plain() {
                of_all
            } else {
                of_entry(mm, entry, level)
            };
            nr_used += 1;
        }
        next = number + nr_used;
    }
    charged
}

/// What it is charged to map all of a range in which there is nothing.
pub(super) fn of_vacant(mm: &Mm, root: Frame, range: &Range<u64>) -> u64 {
    let last = range.end - 1;
    let (first_missing, last_missing) = (missing(mm, root, range.start), missing(mm, root, last));
    let nr_tables = |level: u32| {
        let [first, last] = [range.start >> shift(level), last >> shift(level)];
        let is_there = u64::from(level > first_missing);
        let is_last_there = u64::from(last != first && level > last_missing);
        last - first + 1 - is_there - is_last_there
    };
    let nr_pages = (range.end - range.start) / FRAME_SIZE;
    nr_pages + (1..LEVELS).map(nr_tables).sum::<u64>()
}

/// How many of the tables that are missing above the page at `addr` cover the page before it too.
pub(super) fn nr_begun(mm: &Mm, root: Frame, addr: u64) -> u64 {
    let missing = missing(mm, root, addr);
    let begun = (1..=missing).filter(|&level| !addr.is_multiple_of(coverage(level)));
    begun.count() as u64
}

/// The highest level at which the entry for `addr` is empty; 0 if there is a table of pages.
fn missing(mm: &Mm, root: Frame, addr: u64) -> u32 {
    match walk_to_page(&mm.map, root, addr) {
        Ok(_) => 0,
        Err(gap) => gap.level,
    }
}

/// Counts the tables that come into being when entries are mapped at ascending addresses, where there is
/// nothing.
pub(super) struct NewTables<'m> {
    mm: &'m Mm,
    root: Frame,
    /// For each level, the table (by what it covers) that was looked at last.
    last: [u64; LEVELS as usize],
}

impl<'m> NewTables<'m> {
    pub(super) const fn new(mm: &'m Mm, root: Frame) -> Self {
        Self {
            mm,
            root,
            last: [u64::MAX; LEVELS as usize],
        }
    }

    /// Does not count the tables that cover `addr` and are counted already. `is_counted` says so of one
    /// that begins so many bytes before.
    pub(super) fn skip(&mut self, addr: u64, is_counted: impl Fn(u64) -> bool) {
        for level in 1..LEVELS {
            let nr_bytes = addr % coverage(level);
            if nr_bytes > 0 && is_counted(nr_bytes) {
                self.last[level as usize] = addr >> shift(level);
            }
        }
    }

    /// How many there are above an entry of this level for `addr`, and were not counted before.
    pub(super) fn above(&mut self, addr: u64, level: u32) -> u64 {
        let missing = missing(self.mm, self.root, addr);
        let mut nr_tables = 0;
        for level in level + 1..LEVELS {
            let block = addr >> shift(level);
            let last = core::mem::replace(&mut self.last[level as usize], block);
            nr_tables += u64::from(level <= missing && last != block);
        }
        nr_tables
    }
}

/// What is charged less once a range is empty.
pub(super) struct Loss<'a> {
    pub(super) mm: &'a Mm,
    /// Whether other memory comes into this range at the same time, so that its table stays.
    pub(super) is_filled: &'a dyn Fn(&Range<u64>) -> bool,
}

impl Loss<'_> {
    /// Of a range of user memory in the space with this root.
    pub(super) fn of(&self, root: Frame, range: &Range<u64>) -> u64 {
        let table = self.mm.map.table(root);
        self.below(table, ROOT, range).charge
    }

    /// In a table of this level, which covers the range.
    fn below(&self, table: &Table, level: u32, range: &Range<u64>) -> Lost {
        let (mut number, end) = (index(range.start, level), index(range.end - 1, level) + 1);
        let mut lost = Lost::default();
        while let Some(used) = next_used(table, number, end) {
            number = used + 1;
            let first = range.start >> shift(level);
            let block = (first - first % NR_ENTRIES as u64 + used as u64) << shift(level);
            let entry = Slot::new(&table[used]).get();
            let part = part(range, block, level);
            if is_whole(&part, level) {
                lost.charge += of_entry(self.mm, entry, level);
                lost.nr_entries += 1;
            } else if let Some(below) = entry.table_below() {
                let inner = self.below(self.mm.map.table(below), level - 1, &part);
                lost.charge += inner.charge;
                let is_empty = inner.nr_entries == entry.nr_used();
                if is_empty && !(self.is_filled)(&(block..block + coverage(level))) {
                    lost.charge += 1;
                    lost.nr_entries += 1;
                }
            } else {
                lost.charge += of_zeros(&part);
            }
        }
        lost
    }
}

/// What is charged less, and how many entries of a table are empty then.
#[derive(Clone, Copy, Default)]
struct Lost {
    charge: u64,
    nr_entries: usize,
}

/// What is charged for a part of demand-zero memory of which the rest stays: its pages, and the tables
/// that cover nothing else.
fn of_zeros(part: &Range<u64>) -> u64 {
    let nr_whole = |level: u32| {
        let first = part.start.div_ceil(coverage(level));
        (part.end >> shift(level)).saturating_sub(first)
    };
    (0..ROOT).map(nr_whole).sum()
}

/// Whether the source range has something that a move brings into `block`.
pub(super) fn brings_into(
    mm: &Mm,
    root: Frame,
    source: &Range<u64>,
    distance: u64,
    block: &Range<u64>,
) -> bool {
    let [start, end] = [source.start, source.end].map(|addr| addr.wrapping_add(distance));
    let (start, end) = (start.max(block.start), end.min(block.end));
    let [from, to] = [start, end].map(|addr| addr.wrapping_sub(distance));
    start < end && !is_vacant(&mm.map, root, &(from..to))
}

const _: () = assert!(
    of_zero(ROOT) < 1 << (INDEX_BITS * LEVELS),
    "charges fit a word"
);
