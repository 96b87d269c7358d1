//! Working off dead tables.
//!
//! What hangs below a table that lost its last reference is released entry by entry. A table found
//! below that way may die in turn; it is worked off first, so that the list of dead tables is never
//! longer than a path is, for each that an operation buried.

use cowslip_abi::Commit;

use crate::{
    mm::{DeadTable, Departing, Flush, Frame, Mm, OutOfMemory, Reserve, phys::NR_ENTRIES},
    vm::{
        cursor::{ROOT, next_present, next_used},
        entry::{Kind, Pattern, Slot},
        remap::release_alike,
        table::nr_user_entries,
    },
};

/// How many references are released before anybody else has a turn.
const STEP: usize = 2048;

/// What looking through a table costs, in references that could have been released instead.
const SCAN: usize = 64;

/// Works off dead tables for a while: a bounded number of instructions. Returns whether none is left.
///
/// Whoever buries tables calls it once, so that little memory waits here; the idle CPU does the rest,
/// and so does whoever needs a frame.
#[inline]
pub fn reap(mm: &Mm) -> bool {
    mm.dead.is_empty() || reap_some(mm, STEP)
}

/// The same for somebody who found no frame. Returns whether it is worth to try again, and to plan again:
/// what was worked off need not be copied any more.
#[inline(never)]
pub fn make_room(mm: &Mm) -> bool {
    let is_worth = !mm.dead.is_empty();
    reap(mm);
    is_worth
}

/// The same as [`reap`], until about so many references are released: at most 511 more.
#[inline(never)]
pub fn reap_some(mm: &Mm, nr_references: usize) -> bool {
    let mut rest = nr_references as isize;
    while rest > 0 {
        let Some(dead) = mm.exhume() else {
            return true;
        };
        rest -= (SCAN + step(mm, dead)) as isize;
    }
    mm.dead.is_empty()
}

/// Frames for an operation of a space of this class. If there are none, some of what is dead is worked
/// off: memory is out only if nothing is left, otherwise it is worth to try again.
#[inline(always)]
pub(super) fn reserve(
    mm: &Mm,
    nr_frames: usize,
    class: Commit,
) -> Result<Reserve<'_>, OutOfMemory> {
    let reserve = mm.frames.reserve(nr_frames, class);
    reserve.or_else(|_| reap_and_reserve(mm, nr_frames, class))
}

#[cold]
#[inline(never)]
fn reap_and_reserve(mm: &Mm, nr_frames: usize, class: Commit) -> Result<Reserve<'_>, OutOfMemory> {
    if mm.dead.is_empty() {
        return Err(OutOfMemory);
    }
    reap(mm);
    mm.frames.reserve(nr_frames, class)
}

/// The same for one frame, if it is at hand.
#[inline(always)]
pub(super) fn alloc(mm: &Mm, class: Commit) -> Option<Frame> {
    match class {
        Commit::Overcommit => mm.frames.alloc(),
        Commit::Strict => alloc_promised(mm),
    }
}

#[cold]
#[inline(never)]
fn alloc_promised(mm: &Mm) -> Option<Frame> {
    let mut reserve = mm.frames.reserve(1, Commit::Strict).ok()?;
    Some(reserve.take())
}

/// Does an operation again that found no frame: tables were worked off then, and what they named need not
/// be copied any more.
#[inline(always)]
pub(super) fn twice<T, E: PartialEq + From<OutOfMemory>>(
    mut operation: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    match operation() {
        Err(error) if error == OutOfMemory.into() => operation(),
        result => result,
    }
}

/// Works off a table up to the end, or to an entry whose table dies with it. Returns how many
/// references were released.
fn step(mm: &Mm, dead: DeadTable) -> usize {
    if dead.level == 0 {
        return drop_leaf(mm, dead);
    }
    let flush = match (dead.level, dead.next) {
        // A CPU may be just about to leave it.
        (ROOT, 0) => Flush::all(dead.frame),
        _ => Flush::none(),
    };
    let flushed = mm.flush(&flush);
    let (table, end) = (mm.map.table(dead.frame), nr_user_entries(dead.level));
    let DeadTable {
        mut next, mut left, ..
    } = dead;
    let mut died = None;
    while left > 0
        && died.is_none()
        && let Some(used) = next_used(table, next, end)
    {
        next = used;
        // Most neighbours are used too.
        for entry in table[used..end].iter().map(|place| Slot::new(place).get()) {
            if entry.is_empty() {
                break;
            }
            (next, left) = (next + 1, left - 1);
            if let Some(below) = entry.table_below() {
                let (level, nr_used) = (dead.level - 1, entry.nr_used());
                died = mm.release_table(below, level, nr_used, dead.class, &flushed);
                if died.is_some() {
                    break;
                }
            }
        }
    }
    let is_done = died.is_none() || left == 0 || next == end;
    if is_done {
        mm.stats.freed.add(1);
        mm.frames.free_of(dead.frame, dead.class);
    } else {
        mm.bury(DeadTable { next, left, ..dead });
    }
    if let Some(died) = died {
        mm.bury(died);
    }
    dead.left - left
}

/// Works off a table of pages. Returns how many there were.
fn drop_leaf(mm: &Mm, dead: DeadTable) -> usize {
    let flushed = mm.flush(&Flush::none());
    let mut departing = Departing::new(mm, dead.class);
    let places = &mm.map.table(dead.frame)[..NR_ENTRIES];
    let (mut nr_pages, mut nr_seconds) = (0, 0);
    let mut next = 0;
    while let Some(number) = next_present(places, next) {
        let entry = Slot::new(&places[number]).get();
        let nr_alike = match Pattern::like(entry, &mm.counts) {
            Some(pattern) => {
                let rest = &places[number..];
                let room = departing.room(rest.len());
                let released = release_alike(rest, pattern, room, &flushed);
                departing.noted(released.nr_last, 0);
                nr_seconds += released.nr_seconds;
                released.nr_pages
            }
            None => {
                if let Kind::Shared(frame) = entry.kind() {
                    mm.release(frame, dead.class, &flushed);
                }
                1
            }
        };
        nr_pages += nr_alike;
        next = number + nr_alike;
    }
    mm.counts.subtract_shared(nr_seconds);
    departing.add_sole(dead.frame);
    departing.finish();
    nr_pages
}
