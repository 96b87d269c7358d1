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

use core::ops::Range;

use cowslip_abi::{Commit, Error, PAGE_SIZE};

use crate::{
    mm::{Departing, Flush, Flushed, Frame, Mm, OutOfMemory, PerClass, Reserve, phys::FRAME_SIZE},
    vm::{
        PageTable, VmError,
        access::{check_writable, offset_in, page_of, pieces},
        cursor::{Cursor, Node, coverage, walk_to_page},
        entry::{Entry, Kind},
        exchange::exchange,
        open::{Edit, Plan, open},
        own,
        reap::{reserve, twice},
        remap::Run,
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

/// Copies `len` bytes of `src` from `src_addr` on to `dst` at `dst_addr`, at any alignment.
///
/// Where the spaces are of different [classes](super::commit), all bytes are copied.
///
/// Between ranges of shared memory that name the same frames, pages are copied in ascending order.
///
/// # Errors
///
/// `Overlap`: the ranges overlap in one space. Otherwise the first page at fault decides, the
/// source before the destination, and memory last.
pub fn copy(
    mm: &Mm,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    transfer: Transfer,
) -> Result<(), CopyError> {
    let limit = Effort::MAX;
    copy_within(mm, limit, dst, dst_addr, src, src_addr, len, transfer).map(|_| ())
}

/// The same, if it takes no more than so much effort. `false`: it takes more, and nothing has changed.
///
/// # Errors
///
/// As for [`copy`]; beyond the effort nothing is checked.
#[allow(
    clippy::too_many_arguments,
    reason = "two ranges in two spaces, and how to copy them"
)]
pub fn copy_within(
    mm: &Mm,
    limit: Effort,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    transfer: Transfer,
) -> Result<bool, CopyError> {
    if dst.root() == src.root() && dst_addr.abs_diff(src_addr) < len {
        return Err(CopyError::new(Side::Destination, Error::Overlap));
    }
    let are_pages = (dst_addr | src_addr | len).is_multiple_of(FRAME_SIZE);
    if are_pages && len < coverage(1) && !dst.crosses(src) {
        let classes = [dst.class(); 2];
        let job = || Job::of(mm, dst, dst_addr, src, src_addr, transfer, classes);
        let is_given = if len == FRAME_SIZE {
            job().give_page(dst_addr)
        } else {
            job().give_run(dst_addr, len / FRAME_SIZE)
        };
        if is_given {
            return Ok(true);
        }
    }
    copy_planned(mm, limit, dst, dst_addr, src, src_addr, len, transfer)
}

/// The same where it is not that simple.
#[allow(
    clippy::too_many_arguments,
    reason = "two ranges in two spaces, and how to copy them"
)]
#[inline(never)]
fn copy_planned(
    mm: &Mm,
    limit: Effort,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    transfer: Transfer,
) -> Result<bool, CopyError> {
    let job = Job::new(mm, dst, dst_addr, src, src_addr, transfer);
    let parts = job.parts(dst_addr..dst_addr + len);
    twice(|| job.run(&parts, limit))
}

/// What the beginning of an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// How many bytes.
    pub len: u64,
    /// How many frames.
    pub nr_frames: PerClass,
    /// What the destination is charged.
    pub charge: u64,
}

/// Checks the beginning of a copy, as far as so much effort goes, which is a page at least.
///
/// # Errors
///
/// As for [`copy`], for what was checked, but `NoMemory`.
#[allow(
    clippy::too_many_arguments,
    reason = "two ranges in two spaces, and how to copy them"
)]
pub fn check_copy(
    mm: &Mm,
    limit: Effort,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    transfer: Transfer,
) -> Result<Beginning, CopyError> {
    let job = Job::new(mm, dst, dst_addr, src, src_addr, transfer);
    let parts = job.parts(dst_addr..dst_addr + len);
    let mut needs = Needs::new(&job, limit);
    let mut reached = job.plan(&parts, &mut needs)?;
    // A page of the source that moves is emptied at once, so it must not lie in two parts.
    if transfer == Transfer::Move && reached < parts.tail.end {
        reached -= job.to_src(reached) % FRAME_SIZE;
    }
    let [src_class, dst_class] = job.classes;
    let mut nr_frames = PerClass::of(dst_class, needs.nr_dst_frames());
    nr_frames += PerClass::of(src_class, needs.src.nr_frames());
    Ok(Beginning {
        len: reached - dst_addr,
        nr_frames,
        charge: 0,
    })
}

/// How much work something is, in pages that change hands. Each is some dozens of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(pub u32);

