//! The whole pages of a message that lie at the same offset on both sides: its body.
//!
//! Tables go over whole where both sides are plain, pages a [run](Run) at a time.

use core::{ops::Range, sync::atomic::AtomicU64};

use cowslip_abi::Error;

use super::{CopyError, Job, Needs, Side, Tables, Transfer, exchange::exchange};
use crate::{
    mm::{
        CountCursor, Departing, Flushed, Frame, Reserve,
        phys::{FRAME_SIZE, NR_ENTRIES},
    },
    vm::{
        Effort,
        access::{check_writable, pieces},
        cursor::{View, congruent_level, coverage, highest_level, index, shift, walk_to_page},
        entry::{Entry, Kind, Slot},
        open::{Edit, open},
        own,
        remap::Run,
    },
};

/// How a page of the body gets its bytes.
pub(super) enum Method {
    /// By naming this frame of the source.
    Remap(Frame),
    /// By becoming demand-zero.
    Zero,
    /// By copying.
    Bytes,
}

#[inline]
pub(super) fn method(source: Entry, dst: Entry) -> Method {
    match source.kind() {
        Kind::Private(frame) if !dst.is_shared() => Method::Remap(frame),
        Kind::Zero if !dst.is_shared() => Method::Zero,
        _ => Method::Bytes,
    }
}

impl<'m> Job<'m> {
    /// Checks both sides of the body, and counts the frames that it takes. Returns the address where
    /// the effort ends.
    pub(super) fn plan_body(
        &self,
        body: &Range<u64>,
        needs: &mut Needs<'_>,
    ) -> Result<u64, CopyError> {
        let mut page = body.start;
        while page < body.end && !needs.left.is_spent() {
            if let Some(tables) = self.tables_at(page, body.end) {
                needs.tables = Some(tables);
                needs.left.spend(Effort::TABLE, tables.nr_entries);
                needs.dst.add(page, tables.level);
                if self.transfer == Transfer::Move {
                    needs.src.add(self.to_src(page), tables.level);
                }
                page += tables.nr_bytes();
            } else {
                page += self.plan_pages(page, body.end, needs)? as u64 * FRAME_SIZE;
            }
        }
        Ok(page)
    }

    /// The tables, or pieces of demand-zero memory, that go over whole from `page` on; of the highest level possible.
    #[inline]
    fn tables_at(&self, page: u64, end: u64) -> Option<Tables> {
        if end - page < coverage(1) {
            return None;
        }
        let level = highest_level(page, end).min(congruent_level(self.distance));
        (1..=level)
            .rev()
            .map(|level| Tables {
                page,
                level,
                nr_entries: self.nr_tables(page, end, level),
            })
            .find(|tables| tables.nr_entries > 0)
    }

    /// How many entries of this level go over whole.
    fn nr_tables(&self, page: u64, end: u64, level: u32) -> usize {
        let (map, wanted) = (&self.mm.map, (end - page) >> shift(level));
        let src = View::of(map, self.src, self.to_src(page), level, wanted);
        let dst = View::of(map, self.dst, page, level, wanted);
        match (src, dst) {
            (View::Entries(src), View::Entries(dst)) => Run::of(src, dst).nr_plain(),
            _ => (0..src.len().min(dst.len()))
                .take_while(|&number| src.get(number).is_plain() && dst.get(number).is_plain())
                .count(),
        }
    }

    /// The pages from `page` on, up to `end`, as far as one table goes on both sides.
    #[inline]
    fn pages_at(&self, page: u64, end: u64) -> (View<'m>, View<'m>) {
        let (map, wanted) = (&self.mm.map, (end - page) / FRAME_SIZE);
        let src = View::of(map, self.src, self.to_src(page), 0, wanted);
        (src, View::of(map, self.dst, page, 0, wanted))
    }

