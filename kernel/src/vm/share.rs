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

use core::ops::Range;

use cowslip_abi::{Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{Flush, Flushed, Frame, Mm, OutOfMemory, Reserve},
    vm::{
        PageTable, VmError,
        cursor::{Cursor, Missing},
        entry::{Entry, Kind, Rights, Slot},
        prune,
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
    let mut reserve = share.plan()?;
    let flush = share.detach(&mut reserve);
    let flushed = mm.flush(flush);
    share.attach(&mut reserve, &flushed);
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

impl<'m> Share<'m> {
    /// Checks both sides, prepares the counts, and reserves the frames.
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
        let mut memory = Ok(());
        let (mut cursor, mut rest) = (Cursor::new(&self.mm.map, self.src), self.range.clone());
        let mut expected = start;
        while let Some((page, slot)) = cursor.next(&mut rest) {
            if self.perm.is_some() && page != expected {
                return Err(Error::NotMapped);
            }
            expected = page + PAGE_SIZE as u64;
            self.check_rights(slot.get())?;
            missing.add(self.to_dst(page));
            nr_pages += usize::from(self.takes_frame(slot.get()));
            if memory.is_ok() {
                memory = self.prepare_count(slot.get());
            }
        }
        if self.perm.is_some() && expected != end {
            return Err(Error::NotMapped);
        }
        memory?;
        let reserve = self.mm.frames.reserve(missing.nr_tables() + nr_pages)?;
        if self.mode == ShareMode::Shared && nr_pages > 0 {
            // Frames that the source gets are named twice at once. Which ones become tables is not
            // known, so all of them are prepared.
            reserve
                .frames()
                .try_for_each(|frame| self.mm.ensure_counted(frame))?;
        }
        Ok(reserve)
    }

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
    fn takes_frame(&self, entry: Entry) -> bool {
        match (self.mode, entry.kind()) {
            (ShareMode::CopyOnWrite, Kind::Shared(_)) => self.perm.is_some(),
            (ShareMode::Shared, Kind::Zero) => true,
            (ShareMode::Shared, Kind::Private(frame)) => self.mm.counts.get(frame) > 1,
            _ => false,
        }
    }

    fn prepare_count(&self, entry: Entry) -> Result<(), OutOfMemory> {
        match entry.kind() {
            Kind::Private(frame) | Kind::Shared(frame) if self.mode != ShareMode::Move => {
                self.mm.ensure_counted(frame)
            }
            _ => Ok(()),
        }
    }

    /// Pass 1: counts up, and takes from the source what it will not have afterwards.
    fn detach(&self, reserve: &mut Reserve<'_>) -> Flush {
        let mut flush = Flush::none();
        let (mut cursor, mut rest) = (Cursor::new(&self.mm.map, self.src), self.range.clone());
        while let Some((page, slot)) = cursor.next(&mut rest) {
            let before = slot.get();
            let needs_flush = match self.mode {
                ShareMode::CopyOnWrite => self.detach_cow(slot),
                ShareMode::Shared => self.detach_shared(slot, reserve),
                ShareMode::Move if before.kind() == Kind::Zero => false,
                ShareMode::Move => {
                    slot.set(before.condemned());
                    true
                }
            };
            if needs_flush {
                flush.add(self.src, page);
            }
        }
        if self.mode == ShareMode::Move {
            prune::condemn_tables(self.mm, self.src, &self.range, &mut flush);
        }
        flush
    }

    fn detach_cow(&self, slot: Slot<'_>) -> bool {
        let entry = slot.get();
        match entry.kind() {
            Kind::Private(frame) => {
                self.mm.counts.increment(frame);
                let masked = entry.with_writable(false);
                slot.set(masked);
                entry.needs_flush(masked)
            }
            Kind::Shared(frame) if self.perm.is_none() => {
                self.mm.counts.increment(frame);
                false
            }
            _ => false,
        }
    }

    /// Turns the source page into shared memory, unless it must be copied first.
    fn detach_shared(&self, slot: Slot<'_>, reserve: &mut Reserve<'_>) -> bool {
        let entry = slot.get();
        let frame = match entry.kind() {
            Kind::Zero => {
                self.mm.stats.zero_filled.add(1);
                reserve.take_zeroed()
            }
            Kind::Private(frame) if self.mm.counts.get(frame) > 1 => {
                slot.set(entry.condemned());
                return true;
            }
            Kind::Private(frame) | Kind::Shared(frame) => frame,
            Kind::Empty | Kind::Condemned(_) => return false,
        };
        slot.set(Entry::shared(frame, entry.rights()));
        self.mm.counts.increment(frame);
        false
    }

    /// Pass 2: makes the pages of the destination.
    fn attach(&self, reserve: &mut Reserve<'_>, flushed: &Flushed) {
        let (mut cursor, mut rest) = (Cursor::new(&self.mm.map, self.src), self.range.clone());
        let mut dst = Cursor::new(&self.mm.map, self.dst);
        while let Some((page, slot)) = cursor.next(&mut rest) {
            let entry = match self.mode {
                ShareMode::CopyOnWrite => self.attached_cow(slot.get(), reserve),
                ShareMode::Shared => self.attached_shared(slot, reserve, flushed),
                ShareMode::Move => self.moved(slot),
            };
            dst.make_slot(self.to_dst(page), reserve).set(entry);
        }
        if self.mode == ShareMode::Move {
            prune::free_tables(self.mm, self.src, &self.range, flushed);
        }
    }

    fn attached_cow(&self, source: Entry, reserve: &mut Reserve<'_>) -> Entry {
        let rights = self.rights(source);
        match source.kind() {
            Kind::Private(frame) => Entry::private(frame, rights, false),
            Kind::Shared(frame) if self.perm.is_none() => Entry::shared(frame, rights),
            Kind::Shared(frame) => {
                let snapshot = reserve.take();
                self.mm.map.copy_frame(frame, snapshot);
                self.mm.stats.copied.add(1);
                Entry::private(snapshot, rights, true)
            }
            _ => Entry::zero(rights),
        }
    }

    fn attached_shared(
        &self,
        slot: Slot<'_>,
        reserve: &mut Reserve<'_>,
        flushed: &Flushed,
    ) -> Entry {
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

    fn moved(&self, slot: Slot<'_>) -> Entry {
        let source = slot.get();
        let rights = self.rights(source);
        slot.set(Entry::EMPTY);
        match source.kind() {
            Kind::Condemned(frame) if source.is_shared() => Entry::shared(frame, rights),
            Kind::Condemned(frame) => Entry::private(frame, rights, self.mm.counts.get(frame) == 1),
            _ => Entry::zero(rights),
        }
    }

    /// The rights of the destination's page.
    fn rights(&self, source: Entry) -> Rights {
        self.perm.map_or(source.rights(), Rights::new)
    }

    const fn to_dst(&self, addr: u64) -> u64 {
        addr.wrapping_add(self.distance)
    }
}
