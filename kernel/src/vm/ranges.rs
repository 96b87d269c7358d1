//! What lies where in an address space, told a piece at a time.
//!
//! A piece ends where a table ends at the latest, so finding one takes a bounded number of instructions, and a caller may
//! stop and go on. Neighbours that are alike are the caller's to join.

use cowslip_abi::{Perm, RangeKind};

use crate::mm::phys::FRAME_SIZE;
use crate::mm::{Frame, Mm};
use crate::vm::PageTable;
use crate::vm::cursor::{Gap, Node, ROOT, USER_END, coverage, index, walk_to_page};
use crate::vm::entry::{Entry, Kind, Slot};

/// What begins at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it ends.
    pub end: u64,
    /// What it is.
    pub kind: RangeKind,
    /// What programs may do with it; nothing, if it is empty.
    pub perm: Perm,
    /// The most references that a page of it, or a table on the way there, has; 0 if nothing has a frame.
    pub sharers: u64,
    /// How many bytes the largest table covers that others name too; 0 if there is none on the way.
    pub shared_table: u64,
}

/// Which tables on the way to a page others name too.
#[derive(Clone, Copy, Default)]
struct Path {
    sharers: u64,
    shared_table: u64,
}

impl PageTable {
    /// What begins at `addr`, which is a multiple of the page size and lies below the end of user memory.
    #[must_use]
    pub fn piece(&self, mm: &Mm, addr: u64) -> Piece {
        let path = self.path(mm, addr);
        match walk_to_page(&mm.map, self.root(), addr) {
            Ok(leaf) => pages(mm, leaf, addr, path),
            Err(gap) => gap_at(gap, addr, path),
        }
    }

    fn path(&self, mm: &Mm, addr: u64) -> Path {
        let (mut path, mut table) = (Path::default(), self.root());
        for level in (1..=ROOT).rev() {
            let entry = Slot::new(&mm.map.table(table)[index(addr, level)]).get();
            let Some(below) = entry.table_below() else {
                break;
            };
            let nr_references = mm.counts.get(below);
            if nr_references > 1 {
                path.sharers = path.sharers.max(nr_references);
                path.shared_table = path.shared_table.max(coverage(level));
            }
            table = below;
        }
        path
    }
}

/// What stands in the place of a table: everything up to the next entry that is another one.
fn gap_at(gap: Gap<'_>, addr: u64, path: Path) -> Piece {
    let entry = gap.entry(addr);
    if entry.is_empty() {
        return Piece::new(entry, gap.end(addr, USER_END), path);
    }
    let step = coverage(gap.level);
    let mut end = addr / step * step + step;
    while index(end, gap.level) != 0 && end < USER_END && gap.entry(end) == entry {
        end += step;
    }
    Piece::new(entry, end.min(USER_END), path)
}

/// Neighbouring pages of one table that are alike.
fn pages(mm: &Mm, leaf: Node<'_>, addr: u64, path: Path) -> Piece {
    let mut entries = leaf.run(addr, (USER_END - addr) / FRAME_SIZE).iter();
    let mut pieces = entries.by_ref().map(|place| {
        let entry = Slot::new(place).get();
        Piece::of_page(mm, entry, path)
    });
    let first = pieces
        .next()
        .unwrap_or(Piece::new(Entry::EMPTY, addr, path));
    let mut piece = first;
    piece.end = addr + FRAME_SIZE;
    for next in pieces.take_while(|next| first.is_like(next)) {
        piece.end += FRAME_SIZE;
        piece.sharers = piece.sharers.max(next.sharers);
    }
    piece
}

impl Piece {
    fn new(entry: Entry, end: u64, path: Path) -> Self {
        let is_empty = entry.is_empty();
        let kind = if is_empty {
            RangeKind::Empty
        } else {
            RangeKind::Untouched
        };
        let perm = if is_empty {
            Perm::empty()
        } else {
            entry.rights().perm()
        };
        Piece {
            end,
            kind,
            perm,
            sharers: path.sharers,
            shared_table: path.shared_table,
        }
    }

    /// A page; where it ends is not known.
    fn of_page(mm: &Mm, entry: Entry, path: Path) -> Self {
        let piece = Piece::new(entry, 0, path);
        let with = |kind, frame: Frame| Piece {
            kind,
            sharers: path.sharers.max(mm.counts.get(frame)),
            ..piece
        };
        match entry.kind() {
            Kind::Empty | Kind::Condemned(_) => Piece::new(Entry::EMPTY, 0, path),
            Kind::Zero => piece,
            Kind::Shared(frame) => with(RangeKind::Shared, frame),
            Kind::Private(frame) if path.sharers == 0 && mm.counts.is_one(frame) => {
                with(RangeKind::Private, frame)
            }
            Kind::Private(frame) => with(RangeKind::CopyOnWrite, frame),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.kind, self.perm, self.shared_table) == (other.kind, other.perm, other.shared_table)
    }
}
