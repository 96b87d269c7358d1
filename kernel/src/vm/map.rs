//! Editing one address space: map, unmap, protect.

use cowslip_abi::{Error, Perm};

use crate::{
    mm::{Flush, Frame, Mm},
    vm::{
        PageTable, VmError,
        cursor::{Cursor, Missing},
        entry::{Entry, Kind, Rights},
        prune,
        table::pages,
    },
};

impl PageTable {
    /// Makes the pages from `addr` on demand-zero.
    ///
    /// # Errors
    ///
    /// `Occupied`: a page is not empty. `NoMemory`: too few frames for the tables.
    pub fn map_zero(&self, mm: &Mm, addr: u64, len: u64, perm: Perm) -> Result<(), VmError> {
        let range = addr..addr + len;
        let mut cursor = Cursor::new(&mm.map, self.root());
        if cursor.next(&mut range.clone()).is_some() {
            return Err(Error::Occupied);
        }
        let mut missing = Missing::new(&mm.map, self.root());
        pages(range.clone()).for_each(|page| missing.add(page));
        let mut reserve = mm.frames.reserve(missing.nr_tables())?;

        let entry = Entry::zero(Rights::new(perm));
        for page in pages(range) {
            cursor.make_slot(page, &mut reserve).set(entry);
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
        missing.add(addr);
        let mut reserve = mm.frames.reserve(missing.nr_tables())?;
        let entry = Entry::private(frame, Rights::new(perm), true);
        cursor.make_slot(addr, &mut reserve).set(entry);
        Ok(())
    }

    /// Empties the pages from `addr` on. Empty ones stay so.
    ///
    /// Takes time for what is mapped, and next to none for what is not.
    pub fn unmap(&self, mm: &Mm, addr: u64, len: u64) {
        let range = addr..addr + len;
        let mut flush = Flush::none();
        let (mut cursor, mut rest) = (Cursor::new(&mm.map, self.root()), range.clone());
        while let Some((page, slot)) = cursor.next(&mut rest) {
            match slot.get().kind() {
                Kind::Zero => slot.set(Entry::EMPTY),
                _ => {
                    slot.set(slot.get().condemned());
                    flush.add(self.root(), page);
                }
            }
        }
        prune::condemn_tables(mm, self.root(), &range, &mut flush);
        let flushed = mm.flush(flush);

        let (mut cursor, mut rest) = (Cursor::new(&mm.map, self.root()), range.clone());
        while let Some((_, slot)) = cursor.next(&mut rest) {
            if let Kind::Condemned(frame) = slot.get().kind() {
                slot.set(Entry::EMPTY);
                mm.release(frame, &flushed);
            }
        }
        prune::free_tables(mm, self.root(), &range, &flushed);
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
        for page in pages(range.clone()) {
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
