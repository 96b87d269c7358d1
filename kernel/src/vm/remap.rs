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

use core::sync::atomic::AtomicU64;

use crate::vm::entry::{Entry, Flags, Pattern, Rights, Slot};

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

    /// Makes pages copy-on-write on both sides, as long as source and destination fit and the old
    /// frames have no other reference; these are noted. Returns how many pages.
    pub(super) fn lend(self, from: Pattern<'_>, to: Pattern<'_>, notes: &[AtomicU64]) -> Lent {
        if from.is_writable() {
            let nr_pages = self.lend_as::<true>(from, to, notes).nr_pages;
            // Each had one reference and has two.
            Lent {
                nr_pages,
                nr_seconds: nr_pages as u64,
            }
        } else {
            self.lend_as::<false>(from, to, notes)
        }
    }

    // A function of its own, so that the loop has the registers for itself.
    #[inline(never)]
    fn lend_as<const WRITABLE: bool>(
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
            if !old_count.is_one() {
                break;
            }
            old.note_in(note);
            if WRITABLE {
                count.make_two();
                src.set(entry.minus_writable());
            } else {
                lent.nr_seconds += u64::from(count.increment());
            }
            dst.set(entry.plus(difference));
            lent.nr_pages += 1;
        }
        lent
    }

    /// The same where the destination is empty: pages with these rights are made there.
    pub(super) fn fork(self, from: Pattern<'_>, rights: Rights) -> Lent {
        if from.is_writable() {
            let nr_pages = self.fork_as::<true>(from, rights).nr_pages;
            Lent {
                nr_pages,
                nr_seconds: nr_pages as u64,
            }
        } else {
            self.fork_as::<false>(from, rights)
        }
    }

    #[inline(never)]
    fn fork_as<const WRITABLE: bool>(self, from: Pattern<'_>, rights: Rights) -> Lent {
        let difference = from.flags().difference(rights, false);
        let mut lent = Lent::default();
        for (src, dst) in self.src.iter().zip(self.dst) {
            let (src, dst) = (Slot::new(src), Slot::new(dst));
            let entry = src.get();
            let Some(count) = from.count(entry) else {
                break;
            };
            if WRITABLE {
                count.make_two();
                src.set(entry.minus_writable());
            } else {
                lent.nr_seconds += u64::from(count.increment());
            }
            dst.set(entry.plus(difference));
            lent.nr_pages += 1;
        }
        lent
    }

    /// Moves pages like the first one, a private page, and leaves demand-zero pages with its rights,
    /// as long as the destination fits and the old frames have no other reference; these are noted.
    /// Returns how many pages.
    #[inline(never)]
    pub(super) fn take(self, first: Entry, to: Pattern<'_>, notes: &[AtomicU64]) -> usize {
        let flags = Flags::of(first);
        let left = Entry::zero(first.rights());
        let difference = to.difference(flags, first.is_writable());
        let mut nr_pages = 0;
        for ((src, dst), note) in self.src.iter().zip(self.dst).zip(notes) {
            let (src, dst) = (Slot::new(src), Slot::new(dst));
            let (entry, old) = (src.get(), dst.get());
            let Some(old_count) = to.count(old) else {
                break;
            };
            if Flags::of(entry) != flags || !old_count.is_one() {
                break;
            }
            old.note_in(note);
            src.set(left);
            dst.set(entry.plus(difference));
            nr_pages += 1;
        }
        nr_pages
    }
}

/// What [`Run::lend`] did.
#[derive(Clone, Copy, Default)]
pub(super) struct Lent {
    /// Pages that were lent.
    pub(super) nr_pages: usize,
    /// How many frames of these got their second reference.
    pub(super) nr_seconds: u64,
}
