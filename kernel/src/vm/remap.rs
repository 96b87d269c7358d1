//! The hot loops: neighbouring pages change hands, within one table of each side.
//!
//! Most pages of a message are like their neighbours: private, with the same rights, in frames near
//! each other, and what they replace is as uniform. Such pages fit a [`Pattern`] on either side, and
//! go straight through. The first page that does not fit ends the loop, and the caller, who knows
//! every kind, takes that one.
//!
//! Whoever replaces pages has [withdrawn and flushed](super::copy) them: so an *old frame* is counted
//! down in the same pass. One that nobody else names is noted, and becomes free with many others.

use core::{ops::AddAssign, sync::atomic::AtomicU64};

use crate::{
    mm::{Count, Dropped, Flushed, RefCounts, Sample},
    vm::entry::{
        Entry, Flags, Pattern, Rights, Slot, are_private_and_may_be_written,
        are_private_and_present,
    },
};

/// Pages of a source and as many of a destination that they replace.
#[derive(Clone, Copy)]
pub(super) struct Run<'m> {
    pub(super) src: &'m [AtomicU64],
    pub(super) dst: &'m [AtomicU64],
}

impl<'m> Run<'m> {
    /// As many pages as both have.
    #[inline]
    pub(super) fn of(src: &'m [AtomicU64], dst: &'m [AtomicU64]) -> Self {
        let len = src.len().min(dst.len());
        Self {
            src: &src[..len],
            dst: &dst[..len],
        }
    }

    /// Whether nothing can be wrong with any page: all are private, those of the source are present, and
    /// those of the destination may be written.
    #[inline]
    pub(super) fn is_ordinary(self) -> bool {
        are_private_and_present(self.src) && are_private_and_may_be_written(self.dst)
    }
}

