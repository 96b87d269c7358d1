//! Page faults: an access that the hardware could not do, and what is done about it.

use cowslip_abi::{Access, FoundEntry, USER_END};

use crate::{
    mm::{Flush, Mm},
    vm::{PageTable, cursor::walk, entry::Kind, own},
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
        Kind::Private(frame) => {
            let count = mm.counts.of(frame);
            if count.is_one() {
                slot.set(entry.with_writable(true));
                mm.stats.reclaimed.add(1);
                return Fault::Resolved;
            }
            let Some(made) = mm.frames.alloc() else {
                return Fault::OutOfMemory;
            };
            // Out of reach first: see `own`.
            slot.set(entry.condemned());
            let flushed = mm.flush(Flush::page(table.root(), addr));
            own::publish_copy(mm, slot, frame, made);
            mm.release_counted(frame, count, &flushed);
            Fault::Resolved
        }
        _ => {
            let Some(made) = mm.frames.alloc() else {
                return Fault::OutOfMemory;
            };
            own::publish_zero(mm, slot, made);
            Fault::Resolved
        }
    }
}