impl Effort {
    /// Any.
    pub const MAX: Self = Self(u32::MAX);
    /// What is done without letting anybody else have the CPU. Less in tests, for more steps.
    pub const STEP: Self = Self(if cfg!(test) { 64 } else { 512 });
    /// A page whose bytes are copied.
    pub(super) const BYTES: Self = Self(16);
    /// A table.
    pub(super) const TABLE: Self = Self(2);
}

/// Copies a few bytes between two spaces, if that takes no more than writing to one page where it
/// is. `false`: it takes more, and nothing has changed.
#[must_use]
pub fn copy_in_place(
    mm: &Mm,
    dst: Frame,
    dst_addr: u64,
    src: Frame,
    src_addr: u64,
    len: u64,
) -> bool {
    let (to_page, from_page) = (page_of(dst_addr), page_of(src_addr));
    let (to_offset, from_offset) = (offset_in(to_page, dst_addr), offset_in(from_page, src_addr));
    let len = len as usize;
    let is_within_pages = to_offset + len <= PAGE_SIZE && from_offset + len <= PAGE_SIZE;
    // A whole page is to be remapped, and buffers in one space may overlap.
    if !is_within_pages || len == PAGE_SIZE || dst == src {
        return false;
    }
    let map = &mm.map;
    let (Ok(to), Ok(from)) = (
        walk_to_page(map, dst, to_page),
        walk_to_page(map, src, from_page),
    ) else {
        return false;
    };
    if !to.is_exclusive() {
        return false;
    }
    let (to, from) = (to.slot(to_page).get(), from.slot(from_page).get());
    match (to.kind(), from.kind()) {
        (
            Kind::Private(to_frame) | Kind::Shared(to_frame),
            Kind::Private(frame) | Kind::Shared(frame),
        ) if to.is_writable() => {
            mm.map
                .copy_bytes(frame, from_offset, to_frame, to_offset, len);
            mm.stats.copied.add(1);
            true
        }
        _ => false,
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

    const fn nr_pages(&self) -> u64 {
        (self.body.end - self.body.start) / FRAME_SIZE
    }
}

/// A transfer, as far as both sides need it.
pub(super) struct Job<'m> {
    pub(super) mm: &'m Mm,
    pub(super) src: Frame,
    pub(super) dst: Frame,
    /// What to add to addresses in the destination, modulo 2^64, for those in the source.
    pub(super) distance: u64,
    pub(super) transfer: Transfer,
    /// The source's and the destination's. Pages are remapped only between spaces of one class.
    pub(super) classes: [Commit; 2],
}

/// What a transfer needs, at ascending addresses.
pub(super) struct Needs<'m> {
    /// What is left of the effort that may be made.
    pub(super) left: u32,
    /// The tables of the destination that are written to.
    pub(super) dst: Plan<'m>,
    /// Those of the source that pages are taken from.
    pub(super) src: Plan<'m>,
    /// Frames for pages.
    pub(super) nr_pages: usize,
}

impl<'m> Needs<'m> {
    fn new(job: &Job<'m>, limit: Effort) -> Self {
        Self {
            left: limit.0,
            dst: Plan::new(job.mm, job.dst),
            src: Plan::new(job.mm, job.src),
            nr_pages: 0,
        }
    }

    /// Makes an effort so many times.
    pub(super) fn spend(&mut self, effort: Effort, times: usize) {
        let spent = u64::from(effort.0) * times as u64;
        self.left = self
            .left
            .saturating_sub(spent.try_into().unwrap_or(u32::MAX));
    }

    /// Frames for the destination. Those for the source are for its tables.
    fn nr_dst_frames(&self) -> usize {
        self.dst.nr_frames() + self.nr_pages
    }
}

impl<'m> Job<'m> {
    #[inline(always)]
    fn new(
        mm: &'m Mm,
        dst: &PageTable,
        dst_addr: u64,
        src: &PageTable,
        src_addr: u64,
        transfer: Transfer,
    ) -> Self {
        let classes = [src.class(), dst.class()];
        Self::of(mm, dst, dst_addr, src, src_addr, transfer, classes)
    }

