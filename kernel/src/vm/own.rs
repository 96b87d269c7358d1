//! Writing to a page as its owner: the one place where copy-on-write is broken.
//!
//! A write fault, the ragged end of a message and a kernel write to user memory all come here, so
//! none of them can forget what the others know (Dirty COW was a second path that forgot). Three
//! steps, for any number of pages: the plan counts those that [need a frame](needs_frame); once their
//! tables are [open](super::open), [`detach`] takes them out of reach, and after the flush [`write`](fn@write) fills and publishes them.
//!
//! Out of reach first, published last: otherwise one CPU could write to the copy while another goes
//! on reading the original through a stale entry.

use cowslip_abi::Commit;

use crate::{
    mm::{Flush, Flushed, Frame, Mm},
    vm::entry::{Entry, Kind, Slot},
};

/// Whether writing to the page takes a new frame. `is_own`: its table need not be copied.
pub(super) fn needs_frame(mm: &Mm, entry: Entry, is_own: bool) -> bool {
    match entry.kind() {
        Kind::Zero => true,
        Kind::Private(frame) => !is_own || !mm.counts.is_one(frame),
        _ => false,
    }
}

/// Condemns the page if others name its frame. Its table is open.
#[inline]
pub(super) fn detach(mm: &Mm, root: Frame, addr: u64, slot: Slot<'_>, flush: &mut Flush) {
    let entry = slot.get();
    if let Kind::Private(_) = entry.kind()
        && needs_frame(mm, entry, true)
    {
        slot.set(entry.condemned());
        flush.add(root, addr);
    }
}

/// Lets `fill` write to the page's frame: its own one, or a new one with the same bytes, which
/// replaces what was detached; it comes from `frames`, for a space of this class. If `fill` writes all of the page, it need not have the same bytes.
#[inline]
pub(super) fn write(
    mm: &Mm,
    slot: Slot<'_>,
    class: Commit,
    fills_all: bool,
    frames: impl FnOnce() -> Frame,
    flushed: &Flushed,
    fill: impl FnOnce(Frame),
) {
    let entry = slot.get();
    match entry.kind() {
        Kind::Private(frame) | Kind::Shared(frame) => fill(frame),
        Kind::Zero => {
            let frame = frames();
            if !fills_all {
                mm.map.zero(frame);
                mm.stats.zero_filled.add(1);
            }
            fill(frame);
            slot.set(Entry::private(frame, entry.rights(), true));
        }
        Kind::Condemned(old) => {
            let frame = frames();
            if !fills_all {
                mm.map.copy_frame(old, frame);
                mm.stats.cow_broken.add(1);
            }
            fill(frame);
            slot.set(Entry::private(frame, entry.rights(), true));
            mm.release(old, class, flushed);
        }
        Kind::Empty => unreachable!("written pages were checked"),
    }
}

/// Gives a demand-zero page, whose entry this is, this frame, zeroed.
#[inline]
pub(super) fn publish_zero(mm: &Mm, slot: Slot<'_>, entry: Entry, frame: Frame) {
    mm.map.zero(frame);
    mm.stats.zero_filled.add(1);
    slot.set(entry.filled(frame));
}

/// Gives a page that was condemned and flushed a copy of its old frame, in this one. The reference
/// to the old frame is the caller's then.
#[inline]
pub(super) fn publish_copy(mm: &Mm, slot: Slot<'_>, old: Frame, frame: Frame) {
    mm.map.copy_frame(old, frame);
    mm.stats.cow_broken.add(1);
    slot.set(slot.get().copied_to(frame));
}
