//! Pages change hands: those of one table of each side.
//!
//! The destination's table is taken out of reach for as long as that takes, and one that pages are
//! moved from; one that pages are lent from is write-protected, unless they all are already. That is
//! flushed first. After it nobody reaches the pages through anything else than these tables, so one
//! pass may do all at once: write entries, count up, and count down.
//!
//! ```text
//! withdraw   the entry that names the destination's table; protect or withdraw the source's
//! flush      both
//! one pass   replace entries, count up and down
//! put back   both
//! ```
//!
//! A CPU that faults meanwhile waits for the lock of its space, and finds everything in its place.

use core::ops::Range;

use super::{
    Job, Transfer,
    body::{Method, method},
};
use crate::{
    mm::{Count, Departing, Dropped, Flushed, Frame, phys::FRAME_SIZE},
    vm::{
        cursor::Node,
        entry::{Entry, Kind, Pattern, Slot},
        own,
        remap::Run,
    },
};

/// Remaps the pages of a run, which begins at `page` of the destination: all but those with shared
/// memory on either side, which are only taken out of reach. Returns how many were remapped.
///
/// The destination's table is open, and that of a source from which pages are moved.
pub(super) fn exchange<'m>(
    job: &Job<'m>,
    from: Node<'m>,
    to: Node<'m>,
    run: Run<'_>,
    page: u64,
    departing: &mut Departing<'m>,
) -> u64 {
    #[cfg(all(not(target_os = "none"), debug_assertions))]
    let named_before = crate::mm::sim::Named::by(run.dst);
    let mut exchange = Exchange::begin(job, from, to, run, page, departing);
    exchange.run(run, page);
    let nr_remapped = exchange.end();
    #[cfg(all(not(target_os = "none"), debug_assertions))]
    named_before.check_released(job.mm.map);
    nr_remapped
}

struct Exchange<'a, 'm> {
    job: &'a Job<'m>,
    departing: &'a mut Departing<'m>,
    from: Node<'m>,
    to: Node<'m>,
    /// All pages of the source.
    source: Range<u64>,
    is_source_protected: bool,
    flushed: Flushed,
    nr_remapped: u64,
    /// How many frames got their second reference, and how many lost their last but one.
    nr_seconds: u64,
    nr_firsts: u64,
}

impl<'a, 'm> Exchange<'a, 'm> {
    fn begin(
        job: &'a Job<'m>,
        from: Node<'m>,
        to: Node<'m>,
        run: Run<'_>,
        page: u64,
        departing: &'a mut Departing<'m>,
    ) -> Self {
        let len = run.len() as u64 * FRAME_SIZE;
        let source = job.to_src(page)..job.to_src(page) + len;
        to.withdraw();
        departing.flush().add_range(job.dst, page, page + len);
        let is_source_protected = match job.transfer {
            Transfer::Move => {
                from.withdraw();
                departing
                    .flush()
                    .add_range(job.src, source.start, source.end);
                false
            }
            Transfer::Copy => {
                let is_writable = run.page(0).0.get().is_writable();
                is_writable && protect(job, from, &source, departing)
            }
        };
        Self {
            job,
            from,
            to,
            source,
            is_source_protected,
            flushed: departing.flush_now(),
            departing,
            nr_remapped: 0,
            nr_seconds: 0,
            nr_firsts: 0,
        }
    }

    fn run(&mut self, mut run: Run<'_>, mut page: u64) {
        while run.len() > 0 {
            let mut nr_pages = self.alike(run);
            if nr_pages == 0 {
                nr_pages = self.unlike(run, page);
            }
            run = run.skip(nr_pages);
            page += nr_pages as u64 * FRAME_SIZE;
        }
    }

