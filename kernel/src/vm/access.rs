//! Small accesses of the kernel to user memory: fault reports, start-up blocks, log lines.
//!
//! The kernel never dereferences a user pointer. It walks the page table, so a bad pointer is an
//! error value; and a write takes the same path as a write of user code.

use core::ops::Range;

use cowslip_abi::{Access, Error, PAGE_SIZE};

use crate::{
    mm::{Departing, Mm},
    vm::{
        PageTable, VmError,
        cursor::{Cursor, USER_END},
        entry::{Entry, Kind},
        open::{Edit, Plan, open},
        own,
        reap::{reserve, twice},
    },
};

/// Copies user memory from `addr` on to `buf`.
///
/// # Errors
///
/// `NotMapped`; the buffer's contents are undefined then.
pub fn read_user(mm: &Mm, table: &PageTable, addr: u64, buf: &mut [u8]) -> Result<(), VmError> {
    let mut cursor = Cursor::new(&mm.map, table.root());
    for (page, part) in pieces(user_range(addr, buf.len())?) {
        let offset = offset_in(page, part.start);
        let piece = &mut buf[index_in(addr, &part)];
        match cursor.get(page).kind() {
            Kind::Private(frame) | Kind::Shared(frame) => {
                mm.map.read_bytes(frame, offset, piece);
            }
            Kind::Zero => piece.fill(0),
            _ => return Err(Error::NotMapped),
        }
    }
    Ok(())
}

/// Copies `buf` to user memory from `addr` on.
///
/// # Errors
///
/// `NotMapped`, `NotWritable`, `NoMemory`; nothing has been written then.
pub fn write_user(mm: &Mm, table: &PageTable, addr: u64, buf: &[u8]) -> Result<(), VmError> {
    let range = user_range(addr, buf.len())?;
    twice(|| write_range(mm, table, range.clone(), buf))
}

fn write_range(mm: &Mm, table: &PageTable, range: Range<u64>, buf: &[u8]) -> Result<(), VmError> {
    let (root, class, addr) = (table.root(), table.class(), range.start);
    let mut cursor = Cursor::new(&mm.map, root);
    let mut plan = Plan::new(mm, root);
    let mut nr_pages = 0;
    for (page, _) in pieces(range.clone()) {
        let entry = cursor.get(page);
        check_writable(entry)?;
        let is_own = plan.add(page, 0);
        nr_pages += usize::from(own::needs_frame(mm, entry, is_own));
    }
    let mut reserve = reserve(mm, plan.nr_frames() + nr_pages, class)?;

    let mut departing = Departing::new(mm, class);
    for (page, _) in pieces(range.clone()) {
        let leaf = open(mm, root, page, 0, Edit::Keep, &mut reserve, &mut departing);
        own::detach(mm, root, page, leaf.slot(page), departing.flush());
    }
    let flushed = departing.finish();

    let mut cursor = Cursor::new(&mm.map, root);
    for (page, part) in pieces(range) {
        let bytes = &buf[index_in(addr, &part)];
        own::write(
            mm,
            cursor.open_slot(page),
            class,
            bytes.len() == PAGE_SIZE,
            || reserve.take(),
            &flushed,
            |frame| {
                mm.map
                    .write_bytes(frame, offset_in(page, part.start), bytes);
            },
        );
    }
    Ok(())
}

/// Whether user code has the right to write to the page.
pub(super) fn check_writable(entry: Entry) -> Result<(), VmError> {
    if entry.is_empty() {
        Err(Error::NotMapped)
    } else if !entry.permits(Access::Write) {
        Err(Error::NotWritable)
    } else {
        Ok(())
    }
}

/// The pages that a byte range touches, each with its part of the range.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let Range { mut start, end } = range;
    core::iter::from_fn(move || {
        let page = page_of(start);
        let part = start..end.min(page + PAGE_SIZE as u64);
        start = part.end;
        (!part.is_empty()).then_some((page, part))
    })
}

/// The address of the page that contains `addr`.
pub(super) const fn page_of(addr: u64) -> u64 {
    addr & !(PAGE_SIZE as u64 - 1)
}

/// Where `addr` lies in its page.
pub(super) const fn offset_in(page: u64, addr: u64) -> usize {
    (addr - page) as usize
}

fn user_range(addr: u64, len: usize) -> Result<Range<u64>, VmError> {
    let end = addr.checked_add(len as u64).filter(|end| *end <= USER_END);
    end.map(|end| addr..end).ok_or(Error::NotMapped)
}

/// Where a part of the user range that starts at `addr` lies in the kernel's buffer.
fn index_in(addr: u64, part: &Range<u64>) -> Range<usize> {
    (part.start - addr) as usize..(part.end - addr) as usize
}
