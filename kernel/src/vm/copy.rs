//! The one generic copy: the bytes of a message go from one space to another.
//!
//! Each page of the destination is treated by what it and its source are:
//!
//! | | whole page, same offset in the page | anything else |
//! | --- | --- | --- |
//! | private source | remapped: both copy-on-write, or moved | bytes copied |
//! | zero source | becomes zero | zeros copied |
//! | shared-memory source | bytes copied: a snapshot | bytes copied |
//! | any source, shared-memory destination | bytes copied in place | bytes copied in place |
//!
//! The destination keeps its rights: a buffer that may be written may be written afterwards,
//! whatever the source was. No byte outside the two buffers is touched or leaked.
//!
//! Whole pages at the same offset are the *body*. Where both sides agree modulo what a table covers,
//! and all that it covers is part of the body and plain on both sides, the whole table goes over, or
//! the one entry that stands for as much demand-zero memory. The rest of the body is handled a
//! [run](super::remap) of pages at a time: what lies in one table of each side. Everything else goes
//! piece by piece.

mod body;
mod bytes;
mod direct;
mod exchange;

use core::ops::Range;

use cowslip_abi::{Commit, Error};

pub use self::direct::copy_in_place;

use crate::{
    mm::{Departing, Frame, Mm, OutOfMemory, PerClass, phys::FRAME_SIZE},
    vm::{
        Beginning, Effort, PageTable, VmError,
        access::page_of,
        cursor::{Cursor, coverage, shift},
        open::Plan,
        reap::{reserve, twice},
    },
};

/// What a transfer leaves in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The bytes.
    Copy,
    /// Zeros, in every whole page that is private: the page becomes demand-zero and keeps its
    /// rights. The ragged ends of the range and shared memory keep their bytes. This does not depend
    /// on how the bytes went, so the sender need not know how the receiver's buffer lies.
    Move,
}

/// Whose fault it is that a copy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source: its owner named memory that it does not have.
    Source,
    /// The destination: its owner named memory that it does not have or may not write; or it
    /// overlaps the source.
    Destination,
    /// Nobody: memory ran out.
    Memory,
}

/// Why a copy failed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyError {
    /// Who is at fault.
    pub side: Side,
    /// `NotMapped`, `NotWritable`, `Overlap` or `NoMemory`.
    pub error: VmError,
}

impl CopyError {
    pub(super) const fn new(side: Side, error: VmError) -> Self {
        Self { side, error }
    }
}

impl From<OutOfMemory> for CopyError {
    fn from(_: OutOfMemory) -> Self {
        Self::new(Side::Memory, Error::NoMemory)
    }
}

/// The bytes of a message on their way from one space to another, at any alignment.
///
/// Where the spaces are of different [classes](super::commit), all bytes are copied.
///
/// Between ranges of shared memory that name the same frames, pages are copied in ascending order.
///
/// All methods fail with `Overlap` if the ranges overlap in one space. Otherwise the first page at fault
/// decides, the source before the destination, and memory last.
#[derive(Clone, Copy)]
pub struct Passage<'k> {
    /// The machine's memory.
    pub mm: &'k Mm,
    /// Where the bytes go.
    pub dst: &'k PageTable,
    /// The first address there.
    pub to: u64,
    /// Where they come from.
    pub src: &'k PageTable,
    /// The first address there.
    pub from: u64,
    /// How many bytes.
    pub len: u64,
    /// What is left in the source.
    pub transfer: Transfer,
}

impl<'k> Passage<'k> {
    /// Copies the bytes.
    ///
    /// # Errors
    ///
    /// As for all [passages](Self).
    pub fn copy(&self) -> Result<(), CopyError> {
        self.copy_within(Effort::MAX).map(|_| ())
    }

    /// The same, if it takes no more than so much effort. `false`: it takes more, and nothing has
    /// changed.
    ///
    /// # Errors
    ///
    /// As for all [passages](Self); beyond the effort nothing is checked.
    pub fn copy_within(&self, limit: Effort) -> Result<bool, CopyError> {
        if self.dst.root() == self.src.root() && self.to.abs_diff(self.from) < self.len {
            return Err(CopyError::new(Side::Destination, Error::Overlap));
        }
        let are_pages = (self.to | self.from | self.len).is_multiple_of(FRAME_SIZE);
        if are_pages && self.len < coverage(1) && !self.dst.crosses(self.src) {
            let job = || Job::new(self, [self.dst.class(); 2]);
            let is_given = if self.len == FRAME_SIZE {
                job().give_page(self.to)
            } else {
                job().give_run(self.to, self.len / FRAME_SIZE)
            };
            if is_given {
                return Ok(true);
            }
        }
        self.copy_planned(limit)
    }

    /// The same where it is not that simple.
    #[inline(never)]
    fn copy_planned(&self, limit: Effort) -> Result<bool, CopyError> {
        let (job, range) = self.behind(0);
        let reached = twice(|| job.run(&range, limit, None))?;
        Ok(reached == range.end)
    }

