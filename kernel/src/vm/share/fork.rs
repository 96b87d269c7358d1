//! Copy-on-write: both spaces have the range afterwards.
//!
//! The source's table may be one that others share: they may be copying it at the same moment, or forking from it. So each
//! takes its [turn](crate::mm::Turns).

use core::sync::atomic::AtomicU64;

use super::Share;
use crate::{
    mm::{CountCursor, Departing, Reserve},
    vm::{
        cursor::{View, next_used},
        entry::{Entry, Kind, Pattern, Rights, Slot},
        open::{Edit, open},
        remap::Run,
    },
};

impl Share<'_> {
    /// Copy-on-write: in one pass, as no page departs. In the source W goes, even in tables that
    /// others share: it had no effect there.
    pub(super) fn fork(&self, reserve: &mut Reserve<'_>) {
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
        let _turn = self.mm.turns.take(run.src);
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
        let _turn = self.mm.turns.take(run.src);
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