    /// As many pages as are like the first, if that is an ordinary one. Returns how many.
    fn alike(&mut self, run: Run<'_>) -> usize {
        let (source, target) = run.page(0);
        let (entry, replaced) = (source.get(), target.get());
        let is_copy = self.job.transfer == Transfer::Copy;
        if is_copy && entry.is_same_page(replaced) {
            return 0;
        }
        let counts = &self.job.mm.counts;
        let (Some(like), Some(old_like)) = (
            Pattern::like(entry, counts),
            Pattern::like(replaced, counts),
        ) else {
            return 0;
        };
        if is_copy && like.is_writable() {
            self.protect_source();
        }
        let is_sole = old_like.count(replaced).is_some_and(Count::is_one);
        let notes = if is_sole {
            self.departing.room(run.len())
        } else {
            &[]
        };
        let given = if is_copy {
            run.lend(like, old_like, notes, &self.flushed)
        } else {
            run.take(old_like, notes, &self.flushed)
        };
        self.departing.noted(given.nr_noted, 0);
        self.nr_remapped += given.nr_pages as u64;
        self.nr_seconds += given.nr_seconds;
        self.nr_firsts += given.nr_firsts;
        given.nr_pages
    }

    /// The first page, whatever it is; and all that follow, if these are pages that have arrived
    /// before. Returns how many.
    #[inline(never)]
    fn unlike(&mut self, run: Run<'_>, page: u64) -> usize {
        if self.job.transfer == Transfer::Copy {
            let nr_same = run.nr_same();
            if nr_same > 0 {
                self.nr_remapped += nr_same as u64;
                return nr_same;
            }
        }
        let (source, target) = run.page(0);
        let (entry, replaced) = (source.get(), target.get());
        let replacement = match method(entry, replaced) {
            Method::Remap(frame) => self.given(source, frame, replaced),
            Method::Zero => Entry::zero(replaced.rights()),
            Method::Bytes => {
                let job = self.job;
                own::detach(job.mm, job.dst, page, target, self.departing.flush());
                return 1;
            }
        };
        target.set(replacement);
        if let Kind::Private(old) = replaced.kind() {
            self.release(old);
        }
        self.nr_remapped += 1;
        1
    }

    /// Takes or lends the frame of a private page; returns the entry for the destination.
    fn given(&mut self, source: Slot<'_>, frame: Frame, replaced: Entry) -> Entry {
        let entry = source.get();
        let exclusive = match self.job.transfer {
            Transfer::Copy => {
                self.nr_seconds += u64::from(self.departing.count(frame).increment());
                if entry.is_writable() {
                    self.protect_source();
                    source.set(entry.with_writable(false));
                }
                false
            }
            Transfer::Move => {
                source.set(Entry::zero(entry.rights()));
                entry.is_writable()
            }
        };
        Entry::private(frame, replaced.rights(), exclusive)
    }

    fn release(&mut self, old: Frame) {
        match self.departing.count(old).release(&self.flushed) {
            Dropped::Last => self.departing.add_sole(old),
            Dropped::Second => self.nr_firsts += 1,
            Dropped::Remaining => {}
        }
    }

    /// Before the first page of the source loses W.
    fn protect_source(&mut self) {
        if !self.is_source_protected && protect(self.job, self.from, &self.source, self.departing) {
            self.is_source_protected = true;
            self.flushed = self.departing.flush_now();
        }
    }

    /// Puts the tables back. Returns how many pages were remapped.
    fn end(self) -> u64 {
        if self.is_source_protected {
            self.from.unprotect();
        }
        if self.job.transfer == Transfer::Move {
            self.from.put_back();
        }
        self.to.put_back();
        self.job.mm.counts.add_shared(self.nr_seconds);
        self.job.mm.counts.subtract_shared(self.nr_firsts);
        self.nr_remapped
    }
}

/// Write-protects the source's table; the flush is the caller's. `false`: nobody can write there through
/// this space anyway.
fn protect<'m>(
    job: &Job<'m>,
    from: Node<'m>,
    source: &Range<u64>,
    departing: &mut Departing<'m>,
) -> bool {
    if from.is_exclusive() {
        from.protect();
        departing
            .flush()
            .add_range(job.src, source.start, source.end);
    }
    from.is_exclusive()
}
