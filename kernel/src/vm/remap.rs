//! The hot loops: neighbouring pages change hands, within one table of each side.
//!
//! Most pages of a message are like their neighbours: private, with the same rights, in frames near
//! each other, and what they replace is as uniform. Such pages fit a [`Pattern`] on either side, and
//! go straight through. The first page that does not fit ends the loop, and the caller, who knows
//! every kind, takes that one.
//!
//! A destination's entry is replaced at once, before the flush: until that is done, what the owner
//! of a buffer sees there is either the old page or the one that arrives. The *old frame* is noted,
//! and not touched before the flush.

use core::{ops::AddAssign, sync::atomic::AtomicU64};

use crate::{
    mm::{Count, Dropped, Flushed, RefCounts},
    vm::entry::{Entry, Flags, Pattern, Rights, Slot},
};

/// Pages of a source and those of a destination that they replace.
#[derive(Clone, Copy)]
pub(super) struct Run<'m> {
    pub(super) src: &'m [AtomicU64],
    pub(super) dst: &'m [AtomicU64],
}

impl Run<'_> {
    /// How many pages there are.
    pub(super) fn len(self) -> usize {
        self.src.len().min(self.dst.len())
    }

    /// The entries of one page on both sides.
    pub(super) fn page(&self, number: usize) -> (Slot<'_>, Slot<'_>) {
        (Slot::new(&self.src[number]), Slot::new(&self.dst[number]))
    }

    /// The entries of all pages on both sides.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Slot<'_>, Slot<'_>)> {
        let pairs = self.src.iter().zip(self.dst);
        pairs.map(|(src, dst)| (Slot::new(src), Slot::new(dst)))
    }

    /// The same without the first pages.
    pub(super) fn skip(self, nr_pages: usize) -> Self {
        Self {
            src: &self.src[nr_pages..],
            dst: &self.dst[nr_pages..],
        }
    }

    /// How many pages at the start have the same frame on both sides.
    pub(super) fn nr_same(self) -> usize {
        let pairs = self.src.iter().zip(self.dst);
        pairs
            .take_while(|(src, dst)| {
                let (src, dst) = (Slot::new(src).get(), Slot::new(dst).get());
                src.is_same_page(dst)
            })
            .count()
    }

    /// Makes pages copy-on-write on both sides, as long as source and destination fit, and notes the
    /// old frames.
    pub(super) fn lend<'m>(
        self,
        counts: &'m RefCounts,
        mut from: Pattern<'m>,
        mut to: Pattern<'m>,
        notes: &[AtomicU64],
    ) -> Lent {
        let mut lent = Lent::default();
        loop {
            let (rest, notes) = (self.skip(lent.nr_pages), &notes[lent.nr_pages..]);
            if rest.len().min(notes.len()) == 0 {
                return lent;
            }
            let (source, target) = rest.page(0);
            let (entry, old) = (source.get(), target.get());
            let Some((fit_from, fit_to)) = fitting(counts, (from, entry), (to, old)) else {
                return lent;
            };
            (from, to) = (fit_from, fit_to);
            let is_sole = to.count(old).is_some_and(Count::is_one);
            lent += match (from.is_writable(), is_sole) {
                (true, true) => rest.lend_as::<true, true>(from, to, notes),
                (true, false) => rest.lend_as::<true, false>(from, to, notes),
                (false, true) => rest.lend_as::<false, true>(from, to, notes),
                (false, false) => rest.lend_as::<false, false>(from, to, notes),
            };
        }
    }

    // A function of its own, so that the loop has the registers for itself.
    #[inline(never)]
    fn lend_as<const WRITABLE: bool, const SOLE: bool>(
        self,
        from: Pattern<'_>,
        to: Pattern<'_>,
        notes: &[AtomicU64],
    ) -> Lent {
        let difference = to.difference(from.flags(), false);
        let mut lent = Lent::default();
        for ((src, dst), note) in self.src.iter().zip(self.dst).zip(notes) {
            let (src, dst) = (Slot::new(src), Slot::new(dst));
            let (entry, old) = (src.get(), dst.get());
            let (Some(count), Some(old_count)) = (from.count(entry), to.count(old)) else {
                break;
            };
            if old_count.is_one() != SOLE {
                break;
            }
            old.note_in(note, SOLE);
            lent.nr_seconds += count_up::<WRITABLE>(count, src, entry);
            dst.set(entry.plus(difference));
            lent.nr_pages += 1;
        }
        lent.nr_counted = if SOLE { 0 } else { lent.nr_pages };
        lent.all_seconds_if(WRITABLE)
    }

    /// The same where the destination is empty: pages with these rights are made there, or with those
    /// that they have in the source.
    pub(super) fn fork<'m>(
        self,
        counts: &'m RefCounts,
        mut from: Pattern<'m>,
        rights: Option<Rights>,
    ) -> Lent {
        let mut lent = Lent::default();
        loop {
            let rest = self.skip(lent.nr_pages);
            lent += if from.is_writable() {
                rest.fork_as::<true>(from, rights)
            } else {
                rest.fork_as::<false>(from, rights)
            };
            if lent.nr_pages == self.len() {
                return lent;
            }
            match from.near(self.page(lent.nr_pages).0.get(), counts) {
                Some(pattern) => from = pattern,
                None => return lent,
            }
        }
    }

    #[inline(never)]
    fn fork_as<const WRITABLE: bool>(self, from: Pattern<'_>, rights: Option<Rights>) -> Lent {
        let difference = from.flags().difference(rights, false);
        let mut lent = Lent::default();
        for (src, dst) in self.src.iter().zip(self.dst) {
            let (src, dst) = (Slot::new(src), Slot::new(dst));
            let entry = src.get();
            let Some(count) = from.count(entry) else {
                break;
            };
            lent.nr_seconds += count_up::<WRITABLE>(count, src, entry);
            dst.set(entry.plus(difference));
            lent.nr_pages += 1;
        }
        lent.all_seconds_if(WRITABLE)
    }

    /// Moves pages like the first one, a private page, and leaves demand-zero pages with its rights,
    /// as long as the destination fits; notes the old frames.
    pub(super) fn take<'m>(
        self,
        counts: &'m RefCounts,
        first: Entry,
        mut to: Pattern<'m>,
        notes: &[AtomicU64],
    ) -> Lent {
        let mut taken = Lent::default();
        loop {
            let (rest, notes) = (self.skip(taken.nr_pages), &notes[taken.nr_pages..]);
            if rest.len().min(notes.len()) == 0 {
                return taken;
            }
            let (source, target) = rest.page(0);
            if Flags::of(source.get()) != Flags::of(first) {
                return taken;
            }
            let Some(fit) = to.fitting(target.get(), counts) else {
                return taken;
            };
            to = fit;
            taken += if to.count(target.get()).is_some_and(Count::is_one) {
                rest.take_as::<true>(first, to, notes)
            } else {
                rest.take_as::<false>(first, to, notes)
            };
        }
    }

    #[inline(never)]
    fn take_as<const SOLE: bool>(self, first: Entry, to: Pattern<'_>, notes: &[AtomicU64]) -> Lent {
        let flags = Flags::of(first);
        let left = Entry::zero(first.rights());
        let difference = to.difference(flags, first.is_writable());
        let mut taken = Lent::default();
        for ((src, dst), note) in self.src.iter().zip(self.dst).zip(notes) {
            let (src, dst) = (Slot::new(src), Slot::new(dst));
            let (entry, old) = (src.get(), dst.get());
            let Some(old_count) = to.count(old) else {
                break;
            };
            if Flags::of(entry) != flags || old_count.is_one() != SOLE {
                break;
            }
            old.note_in(note, SOLE);
            src.set(left);
            dst.set(entry.plus(difference));
            taken.nr_pages += 1;
        }
        taken.nr_counted = if SOLE { 0 } else { taken.nr_pages };
        taken
    }
}

