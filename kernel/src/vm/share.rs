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

mod fork;
mod page;
mod parts;
mod plan;
mod shared;
mod take;

use core::ops::Range;

use cowslip_abi::{Commit, Error, Perm, ShareMode};

pub use self::page::share_in_place;
use self::plan::Planned;
use crate::{
    mm::{Frame, Mm, PerClass, phys::FRAME_SIZE},
    vm::{
        Beginning, Effort, PageTable, VmError,
        cursor::{ROOT, USER_END, coverage},
        entry::{Entry, Kind, Rights},
        reap::twice,
    },
};

/// A range of one space, and where it goes in another.
///
/// All methods fail in this order: `Overlap`: the ranges overlap in one space. `BadState`: the spaces are
/// of different classes, and pages would not be copied. `Occupied`: the destination is not empty. For the
/// first page of the source that is at fault: `NotMapped`, or `Denied` if a shared mapping would get more
/// than the source's ceiling, or `BadState` again. `OverBudget`: the destination would have more than its
/// budget. `NoMemory`: too few frames.
#[derive(Clone, Copy)]
pub struct Sharing<'k> {
    /// The machine's memory.
    pub mm: &'k Mm,
    /// The space that gets pages.
    pub dst: &'k PageTable,
    /// The first address there.
    pub to: u64,
    /// The space that has them.
    pub src: &'k PageTable,
    /// The first address there.
    pub from: u64,
    /// How many bytes.
    pub len: u64,
    /// How.
    pub mode: ShareMode,
    /// The rights in the destination. Without them every page keeps its rights and ceiling, and empty
    /// pages of the source are skipped.
    pub perm: Option<Perm>,
}

impl<'k> Sharing<'k> {
    /// Maps the range.
    ///
    /// # Errors
    ///
    /// As for all [sharings](Self).
    pub fn share(&self) -> Result<(), VmError> {
        self.share_within(Effort::MAX).map(|_| ())
    }

    /// The same, if it takes no more than so much effort. `false`: it takes more, and nothing has changed.
    ///
    /// # Errors
    ///
    /// As for all [sharings](Self); beyond the effort nothing is checked.
    pub fn share_within(&self, limit: Effort) -> Result<bool, VmError> {
        if self.dst.root() == self.src.root() && self.to.abs_diff(self.from) < self.len {
            return Err(Error::Overlap);
        }
        let share = Share::behind(self, 0);
        if share.crosses && self.mode != ShareMode::CopyOnWrite {
            return Err(Error::BadState);
        }
        if self.len == FRAME_SIZE
            && !share.crosses
            && let Some(result) = share.one_page(self.from)
        {
            return result.map(|()| true);
        }
        let share = Share {
            is_whole: true,
            range: share.range_of_entries(),
            ..share
        };
        twice(|| share.run_whole(limit))
    }

    /// Checks what so much effort is enough for, which is a page at least, behind the bytes that were
    /// checked or mapped before.
    ///
    /// # Errors
    ///
    /// As for all [sharings](Self), for what was checked, but `OverBudget` and `NoMemory`.
    pub fn check(&self, done: u64, limit: Effort) -> Result<Beginning, VmError> {
        let share = Share {
            nr_before: done,
            ..Share::behind(self, done)
        };
        let plan = share.plan(limit)?;
        Ok(Beginning {
            len: plan.nr_bytes,
            nr_frames: share.nr_aside(&plan),
            charge: plan.charge,
        })
    }

    /// Maps what so much effort is enough for, behind the bytes that were mapped before. What it needs of
    /// the frames that are set aside for the rest goes back first. Returns how many bytes.
    ///
    /// # Errors
    ///
    /// As for all [sharings](Self), for these bytes.
    pub fn share_some(
        &self,
        done: u64,
        limit: Effort,
        aside: &mut PerClass,
    ) -> Result<u64, VmError> {
        let share = Share::behind(self, done);
        twice(|| share.run_some(limit, aside))
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
    /// It is done as a whole, or not at all.
    is_whole: bool,
    /// How many bytes before the range are charged with it, and not mapped yet.
    nr_before: u64,
}

impl<'m> Share<'m> {
    /// A part of what is asked for: what is behind so many bytes, or its beginning.
    #[inline(always)]
    fn behind(sharing: &Sharing<'m>, done: u64) -> Self {
        let Sharing { mm, dst, src, .. } = *sharing;
        Self {
            mm,
            tables: [src, dst],
            crosses: dst.crosses(src),
            src: src.root(),
            dst: dst.root(),
            range: sharing.from + done..sharing.from + sharing.len,
            distance: sharing.to.wrapping_sub(sharing.from),
            mode: sharing.mode,
            perm: sharing.perm,
            is_whole: false,
            nr_before: 0,
        }
    }

    /// The range, if it ends with user memory up to the end of what the last entry of a root covers: in
    /// the page more nothing is ever mapped. So that entry can go as it is, like the others.
    fn range_of_entries(&self) -> Range<u64> {
        let Range { start, end } = self.range;
        let is_copy = self.mode == ShareMode::CopyOnWrite && self.perm.is_none();
        if is_copy && end == USER_END && self.distance == 0 {
            start..end.next_multiple_of(coverage(ROOT))
        } else {
            start..end
        }
    }

    /// Returns whether it was not too much effort.
    fn run_whole(&self, limit: Effort) -> Result<bool, VmError> {
        let plan = self.plan(limit)?;
        if plan.nr_bytes < self.range.end - self.range.start {
            return Ok(false);
        }
        self.perform(&plan)?;
        Ok(true)
    }

    /// Does what the effort is enough for; what is set `aside` has the frames. Returns how many bytes.
    fn run_some(&self, limit: Effort, aside: &mut PerClass) -> Result<u64, VmError> {
        let plan = self.plan(limit)?;
        self.mm.frames.draw(aside, self.nr_aside(&plan));
        let range = self.range.start..self.range.start + plan.nr_bytes;
        Self { range, ..*self }.perform(&plan)?;
        Ok(plan.nr_bytes)
    }

    /// The frames that are to be set aside for what was planned.
    fn nr_aside(&self, plan: &Planned) -> PerClass {
        match self.class() {
            Commit::Overcommit => PerClass::of(Commit::Overcommit, plan.nr_frames()),
            // What the destination will be charged is not promised to it yet.
            Commit::Strict => PerClass {
                overcommit: plan.charge,
                strict: plan.nr_src_frames as u64,
            },
        }
    }

    /// Does what was planned.
    fn perform(&self, plan: &Planned) -> Result<(), VmError> {
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
        Ok(())
    }

    /// The class of the destination, and of the source unless pages are copied.
    fn class(&self) -> Commit {
        self.tables[1].class()
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

    /// The rights of the destination's page.
    #[inline]
    fn rights(&self, source: Entry) -> Rights {
        self.perm.map_or(source.rights(), Rights::new)
    }

    const fn to_dst(&self, addr: u64) -> u64 {
        addr.wrapping_add(self.distance)
    }
}
