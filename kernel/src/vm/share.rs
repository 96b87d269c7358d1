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

use core::{ops::Range, sync::atomic::AtomicU64};

use cowslip_abi::{Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{CountCursor, Departing, Flush, Flushed, Frame, Mm, Reserve, phys::FRAME_SIZE},
    vm::{
        PageTable, VmError,
        cursor::{Cursor, Leaf, Missing, coverage, walk},
        drop::drop_range,
        entry::{Entry, Kind, Pattern, Rights, Slot, are_empty},
        remap::Run,
    },
};

/// Maps `len` bytes of `src` from `src_addr` on in `dst` at `dst_addr`.
///
/// `perm` are the rights in `dst`. Without it every page keeps its rights and ceiling, and empty
/// pages of the source are skipped.
///
/// # Errors
///
/// In this order: `Overlap`: the ranges overlap in one space. `Occupied`: the destination is not
/// empty. For the first page of the source that is at fault: `NotMapped`, or `Denied` if a shared
/// mapping would get more than the source's ceiling. `NoMemory`: too few frames.
#[allow(
    clippy::too_many_arguments,
    reason = "these are the words of the system call"
)]
pub fn share(
    mm: &Mm,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
    mode: ShareMode,
    perm: Option<Perm>,
) -> Result<(), VmError> {
    if dst.root() == src.root() && dst_addr.abs_diff(src_addr) < len {
        return Err(Error::Overlap);
    }
    let share = Share {
        mm,
        src: src.root(),
        dst: dst.root(),
        range: src_addr..src_addr + len,
        distance: dst_addr.wrapping_sub(src_addr),
        mode,
        perm,
    };
    if len == FRAME_SIZE
        && let Some(result) = share.one_page(src_addr)
    {
        return result;
    }
    let mut reserve = share.plan()?;
    match mode {
        ShareMode::CopyOnWrite => share.fork(&mut reserve),
        ShareMode::Move => share.take(&mut reserve),
        ShareMode::Shared => {
            let flushed = mm.flush(share.detach_shared(&mut reserve));
            share.attach_shared(&mut reserve, &flushed);
        }
    }
    Ok(())
}

struct Share<'m> {
    mm: &'m Mm,
    src: Frame,
    dst: Frame,
    /// Addresses in the source.
    range: Range<u64>,
    /// What to add to them, modulo 2^64, for those in the destination.
    distance: u64,
    mode: ShareMode,
    perm: Option<Perm>,
}

/// Pages of the source in one table, whose places in the destination are in one table too.
struct Part<'m> {
    page: u64,
    leaf: Leaf<'m>,
    entries: &'m [AtomicU64],
}

impl<'m> Share<'m> {
    /// The whole of it for one page, if that takes no frame and both tables are there.
    #[inline]
    fn one_page(&self, page: u64) -> Option<Result<(), VmError>> {
        let to = walk(&self.mm.map, self.dst, self.to_dst(page)).ok()?;
        let from = walk(&self.mm.map, self.src, page).ok()?;
        let (source, target) = (from.slot(page), to.slot(self.to_dst(page)));
        let entry = source.get();
        if !target.get().is_empty() {
            return Some(Err(Error::Occupied));
        }
        if entry.is_empty() || self.takes_frame(entry) {
            return None;
        }
        if let Err(error) = self.check_rights(entry) {
            return Some(Err(error));
        }
        let rights = self.rights(entry);
        let made = match (self.mode, entry.kind()) {
            (ShareMode::Shared, Kind::Private(frame) | Kind::Shared(frame)) => {
                self.mm.counts.increment(frame);
                if !entry.is_shared() {
                    source.set(Entry::shared(frame, entry.rights()));
                }
                Entry::shared(frame, rights)
            }
            (ShareMode::CopyOnWrite, Kind::Private(frame)) => {
                self.mm.counts.increment(frame);
                if entry.is_writable() {
                    source.set(entry.with_writable(false));
                    self.mm.flush(Flush::page(self.src, page));
                }
                Entry::private(frame, rights, false)
            }
            _ => return None,
        };
        target.set(made);
        to.add_used(1);
        Some(Ok(()))
    }