    /// The same for spaces whose classes are known.
    #[inline(always)]
    const fn of(
        mm: &'m Mm,
        dst: &PageTable,
        dst_addr: u64,
        src: &PageTable,
        src_addr: u64,
        transfer: Transfer,
        classes: [Commit; 2],
    ) -> Self {
        Self {
            mm,
            src: src.root(),
            dst: dst.root(),
            distance: src_addr.wrapping_sub(dst_addr),
            transfer,
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
    pub(super) const fn class(&self) -> Commit {
        self.classes[1]
    }

    fn parts(&self, range: Range<u64>) -> Parts {
        if self.crosses() {
            Parts::all_bytes(range)
        } else {
            Parts::new(range, self.distance)
        }
    }

    /// The tables of pages on both sides, if both are there and this space's alone where they change.
    #[inline(always)]
    fn tables_of(&self, page: u64) -> Option<(Node<'m>, Node<'m>)> {
        let map = &self.mm.map;
        let from = walk_to_page(map, self.src, self.to_src(page)).ok()?;
        let to = walk_to_page(map, self.dst, page).ok()?;
        let is_own = to.is_exclusive() && (self.transfer == Transfer::Copy || from.is_exclusive());
        is_own.then_some((from, to))
    }

    /// Remaps one private page in place of another; or copies it, if one page is too short to be
    /// remapped. `false`: it is not that simple, and nothing has changed.
    #[inline(always)]
    fn give_page(&self, page: u64) -> bool {
        let mm = self.mm;
        let Some((from, to)) = self.tables_of(page) else {
            return false;
        };
        let (from, to) = (from.slot(self.to_src(page)), to.slot(page));
        let (entry, replaced) = (from.get(), to.get());
        let (Kind::Private(frame), Kind::Private(old)) = (entry.kind(), replaced.kind()) else {
            return false;
        };
        if !replaced.may_write() {
            return false;
        }
        let old_count = mm.counts.of(old);
        let mut flush = Flush::page(self.dst, page);
        match self.transfer {
            Transfer::Copy if mm.remap_min_pages() > 1 && old_count.is_one() => {
                mm.stats.copied.add(1);
                mm.map.copy_frame(frame, old);
                return true;
            }
            Transfer::Copy if frame == old => {
                mm.stats.remapped.add(1);
                return true;
            }
            Transfer::Copy => {
                let is_second = mm.counts.of(frame).increment();
                mm.counts.add_shared(is_second.into());
                if entry.is_writable() {
                    from.set(entry.with_writable(false));
                    flush.add(self.src, self.to_src(page));
                }
                to.set(Entry::private(frame, replaced.rights(), false));
            }
            Transfer::Move => {
                from.set(Entry::zero(entry.rights()));
                flush.add(self.src, self.to_src(page));
                to.set(Entry::private(
                    frame,
                    replaced.rights(),
                    entry.is_writable(),
                ));
            }
        }
        mm.stats.remapped.add(1);
        let flushed = mm.flush(flush);
        mm.release_counted(old, old_count, self.class(), &flushed);
        true
    }

    /// The same for several pages that lie in one table of each side.
    #[inline(never)]
    fn give_run(&self, page: u64, nr_pages: u64) -> bool {
        let Some((from, to)) = self.tables_of(page) else {
            return false;
        };
        let source = from.run(self.to_src(page), nr_pages);
        let run = Run::of(source, to.run(page, nr_pages));
        let is_whole = run.len() as u64 == nr_pages && nr_pages >= self.mm.remap_min_pages();
        if !is_whole || !run.is_ordinary() {
            return false;
        }
        let mut departing = Departing::new(self.mm, self.class());
        let nr_remapped = exchange(self, from, to, run, page, &mut departing);
        departing.finish();
        self.mm.stats.remapped.add(nr_remapped);
        true
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
        Ok(reached)
    }

    /// Returns whether it was not too much effort.
    #[inline(never)]
    fn run(&self, parts: &Parts, limit: Effort) -> Result<bool, CopyError> {
        let all_bytes = Parts::all_bytes(parts.head.start..parts.tail.end);
        let is_short = parts.nr_pages() < self.mm.remap_min_pages();
        let parts = if is_short && self.is_in_place(&parts.body) {
            if parts.head.is_empty() && parts.tail.is_empty() {
                self.copy_in_place(&parts.body);
                return Ok(true);
            }
            &all_bytes
        } else {
            parts
        };
        let mut needs = Needs::new(self, limit);
        if self.plan(parts, &mut needs)? < parts.tail.end {
            return Ok(false);
        }
        let [src_class, class] = self.classes;
        let mut source_reserve = reserve(self.mm, needs.src.nr_frames(), src_class)?;
        let mut reserve = reserve(self.mm, needs.nr_dst_frames(), class)?;
        if src_class == class {
            reserve.add(&mut source_reserve);
        }

        let mut departing = Departing::new(self.mm, class);
        self.detach(&parts.head, &mut reserve, &mut departing);
        let nr_remapped = self.remap(&parts.body, &mut reserve, &mut departing);
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
            let reserve = if src_class == class {
                &mut reserve
            } else {
                &mut source_reserve
            };
            self.empty_source(parts.head.start..parts.tail.end, reserve);
        }
        Ok(true)
    }

    /// Checks both sides of what is copied, and counts the frames that it takes. Returns the address
    /// where the effort ends.
    fn plan_bytes(&self, range: &Range<u64>, needs: &mut Needs<'_>) -> Result<u64, CopyError> {
        let (mut src, mut dst) = self.cursors();
        let mut reached = range.start;
        for (page, part) in pieces(range.clone()) {
            if needs.left == 0 {
                break;
            }
            needs.spend(Effort::BYTES, 1);
            reached = part.end;
            if pieces(self.source_of(&part)).any(|(page, _)| src.get(page).is_empty()) {
                return Err(CopyError::new(Side::Source, Error::NotMapped));
            }
            let entry = dst.get(page);
            check_writable(entry).map_err(|error| CopyError::new(Side::Destination, error))?;
            let is_own = needs.dst.add(page, 0);
            needs.nr_pages += usize::from(own::needs_frame(self.mm, entry, is_own));
        }
        if self.transfer == Transfer::Move {
            for page in self.left_pages(&(range.start..reached)).step_by(PAGE_SIZE) {
                if let Kind::Private(_) = src.get(page).kind() {
                    needs.src.add(page, 0);
                }
            }
        }
        Ok(reached)
    }

    /// Pass 1 of what is copied: takes what others share out of reach.
    fn detach(&self, range: &Range<u64>, reserve: &mut Reserve<'_>, departing: &mut Departing<'_>) {
        for (page, _) in pieces(range.clone()) {
            let leaf = open(self.mm, self.dst, page, 0, Edit::Keep, reserve, departing);
            own::detach(self.mm, self.dst, page, leaf.slot(page), departing.flush());
        }
    }

    /// Pass 2 of what is copied. Returns how many pages.
    pub(super) fn write(
        &self,
        range: &Range<u64>,
        reserve: &mut Reserve<'_>,
        flushed: &Flushed,
    ) -> u64 {
        let (mut src, mut dst) = self.cursors();
        let mut nr_pages = 0;
        for (page, part) in pieces(range.clone()) {
            let fill = |frame| self.copy_bytes(&part, &mut src, frame);
            let frames = || reserve.take();
            let slot = dst.open_slot(page);
            let fills_all = is_whole(&part);
            own::write(
                self.mm,
                slot,
                self.class(),
                fills_all,
                frames,
                flushed,
                fill,
            );
            nr_pages += 1;
        }
        nr_pages
    }

    /// The last step of a move in which bytes were copied: private pages that were not remapped
    /// become demand-zero too.
    #[inline(never)]
    fn empty_source(&self, range: Range<u64>, reserve: &mut Reserve<'_>) {
        let mut departing = Departing::new(self.mm, self.classes[0]);
        let mut src = Cursor::new(&self.mm.map, self.src);
        for page in self.left_pages(&range).step_by(PAGE_SIZE) {
            let entry = src.get(page);
            if let Kind::Private(frame) = entry.kind() {
                let leaf = open(
                    self.mm,
                    self.src,
                    page,
                    0,
                    Edit::Keep,
                    reserve,
                    &mut departing,
                );
                departing.flush().add(self.src, page);
                leaf.slot(page).set(Entry::zero(entry.rights()));
                departing.add(frame);
            }
        }
        departing.finish();
    }

    /// The whole pages of the source.
    fn left_pages(&self, range: &Range<u64>) -> Range<u64> {
        let range = self.source_of(range);
        range.start.next_multiple_of(FRAME_SIZE)..page_of(range.end)
    }

    /// Fills `part` of a destination page, whose frame is `to`.
    fn copy_bytes(&self, part: &Range<u64>, src: &mut Cursor<'_>, to: Frame) {
        let mut offset = offset_in(page_of(part.start), part.start);
        for (source, from_part) in pieces(self.source_of(part)) {
            let len = offset_in(from_part.start, from_part.end);
            match src.get(source).kind() {
                Kind::Private(from) | Kind::Shared(from) | Kind::Condemned(from) => {
                    let from_offset = offset_in(source, from_part.start);
                    self.mm.map.copy_bytes(from, from_offset, to, offset, len);
                }
                Kind::Zero => self.mm.map.zero_bytes(to, offset, len),
                Kind::Empty => unreachable!("source pages were checked"),
            }
            offset += len;
        }
    }

    pub(super) fn cursors(&self) -> (Cursor<'m>, Cursor<'m>) {
        let map = &self.mm.map;
        (Cursor::new(map, self.src), Cursor::new(map, self.dst))
    }

    pub(super) const fn to_src(&self, addr: u64) -> u64 {
        addr.wrapping_add(self.distance)
    }

    /// Where the bytes of `part` come from.
    const fn source_of(&self, part: &Range<u64>) -> Range<u64> {
        self.to_src(part.start)..self.to_src(part.end)
    }
}

fn is_whole(part: &Range<u64>) -> bool {
    part.end - part.start == PAGE_SIZE as u64
}