    /// Checks what so much effort is enough for, which is a page at least, behind the bytes that were
    /// checked before.
    ///
    /// # Errors
    ///
    /// As for all [passages](Self), for what was checked, but `NoMemory`.
    pub fn check(&self, done: u64, limit: Effort) -> Result<Beginning, CopyError> {
        let (job, range) = self.behind(done);
        let mut needs = Needs::new(&job, limit);
        let reached = job.plan(&job.parts(range.clone(), limit), &mut needs)?;
        Ok(Beginning {
            len: reached - range.start,
            nr_frames: needs.per_class(&job),
            charge: 0,
        })
    }

    /// Copies what so much effort is enough for, behind the bytes that were copied before. What it needs
    /// of the frames that are set aside for the rest goes back first. Returns how many bytes.
    ///
    /// # Errors
    ///
    /// As for all [passages](Self), for these bytes.
    pub fn copy_some(
        &self,
        done: u64,
        limit: Effort,
        aside: &mut PerClass,
    ) -> Result<u64, CopyError> {
        let (job, range) = self.behind(done);
        let reached = twice(|| job.run(&range, limit, Some(&mut *aside)))?;
        Ok(reached - range.start)
    }

    /// The rest, as a range of the destination.
    #[inline(always)]
    fn behind(&self, done: u64) -> (Job<'k>, Range<u64>) {
        let job = Job::new(self, [self.src.class(), self.dst.class()]);
        (job, self.to + done..self.to + self.len)
    }
}

/// A range of the destination, by how its bytes get there.
struct Parts {
    /// The whole pages that may be remapped. Perhaps none: then it starts where it ends.
    body: Range<u64>,
    /// What comes before them.
    head: Range<u64>,
    /// What comes after them.
    tail: Range<u64>,
}

impl Parts {
    fn new(range: Range<u64>, distance: u64) -> Self {
        let body = range.start.next_multiple_of(FRAME_SIZE)..page_of(range.end);
        if body.start < body.end && page_of(distance) == distance {
            Self {
                head: range.start..body.start,
                tail: body.end..range.end,
                body,
            }
        } else {
            Self::all_bytes(range)
        }
    }

    const fn all_bytes(range: Range<u64>) -> Self {
        Self {
            body: range.end..range.end,
            tail: range.end..range.end,
            head: range,
        }
    }

    /// How many pages of bytes are copied at least, or some bytes less than that.
    const fn nr_copied(&self) -> u64 {
        let [head, tail] = [&self.head, &self.tail];
        (head.end - head.start + (tail.end - tail.start)) / FRAME_SIZE
    }

    /// The same up to an address to which it was planned.
    fn up_to(self, end: u64) -> Self {
        let cut = |part: Range<u64>| part.start.min(end)..part.end.min(end);
        Self {
            body: cut(self.body),
            head: cut(self.head),
            tail: cut(self.tail),
        }
    }

    const fn nr_pages(&self) -> u64 {
        (self.body.end - self.body.start) / FRAME_SIZE
    }
}

/// A transfer, as far as both sides need it.
struct Job<'m> {
    mm: &'m Mm,
    src: Frame,
    dst: Frame,
    /// What to add to addresses in the destination, modulo 2^64, for those in the source.
    distance: u64,
    transfer: Transfer,
    /// The source's and the destination's. Pages are remapped only between spaces of one class.
    classes: [Commit; 2],
}

/// What a transfer needs, at ascending addresses.
struct Needs<'m> {
    /// The effort that may still be made.
    left: Effort,
    /// The tables of the destination that are written to.
    dst: Plan<'m>,
    /// Those of the source that pages are taken from.
    src: Plan<'m>,
    /// Frames for pages.
    nr_pages: usize,
    /// The tables that go over whole which were found last: what nobody has changed when it is done need not be looked
    /// at again.
    tables: Option<Tables>,
}

/// Neighbouring entries that go over whole: tables, or demand-zero memory.
#[derive(Clone, Copy)]
struct Tables {
    /// Where they begin in the destination.
    page: u64,
    /// Of which level the entries are: above that of pages.
    level: u32,
    nr_entries: usize,
}

impl Tables {
    /// How many bytes they cover.
    const fn nr_bytes(self) -> u64 {
        (self.nr_entries as u64) << shift(self.level)
    }
}

impl<'m> Needs<'m> {
    const fn new(job: &Job<'m>, limit: Effort) -> Self {
        Self {
            left: limit,
            dst: Plan::new(job.mm, job.dst),
            src: Plan::new(job.mm, job.src),
            nr_pages: 0,
            tables: None,
        }
    }

    /// Frames for the destination. Those for the source are for its tables.
    const fn nr_dst_frames(&self) -> usize {
        self.dst.nr_frames() + self.nr_pages
    }

    /// All frames.
    fn per_class(&self, job: &Job<'_>) -> PerClass {
        let [src_class, dst_class] = job.classes;
        let mut nr_frames = PerClass::of(dst_class, self.nr_dst_frames());
        nr_frames += PerClass::of(src_class, self.src.nr_frames());
        nr_frames
    }
}