    /// The next part of the range that has a table in the source; the range then starts behind it.
    fn next_part(&self, cursor: &mut Cursor<'m>, rest: &mut Range<u64>) -> Option<Part<'m>> {
        let mut ahead = rest.clone();
        let (Range { start, mut end }, leaf) = cursor.next_leaf(&mut ahead)?;
        let dst_left = coverage(1) - self.to_dst(start) % coverage(1);
        end = end.min(start + dst_left);
        rest.start = end;
        Some(Part {
            page: start,
            leaf,
            entries: leaf.run(start, (end - start) / FRAME_SIZE),
        })
    }

    fn source(&self) -> (Cursor<'m>, Range<u64>) {
        (Cursor::new(&self.mm.map, self.src), self.range.clone())
    }

    /// Checks both sides, and reserves the frames.
    fn plan(&self) -> Result<Reserve<'m>, VmError> {
        let Range { start, end } = self.range;
        let mut dst_range = self.to_dst(start)..self.to_dst(start) + (end - start);
        if Cursor::new(&self.mm.map, self.dst)
            .next(&mut dst_range)
            .is_some()
        {
            return Err(Error::Occupied);
        }
        let mut missing = Missing::new(&self.mm.map, self.dst);
        let mut nr_pages = 0;
        // Where every page keeps its rights and no bytes are copied, nothing can be wrong with one.
        let is_plain = self.perm.is_none() && self.mode != ShareMode::Shared;
        let mut expected = start;
        let (mut cursor, mut rest) = self.source();
        while let Some(part) = self.next_part(&mut cursor, &mut rest) {
            if are_empty(part.entries) {
                continue;
            }
            let at = self.to_dst(part.page);
            missing.add(at..at + FRAME_SIZE);
            if !is_plain {
                nr_pages += self.plan_pages(&part, &mut expected)?;
            }
        }
        if self.perm.is_some() && expected != end {
            return Err(Error::NotMapped);
        }
        Ok(self.mm.frames.reserve(missing.nr_tables() + nr_pages)?)
    }

    /// Checks the pages of a part. `expected` is the page after the last one that is mapped. Returns
    /// how many frames the pages take.
    fn plan_pages(&self, part: &Part<'_>, expected: &mut u64) -> Result<usize, VmError> {
        let mut nr_pages = 0;
        for (page, slot) in part.pages() {
            let entry = slot.get();
            if entry.is_empty() {
                continue;
            }
            if self.perm.is_some() && page != *expected {
                return Err(Error::NotMapped);
            }
            *expected = page + FRAME_SIZE;
            self.check_rights(entry)?;
            nr_pages += usize::from(self.takes_frame(entry));
        }
        Ok(nr_pages)
    }

    #[inline]
    fn check_rights(&self, entry: Entry) -> Result<(), VmError> {
        let stays_shared = match self.mode {
            ShareMode::Shared => true,
            ShareMode::Move => matches!(entry.kind(), Kind::Shared(_)),
            ShareMode::CopyOnWrite => false,
        };
        match self.perm {
            Some(perm) if stays_shared && !entry.rights().ceiling.contains(perm) => {
                Err(Error::Denied)
            }
            _ => Ok(()),
        }
    }

    /// Whether the page needs a frame that is not there yet.
    #[inline]
    fn takes_frame(&self, entry: Entry) -> bool {
        match (self.mode, entry.kind()) {
            (ShareMode::CopyOnWrite, Kind::Shared(_)) => self.perm.is_some(),
            (ShareMode::Shared, Kind::Zero) => true,
            (ShareMode::Shared, Kind::Private(frame)) => !self.mm.counts.is_one(frame),
            _ => false,
        }
    }

    /// Copy-on-write: in one pass, as nothing departs.
    fn fork(&self, reserve: &mut Reserve<'_>) {
        let mut flush = Flush::none();
        let mut counts = CountCursor::new(&self.mm.counts);
        let mut dst = Cursor::new(&self.mm.map, self.dst);
        let mut nr_seconds = 0;
        let (mut cursor, mut rest) = self.source();
        while let Some(part) = self.next_part(&mut cursor, &mut rest) {
            if are_empty(part.entries) {
                continue;
            }
            let at = self.to_dst(part.page);
            let to = dst.make_leaf(at, reserve);
            let run = Run {
                src: part.entries,
                dst: to.run(at, part.entries.len() as u64),
            };
            let (mut done, mut nr_made) = (0, 0);
            let mut loses_write = false;
            while done < run.len() {
                let rest = run.skip(done);
                let (source, target) = rest.page(0);
                let entry = source.get();
                if let Some(pattern) = Pattern::like(entry, &self.mm.counts) {
                    let lent = rest.fork(&self.mm.counts, pattern, self.rights(entry));
                    loses_write |= pattern.is_writable();
                    nr_seconds += lent.nr_seconds;
                    nr_made += lent.nr_pages;
                    done += lent.nr_pages;
                } else {
                    if !entry.is_empty() {
                        target.set(self.forked(entry, &mut counts, reserve));
                        nr_made += 1;
                    }
                    done += 1;
                }
            }
            to.add_used(nr_made);
            if loses_write {
                flush.add_range(self.src, part.page, part.end());
            }
        }
        self.mm.counts.add_shared(nr_seconds);
        self.mm.flush(flush);
    }

