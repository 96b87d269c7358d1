//! Editing one address space: map, unmap, protect.

use cowslip_abi::{Error, PAGE_SIZE, Perm};

use crate::{
    mm::{Departing, Flush, Frame, Mm, phys::FRAME_SIZE},
    vm::{
        PageTable, VmError,
        cursor::{Cursor, Leaf, Missing, walk},
        drop::drop_range,
        entry::{Entry, Kind, Rights, Slot},
    },
};

impl PageTable {
    /// Makes the pages from `addr` on demand-zero.
    ///
    /// # Errors
    ///
    /// `Occupied`: a page is not empty. `NoMemory`: too few frames for the tables.
    pub fn map_zero(&self, mm: &Mm, addr: u64, len: u64, perm: Perm) -> Result<(), VmError> {
        let entry = Entry::zero(Rights::new(perm));
        if len == FRAME_SIZE
            && let Ok(leaf) = walk(&mm.map, self.root(), addr)
        {
            return fill_empty(leaf, addr, entry);
        }
        let range = addr..addr + len;
        let mut cursor = Cursor::new(&mm.map, self.root());
        if cursor.next(&mut range.clone()).is_some() {
            return Err(Error::Occupied);
        }
        let mut missing = Missing::new(&mm.map, self.root());
        missing.add(range.clone());
        let mut reserve = mm.frames.reserve(missing.nr_tables())?;
        let mut page = addr;
        while page < range.end {
            let leaf = cursor.make_leaf(page, &mut reserve);
            let run = leaf.run(page, (range.end - page) / FRAME_SIZE);
            run.iter().for_each(|place| Slot::new(place).set(entry));
            leaf.add_used(run.len());
            page += run.len() as u64 * FRAME_SIZE;
        }
        Ok(())
    }

    /// Makes the page at `addr` a private page with this frame.
    ///
    /// The caller gives away its reference to the frame, which must be the only one.
    ///
    /// # Errors
    ///
    /// `Occupied`: the page is not empty. `NoMemory`: too few frames for the tables. The caller
    /// keeps the frame then.
    pub fn map_frame(&self, mm: &Mm, addr: u64, frame: Frame, perm: Perm) -> Result<(), VmError> {
        let mut cursor = Cursor::new(&mm.map, self.root());
        if !cursor.get(addr).is_empty() {
            return Err(Error::Occupied);
        }
        let mut missing = Missing::new(&mm.map, self.root());
        missing.add(addr..addr + FRAME_SIZE);
        let mut reserve = mm.frames.reserve(missing.nr_tables())?;
        let entry = Entry::private(frame, Rights::new(perm), true);
        fill_empty(cursor.make_leaf(addr, &mut reserve), addr, entry)
    }

    /// Empties the pages from `addr` on. Empty ones stay so.
    ///
    /// Takes time for what is mapped, and next to none for what is not.
    pub fn unmap(&self, mm: &Mm, addr: u64, len: u64) {
        if len == FRAME_SIZE && self.unmap_page(mm, addr) {
            return;
        }
        let mut departing = Departing::new(mm);
        drop_range(mm, self.root(), &(addr..addr + len), &mut departing);
        departing.finish();
    }

    /// Empties a page, unless that leaves its table empty: then nothing has changed.
    fn unmap_page(&self, mm: &Mm, addr: u64) -> bool {
        let Ok(leaf) = walk(&mm.map, self.root(), addr) else {
            return true;
        };
        let slot = leaf.slot(addr);
        let entry = slot.get();
        if entry.is_empty() {
            return true;
        }
        if leaf.nr_used() == 1 {
            return false;
        }
        slot.set(Entry::EMPTY);
        leaf.subtract_used(1);
        if let Kind::Private(frame) | Kind::Shared(frame) = entry.kind() {
            let flushed = mm.flush(Flush::page(self.root(), addr));
            mm.release(frame, &flushed);
        }
        true
    }

    /// Changes what user code may do with the pages from `addr` on.
    ///
    /// # Errors
    ///
    /// For the first page that is at fault: `NotMapped`, or `Denied` if it was mapped with fewer
    /// rights.
    pub fn protect(&self, mm: &Mm, addr: u64, len: u64, perm: Perm) -> Result<(), VmError> {
        let range = addr..addr + len;
        let mut cursor = Cursor::new(&mm.map, self.root());
        for page in range.clone().step_by(PAGE_SIZE) {
            let entry = cursor.get(page);
            if entry.is_empty() {
                return Err(Error::NotMapped);
            }
            if !entry.rights().ceiling.contains(perm) {
                return Err(Error::Denied);
            }
        }

        let mut flush = Flush::none();
        let mut rest = range;
        while let Some((page, slot)) = cursor.next(&mut rest) {
            let before = slot.get();
            let after = protected(before, perm);
            slot.set(after);
            if before.needs_flush(after) {
                flush.add(self.root(), page);
            }
        }
        mm.flush(flush);
        Ok(())
    }
}

/// Writes the entry for `addr`, which should be empty, in its table.
#[inline]
fn fill_empty(leaf: Leaf<'_>, addr: u64, entry: Entry) -> Result<(), VmError> {
    let slot = leaf.slot(addr);
    if !slot.get().is_empty() {
        return Err(Error::Occupied);
    }
    slot.set(entry);
    leaf.add_used(1);
    Ok(())
}

/// The entry with other rights. A private page does not become writable for the hardware: others
/// may share the frame, and the first write finds out.
fn protected(entry: Entry, perm: Perm) -> Entry {
    let rights = Rights {
        perm,
        ..entry.rights()
    };
    match entry.kind() {
        Kind::Shared(frame) => Entry::shared(frame, rights),
        _ => entry.with_rights(rights),
    }
}
