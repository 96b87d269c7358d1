//! Page faults: an access that the hardware could not do, and what is done about it.

use cowslip_abi::{Access, FoundEntry};

use crate::{
    mm::{Departing, Flush, Mm},
    vm::{
        PageTable,
        cursor::{USER_END, walk_to_page},
        entry::{Entry, Kind, Slot},
        open::{Edit, Plan, open},
        own,
        reap::alloc,
    },
};

/// What became of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The access works now.
    Resolved,
    /// The page table does not allow the access.
    Denied(FoundEntry),
    /// The access is legal, but needs a frame, and there is none. It is worth to try again if
    /// [something was worked off](super::make_room).
    OutOfMemory,
}

/// Resolves a page fault of user code at `addr`.
///
/// An access that the entry allows already comes from a stale TLB: rights are raised without a
/// flush. Then that page is flushed.
#[inline(always)]
pub fn fault(mm: &Mm, table: &PageTable, addr: u64, access: Access) -> Fault {
    if addr >= USER_END {
        return Fault::Denied(FoundEntry::NotUser);
    }
    let root = table.root();
    match walk_to_page(&mm.map, root, addr) {
        Ok(leaf) if leaf.is_exclusive() => {
            let slot = leaf.slot(addr);
            let entry = slot.get();
            if !entry.permits(access) {
                return Fault::Denied(entry.found());
            }
            resolve(mm, table, addr, access, slot)
        }
        Ok(leaf) => resolve_below(mm, table, addr, access, leaf.slot(addr).get()),
        Err(gap) => resolve_below(mm, table, addr, access, gap.entry(addr)),
    }
}

/// The same where tables are to be opened first.
#[inline(never)]
fn resolve_below(mm: &Mm, table: &PageTable, addr: u64, access: Access, entry: Entry) -> Fault {
    let (root, class) = (table.root(), table.class());
    if !entry.permits(access) {
        return Fault::Denied(entry.found());
    }
    let is_present = matches!(entry.kind(), Kind::Private(_) | Kind::Shared(_));
    if is_present && access != Access::Write {
        mm.flush(&Flush::page(root, addr));
        return Fault::Resolved;
    }
    let mut plan = Plan::new(mm, root);
    let is_own = plan.add(addr, 0);
    let nr_pages = usize::from(own::needs_frame(mm, entry, is_own));
    let Ok(mut reserve) = mm.frames.reserve(plan.nr_frames() + nr_pages, class) else {
        return Fault::OutOfMemory;
    };
    let mut departing = Departing::new(mm, class);
    let leaf = open(mm, root, addr, 0, Edit::Keep, &mut reserve, &mut departing);
    let slot = leaf.slot(addr);
    own::detach(mm, root, addr, slot, departing.flush());
    let flushed = departing.finish();
    let entry = slot.get();
    match entry.kind() {
        Kind::Private(_) => reclaim(mm, slot, entry),
        Kind::Shared(_) => {}
        _ => {
            let frames = || reserve.take();
            own::write(mm, slot, class, false, frames, &flushed, |_| ());
        }
    }
    Fault::Resolved
}

/// Resolves an access that the entry permits, in a table of this space alone.
#[inline(always)]
fn resolve(mm: &Mm, table: &PageTable, addr: u64, access: Access, slot: Slot<'_>) -> Fault {
    let (root, class) = (table.root(), table.class());
    let entry = slot.get();
    match entry.kind() {
        Kind::Private(_) | Kind::Shared(_) if access != Access::Write || entry.is_writable() => {
            mm.flush(&Flush::page(root, addr));
        }
        Kind::Private(frame) => {
            let count = mm.counts.of(frame);
            if count.is_one() {
                reclaim(mm, slot, entry);
                return Fault::Resolved;
            }
            let Some(made) = alloc(mm, class) else {
                return Fault::OutOfMemory;
            };
            // Out of reach first: see `own`.
            slot.set(entry.condemned());
            let flushed = mm.flush(&Flush::page(root, addr));
            own::publish_copy(mm, slot, frame, made);
            mm.release_counted(frame, count, class, &flushed);
        }
        _ => {
            let Some(made) = alloc(mm, class) else {
                return Fault::OutOfMemory;
            };
            own::publish_zero(mm, slot, made);
        }
    }
    Fault::Resolved
}

/// The last owner of a page may write to it again.
#[inline(always)]
fn reclaim(mm: &Mm, slot: Slot<'_>, entry: Entry) {
    slot.set(entry.with_writable(true));
    mm.stats.reclaimed.add(1);
}