/// Empties pages, as long as they fit, and notes their frames. Returns how many pages, and how many of
/// their frames have other references.
#[inline(never)]
pub(super) fn drop_alike(
    places: &[AtomicU64],
    pattern: Pattern<'_>,
    notes: &[AtomicU64],
) -> (usize, usize) {
    let (mut nr_pages, mut nr_counted) = (0, 0);
    for (place, note) in places.iter().zip(notes) {
        let slot = Slot::new(place);
        let entry = slot.get();
        let Some(count) = pattern.count(entry) else {
            break;
        };
        let is_sole = count.is_one();
        entry.note_in(note, is_sole);
        nr_counted += usize::from(!is_sole);
        slot.set(Entry::EMPTY);
        nr_pages += 1;
    }
    (nr_pages, nr_counted)
}

/// Releases pages of a table that nobody can reach any more, as long as they fit, and notes the frames
/// that are free then.
#[inline(never)]
pub(super) fn release_alike(
    places: &[AtomicU64],
    pattern: Pattern<'_>,
    notes: &[AtomicU64],
    flushed: &Flushed,
) -> Released {
    let mut released = Released::default();
    for place in places {
        let entry = Slot::new(place).get();
        let Some(count) = pattern.count(entry) else {
            break;
        };
        released.nr_pages += 1;
        match count.release(flushed) {
            Dropped::Last => {
                entry.note_in(&notes[released.nr_last], true);
                released.nr_last += 1;
            }
            Dropped::Second => released.nr_seconds += 1,
            Dropped::Remaining => {}
        }
        if released.nr_last == notes.len() {
            break;
        }
    }
    released
}

/// What was released.
#[derive(Clone, Copy, Default)]
pub(super) struct Released {
    /// How many pages.
    pub(super) nr_pages: usize,
    /// How many frames lost their last reference.
    pub(super) nr_last: usize,
    /// How many frames lost their last but one reference.
    pub(super) nr_seconds: u64,
}

/// Counts one more reference to the frame of a source page, which becomes copy-on-write. Returns 1 if
/// it is the second one and that was not known before.
#[inline(always)]
fn count_up<const WRITABLE: bool>(count: Count<'_>, slot: Slot<'_>, entry: Entry) -> u64 {
    if WRITABLE {
        count.make_two();
        slot.set(entry.minus_writable());
        0
    } else {
        count.increment().into()
    }
}

/// Patterns that the entries fit, if they differ from the last ones at most in the block.
#[inline]
fn fitting<'m>(
    counts: &'m RefCounts,
    (from, entry): (Pattern<'m>, Entry),
    (to, old): (Pattern<'m>, Entry),
) -> Option<(Pattern<'m>, Pattern<'m>)> {
    Some((from.fitting(entry, counts)?, to.fitting(old, counts)?))
}

/// What was lent or taken.
#[derive(Clone, Copy, Default)]
pub(super) struct Lent {
    /// How many pages.
    pub(super) nr_pages: usize,
    /// How many frames of these got their second reference.
    pub(super) nr_seconds: u64,
    /// How many of the frames that were replaced have other references.
    pub(super) nr_counted: usize,
}

impl Lent {
    /// Pages that were writable had one reference each.
    const fn all_seconds_if(mut self, were_writable: bool) -> Self {
        if were_writable {
            self.nr_seconds = self.nr_pages as u64;
        }
        self
    }
}

impl AddAssign for Lent {
    fn add_assign(&mut self, more: Self) {
        self.nr_pages += more.nr_pages;
        self.nr_seconds += more.nr_seconds;
        self.nr_counted += more.nr_counted;
    }
}
