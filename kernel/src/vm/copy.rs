//! The one generic copy: the bytes of a message go from one space to another.
//!
//! Each page of the destination is treated by what it and its source are:
//!
//! | | whole page, same offset in the page | anything else |
//! | --- | --- | --- |
//! | private source | remapped: both copy-on-write | bytes copied |
//! | zero source | becomes zero | zeros copied |
//! | shared-memory source | bytes copied: a snapshot | bytes copied |
//! | any source, shared-memory destination | bytes copied in place | bytes copied in place |
//!
//! The destination keeps its rights: a buffer that may be written may be written afterwards,
//! whatever the source was. No byte outside the two buffers is touched or leaked.

use core::ops::Range;

use cowslip_abi::{Error, PAGE_SIZE};

use crate::{
    mm::{Flush, Flushed, Frame, Mm, OutOfMemory, Reserve},
    vm::{
        PageTable, VmError,
        access::{check_writable, offset_in, page_of, pieces},
        cursor::Cursor,
        entry::{Entry, Kind, Slot},
        own,
    },
};

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
) -> Result<(), CopyError> {
    if dst.root() == src.root() && dst_addr.abs_diff(src_addr) < len {
        return Err(CopyError::new(Side::Destination, Error::Overlap));
    }
    let transfer = Transfer {
        mm,
        src: src.root(),
        dst: dst.root(),
        range: dst_addr..dst_addr + len,
        distance: src_addr.wrapping_sub(dst_addr),
    };
    let mut reserve = transfer.plan()?;
    let flush = transfer.detach();
    let flushed = mm.flush(flush);
    transfer.attach(&mut reserve, &flushed);
    Ok(())
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
    let to = Cursor::new(&mm.map, dst).get(to_page);
    let from = Cursor::new(&mm.map, src).get(from_page);
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

struct Transfer<'m> {
    mm: &'m Mm,
    src: Frame,
    dst: Frame,
    /// Addresses in the destination.
    range: Range<u64>,
    /// What to add to them, modulo 2^64, for those in the source.
    distance: u64,
}

/// How a page of the destination gets its bytes.
enum Method {
    /// By naming this frame of the source.
    Remap(Frame),
    /// By becoming demand-zero.
    Zero,
    /// By copying.
    Bytes,
}

impl<'m> Transfer<'m> {
    /// Checks both sides, prepares the counts, and reserves the frames.
    fn plan(&self) -> Result<Reserve<'m>, CopyError> {
        let (mut src, mut dst) = self.cursors();
        let mut nr_frames = 0;
        let mut memory = Ok(());
        for (page, part) in pieces(self.range.clone()) {
            let source = self.page_of_source(&part, &mut src).map(Slot::get);
            if !self.is_mapped(source, &part, &mut src) {
                return Err(CopyError::new(Side::Source, Error::NotMapped));
            }
            let entry = dst.get(page);
            check_writable(entry).map_err(|error| CopyError::new(Side::Destination, error))?;
            match method(source, entry) {
                Method::Remap(frame) if memory.is_ok() => memory = self.mm.ensure_counted(frame),
                Method::Bytes => nr_frames += usize::from(own::needs_frame(self.mm, entry)),
                _ => {}
            }
        }
        memory?;
        Ok(self.mm.frames.reserve(nr_frames)?)
    }

    /// Whether all of the source of `part` is there; `source` is its page, if it is one.
    fn is_mapped(&self, source: Option<Entry>, part: &Range<u64>, src: &mut Cursor<'_>) -> bool {
        match source {
            Some(entry) => !entry.is_empty(),
            None => pieces(self.source_of(part)).all(|(page, _)| !src.get(page).is_empty()),
        }
    }

    /// Pass 1: counts up and write-protects what is remapped; takes what goes out of reach.
    fn detach(&self) -> Flush {
        let (mut src, mut dst) = self.cursors();
        let mut flush = Flush::none();
        for (page, part) in pieces(self.range.clone()) {
            let slot = present(dst.slot(page).ok());
            let source = self.page_of_source(&part, &mut src);
            match (method(source.map(Slot::get), slot.get()), source) {
                (Method::Remap(frame), Some(source)) => {
                    self.mm.counts.increment(frame);
                    self.write_protect(self.to_src(page), source, &mut flush);
                    self.condemn(page, slot, &mut flush);
                }
                (Method::Zero, _) => self.condemn(page, slot, &mut flush),
                _ => own::detach(self.mm, self.dst, page, slot, &mut flush),
            }
        }
        flush
    }

    fn write_protect(&self, page: u64, slot: Slot<'_>, flush: &mut Flush) {
        let entry = slot.get();
        let masked = entry.with_writable(false);
        slot.set(masked);
        if entry.needs_flush(masked) {
            flush.add(self.src, page);
        }
    }

    fn condemn(&self, page: u64, slot: Slot<'_>, flush: &mut Flush) {
        if let Kind::Private(_) = slot.get().kind() {
            slot.set(slot.get().condemned());
            flush.add(self.dst, page);
        }
    }

    /// Pass 2: makes the destination's pages, and lets go of what they were.
    fn attach(&self, reserve: &mut Reserve<'_>, flushed: &Flushed) {
        let (mut src, mut dst) = self.cursors();
        for (page, part) in pieces(self.range.clone()) {
            let slot = present(dst.slot(page).ok());
            let entry = slot.get();
            let source = self.page_of_source(&part, &mut src).map(Slot::get);
            let replacement = match method(source, entry) {
                Method::Remap(frame) => Entry::private(frame, entry.rights(), false),
                Method::Zero => Entry::zero(entry.rights()),
                Method::Bytes => {
                    own::write(self.mm, slot, is_whole(&part), reserve, flushed, |frame| {
                        self.copy_bytes(&part, &mut src, frame);
                    });
                    self.mm.stats.copied.add(1);
                    continue;
                }
            };
            slot.set(replacement);
            self.mm.stats.remapped.add(1);
            if let Kind::Condemned(old) = entry.kind() {
                self.mm.release(old, flushed);
            }
        }
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

    /// The page of the source that `part` may be remapped from: `part` is a whole page, at the same
    /// offset in it.
    #[inline]
    fn page_of_source<'s>(&self, part: &Range<u64>, src: &mut Cursor<'s>) -> Option<Slot<'s>> {
        if is_whole(part) && page_of(self.distance) == self.distance {
            src.slot(self.to_src(part.start)).ok()
        } else {
            None
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

/// How a page gets its bytes, given the page that it may be remapped from, if there is one. The
/// answer is the same in both passes.
#[inline]
fn method(source: Option<Entry>, dst: Entry) -> Method {
    match source.map(Entry::kind) {
        Some(Kind::Private(frame)) if !dst.is_shared() => Method::Remap(frame),
        Some(Kind::Zero) if !dst.is_shared() => Method::Zero,
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
