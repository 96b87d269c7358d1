//! Page faults: an access that the hardware could not do, and what is done about it.

use core::sync::atomic::AtomicU64;

use cowslip_abi::{Access, FoundEntry};

use crate::{
    mm::{
        Departing, Flush, Frame, Mm, OutOfMemory, Table,
        phys::{FRAME_SIZE, NR_ENTRIES},
    },
    vm::{
        PageTable,
        access::page_of,
        cursor::{Node, USER_END, index, walk_to_page},
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
    let (entry, own) = match walk_to_page(&mm.map, table.root(), addr) {
        Ok(leaf) => {
            let slot = leaf.slot(addr);
            let entry = slot.get();
            if leaf.is_exclusive() && access == Access::Write && entry.is_copy_on_write() {
                return break_sharing(mm, table, addr, leaf, entry);
            }
            (entry, leaf.is_exclusive().then_some(slot))
        }
        Err(gap) => (gap.entry(addr), None),
    };
    if !entry.permits(access) {
        return Fault::Denied(entry.found());
    }
    match own {
        Some(slot) => resolve(mm, table, addr, slot, entry),
        None => resolve_below(mm, table, addr, access, entry),
    }
}

/// Resolves an access that the entry permits, where tables are to be opened first.
#[inline(never)]
fn resolve_below(mm: &Mm, table: &PageTable, addr: u64, access: Access, entry: Entry) -> Fault {
    let (root, class) = (table.root(), table.class());
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
        _ => own::write(mm, slot, class, false, || reserve.take(), &flushed, |_| ()),
    }
    if let Kind::Private(_) | Kind::Condemned(_) = entry.kind() {
        table.streak().note(page_of(addr), 1);
    }
    Fault::Resolved
}

/// Resolves an access that the entry permits, in a table of this space alone, if it is no write to a copy-on-write page.
#[inline(always)]
fn resolve(mm: &Mm, table: &PageTable, addr: u64, slot: Slot<'_>, entry: Entry) -> Fault {
    match entry.kind() {
        Kind::Private(_) | Kind::Shared(_) => {
            mm.flush(&Flush::page(table.root(), addr));
        }
        _ => {
            let Some(made) = alloc(mm, table.class()) else {
                return Fault::OutOfMemory;
            };
            own::publish_zero(mm, slot, entry, made);
        }
    }
    Fault::Resolved
}

/// Lets user code write to a copy-on-write page, whose table is this space's alone: to the page, if nobody else names it, or to a
/// copy.
#[inline(always)]
fn break_sharing(mm: &Mm, table: &PageTable, addr: u64, leaf: Node<'_>, entry: Entry) -> Fault {
    let (root, class) = (table.root(), table.class());
    let (slot, frame) = (leaf.slot(addr), Frame::of_entry(entry.note()));
    let count = mm.counts.of(frame);
    let goes_on = table.streak().goes_on_at(addr);
    if count.is_one() {
        if goes_on {
            reclaim_run(mm, table, addr, leaf.table);
        } else {
            reclaim(mm, slot, entry);
            table.streak().note(page_of(addr), 1);
        }
        return Fault::Resolved;
    }
    if goes_on {
        return match break_run(mm, table, addr, leaf.table) {
            Ok(()) => Fault::Resolved,
            Err(OutOfMemory) => Fault::OutOfMemory,
        };
    }
    let Some(made) = alloc(mm, class) else {
        return Fault::OutOfMemory;
    };
    table.streak().note(page_of(addr), 1);
    // Out of reach first: see `own`.
    slot.set(entry.condemned());
    let flushed = mm.flush(&Flush::page(root, addr));
    own::publish_copy(mm, slot, frame, made);
    mm.release_counted(frame, count, class, &flushed);
    Fault::Resolved
}

/// Breaks copy-on-write for the page that contains `addr` and those behind it in this table: as many as the [streak] says, up to
/// the first one that a write would not break. If there are not so many free frames, for that page alone.
///
/// [streak]: super::streak
// A function of its own, and the last thing that its caller does, so that a page alone costs no more for it.
#[inline(never)]
fn break_run(mm: &Mm, table: &PageTable, addr: u64, leaf: &Table) -> Result<(), OutOfMemory> {
    let (root, class, page) = (table.root(), table.class(), page_of(addr));
    let mut run = copy_on_write(next_run(table, page, leaf));
    let frames_for = |run| mm.frames.reserve(nr_shared(mm, run), class);
    let mut reserve = frames_for(run);
    if reserve.is_err() {
        run = &run[..1];
        reserve = frames_for(run);
    }
    let mut reserve = reserve?;
    table.streak().note(page, run.len());
    for slot in run.iter().map(Slot::new) {
        let entry = slot.get();
        if own::needs_frame(mm, entry, true) {
            slot.set(entry.condemned());
        } else {
            reclaim(mm, slot, entry);
        }
    }
    let mut flush = Flush::none();
    flush.add_range(root, page, page + run.len() as u64 * FRAME_SIZE);
    let flushed = mm.flush(&flush);
    for slot in run.iter().map(Slot::new) {
        if let Kind::Condemned(old) = slot.get().kind() {
            own::publish_copy(mm, slot, old, reserve.take());
            mm.release(old, class, &flushed);
        }
    }
    Ok(())
}

/// Takes back the page that contains `addr` and those behind it in this table: as many as the [streak](super::streak) says, up to the first
/// one that is not copy-on-write, or that others name, too.
#[inline(never)]
fn reclaim_run(mm: &Mm, table: &PageTable, addr: u64, leaf: &Table) {
    let page = page_of(addr);
    let mut nr_pages = 0;
    for slot in copy_on_write(next_run(table, page, leaf))
        .iter()
        .map(Slot::new)
    {
        let entry = slot.get();
        if own::needs_frame(mm, entry, true) {
            break;
        }
        slot.set(entry.with_writable(true));
        nr_pages += 1;
    }
    mm.stats.reclaimed.add(nr_pages as u64);
    table.streak().note(page, nr_pages);
}

/// The places in its table of as many pages from this one on as the [streak](super::streak) says.
fn next_run<'t>(table: &PageTable, page: u64, leaf: &'t Table) -> &'t [AtomicU64] {
    let places = &leaf[index(page, 0)..NR_ENTRIES];
    &places[..places.len().min(table.streak().nr_next())]
}

/// The copy-on-write pages at the start.
fn copy_on_write(places: &[AtomicU64]) -> &[AtomicU64] {
    let entries = places.iter().map(|place| Slot::new(place).get());
    let nr_pages = entries.take_while(|entry| entry.is_copy_on_write()).count();
    &places[..nr_pages]
}

/// How many of these pages of tables of one's own others name, too.
fn nr_shared(mm: &Mm, places: &[AtomicU64]) -> usize {
    let entries = places.iter().map(|place| Slot::new(place).get());
    entries
        .filter(|entry| own::needs_frame(mm, *entry, true))
        .count()
}

/// The last owner of a page may write to it again.
#[inline(always)]
fn reclaim(mm: &Mm, slot: Slot<'_>, entry: Entry) {
    slot.set(entry.with_writable(true));
    mm.stats.reclaimed.add(1);
}
