//! Relating a range of one address space to a range of another: copy-on-write, shared, moved.
//!
//! fork is one call: everything, copy-on-write, at the same addresses.
//!
//! | source page | CopyOnWrite | Shared | Move |
//! | --- | --- | --- | --- |
//! | zero | each its own zero | a zeroed frame, shared | moved |
//! | private | both copy-on-write | shared (after a copy, if others name it) | moved |
//! | shared, rights kept | shared | shared | moved, still shared |
//! | shared, rights given | a private copy (snapshot) | shared | moved, still shared |
//!
//! The rights given are those of the destination, and its ceiling. A mapping of shared memory never
//! gets more than the source's ceiling; a page of one's own may get any rights.

use core::{ops::Range, sync::atomic::AtomicU64};

use cowslip_abi::{Commit, Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{
        CountCursor, Departing, Flush, Flushed, Frame, Mm, PerClass, Reserve,
        phys::{FRAME_SIZE, NR_ENTRIES},
    },
    vm::{
        Beginning, Effort, PageTable, VmError,
        commit::{self, Loss, NewTables},
        cursor::{
            Cursor, Gap, USER_END, View, congruent_level, highest_level, index, is_vacant,
            next_used, shift, walk, walk_to_page,
        },
        drop::prune,
        entry::{Entry, Kind, Pattern, Rights, Slot},
        open::{Edit, Plan, open},
        reap::twice,
        remap::Run,
    },
};

/// Maps `len` bytes of `src` from `src_addr` on in `dst` at `dst_addr`.
///
/// `perm` are the rights in `dst`. Without it every page keeps its rights and ceiling, and empty
/// pages of the source are skipped.
///
/// # Errors
///
/// In this order: `Overlap`: the ranges overlap in one space. `BadState`: the spaces are of different
/// classes, and pages would not be copied. `Occupied`: the destination is not
/// empty. For the first page of the source that is at fault: `NotMapped`, or `Denied` if a shared
/// mapping would get more than the source's ceiling, or `BadState` again. `OverBudget`: the destination
/// would have more than its budget. `NoMemory`: too few frames.
#[allow(
    clippy::too_many_arguments,
    reason = "these are the words of the system call"
)]
pub fn share(
    mm: &Mm,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    mode: ShareMode,
    perm: Option<Perm>,
) -> Result<(), VmError> {
    let limit = Effort::MAX;
    share_within(mm, limit, dst, dst_addr, src, src_addr, len, mode, perm).map(|_| ())
}

/// The same, if it takes no more than so much effort. `false`: it takes more, and nothing has changed.
///
/// # Errors
///
/// As for [`share`]; beyond the effort nothing is checked.
#[allow(
    clippy::too_many_arguments,
    reason = "these are the words of the system call"
)]
pub fn share_within(
    mm: &Mm,
    limit: Effort,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    mode: ShareMode,
    perm: Option<Perm>,
) -> Result<bool, VmError> {
    if dst.root() == src.root() && dst_addr.abs_diff(src_addr) < len {
        return Err(Error::Overlap);
    }
    let share = Share::new(mm, dst, dst_addr, src, src_addr, len, mode, perm);
    if share.crosses && mode != ShareMode::CopyOnWrite {
        return Err(Error::BadState);
    }
    if len == FRAME_SIZE
        && !share.crosses
        && let Some(result) = share.one_page(src_addr)
    {
        return result.map(|()| true);
    }
    twice(|| share.run(limit))
}

/// Maps a page of shared memory once more, with the rights `perm`, if that takes no more than an entry
/// of a table that is there. `false`: it takes more, or cannot be, and nothing has changed.
#[must_use]
#[inline(always)]
pub fn share_in_place(
    mm: &Mm,
    dst: &PageTable,
    dst_page: u64,
    src: &PageTable,
    src_page: u64,
    perm: Perm,
) -> bool {
    let (Ok(to), Ok(from)) = (
        walk_to_page(&mm.map, dst.root(), dst_page),
        walk_to_page(&mm.map, src.root(), src_page),
    ) else {
        return false;
    };
    let (source, target) = (from.slot(src_page).get(), to.slot(dst_page));
    let Kind::Shared(frame) = source.kind() else {
        return false;
    };
    if !from.is_exclusive()
        || !to.is_exclusive()
        || !target.get().is_empty()
        || !source.rights().ceiling().contains(perm)
        || dst.crosses(src)
        || dst.grow_by_page(mm).is_err()
    {
        return false;
    }
    mm.counts.increment(frame);
    target.set(Entry::shared(frame, Rights::new(perm)));
    to.add_used(1);
    true
}

