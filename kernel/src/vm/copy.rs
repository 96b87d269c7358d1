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
//! Whole pages at the same offset are the *body*. It is handled a [run](super::remap) at a time:
//! what lies in one table of each side. Everything else goes piece by piece.

use core::ops::Range;

use cowslip_abi::{Error, PAGE_SIZE};

use crate::{
    mm::{
        CountCursor, Departing, Flush, Flushed, Frame, Mm, OutOfMemory, Reserve, phys::FRAME_SIZE,
    },
    vm::{
        PageTable, VmError,
        access::{check_writable, offset_in, page_of, pieces},
        cursor::{Cursor, walk},
        entry::{
            Entry, Kind, Pattern, Slot, are_private_and_may_be_written, are_private_and_present,
        },
        own,
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
    const fn new(side: Side, error: VmError) -> Self {
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
    let (dst, src) = (dst.root(), src.root());
    if dst == src && dst_addr.abs_diff(src_addr) < len {
        return Err(CopyError::new(Side::Destination, Error::Overlap));
    }
    let is_page = len == FRAME_SIZE && (dst_addr | src_addr).is_multiple_of(FRAME_SIZE);
    if is_page && give_page(mm, (dst, dst_addr), (src, src_addr), transfer) {
        return Ok(());
    }
    let distance = src_addr.wrapping_sub(dst_addr);
    let job = Job {
        mm,
        src,
        dst,
        distance,
        transfer,
    };
    job.run(&Parts::new(dst_addr..dst_addr + len, distance))
}

/// Remaps one private page, in place of another; or copies it, if one page is too short to be
/// remapped. `false`: it is not that simple, and nothing has changed.
fn give_page(
    mm: &Mm,
    (dst, dst_addr): (Frame, u64),
    (src, src_addr): (Frame, u64),
    transfer: Transfer,
) -> bool {
    let (Ok(from), Ok(to)) = (walk(&mm.map, src, src_addr), walk(&mm.map, dst, dst_addr)) else {
        return false;
    };
    let (from, to) = (from.slot(src_addr), to.slot(dst_addr));
    let (entry, replaced) = (from.get(), to.get());
    let (Kind::Private(frame), Kind::Private(old)) = (entry.kind(), replaced.kind()) else {
        return false;
    };
    if !replaced.may_write() {
        return false;
    }
    let mut counts = CountCursor::new(&mm.counts);
    let mut flush = Flush::page(dst, dst_addr);
    match transfer {
        Transfer::Copy if mm.remap_min_pages() > 1 && counts.of(old).is_one() => {
            mm.stats.copied.add(1);
            mm.map.copy_frame(frame, old);
            return true;
        }
        Transfer::Copy if frame == old => {
            mm.stats.remapped.add(1);
            return true;
        }
        Transfer::Copy => {
            mm.counts.add_shared(counts.of(frame).increment().into());
            if entry.is_writable() {
                from.set(entry.with_writable(false));
                flush.add(src, src_addr);
            }
            to.set(Entry::private(frame, replaced.rights(), false));
        }
        Transfer::Move => {
            from.set(Entry::zero(entry.rights()));
            flush.add(src, src_addr);
            to.set(Entry::private(
                frame,
                replaced.rights(),
                entry.is_writable(),
            ));
        }
    }
    mm.stats.remapped.add(1);
    let flushed = mm.flush(flush);
    mm.release_counted(old, counts.of(old), &flushed);
    true
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
    let (Ok(to), Ok(from)) = (walk(&mm.map, dst, to_page), walk(&mm.map, src, from_page)) else {
        return false;
    };
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

struct Job<'m> {
    mm: &'m Mm,
    src: Frame,
    dst: Frame,
    /// What to add to addresses in the destination, modulo 2^64, for those in the source.
    distance: u64,
    transfer: Transfer,
}

/// How a page of the body gets its bytes.
enum Method {
    /// By naming this frame of the source.
    Remap(Frame),
    /// By becoming demand-zero.
    Zero,
    /// By copying.
    Bytes,
}

impl<'m> Job<'m> {
    fn run(&self, parts: &Parts) -> Result<(), CopyError> {
        let all_bytes = Parts::all_bytes(parts.head.start..parts.tail.end);
        let is_short = parts.nr_pages() < self.mm.remap_min_pages();
        let parts = if is_short && self.is_in_place(&parts.body) {
            if parts.head.is_empty() && parts.tail.is_empty() {
                self.copy_in_place(&parts.body);
                return Ok(());
            }
            &all_bytes
        } else {
            parts
        };
        let nr_frames = self.plan_bytes(&parts.head)?
            + self.plan_body(&parts.body)?
            + self.plan_bytes(&parts.tail)?;
        let mut reserve = self.mm.frames.reserve(nr_frames)?;

        let mut departing = Departing::new(self.mm);
        if !parts.head.is_empty() {
            self.detach(&parts.head, departing.flush());
        }
        let nr_remapped = self.remap(&parts.body, &mut departing);
        if !parts.tail.is_empty() {
            self.detach(&parts.tail, departing.flush());
        }
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
            self.empty_source(parts.head.start..parts.tail.end);
        }
        Ok(())
    }

    /// Whether all pages can be written where they are, as nobody else names their frames.
    fn is_in_place(&self, body: &Range<u64>) -> bool {
        let mut counts = CountCursor::new(&self.mm.counts);
        self.transfer == Transfer::Copy
            && self.all_runs(body, |run| {
                run.len() > 0
                    && are_private_and_present(&run.src[..run.len()])
                    && are_private_and_may_be_written(&run.dst[..run.len()])
                    && run.dst.iter().all(|place| {
                        let kind = Slot::new(place).get().kind();
                        matches!(kind, Kind::Private(frame) if counts.of(frame).is_one())
                    })
            })
    }

    fn copy_in_place(&self, body: &Range<u64>) {
        self.all_runs(body, |run| {
            for number in 0..run.len() {
                let (source, target) = run.page(number);
                if let (Kind::Private(from), Kind::Private(to)) =
                    (source.get().kind(), target.get().kind())
                {
                    self.mm.map.copy_frame(from, to);
                }
            }
            true
        });
        let nr_pages = (body.end - body.start) / FRAME_SIZE;
        self.mm.stats.copied.add(nr_pages);
    }

    /// Whether `is_so` says so of all runs of the body. It must not of an empty one.
    fn all_runs(&self, body: &Range<u64>, mut is_so: impl FnMut(Run<'m>) -> bool) -> bool {
        let mut page = body.start;
        while page < body.end {
            let run = self.run_at(page, body.end);
            if !is_so(run) {
                return false;
            }
            page += run.len() as u64 * FRAME_SIZE;
        }
        true
    }

    /// Checks both sides of what is copied, and counts the frames that it takes.
    fn plan_bytes(&self, range: &Range<u64>) -> Result<usize, CopyError> {
        if range.is_empty() {
            return Ok(0);
        }
        let (mut src, mut dst) = self.cursors();
        let mut nr_frames = 0;
        for (page, part) in pieces(range.clone()) {
            if pieces(self.source_of(&part)).any(|(page, _)| src.get(page).is_empty()) {
                return Err(CopyError::new(Side::Source, Error::NotMapped));
            }
            let entry = dst.get(page);
            check_writable(entry).map_err(|error| CopyError::new(Side::Destination, error))?;
            nr_frames += usize::from(own::needs_frame(self.mm, entry));
        }
        Ok(nr_frames)
    }

    /// The same for the body.
    fn plan_body(&self, body: &Range<u64>) -> Result<usize, CopyError> {
        let mut nr_frames = 0;
        let mut page = body.start;
        while page < body.end {
            let run = self.run_at(page, body.end);
            let len = run.len();
            if len == 0
                || !are_private_and_present(&run.src[..len])
                || !are_private_and_may_be_written(&run.dst[..len])
            {
                nr_frames += self.plan_pages(run)?;
            }
            page += len as u64 * FRAME_SIZE;
        }
        Ok(nr_frames)
    }

    #[inline(never)]
    fn plan_pages(&self, run: Run<'m>) -> Result<usize, CopyError> {
        let mut nr_frames = 0;
        for number in 0..run.len().max(1) {
            let entry_of = |side: &'m [_]| {
                side.get(number)
                    .map_or(Entry::EMPTY, |s| Slot::new(s).get())
            };
            let (source, target) = (entry_of(run.src), entry_of(run.dst));
            if source.is_empty() {
                return Err(CopyError::new(Side::Source, Error::NotMapped));
            }
            check_writable(target).map_err(|error| CopyError::new(Side::Destination, error))?;
            if let Method::Bytes = method(source, target) {
                nr_frames += usize::from(own::needs_frame(self.mm, target));
            }
        }
        Ok(nr_frames)
    }

    /// The pages from `page` on, up to `end`, as far as one table goes on both sides. Without a
    /// table a side is empty.
    #[inline(never)]
    fn run_at(&self, page: u64, end: u64) -> Run<'m> {
        let nr_pages = (end - page) / FRAME_SIZE;
        let side = |root, addr| match walk(&self.mm.map, root, addr) {
            Ok(leaf) => leaf.run(addr, nr_pages),
            Err(_) => &[],
        };
        Run {
            src: side(self.src, self.to_src(page)),
            dst: side(self.dst, page),
        }
    }

    /// Pass 1 of what is copied: takes what others share out of reach.
    fn detach(&self, range: &Range<u64>, flush: &mut Flush) {
        let mut dst = Cursor::new(&self.mm.map, self.dst);
        for (page, _) in pieces(range.clone()) {
            own::detach(self.mm, self.dst, page, present(dst.slot(page).ok()), flush);
        }
    }

    /// Pass 1 of the body: all that is remapped, and returns how many pages that were; takes out of
    /// reach what is copied.
    fn remap(&self, body: &Range<u64>, departing: &mut Departing<'m>) -> u64 {
        let mut remapping = Remapping {
            job: self,
            departing,
            from: None,
            to: None,
            is_source_flushed: false,
            nr_remapped: 0,
            nr_seconds: 0,
        };
        let mut page = body.start;
        while page < body.end {
            let run = self.run_at(page, body.end);
            remapping.run(run, page);
            page += run.len() as u64 * FRAME_SIZE;
        }
        self.mm.counts.add_shared(remapping.nr_seconds);
        remapping.nr_remapped
    }

    /// Pass 2 of what is copied. Returns how many pages.
    fn write(&self, range: &Range<u64>, reserve: &mut Reserve<'_>, flushed: &Flushed) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let (mut src, mut dst) = self.cursors();
        let mut nr_pages = 0;
        for (page, part) in pieces(range.clone()) {
            let slot = present(dst.slot(page).ok());
            let fill = |frame| self.copy_bytes(&part, &mut src, frame);
            let frames = || reserve.take();
            own::write(self.mm, slot, is_whole(&part), frames, flushed, fill);
            nr_pages += 1;
        }
        nr_pages
    }

    /// Pass 2 of the body: the pages that pass 1 did not remap are those with shared memory on either
    /// side.
    #[inline(never)]
    fn write_body(&self, body: &Range<u64>, reserve: &mut Reserve<'_>, flushed: &Flushed) -> u64 {
        let (mut src, mut dst) = self.cursors();
        let mut nr_pages = 0;
        for (page, part) in pieces(body.clone()) {
            if src.get(self.to_src(page)).is_shared() || dst.get(page).is_shared() {
                nr_pages += self.write(&part, reserve, flushed);
            }
        }
        nr_pages
    }

    /// The last step of a move in which bytes were copied: private pages that were not remapped
    /// become demand-zero too.
    #[inline(never)]
    fn empty_source(&self, range: Range<u64>) {
        let range = self.source_of(&range);
        let pages = range.start.next_multiple_of(FRAME_SIZE)..page_of(range.end);
        let mut departing = Departing::new(self.mm);
        let mut src = Cursor::new(&self.mm.map, self.src);
        for (page, _) in pieces(pages) {
            let slot = present(src.slot(page).ok());
            let entry = slot.get();
            if let Kind::Private(frame) = entry.kind() {
                departing.flush().add(self.src, page);
                slot.set(Entry::zero(entry.rights()));
                departing.add(frame);
            }
        }
        departing.finish();
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

/// The first pass over a body, on its way.
struct Remapping<'a, 'm> {
    job: &'a Job<'m>,
    departing: &'a mut Departing<'m>,
    /// What pages of the source, and those that they replace, have lately been like.
    from: Option<Pattern<'m>>,
    to: Option<Pattern<'m>>,
    /// Whether the flush has the rest of this run in the source.
    is_source_flushed: bool,
    nr_remapped: u64,
    /// How many frames got their second reference.
    nr_seconds: u64,
}

impl<'m> Remapping<'_, 'm> {
    /// The pages from `page` on.
    fn run(&mut self, mut run: Run<'_>, mut page: u64) {
        let end = page + run.len() as u64 * FRAME_SIZE;
        self.departing.flush().add_range(self.job.dst, page, end);
        self.is_source_flushed = false;
        if self.job.transfer == Transfer::Move {
            self.flush_source(run, page);
        }
        while run.len() > 0 {
            let mut nr_pages = self.alike(run, page);
            if nr_pages == 0 {
                nr_pages = self.unlike(run, page);
            }
            run = run.skip(nr_pages);
            page += nr_pages as u64 * FRAME_SIZE;
        }
    }

    /// As many pages as are like the first, if that is an ordinary one. Returns how many.
    #[inline]
    fn alike(&mut self, run: Run<'_>, page: u64) -> usize {
        let counts = &self.job.mm.counts;
        let (source, target) = run.page(0);
        let (entry, replaced) = (source.get(), target.get());
        let is_copy = self.job.transfer == Transfer::Copy;
        if is_copy && entry.is_same_page(replaced) {
            return 0;
        }
        let Some(to) = self.pattern(self.to, replaced) else {
            return 0;
        };
        self.to = Some(to);
        let given = if is_copy {
            let Some(from) = self.pattern(self.from, entry) else {
                return 0;
            };
            self.from = Some(from);
            if from.is_writable() && !self.is_source_flushed {
                self.flush_source(run, page);
            }
            run.lend(counts, from, to, self.departing.room(run.len()))
        } else if let Kind::Private(_) = entry.kind() {
            run.take(counts, entry, to, self.departing.room(run.len()))
        } else {
            return 0;
        };
        self.departing.noted(given.nr_pages, given.nr_counted);
        self.nr_seconds += given.nr_seconds;
        self.nr_remapped += given.nr_pages as u64;
        given.nr_pages
    }

    /// A pattern that the entry fits: the last one, if possible.
    #[inline]
    fn pattern(&mut self, last: Option<Pattern<'m>>, entry: Entry) -> Option<Pattern<'m>> {
        last.filter(|last| last.count(entry).is_some())
            .or_else(|| Pattern::like(entry, &self.job.mm.counts))
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
            Method::Remap(frame) => self.given(source, frame, replaced, run, page),
            Method::Zero => Entry::zero(replaced.rights()),
            Method::Bytes => {
                let job = self.job;
                own::detach(job.mm, job.dst, page, target, self.departing.flush());
                return 1;
            }
        };
        target.set(replacement);
        if let Kind::Private(old) = replaced.kind() {
            self.departing.add(old);
        }
        self.nr_remapped += 1;
        1
    }

    /// Takes or lends the frame of a private page; returns the entry for the destination.
    fn given(
        &mut self,
        source: Slot<'_>,
        frame: Frame,
        replaced: Entry,
        run: Run<'_>,
        page: u64,
    ) -> Entry {
        let entry = source.get();
        let exclusive = match self.job.transfer {
            Transfer::Copy => {
                self.nr_seconds += u64::from(self.departing.count(frame).increment());
                if entry.is_writable() {
                    self.flush_source(run, page);
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

    fn flush_source(&mut self, run: Run<'_>, page: u64) {
        self.is_source_flushed = true;
        let start = self.job.to_src(page);
        let end = start + run.len() as u64 * FRAME_SIZE;
        self.departing.flush().add_range(self.job.src, start, end);
    }
}

/// How a page gets its bytes.
#[inline]
fn method(source: Entry, dst: Entry) -> Method {
    match source.kind() {
        Kind::Private(frame) if !dst.is_shared() => Method::Remap(frame),
        Kind::Zero if !dst.is_shared() => Method::Zero,
        _ => Method::Bytes,
    }
}

fn is_whole(part: &Range<u64>) -> bool {
    part.end - part.start == PAGE_SIZE as u64
}

/// The slot of a page that the plan found mapped.
fn present(slot: Option<Slot<'_>>) -> Slot<'_> {
    slot.expect("pages were checked")
}