    /// Checks the pages of one table, and counts the frames that they take. Returns how many there
    /// are.
    fn plan_pages(&self, page: u64, end: u64, needs: &mut Needs<'_>) -> Result<usize, CopyError> {
        // An effort goes far enough for this; pages that are copied are another matter.
        let (src, dst) = self.pages_at(page, end);
        let mut nr_pages = src.len().min(dst.len());
        needs.left.spend(Effort(1), nr_pages);
        let is_own = needs.dst.add(page, 0);
        if self.transfer == Transfer::Move
            && let View::Entries(_) = src
        {
            needs.src.add(self.to_src(page), 0);
        }
        if let (View::Entries(src), View::Entries(dst)) = (src, dst)
            && Run::of(src, dst).is_ordinary()
        {
            return Ok(nr_pages);
        }
        let mut number = 0;
        while number < nr_pages {
            let (source, target) = (src.get(number), dst.get(number));
            number += 1;
            if source.is_empty() {
                return Err(CopyError::new(Side::Source, Error::NotMapped));
            }
            check_writable(target).map_err(|error| CopyError::new(Side::Destination, error))?;
            if let Method::Bytes = method(source, target) {
                needs.nr_pages += usize::from(own::needs_frame(self.mm, target, is_own));
                needs.left.spend(Effort::BYTES, 1);
                if needs.left.is_spent() {
                    nr_pages = number;
                }
            }
        }
        Ok(nr_pages)
    }

    /// Pass 1 of the body: all that is remapped, and returns how many pages that were; takes out of
    /// reach what is copied. Of these tables the plan has found that they go over whole.
    pub(super) fn remap(
        &self,
        body: &Range<u64>,
        found: Option<Tables>,
        reserve: &mut Reserve<'_>,
        departing: &mut Departing<'m>,
    ) -> u64 {
        let mut remapping = Remapping {
            job: self,
            departing,
            nr_remapped: 0,
            nr_seconds: 0,
        };
        let mut page = body.start;
        while page < body.end {
            let found = found.filter(|tables| tables.page == page);
            page += if let Some(tables) = found.or_else(|| self.tables_at(page, body.end)) {
                remapping.tables(tables, reserve);
                tables.nr_bytes()
            } else {
                remapping.pages(page, body.end, reserve) as u64 * FRAME_SIZE
            };
        }
        self.mm.counts.add_shared(remapping.nr_seconds);
        remapping.nr_remapped
    }

    /// Pass 2 of the body: the pages that pass 1 did not remap are those with shared memory on either
    /// side.
    #[inline(never)]
    pub(super) fn write_body(
        &self,
        body: &Range<u64>,
        reserve: &mut Reserve<'_>,
        flushed: &Flushed,
    ) -> u64 {
        let (mut src, mut dst) = self.cursors();
        let mut nr_pages = 0;
        for (page, part) in pieces(body.clone()) {
            if src.get(self.to_src(page)).is_shared() || dst.get(page).is_shared() {
                nr_pages += self.write(&part, reserve, flushed);
            }
        }
        nr_pages
    }

    /// Whether all pages can be written where they are, as nobody else can reach their frames.
    pub(super) fn is_in_place(&self, body: &Range<u64>) -> bool {
        let mut counts = CountCursor::new(&self.mm.counts);
        self.transfer == Transfer::Copy
            && self.all_runs(body, |run| {
                run.is_ordinary()
                    && run.dst.iter().all(|place| {
                        let kind = Slot::new(place).get().kind();
                        matches!(kind, Kind::Private(frame) if counts.of(frame).is_one())
                    })
            })
    }

    /// Whether there are only pages in tables, those of the destination its own, and `is_so` says so
    /// of all runs.
    fn all_runs(&self, body: &Range<u64>, mut is_so: impl FnMut(Run<'m>) -> bool) -> bool {
        let (map, mut page) = (&self.mm.map, body.start);
        while page < body.end {
            let wanted = (body.end - page) / FRAME_SIZE;
            let (Ok(src), Ok(dst)) = (
                walk_to_page(map, self.src, self.to_src(page)),
                walk_to_page(map, self.dst, page),
            ) else {
                return false;
            };
            let run = Run::of(src.run(self.to_src(page), wanted), dst.run(page, wanted));
            if !dst.is_exclusive() || !is_so(run) {
                return false;
            }
            page += run.len() as u64 * FRAME_SIZE;
        }
        true
    }
}

/// The first pass over a body, on its way.
struct Remapping<'a, 'm> {
    job: &'a Job<'m>,
    departing: &'a mut Departing<'m>,
    nr_remapped: u64,
    /// How many frames got their second reference.
    nr_seconds: u64,
}

impl<'m> Remapping<'_, 'm> {
    /// Whole tables.
    #[inline(never)]
    fn tables(&mut self, tables: Tables, reserve: &mut Reserve<'_>) {
        let Job { mm, src, dst, .. } = *self.job;
        let Tables { page, level, .. } = tables;
        let (source, wanted) = (self.job.to_src(page), tables.nr_entries as u64);
        let len = tables.nr_bytes();
        let node = open(mm, dst, page, level, Edit::Keep, reserve, self.departing);
        let targets = node.run(page, wanted);
        if self.job.transfer == Transfer::Move {
            open(mm, src, source, level, Edit::Keep, reserve, self.departing);
        }
        self.departing.flush().add_range(dst, page, page + len);
        self.departing.flush().add_range(src, source, source + len);
        match View::of(&mm.map, src, source, level, wanted) {
            View::Entries(places) => self.entries(Run::of(places, targets), level),
            View::Gap(zero, _) => {
                for target in targets {
                    self.replace_table(Slot::new(target), zero, level);
                }
            }
        }
        self.nr_remapped += len / FRAME_SIZE;
    }