impl<'m> Job<'m> {
    #[inline(always)]
    fn new(passage: &Passage<'m>, classes: [Commit; 2]) -> Self {
        Self {
            mm: passage.mm,
            src: passage.src.root(),
            dst: passage.dst.root(),
            distance: passage.from.wrapping_sub(passage.to),
            transfer: passage.transfer,
            classes,
        }
    }

    /// Whether the spaces are of different classes.
    #[inline(always)]
    fn crosses(&self) -> bool {
        let [src, dst] = self.classes;
        src != dst
    }

    /// The class of the destination, and of the source unless bytes are copied.
    const fn class(&self) -> Commit {
        self.classes[1]
    }

    /// How the bytes of a range go. Whether pages are better copied than remapped is looked up for as many
    /// as could be copied with so much effort: more are not done with it.
    fn parts(&self, range: Range<u64>, limit: Effort) -> Parts {
        if self.crosses() {
            return Parts::all_bytes(range);
        }
        let parts = Parts::new(range.clone(), self.distance);
        let is_short = parts.nr_pages() < self.mm.remap_min_pages();
        let nr_bytes = limit.times(Effort::BYTES) * FRAME_SIZE;
        let begin = parts.body.start..parts.body.end.min(parts.body.start + nr_bytes);
        if is_short && parts.nr_pages() > 0 && self.is_in_place(&begin) {
            return Parts::all_bytes(range);
        }
        parts
    }

    /// Checks both sides, and counts what the transfer takes, as far as the effort goes. Returns the
    /// address where that is.
    fn plan(&self, parts: &Parts, needs: &mut Needs<'_>) -> Result<u64, CopyError> {
        let mut reached = self.plan_bytes(&parts.head, needs)?;
        if reached == parts.head.end {
            reached = self.plan_body(&parts.body, needs)?;
        }
        if reached == parts.tail.start {
            reached = self.plan_bytes(&parts.tail, needs)?;
        }
        // A page of the source that moves is emptied at once, so it must not lie in two parts.
        if self.transfer == Transfer::Move && reached < parts.tail.end {
            reached -= self.to_src(reached) % FRAME_SIZE;
        }
        Ok(reached)
    }

    /// Does all of it; or, if frames are set `aside` for it, as much as so much effort is enough for.
    /// Returns the address where it ends: where it began, if all was too much.
    #[inline(never)]
    fn run(
        &self,
        range: &Range<u64>,
        limit: Effort,
        aside: Option<&mut PerClass>,
    ) -> Result<u64, CopyError> {
        let parts = self.parts(range.clone(), limit);
        // All or nothing: there is no need to plan what is too much anyway.
        if aside.is_none() && parts.nr_copied() > limit.times(Effort::BYTES) {
            return Ok(range.start);
        }
        let mut needs = Needs::new(self, limit);
        let reached = self.plan(&parts, &mut needs)?;
        if let Some(aside) = aside {
            self.mm.frames.draw(aside, needs.per_class(self));
        } else if reached < range.end {
            return Ok(range.start);
        }
        self.perform(&parts.up_to(reached), &needs)?;
        Ok(reached)
    }

    /// Does what was planned.
    fn perform(&self, parts: &Parts, needs: &Needs<'_>) -> Result<(), OutOfMemory> {
        let [src_class, class] = self.classes;
        let (nr_src, nr_dst) = (needs.src.nr_frames(), needs.nr_dst_frames());
        // Those of one class are set aside together.
        let (mut reserve, mut source_reserve) = if src_class == class {
            (reserve(self.mm, nr_src + nr_dst, class)?, None)
        } else {
            let source_reserve = reserve(self.mm, nr_src, src_class)?;
            (reserve(self.mm, nr_dst, class)?, Some(source_reserve))
        };

        let mut departing = Departing::new(self.mm, class);
        self.detach(&parts.head, &mut reserve, &mut departing);
        let nr_remapped = self.remap(&parts.body, needs.tables, &mut reserve, &mut departing);
        self.detach(&parts.tail, &mut reserve, &mut departing);
        let flushed = departing.finish();

        let nr_pages = parts.nr_pages();
        let mut nr_copied = self.write(&parts.head, &mut reserve, &flushed);
        if nr_remapped < nr_pages {
            nr_copied += self.write_body(&parts.body, &mut reserve, &flushed);
        }
        nr_copied += self.write(&parts.tail, &mut reserve, &flushed);
        self.mm.stats.remapped.add(nr_remapped);
        self.mm.stats.copied.add(nr_copied);
        let is_left = nr_remapped < nr_pages || nr_pages == 0;
        if self.transfer == Transfer::Move && is_left {
            let reserve = source_reserve.as_mut().unwrap_or(&mut reserve);
            self.empty_source(parts.head.start..parts.tail.end, reserve);
        }
        Ok(())
    }

    fn cursors(&self) -> (Cursor<'m>, Cursor<'m>) {
        let map = &self.mm.map;
        (Cursor::new(map, self.src), Cursor::new(map, self.dst))
    }

    const fn to_src(&self, addr: u64) -> u64 {
        addr.wrapping_add(self.distance)
    }

    /// Where the bytes of `part` come from.
    const fn source_of(&self, part: &Range<u64>) -> Range<u64> {
        self.to_src(part.start)..self.to_src(part.end)
    }
}