impl Run<'_> {
    /// How many pages there are.
    pub(super) const fn len(self) -> usize {
        self.src.len()
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

    /// How many entries at the start are plain on both sides.
    #[inline]
    pub(super) fn nr_plain(self) -> usize {
        self.pairs()
            .take_while(|(src, dst)| src.get().and(dst.get()).is_plain())
            .count()
    }

    /// How many pages at the start have the same frame on both sides; or plain tables, which are the same.
    pub(super) fn nr_same(self) -> usize {
        let pairs = self.src.iter().zip(self.dst);
        pairs
            .take_while(|(src, dst)| {
                let (src, dst) = (Slot::new(src).get(), Slot::new(dst).get());
                src.is_same_page(dst)
            })
            .count()
    }

    /// Makes pages copy-on-write on both sides, as long as both fit and have counts like those of the
    /// first page. Old frames are counted down, or noted where nobody else names them.
    pub(super) fn lend(
        self,
        from: Pattern<'_>,
        to: Pattern<'_>,
        notes: &[AtomicU64],
        flushed: &Flushed,
    ) -> Given {
        let (source, target) = self.page(0);
        let (Some(count), Some(old_count)) = (from.count(source.get()), to.count(target.get()))
        else {
            return Given::default();
        };
        let (count, old_count) = (count.sample(), old_count.sample());
        let lend = match (from.is_writable(), old_count.is_one()) {
            (true, true) => Self::lend_as::<true, true>,
            (true, false) => Self::lend_as::<true, false>,
            (false, true) => Self::lend_as::<false, true>,
            (false, false) => Self::lend_as::<false, false>,
        };
        let lent = lend(self, (from, count), (to, old_count), notes, flushed);
        Given::instead_of(old_count, lent)
    }

    // A function of its own, so that the loop has the registers for itself.
    #[inline(never)]
    fn lend_as<const WRITABLE: bool, const SOLE: bool>(
        self,
        (from, like): (Pattern<'_>, Sample),
        (to, old_like): (Pattern<'_>, Sample),
        notes: &[AtomicU64],
        flushed: &Flushed,
    ) -> Lent {
        let difference = to.difference(from.flags(), false);
        let mut others = Others::default();
        let nr_pages = self.each::<SOLE>(notes, |src, dst, note| {
            let (entry, old) = (src.get(), dst.get());
            let (Some(count), Some(old_count)) = (from.count(entry), to.count(old)) else {
                return false;
            };
            if !let_go::<SOLE>(old, old_count, old_like, note, flushed) {
                return false;
            }
            if WRITABLE {
                count.make_two();
                src.set(entry.minus_writable());
            } else if !count.increment_from(like) {
                others.count_up(count);
            }
            dst.set(entry.plus(difference));
            true
        });
        let mut nr_seconds = others.nr_seconds;
        if WRITABLE || like.is_one() {
            nr_seconds += (nr_pages - others.nr_pages) as u64;
        }
        Lent {
            nr_pages,
            nr_seconds,
        }
    }

    /// Lends plain tables of this level, as long as they take the place of tables and there is room to note those. One
    /// that takes its own place is counted up here, and down with the others.
    #[inline(never)]
    pub(super) fn lend_tables(self, level: u32, counts: &RefCounts, notes: &[AtomicU64]) -> Given {
        let (mut nr_tables, mut nr_seconds) = (0, 0);
        for ((source, target), note) in self.pairs().zip(notes) {
            let (entry, replaced) = (source.get(), target.get());
            let (Some(below), Some(_)) = (entry.table_below(), replaced.table_below()) else {
                break;
            };
            nr_seconds += u64::from(counts.of(below).increment());
            source.set(entry.lent());
            target.set(entry.lent());
            replaced.note_table_in(note, level);
            nr_tables += 1;
        }
        Given {
            nr_pages: nr_tables,
            nr_noted: nr_tables,
            nr_seconds,
            nr_firsts: 0,
        }
    }

    /// Goes through the pages until one says no. Returns how many said yes.
    #[inline(always)]
    fn each<const NOTED: bool>(
        self,
        notes: &[AtomicU64],
        mut page: impl FnMut(Slot<'_>, Slot<'_>, Option<&AtomicU64>) -> bool,
    ) -> usize {
        let len = if NOTED {
            self.len().min(notes.len())
        } else {
            self.len()
        };
        let (src, dst) = (&self.src[..len], &self.dst[..len]);
        let notes = if NOTED { &notes[..len] } else { &[] };
        let mut number = 0;
        while number < len {
            let (src, dst) = (Slot::new(&src[number]), Slot::new(&dst[number]));
            if !page(src, dst, notes.get(number)) {
                break;
            }
            number += 1;
        }
        number
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

    /// Moves pages like the first one, a private page, and leaves demand-zero pages with its rights, as
    /// long as the destination fits. Old frames go as in [`Self::lend`].
    pub(super) fn take(self, to: Pattern<'_>, notes: &[AtomicU64], flushed: &Flushed) -> Given {
        let (source, target) = self.page(0);
        let Some(old_count) = to.count(target.get()) else {
            return Given::default();
        };
        let old_count = old_count.sample();
        let take = if old_count.is_one() {
            Self::take_as::<true>
        } else {
            Self::take_as::<false>
        };
        let nr_pages = take(self, source.get(), (to, old_count), notes, flushed);
        let nr_seconds = 0;
        Given::instead_of(
            old_count,
            Lent {
                nr_pages,
                nr_seconds,
            },
        )
    }

    #[inline(never)]
    fn take_as<const SOLE: bool>(
        self,
        first: Entry,
        (to, old_like): (Pattern<'_>, Sample),
        notes: &[AtomicU64],
        flushed: &Flushed,
    ) -> usize {
        let flags = Flags::of(first);
        let left = Entry::zero(first.rights());
        let difference = to.difference(flags, first.is_writable());
        self.each::<SOLE>(notes, |src, dst, note| {
            let (entry, old) = (src.get(), dst.get());
            let Some(old_count) = to.count(old) else {
                return false;
            };
            if Flags::of(entry) != flags || !let_go::<SOLE>(old, old_count, old_like, note, flushed)
            {
                return false;
            }
            src.set(left);
            dst.set(entry.plus(difference));
            true
        })
    }
}

/// Frames that were lent and whose count was not like the first one's.
#[derive(Default)]
struct Others {
    nr_pages: usize,
    /// How many of them got their second reference.
    nr_seconds: u64,
}

impl Others {
    // Out of the loop's way: it needs all registers.
    #[cold]
    #[inline(never)]
    fn count_up(&mut self, count: Count<'_>) {
        self.nr_pages += 1;
        self.nr_seconds += u64::from(count.increment());
    }
}

/// Counts an old frame down whose count is like this, or notes it if its page was the only one. `false`:
/// its count is another.
#[inline(always)]
fn let_go<const SOLE: bool>(
    old: Entry,
    count: Count<'_>,
    like: Sample,
    note: Option<&AtomicU64>,
    flushed: &Flushed,
) -> bool {
    match note {
        Some(note) if SOLE => {
            let is_sole = count.is_one();
            if is_sole {
                old.note_in(note, true);
            }
            is_sole
        }
        _ => count.release_from(like, flushed),
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

/// What took the place of other pages, or tables.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    /// How many pages, or tables.
    pub(super) nr_pages: usize,
    /// How many of the frames that were replaced are noted.
    pub(super) nr_noted: usize,
    /// How many frames got their second reference.
    pub(super) nr_seconds: u64,
    /// How many frames lost their last but one reference.
    pub(super) nr_firsts: u64,
}

impl Given {
    /// Pages that replaced others, of frames with counts like this.
    const fn instead_of(old: Sample, lent: Lent) -> Self {
        let Lent {
            nr_pages,
            nr_seconds,
        } = lent;
        Self {
            nr_pages,
            nr_noted: if old.is_one() { nr_pages } else { 0 },
            nr_seconds,
            nr_firsts: if old.is_two() { nr_pages as u64 } else { 0 },
        }
    }
}

/// What was lent. Small, so that a loop that returns it has one register more.
#[derive(Clone, Copy, Default)]
pub(super) struct Lent {
    /// How many pages.
    pub(super) nr_pages: usize,
    /// How many frames of these got their second reference.
    pub(super) nr_seconds: u64,
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
    }
}