    /// Entries of this level, each a table or as much demand-zero memory.
    fn entries(&mut self, mut run: Run<'_>, level: u32) {
        while run.len() > 0 {
            let mut nr_entries = match self.job.transfer {
                Transfer::Copy => self.lend_tables(run, level),
                Transfer::Move => 0,
            };
            if nr_entries == 0 {
                let (source, target) = run.page(0);
                self.entry(source, target, level);
                nr_entries = 1;
            }
            run = run.skip(nr_entries);
        }
    }

    /// As many tables as take the place of others, or are there already. Returns how many.
    fn lend_tables(&mut self, run: Run<'_>, level: u32) -> usize {
        let nr_same = run.nr_same();
        let (source, target) = run.page(0);
        let are_tables = [source, target].map(|slot| slot.get().table_below().is_some());
        if nr_same > 0 || are_tables != [true; 2] {
            return nr_same;
        }
        let counts = &self.job.mm.counts;
        let lent = run.lend_tables(level - 1, counts, self.departing.room(run.len()));
        self.departing.noted(lent.nr_noted, lent.nr_noted);
        self.nr_seconds += lent.nr_seconds;
        lent.nr_pages
    }

    fn entry(&mut self, source: Slot<'_>, target: Slot<'_>, level: u32) {
        let entry = source.get();
        let Some(below) = entry.table_below() else {
            return self.replace_table(target, entry, level);
        };
        match self.job.transfer {
            Transfer::Copy => {
                self.nr_seconds += u64::from(self.departing.count(below).increment());
                source.set(entry.lent());
                self.replace_table(target, entry.lent(), level);
            }
            Transfer::Move => {
                source.set(Entry::PLAIN_ZERO);
                self.replace_table(target, entry, level);
            }
        }
    }

    fn replace_table(&mut self, target: Slot<'_>, entry: Entry, level: u32) {
        let replaced = target.get();
        target.set(entry);
        if replaced.table_below().is_some() {
            self.departing.add_table(replaced.note(), level - 1);
        }
    }

    /// The pages from `page` on, as far as one table goes on both sides. Returns how many.
    fn pages(&mut self, page: u64, end: u64, reserve: &mut Reserve<'_>) -> usize {
        let Job { mm, src, dst, .. } = *self.job;
        let (source, wanted) = (self.job.to_src(page), (end - page) / FRAME_SIZE);
        let to = open(mm, dst, page, 0, Edit::Keep, reserve, self.departing);
        let targets = to.run(page, wanted);
        let Ok(mut from) = walk_to_page(&mm.map, src, source) else {
            let nr_pages = targets.len().min(NR_ENTRIES - index(source, 0));
            self.zeros(&targets[..nr_pages], page);
            return nr_pages;
        };
        if self.job.transfer == Transfer::Move {
            from = open(mm, src, source, 0, Edit::Keep, reserve, self.departing);
        }
        let run = Run::of(from.run(source, wanted), targets);
        self.nr_remapped += exchange(self.job, from, to, run, page, self.departing);
        run.len()
    }

    /// Pages whose source is demand-zero and has no table.
    #[inline(never)]
    fn zeros(&mut self, targets: &[AtomicU64], page: u64) {
        let end = page + targets.len() as u64 * FRAME_SIZE;
        self.departing.flush().add_range(self.job.dst, page, end);
        for target in targets.iter().map(Slot::new) {
            let replaced = target.get();
            if replaced.is_shared() {
                continue;
            }
            target.set(Entry::zero(replaced.rights()));
            if let Kind::Private(old) = replaced.kind() {
                self.departing.add(old);
            }
            self.nr_remapped += 1;
        }
    }
}