    /// The copy of a page that is not private.
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
            Kind::Shared(frame) => {
                let snapshot = reserve.take();
                self.mm.map.copy_frame(frame, snapshot);
                self.mm.stats.copied.add(1);
                Entry::private(snapshot, rights, true)
            }
            _ => Entry::zero(rights),
        }
    }

    /// Moves all pages, and takes away the tables of the source that are empty then.
    fn take(&self, reserve: &mut Reserve<'_>) {
        let mut departing = Departing::new(self.mm);
        let mut dst = Cursor::new(&self.mm.map, self.dst);
        let mut is_emptied = false;
        let (mut cursor, mut rest) = self.source();
        while let Some(part) = self.next_part(&mut cursor, &mut rest) {
            if are_empty(part.entries) {
                continue;
            }
            let at = self.to_dst(part.page);
            let to = dst.make_leaf(at, reserve);
            let targets = to.run(at, part.entries.len() as u64);
            let mut nr_moved = 0;
            for (source, target) in part.entries.iter().zip(targets) {
                let source = Slot::new(source);
                let entry = source.get();
                if !entry.is_empty() {
                    source.set(Entry::EMPTY);
                    Slot::new(target).set(self.moved(entry));
                    nr_moved += 1;
                }
            }
            is_emptied |= part.leaf.subtract_used(nr_moved);
            to.add_used(nr_moved);
            departing.flush().add_range(self.src, part.page, part.end());
        }
        if is_emptied {
            drop_range(self.mm, self.src, &self.range, &mut departing);
        }
        departing.finish();
    }

    fn moved(&self, source: Entry) -> Entry {
        let rights = self.rights(source);
        match source.kind() {
            Kind::Shared(frame) => Entry::shared(frame, rights),
            Kind::Private(frame) => Entry::private(frame, rights, source.is_writable()),
            _ => Entry::zero(rights),
        }
    }

    /// Shared memory, pass 1: turns the pages of the source into it, unless they must be copied
    /// first. Those are taken out of reach.
    fn detach_shared(&self, reserve: &mut Reserve<'_>) -> Flush {
        let mut flush = Flush::none();
        let (mut cursor, mut rest) = self.source();
        while let Some((page, slot)) = cursor.next(&mut rest) {
            let entry = slot.get();
            let frame = match entry.kind() {
                Kind::Zero => {
                    self.mm.stats.zero_filled.add(1);
                    reserve.take_zeroed()
                }
                Kind::Private(frame) if !self.mm.counts.is_one(frame) => {
                    slot.set(entry.condemned());
                    flush.add(self.src, page);
                    continue;
                }
                Kind::Private(frame) | Kind::Shared(frame) => frame,
                Kind::Empty | Kind::Condemned(_) => continue,
            };
            slot.set(Entry::shared(frame, entry.rights()));
            self.mm.counts.increment(frame);
        }
        flush
    }

    /// Pass 2: makes the pages of the destination.
    fn attach_shared(&self, reserve: &mut Reserve<'_>, flushed: &Flushed) {
        let mut dst = Cursor::new(&self.mm.map, self.dst);
        let (mut cursor, mut rest) = self.source();
        while let Some((page, slot)) = cursor.next(&mut rest) {
            let entry = self.attached(slot, reserve, flushed);
            let leaf = dst.make_leaf(self.to_dst(page), reserve);
            leaf.slot(self.to_dst(page)).set(entry);
            leaf.add_used(1);
        }
    }

    fn attached(&self, slot: Slot<'_>, reserve: &mut Reserve<'_>, flushed: &Flushed) -> Entry {
        let source = slot.get();
        let frame = match source.kind() {
            Kind::Condemned(old) => {
                let frame = reserve.take();
                self.mm.map.copy_frame(old, frame);
                self.mm.stats.cow_broken.add(1);
                self.mm.counts.increment(frame);
                slot.set(Entry::shared(frame, source.rights()));
                self.mm.release(old, flushed);
                frame
            }
            Kind::Shared(frame) => frame,
            _ => unreachable!("pass 1 left shared and condemned pages"),
        };
        Entry::shared(frame, self.rights(source))
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

impl<'m> Part<'m> {
    /// The pages with their addresses.
    fn pages(&self) -> impl Iterator<Item = (u64, Slot<'m>)> {
        let addresses = (self.page..).step_by(PAGE_SIZE);
        addresses.zip(self.entries.iter().map(Slot::new))
    }

    /// The end of the last page.
    const fn end(&self) -> u64 {
        self.page + self.entries.len() as u64 * FRAME_SIZE
    }
}