/// Checks the beginning of what [`share`] is asked for, behind the bytes that were checked or shared
/// before: as far as so much effort goes, which is a page at least.
///
/// # Errors
///
/// As for [`share`], for what was checked, but `OverBudget` and `NoMemory`.
#[allow(
    clippy::too_many_arguments,
    reason = "these are the words of the system call"
)]
pub fn check_share(
    mm: &Mm,
    limit: Effort,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    mode: ShareMode,
    perm: Option<Perm>,
    done: u64,
) -> Result<Beginning, VmError> {
    let (to, from, rest) = (dst_addr + done, src_addr + done, len - done);
    let mut share = Share::new(mm, dst, to, src, from, rest, mode, perm);
    share.before = Some(done);
    let plan = share.plan(limit)?;
    let nr_frames = match dst.class() {
        Commit::Overcommit => PerClass::of(Commit::Overcommit, plan.nr_frames()),
        // What the destination will be charged is not promised to it yet.
        Commit::Strict => PerClass {
            overcommit: plan.charge,
            strict: plan.nr_src_frames as u64,
        },
    };
    Ok(Beginning {
        len: plan.nr_bytes,
        nr_frames,
        charge: plan.charge,
    })
}

/// Looking through a table for how many pages there are below it.
const SCAN: Effort = Effort(64);

/// What a share takes, as far as it was checked.
struct Planned {
    nr_bytes: u64,
    nr_src_frames: usize,
    nr_dst_frames: usize,
    /// What the destination is charged.
    charge: u64,
}

impl Planned {
    const fn nr_frames(&self) -> usize {
        self.nr_src_frames + self.nr_dst_frames
    }
}

struct Share<'m> {
    mm: &'m Mm,
    /// The source's and the destination's.
    tables: [&'m PageTable; 2],
    /// The spaces are of different classes: pages are copied.
    crosses: bool,
    src: Frame,
    dst: Frame,
    /// Addresses in the source.
    range: Range<u64>,
    /// What to add to them, modulo 2^64, for those in the destination.
    distance: u64,
    mode: ShareMode,
    perm: Option<Perm>,
    /// Where the range is only looked at: how many bytes were before it, which are charged with it.
    before: Option<u64>,
}

/// Entries of the source in one table, whose places in the destination are in one table too. The first
/// one is not empty. Above level 0 all of them go as they are.
#[derive(Clone, Copy)]
struct Part {
    addr: u64,
    level: u32,
    nr_entries: u64,
}

impl Part {
    /// The end of what the entries cover.
    const fn end(self) -> u64 {
        self.addr + (self.nr_entries << shift(self.level))
    }
}

