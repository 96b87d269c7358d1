//! Page faults: an access that the hardware could not do, and what is done about it.

use cowslip_abi::{Access, FoundEntry, USER_END};

use crate::{
    mm::{Flush, Mm},
    vm::{
        PageTable,
        cursor::walk,
        entry::{Kind, Slot},
        own,
    },
};

/// What became of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The access works now.
    Resolved,
    /// The page table does not allow the access.
    Denied(FoundEntry),
    /// The access is legal, but needs a frame, and there is none.
    OutOfMemory,
}

/// Resolves a page fault of user code at `addr`.
///
/// An access that the entry allows already comes from a stale TLB: rights are raised without a
/// flush. Then that page is flushed.
pub fn fault(mm: &Mm, table: &PageTable, addr: u64, access: Access) -> Fault {
    if addr >= USER_END {
        return Fault::Denied(FoundEntry::NotUser);
    }
    let Ok(leaf) = walk(&mm.map, table.root(), addr) else {
        return Fault::Denied(FoundEntry::Empty);
    };
    let slot = leaf.slot(addr);
    let entry = slot.get();
    if !entry.permits(access) {
        return Fault::Denied(entry.found());
    }
    match entry.kind() {
        Kind::Private(_) | Kind::Shared(_) if access != Access::Write || entry.is_writable() => {
            mm.flush(Flush::page(table.root(), addr));
            Fault::Resolved
        }
        Kind::Private(frame) if mm.counts.is_one(frame) => {
            slot.set(entry.with_writable(true));
            mm.stats.reclaimed.add(1);
            Fault::Resolved
        }
        _ => give_frame(mm, table, addr, slot),
    }
}

/// Gives a demand-zero page, or a copy-on-write page whose frame others name, a frame of its own.
fn give_frame(mm: &Mm, table: &PageTable, addr: u64, slot: Slot<'_>) -> Fault {
    let Some(frame) = mm.frames.alloc() else {
        return Fault::OutOfMemory;
    };
    let mut flush = Flush::none();
    own::detach(mm, table.root(), addr, slot, &mut flush);
    let flushed = mm.flush(flush);
    own::write(mm, slot, false, || frame, &flushed, |_| {});
    Fault::Resolved
}