impl<'m> Share<'m> {
    #[allow(
        clippy::too_many_arguments,
        reason = "these are the words of the system call"
    )]
    fn new(
        mm: &'m Mm,
        dst: &'m PageTable,
        dst_addr: u64,
        src: &'m PageTable,
        src_addr: u64,
        len: u64,
        mode: ShareMode,
        perm: Option<Perm>,
    ) -> Self {
        Self {
            mm,
            tables: [src, dst],
            crosses: dst.crosses(src),
            src: src.root(),
            dst: dst.root(),
            range: src_addr..src_addr + len,
            distance: dst_addr.wrapping_sub(src_addr),
            mode,
            perm,
            before: None,
        }
    }

    /// Returns whether it was not too much effort.
    fn run(&self, limit: Effort) -> Result<bool, VmError> {
        let plan = self.plan(limit)?;
        if plan.nr_bytes < self.range.end - self.range.start {
            return Ok(false);
        }
        let mut reserve =
            self.tables[1].charge_and_reserve(self.mm, plan.charge, plan.nr_frames())?;
        match self.mode {
            ShareMode::CopyOnWrite => self.fork(&mut reserve),
            ShareMode::Move => {
                let charge = self.loss();
                self.take(&mut reserve);
                self.tables[0].shrink(self.mm, charge);
            }
            ShareMode::Shared => {
                let flushed = self.detach_shared(&mut reserve);
                self.attach_shared(&mut reserve, &flushed);
            }
        }
        Ok(true)
    }

    /// The whole of it for one page, if that takes no frame and both tables are there.
    #[inline]
    fn one_page(&self, page: u64) -> Option<Result<(), VmError>> {
        let to = walk_to_page(&self.mm.map, self.dst, self.to_dst(page)).ok()?;
        let from = walk_to_page(&self.mm.map, self.src, page).ok()?;
        let is_own = from.is_exclusive();
        if !to.is_exclusive() || self.mode != ShareMode::CopyOnWrite && (!is_own || from.is_plain())
        {
            return None;
        }
        let (source, target) = (from.slot(page), to.slot(self.to_dst(page)));
        let entry = source.get();
        if !target.get().is_empty() {
            return Some(Err(Error::Occupied));
        }
        if entry.is_empty() || self.takes_frame(entry, is_own) {
            return None;
        }
        if let Err(error) = self.check_rights(entry) {
            return Some(Err(error));
        }
        let rights = self.rights(entry);
        let frame = match (self.mode, entry.kind()) {
            (ShareMode::Shared, Kind::Private(frame) | Kind::Shared(frame))
            | (ShareMode::CopyOnWrite, Kind::Private(frame)) => frame,
            _ => return None,
        };
        if let Err(error) = self.tables[1].grow_by_page(self.mm) {
            return Some(Err(error));
        }
        self.mm.counts.increment(frame);
        let made = if self.mode == ShareMode::Shared {
            if !entry.is_shared() {
                source.set(Entry::shared(frame, entry.rights()));
            }
            Entry::shared(frame, rights)
        } else {
            if entry.is_writable() {
                source.set(entry.with_writable(false));
                self.mm.flush(Flush::page(self.src, page));
            }
            Entry::private(frame, rights, false)
        };
        target.set(made);
        to.add_used(1);
        Some(Ok(()))
    }

    /// The next part of the range that has something; the range then starts behind it.
    fn next_part(&self, rest: &mut Range<u64>) -> Option<Part> {
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

    fn source(&self, part: Part) -> View<'m> {
        let Part {
            addr,
            level,
            nr_entries,
        } = part;
        View::of(&self.mm.map, self.src, addr, level, nr_entries)
    }

    /// Checks both sides as far as the effort goes, and counts the frames that it takes.
    fn plan(&self, limit: Effort) -> Result<Planned, VmError> {
        let Range { start, end } = self.range;
        let target = self.to_dst(start)..self.to_dst(start) + (end - start);
        if !is_vacant(&self.mm.map, self.dst, &target) {
            return Err(Error::Occupied);
        }
        let mut dst = Plan::new(self.mm, self.dst);
        let mut src = Plan::new(self.mm, self.src);
        let (mut nr_pages, mut left) = (0, limit.0);
        // Where every page keeps its rights and no bytes are copied, nothing can be wrong with one.
        let is_plain = self.perm.is_none() && self.mode != ShareMode::Shared && !self.crosses;
        let (mut expected, mut rest) = (start, self.range.clone());
        let mut counted = self.counted();
        while left > 0
            && let Some(mut part) = self.next_part(&mut rest)
        {
            if self.perm.is_some() && part.addr != expected {
                return Err(Error::NotMapped);
            }
            dst.add(self.to_dst(part.addr), part.level);
            if counted.is_some() && part.level > 1 {
                part.nr_entries = part.nr_entries.min((left / SCAN.0).max(1).into());
                rest.start = part.end();
                left = left.saturating_sub(SCAN.0 * part.nr_entries as u32);
            }
            let is_own = match self.mode {
                ShareMode::CopyOnWrite => true,
                _ => src.add(part.addr, part.level),
            };
            if is_plain {
                left = left.saturating_sub(part.nr_entries as u32);
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
        let reached = if left > 0 { end } else { rest.start };
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
        let is_all = self.range == (0..USER_END) && self.distance == 0;
        let is_copy = is_all && self.before.is_none() && self.tables[1].is_empty();
        if self.perm.is_some() || is_copy {
            return None;
        }
        let mut tables = NewTables::new(self.mm, self.dst);
        if let Some(before) = self.before {
            let start = self.range.start;
            let is_counted = |nr_bytes: u64| {
                !is_vacant(
                    &self.mm.map,
                    self.src,
                    &(start - nr_bytes.min(before)..start),
                )
            };
            tables.skip(self.to_dst(start), is_counted);
        }
        Some((tables, 0))
    }

    /// How many of the tables that are missing at `addr` of the destination are charged with what is
    /// before it, if all of that is mapped.
    fn nr_tables_before(&self, addr: u64) -> u64 {
        match self.before {
            None | Some(0) => 0,
            Some(_) => commit::nr_begun(self.mm, self.dst, addr),
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
    fn loss(&self) -> u64 {
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

    /// The class of the destination, and of the source unless pages are copied.
    fn class(&self) -> Commit {
        self.tables[1].class()
    }

    /// Checks the entries of a part, which ends where the effort does. Returns how many frames their
    /// pages take.
    fn plan_entries(
        &self,
        part: &mut Part,
        is_own: bool,
        left: &mut u32,
    ) -> Result<usize, VmError> {
        let source = self.source(*part);
        let mut nr_pages = 0;
        for number in 0..source.len() {
            let entry = source.get(number);
            *left = left.saturating_sub(1);
            if entry.is_empty() {
                if self.perm.is_some() {
                    return Err(Error::NotMapped);
                }
            } else if entry.table_below().is_none() || part.level == 0 {
                self.check_rights(entry)?;
                if self.takes_frame(entry, is_own) {
                    nr_pages += 1;
                    *left = left.saturating_sub(Effort::BYTES.0);
                }
            }
            if *left == 0 {
                part.nr_entries = number as u64 + 1;
                break;
            }
        }
        Ok(nr_pages)
    }

    #[inline]
    fn check_rights(&self, entry: Entry) -> Result<(), VmError> {
        let stays_shared = match self.mode {
            ShareMode::Shared => true,
            ShareMode::Move => matches!(entry.kind(), Kind::Shared(_)),
            ShareMode::CopyOnWrite => false,
        };
        match self.perm {
            None if self.crosses && entry.is_shared() => Err(Error::BadState),
            Some(perm) if stays_shared && !entry.rights().ceiling().contains(perm) => {
                Err(Error::Denied)
            }
            _ => Ok(()),
        }
    }

    /// Whether the page needs a frame that is not there yet. `is_own`: its table need not be copied.
    #[inline]
    fn takes_frame(&self, entry: Entry, is_own: bool) -> bool {
        match (self.mode, entry.kind()) {
            (ShareMode::CopyOnWrite, Kind::Shared(_)) => self.perm.is_some(),
            (ShareMode::CopyOnWrite, Kind::Private(_)) => self.crosses,
            (ShareMode::Shared, Kind::Zero) => true,
            (ShareMode::Shared, Kind::Private(frame)) => !is_own || !self.mm.counts.is_one(frame),
            _ => false,
        }
    }

    /// Copy-on-write: in one pass, as no page departs. In the source W goes, even in tables that
    /// others share: it had no effect there.
    fn fork(&self, reserve: &mut Reserve<'_>) {
        let mut departing = Departing::new(self.mm, self.class());
        let mut nr_seconds = 0;
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let at = self.to_dst(part.addr);
            let (dst, level) = (self.dst, part.level);
            let to = open(self.mm, dst, at, level, Edit::Keep, reserve, &mut departing);
            let targets = to.run(at, part.nr_entries);
            let forked = match self.source(part) {
                View::Gap(entry, _) => self.fork_zeros(entry, targets),
                View::Entries(src) if level == 0 => self.fork_pages(Run::of(src, targets), reserve),
                View::Entries(src) => self.fork_tables(Run::of(src, targets)),
            };
            to.add_used(forked.nr_made);
            nr_seconds += forked.nr_seconds;
            if forked.loses_write {
                departing.flush().add_range(self.src, part.addr, part.end());
            }
        }
        self.mm.counts.add_shared(nr_seconds);
        departing.finish();
    }

    fn fork_zeros(&self, entry: Entry, targets: &[AtomicU64]) -> Forked {
        let zero = Entry::zero(self.rights(entry));
        targets.iter().for_each(|place| Slot::new(place).set(zero));
        Forked {
            nr_made: targets.len(),
            ..Forked::default()
        }
    }

    fn fork_tables(&self, run: Run<'_>) -> Forked {
        let mut counts = CountCursor::new(&self.mm.counts);
        let mut forked = Forked::default();
        let mut next = 0;
        while let Some(number) = next_used(run.src, next, run.len()) {
            next = number + 1;
            let (source, target) = run.page(number);
            let entry = source.get();
            forked.nr_made += 1;
            let Some(below) = entry.table_below() else {
                target.set(Entry::zero(self.rights(entry)));
                continue;
            };
            forked.nr_seconds += u64::from(counts.of(below).increment());
            if entry.is_writable() {
                forked.loses_write = true;
                source.set(entry.lent());
            }
            target.set(entry.lent());
        }
        forked
    }

    fn fork_pages(&self, run: Run<'_>, reserve: &mut Reserve<'_>) -> Forked {
        let mut counts = CountCursor::new(&self.mm.counts);
        let mut forked = Forked::default();
        let mut done = 0;
        while done < run.len() {
            let rest = run.skip(done);
            let (source, target) = rest.page(0);
            let entry = source.get();
            if let Some(pattern) = Pattern::like(entry, &self.mm.counts)
                && !self.crosses
            {
                let lent = rest.fork(&self.mm.counts, pattern, self.perm.map(Rights::new));
                forked.loses_write |= pattern.is_writable();
                forked.nr_seconds += lent.nr_seconds;
                forked.nr_made += lent.nr_pages;
                done += lent.nr_pages;
            } else {
                if !entry.is_empty() {
                    target.set(self.forked(entry, &mut counts, reserve));
                    forked.nr_made += 1;
                }
                done += 1;
            }
        }
        forked
    }

    /// The copy of a page that is not private, or goes to a space of another class.
    fn forked(
        &self,
        source: Entry,
        counts: &mut CountCursor<'_>,
        reserve: &mut Reserve<'_>,
    ) -> Entry {
        let rights = self.rights(source);
        match source.kind() {
            Kind::Shared(frame) if self.perm.is_none() => {
                self.mm
                    .counts
                    .add_shared(counts.of(frame).increment().into());
                Entry::shared(frame, rights)
            }
            Kind::Shared(frame) | Kind::Private(frame) => {
                let snapshot = reserve.take();
                self.mm.map.copy_frame(frame, snapshot);
                self.mm.stats.copied.add(1);
                Entry::private(snapshot, rights, true)
            }
            _ => Entry::zero(rights),
        }
    }

    /// Moves everything, and takes away the tables of the source that are empty then.
    fn take(&self, reserve: &mut Reserve<'_>) {
        let mut departing = Departing::new(self.mm, self.class());
        let mut is_emptied = false;
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let (at, level) = (self.to_dst(part.addr), part.level);
            let (src, dst) = (self.src, self.dst);
            let to = open(self.mm, dst, at, level, Edit::Keep, reserve, &mut departing);
            let from = open(
                self.mm,
                src,
                part.addr,
                level,
                Edit::Change,
                reserve,
                &mut departing,
            );
            let targets = to.run(at, part.nr_entries);
            let mut nr_moved = 0;
            for (source, target) in from.run(part.addr, part.nr_entries).iter().zip(targets) {
                let source = Slot::new(source);
                let entry = source.get();
                if !entry.is_empty() {
                    source.set(Entry::EMPTY);
                    Slot::new(target).set(self.moved(entry, level));
                    nr_moved += 1;
                }
            }
            from.subtract_used(nr_moved);
            is_emptied |= from.nr_used() == 0;
            to.add_used(nr_moved);
            departing.flush().add_range(src, part.addr, part.end());
        }
        if is_emptied {
            prune(self.mm, self.src, &self.range, &mut departing);
        }
        departing.finish();
    }

    fn moved(&self, source: Entry, level: u32) -> Entry {
        if level > 0 && source.table_below().is_some() {
            return source;
        }
        let rights = self.rights(source);
        match source.kind() {
            Kind::Shared(frame) => Entry::shared(frame, rights),
            Kind::Private(frame) => Entry::private(frame, rights, source.is_writable()),
            _ => Entry::zero(rights),
        }
    }

    /// Shared memory, pass 1: opens the tables of both sides, and turns the pages of the source into
    /// it, unless they must be copied first. Those are taken out of reach.
    fn detach_shared(&self, reserve: &mut Reserve<'_>) -> Flushed {
        let mut departing = Departing::new(self.mm, self.class());
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let at = self.to_dst(part.addr);
            open(
                self.mm,
                self.dst,
                at,
                0,
                Edit::Keep,
                reserve,
                &mut departing,
            );
            let from = open(
                self.mm,
                self.src,
                part.addr,
                0,
                Edit::Change,
                reserve,
                &mut departing,
            );
            let places = from.run(part.addr, part.nr_entries).iter();
            for (slot, page) in places.map(Slot::new).zip((part.addr..).step_by(PAGE_SIZE)) {
                if self.detach_page(slot, reserve) {
                    departing.flush().add(self.src, page);
                }
            }
        }
        departing.finish()
    }

    /// Returns whether the page was taken out of reach.
    fn detach_page(&self, slot: Slot<'_>, reserve: &mut Reserve<'_>) -> bool {
        let entry = slot.get();
        let frame = match entry.kind() {
            Kind::Zero => {
                self.mm.stats.zero_filled.add(1);
                reserve.take_zeroed()
            }
            Kind::Private(frame) if !self.mm.counts.is_one(frame) => {
                slot.set(entry.condemned());
                return true;
            }
            Kind::Private(frame) | Kind::Shared(frame) => frame,
            Kind::Empty | Kind::Condemned(_) => return false,
        };
        slot.set(Entry::shared(frame, entry.rights()));
        self.mm.counts.increment(frame);
        false
    }

    /// Pass 2: makes the pages of the destination.
    fn attach_shared(&self, reserve: &mut Reserve<'_>, flushed: &Flushed) {
        let mut src = Cursor::new(&self.mm.map, self.src);
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let at = self.to_dst(part.addr);
            let Ok(to) = walk_to_page(&self.mm.map, self.dst, at) else {
                unreachable!("pass 1 has made the table");
            };
            let mut nr_made = 0;
            for page in (part.addr..part.end()).step_by(PAGE_SIZE) {
                let slot = src.open_slot(page);
                if !slot.get().is_empty() {
                    let entry = self.attached(slot, reserve, flushed);
                    to.slot(self.to_dst(page)).set(entry);
                    nr_made += 1;
                }
            }
            to.add_used(nr_made);
        }
    }

    fn attached(&self, slot: Slot<'_>, reserve: &mut Reserve<'_>, flushed: &Flushed) -> Entry {
        let source = slot.get();
        let frame = match source.kind() {
            Kind::Condemned(old) => {
                let frame = reserve.take();
                self.mm.map.copy_frame(old, frame);
                self.mm.stats.cow_broken.add(1);
                self.mm.counts.increment(frame);
                slot.set(Entry::shared(frame, source.rights()));
                self.mm.release(old, self.class(), flushed);
                frame
            }
            Kind::Shared(frame) => frame,
            _ => unreachable!("pass 1 left shared and condemned pages"),
        };
        Entry::shared(frame, self.rights(source))
    }

    /// The rights of the destination's page.
    #[inline]
    fn rights(&self, source: Entry) -> Rights {
        self.perm.map_or(source.rights(), Rights::new)
    }

    const fn to_dst(&self, addr: u64) -> u64 {
        addr.wrapping_add(self.distance)
    }
}

/// What became of a part.
#[derive(Clone, Copy, Default)]
struct Forked {
    /// Entries made in the destination.
    nr_made: usize,
    /// Frames that got their second reference.
    nr_seconds: u64,
    /// Whether the source lost W somewhere.
    loses_write: bool,
}
