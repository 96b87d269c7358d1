//! Page-table entries: what a piece of an address space is, in 64 bits that the hardware reads too.
//!
//! Entries of all levels look alike. One of level 0 stands for a page, one of level 1, 2 or 3 for
//! 512 times as much each: 2 MiB, 1 GiB, 512 GiB.
//!
//! ```text
//!  63   62  61     52 51                   12 11  10    9    8  7 6 5   4  3  2 1 0
//! +----+---+---------+----------------------+--+-----+-----+----+-+-+-----+--+-+-+-+
//! | NX | 0 |         |     frame            | 0| PRIV|RIGHT| 0  |D|A| KIND |U|W|P|
//! +----+---+---------+----------------------+--+-----+-----+----+-+-+-----+--+-+-+-+
//!           | page, zero: 53 CX, 52 CW
//!           | table: how many of its entries are used
//! ```
//!
//! | kind | level | P | meaning |
//! | --- | --- | --- | --- |
//! | empty | any | 0 | all bits zero |
//! | zero | any | 0 | PRIV; demand-zero: the first access gets a zeroed frame |
//! | private | 0 | 1 | PRIV; W set only while this is the frame's only reference |
//! | shared | 0 | 1 | no PRIV: shared memory, never copy-on-write; W as RIGHT says |
//! | table | 1 to 3 | 1 | the next level; W set only while this is the table's only reference |
//! | condemned | 0 | 0 | during one operation: still holds the reference, no longer reachable |
//!
//! - RIGHT is the right to write, which W grants to the hardware. A private page with RIGHT and
//!   without W is copy-on-write; a table without W is, with everything below it. The hardware lets
//!   nobody write where an entry on the way lacks W, so W below such a table has no effect.
//! - PRIV and RIGHT together make an entry *plain*: all that it stands for is there, private, and may
//!   be written. A table that says so saves looking through it; one that does not may be so all the
//!   same.
//! - CW and CX are the ceiling: the rights that the mapping was made with, which `protect` never
//!   exceeds. Every mapping can be read; NX is the absence of the right to execute.
//! - KIND tells the non-present kinds apart; in present entries its bits (PWT, PCD) are zero.
//! - A, and D with W, are set from the start, which saves the hardware from doing it.

use core::{
    fmt,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use cowslip_abi::{Access, FoundEntry, Perm};

use crate::mm::{
    COUNTED, Count, Frame, RefCounts, Table,
    counts::BLOCK_SIZE,
    note_of_table,
    phys::{FRAME_SIZE, NR_ENTRIES, PHYS_BITS, any_bits, common_bits},
};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const KIND_ZERO: u64 = 1 << 3;
const KIND_CONDEMNED: u64 = 1 << 4;
const KIND_MASK: u64 = KIND_ZERO | KIND_CONDEMNED;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const RIGHT: u64 = 1 << 9;
const PRIVATE: u64 = 1 << 10;
const CEILING_WRITE: u64 = 1 << 52;
const CEILING_EXECUTE: u64 = 1 << 53;
const NO_EXECUTE: u64 = 1 << 63;
/// What a mapping allows, and what it may be made to allow.
const RIGHTS: u64 = RIGHT | NO_EXECUTE | CEILING_WRITE | CEILING_EXECUTE;
/// See [`Entry::is_plain`].
const PLAIN: u64 = PRIVATE | RIGHT;
/// In an entry that names a table.
const USED_SHIFT: u32 = 52;
/// What an entry has of its frame.
const FRAME_MASK: u64 = (1 << PHYS_BITS) - FRAME_SIZE;

/// What a mapping allows, and the most that it may be made to allow: as they stand in an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// The rights of a mapping that is made with `perm`.
    #[must_use]
    pub const fn new(perm: Perm) -> Self {
        let ceiling = bit_if(perm.contains(Perm::WRITE), CEILING_WRITE)
            | bit_if(perm.contains(Perm::EXECUTE), CEILING_EXECUTE);
        Self(ceiling).with_perm(perm)
    }

    /// What user code may do.
    #[must_use]
    pub fn perm(self) -> Perm {
        perm_of(self.0 & RIGHT != 0, self.0 & NO_EXECUTE == 0)
    }

    /// What `protect` may raise it to.
    #[must_use]
    pub fn ceiling(self) -> Perm {
        perm_of(self.0 & CEILING_WRITE != 0, self.0 & CEILING_EXECUTE != 0)
    }

    /// What is allowed changes, and its ceiling stays.
    #[must_use]
    pub const fn with_perm(self, perm: Perm) -> Self {
        let allowed = bit_if(perm.contains(Perm::WRITE), RIGHT)
            | bit_if(!perm.contains(Perm::EXECUTE), NO_EXECUTE);
        Self(self.0 & !(RIGHT | NO_EXECUTE) | allowed)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} up to {:?}", self.perm(), self.ceiling())
    }
}

const fn bit_if(set: bool, bit: u64) -> u64 {
    if set { bit } else { 0 }
}

fn perm_of(write: bool, execute: bool) -> Perm {
    let mut perm = Perm::R;
    perm.set(Perm::WRITE, write);
    perm.set(Perm::EXECUTE, execute);
    perm
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is mapped.
    Empty,
    /// Demand-zero.
    Zero,
    /// A page of this space alone, perhaps copy-on-write.
    Private(Frame),
    /// A page of shared memory.
    Shared(Frame),
    /// A page that is on its way out, in the middle of an operation.
    Condemned(Frame),
}

/// The value of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// Nothing.
    pub const EMPTY: Self = Self(0);

    /// Demand-zero pages that may be written.
    pub const PLAIN_ZERO: Self = Self(KIND_ZERO | PLAIN | NO_EXECUTE | CEILING_WRITE);

    /// Demand-zero pages.
    #[must_use]
    pub fn zero(rights: Rights) -> Self {
        Self(KIND_ZERO | PRIVATE | rights.0)
    }

    /// A private page; `exclusive` if no other entry names the frame.
    #[must_use]
    pub fn private(frame: Frame, rights: Rights, exclusive: bool) -> Self {
        Self(PRESENT | USER | ACCESSED | PRIVATE | frame.addr().0 | rights.0)
            .with_writable(exclusive)
    }

    /// A page of shared memory.
    #[must_use]
    pub fn shared(frame: Frame, rights: Rights) -> Self {
        Self(PRESENT | USER | ACCESSED | frame.addr().0 | rights.0).with_writable(true)
    }

    /// The entry that names a table of the next level, which is empty and has no other reference.
    #[must_use]
    pub fn table(frame: Frame) -> Self {
        Self(PRESENT | WRITABLE | USER | ACCESSED | frame.addr().0)
    }

    /// The same for a table in which every entry is this one.
    #[must_use]
    pub fn table_full_of(frame: Frame, entry: Self) -> Self {
        let table = Self::table(frame).with_more_used(NR_ENTRIES);
        if entry.is_plain() {
            Self(table.0 | PLAIN)
        } else {
            table
        }
    }

    /// The entry of a table for another frame that has the same entries, and only this reference.
    #[must_use]
    pub fn table_like(frame: Frame, entry: Self) -> Self {
        Self(entry.0 & !FRAME_MASK | WRITABLE | frame.addr().0)
    }

    /// The entry of a table that has no other reference.
    #[must_use]
    pub const fn exclusive(self) -> Self {
        Self(self.0 | WRITABLE)
    }

    /// The entry of a table that may have other references.
    #[must_use]
    pub const fn lent(self) -> Self {
        Self(self.0 & !WRITABLE)
    }

    /// The entry of a table, out of reach of the hardware for a moment.
    pub(super) const fn withdrawn(self) -> Self {
        Self(self.0 & !PRESENT)
    }

    /// The entry of a table that was withdrawn.
    pub(super) const fn put_back(self) -> Self {
        Self(self.0 | PRESENT)
    }

    /// Whether all that the entry stands for is there, private, and may be written. A table may be
    /// so and not say it.
    #[inline]
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.0 & PLAIN == PLAIN
    }

    /// The entry of a table that does not say that it is plain.
    #[must_use]
    pub const fn not_plain(self) -> Self {
        Self(self.0 & !PLAIN)
    }

    /// How many entries are used of the table that an entry of an upper level names.
    #[inline]
    #[must_use]
    pub const fn nr_used(self) -> usize {
        (self.0 >> USED_SHIFT) as usize % 1024
    }

    /// The same table with so many entries more used.
    #[must_use]
    pub const fn with_more_used(self, nr_entries: usize) -> Self {
        debug_assert!(self.nr_used() + nr_entries <= NR_ENTRIES);
        Self(self.0 + ((nr_entries as u64) << USED_SHIFT))
    }

    /// The same table with so many entries less used.
    #[must_use]
    pub const fn with_fewer_used(self, nr_entries: usize) -> Self {
        debug_assert!(nr_entries <= self.nr_used());
        Self(self.0 - ((nr_entries as u64) << USED_SHIFT))
    }

    /// What the entry is, if it is not that of a table.
    #[must_use]
    pub fn kind(self) -> Kind {
        let frame = Frame::of_entry(self.0);
        if self.0 & PRESENT != 0 {
            if self.0 & PRIVATE != 0 {
                Kind::Private(frame)
            } else {
                Kind::Shared(frame)
            }
        } else {
            match self.0 & KIND_MASK {
                KIND_ZERO => Kind::Zero,
                KIND_CONDEMNED => Kind::Condemned(frame),
                _ => Kind::Empty,
            }
        }
    }

    /// The table that an entry of an upper level names.
    #[inline]
    #[must_use]
    pub fn table_below(self) -> Option<Frame> {
        (self.0 & PRESENT != 0).then(|| Frame::of_entry(self.0))
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the page is shared memory.
    #[inline]
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.0 & (PRESENT | PRIVATE) == PRESENT
    }

    /// What user code may do, and may be allowed to do. Meaningless for an empty entry.
    #[must_use]
    pub const fn rights(self) -> Rights {
        Rights(self.0 & RIGHTS)
    }

    /// Whether user code has the right to write, now or after a fault.
    #[must_use]
    pub const fn may_write(self) -> bool {
        self.0 & RIGHT != 0
    }

    /// Whether user code has the right to this access, now or after a fault.
    #[must_use]
    pub const fn permits(self, access: Access) -> bool {
        match access {
            _ if self.is_empty() => false,
            Access::Read => true,
            Access::Write => self.may_write(),
            Access::Execute => self.0 & NO_EXECUTE == 0,
        }
    }

    /// What a fault message says about the entry.
    #[must_use]
    pub const fn found(self) -> FoundEntry {
        if self.is_empty() {
            FoundEntry::Empty
        } else if self.may_write() {
            FoundEntry::ReadWrite
        } else if self.0 & NO_EXECUTE == 0 {
            FoundEntry::ReadExecute
        } else {
            FoundEntry::ReadOnly
        }
    }

    /// Whether the hardware lets user code write.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & (PRESENT | WRITABLE) == PRESENT | WRITABLE
    }

    /// Whether W is set, in a present entry.
    #[inline(always)]
    pub(super) const fn has_w(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Whether the page is copy-on-write: a private one with the right to write, that the hardware does not let user code write.
    #[inline]
    #[must_use]
    pub const fn is_copy_on_write(self) -> bool {
        self.0 & (PRESENT | PRIVATE | RIGHT | WRITABLE) == PRESENT | PRIVATE | RIGHT
    }

    /// The page with W set (if there is the right to write) or clear.
    #[must_use]
    pub const fn with_writable(self, writable: bool) -> Self {
        if writable && self.0 & RIGHT != 0 {
            Self(self.0 | WRITABLE | DIRTY)
        } else {
            Self(self.0 & !WRITABLE)
        }
    }

    /// The same page with other rights. W is kept only if it was there and still may be.
    #[must_use]
    pub fn with_rights(self, rights: Rights) -> Self {
        Self(self.0 & !RIGHTS | rights.0).with_writable(self.is_writable())
    }

    /// Whether going from `self` to `to` takes something from the hardware that a TLB may have.
    #[must_use]
    pub const fn needs_flush(self, to: Self) -> bool {
        let lost_write = self.is_writable() && !to.is_writable();
        let lost_execute = self.0 & NO_EXECUTE == 0 && to.0 & NO_EXECUTE != 0;
        self.0 & PRESENT != 0 && (lost_write || lost_execute)
    }

    /// A page of the same frame, with other flags: see [`Flags::difference`].
    #[inline(always)]
    pub(super) const fn plus(self, difference: u64) -> Self {
        Self(self.0.wrapping_add(difference))
    }

    /// An entry that has W without it.
    #[inline(always)]
    pub(super) const fn minus_writable(self) -> Self {
        Self(self.0.wrapping_sub(WRITABLE))
    }

    /// Notes the entry as that of a frame that [departs](crate::mm::Departing::room).
    #[inline(always)]
    pub(super) fn note_in(self, place: &AtomicU64, is_sole: bool) {
        place.store(if is_sole { self.0 } else { self.0 | COUNTED }, Relaxed);
    }

    /// The same for an entry that named a table of this level.
    #[inline(always)]
    pub(super) fn note_table_in(self, place: &AtomicU64, level: u32) {
        place.store(note_of_table(self.0, level), Relaxed);
    }

    /// The entry as a note of [`Departing`](crate::mm::Departing).
    pub(super) const fn note(self) -> u64 {
        self.0
    }

    /// The bits that both have.
    #[inline(always)]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether both are present private pages of the same frame, or plain and the same table.
    #[inline]
    pub(super) const fn is_same_page(self, other: Self) -> bool {
        let are_private = self.0 & other.0 & (PRESENT | PRIVATE) == PRESENT | PRIVATE;
        are_private && (self.0 ^ other.0) & FRAME_MASK == 0
    }

    /// The same frame and rights, out of reach of the hardware.
    #[must_use]
    pub const fn condemned(self) -> Self {
        Self(self.0 & !(PRESENT | WRITABLE | USER | ACCESSED | DIRTY) | KIND_CONDEMNED)
    }

    /// Instead of a demand-zero page, one with the same rights and a frame.
    #[must_use]
    pub(super) const fn filled(self, frame: Frame) -> Self {
        let kept = self.0 & !KIND_ZERO;
        Self(kept | frame.addr().0 | PRESENT | USER | ACCESSED).with_writable(true)
    }

    /// Instead of a condemned page that may be written, one with the same rights in a frame of its own.
    #[must_use]
    pub(super) const fn copied_to(self, frame: Frame) -> Self {
        debug_assert!(self.may_write(), "copies are made for who writes");
        let kept = self.0 & !(FRAME_MASK | KIND_CONDEMNED);
        Self(kept | frame.addr().0 | PRESENT | WRITABLE | USER | ACCESSED | DIRTY)
    }
}

/// Whether all entries are of private pages that may be written, here or after a fault: what can
/// take part in a remapping on either side without being looked at again.
#[inline]
pub(super) fn are_private_and_present(places: &[AtomicU64]) -> bool {
    common_bits(places) & (PRESENT | PRIVATE) == PRESENT | PRIVATE
}

/// The same for pages that user code has the right to write.
#[inline]
pub(super) fn are_private_and_may_be_written(places: &[AtomicU64]) -> bool {
    let expected = PRESENT | PRIVATE | RIGHT;
    common_bits(places) & expected == expected
}

/// Whether all entries are empty.
#[inline]
pub(super) fn are_empty(places: &[AtomicU64]) -> bool {
    any_bits(places) == 0
}

/// How many entries are empty.
#[inline]
pub(super) fn nr_empty(places: &[AtomicU64]) -> usize {
    let is_empty = |place: &&AtomicU64| place.load(Relaxed) == 0;
    places.iter().filter(is_empty).count()
}

/// Private pages that differ only in the frame, and whose frames lie in one block of 512: what the
/// entries of neighbouring pages nearly always are. One subtraction and one comparison tell whether
/// an entry fits, and where its count is.
#[derive(Clone, Copy)]
pub(super) struct Pattern<'m> {
    /// The block's address and the bits that are not the frame.
    expected: u64,
    /// The same, negated: adding it takes fewer instructions.
    minus_expected: u64,
    counts: &'m Table,
}

impl<'m> Pattern<'m> {
    /// Fits entries like this one, if it is a private page.
    #[inline]
    pub(super) fn like(entry: Entry, counts: &'m RefCounts) -> Option<Self> {
        let Kind::Private(frame) = entry.kind() else {
            return None;
        };
        let expected = entry.0 & !(FRAME_MASK & (BLOCK_SIZE - 1));
        Some(Self {
            expected,
            minus_expected: expected.wrapping_neg(),
            counts: counts.block(frame)?,
        })
    }

    /// The same for another block: fits entries like this one, if it differs only in the frame.
    #[inline(never)]
    pub(super) fn near(self, entry: Entry, counts: &'m RefCounts) -> Option<Self> {
        if Flags::of(entry) != self.flags() {
            return None;
        }
        Self::like(entry, counts)
    }

    /// The count of the entry's frame, if the entry fits.
    #[inline(always)]
    pub(super) fn count(self, entry: Entry) -> Option<Count<'m>> {
        // Bits that differ below the frame's number come out at the top, as those above it do.
        let number = entry.0.wrapping_add(self.minus_expected).rotate_right(12);
        self.counts.get(number as usize).map(Count::new)
    }

    /// Whether the pages are writable in hardware, so that each is its frame's only reference.
    #[inline(always)]
    pub(super) const fn is_writable(self) -> bool {
        Entry(self.expected).is_writable()
    }

    /// What to add to an entry with the flags `from` to get a page of the same frame with the rights
    /// of those that fit; W only if `exclusive`.
    #[inline]
    pub(super) const fn difference(self, from: Flags, exclusive: bool) -> u64 {
        let rights = self.expected & RIGHTS;
        let page = Entry(PRESENT | USER | ACCESSED | PRIVATE | rights).with_writable(exclusive);
        page.0.wrapping_sub(from.0)
    }

    /// The flags of the entries that fit.
    pub(super) const fn flags(self) -> Flags {
        Flags::of(Entry(self.expected))
    }
}

/// The bits of an entry that are not its frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u64);

impl Flags {
    #[inline(always)]
    pub(super) const fn of(entry: Entry) -> Self {
        Self(entry.0 & !FRAME_MASK)
    }

    /// What to add to an entry with these flags to get a private page of the same frame, perhaps with
    /// other rights; W only if `exclusive`.
    pub(super) fn difference(self, rights: Option<Rights>, exclusive: bool) -> u64 {
        let rights = rights.unwrap_or(Entry(self.0).rights());
        let to = Entry::private(Frame::of_entry(0), rights, exclusive);
        to.0.wrapping_sub(self.0)
    }
}

/// An entry in its place.
///
/// Stores are releases: whoever sees the entry sees what is in the frame.
#[derive(Clone, Copy)]
pub struct Slot<'m>(&'m AtomicU64);

impl<'m> Slot<'m> {
    /// The place as an entry.
    #[must_use]
    pub const fn new(place: &'m AtomicU64) -> Self {
        Self(place)
    }

    /// Reads the entry.
    #[inline]
    #[must_use]
    pub fn get(self) -> Entry {
        Entry(self.0.load(Acquire))
    }

    /// Writes the entry.
    #[inline]
    pub fn set(self, entry: Entry) {
        self.0.store(entry.0, Release);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} ({:#x})", self.kind(), self.rights(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::PhysAddr;

    const ALL: [Perm; 3] = [Perm::R, Perm::RW, Perm::RX];

    fn all_rights() -> impl Iterator<Item = Rights> {
        ALL.into_iter()
            .flat_map(|perm| ALL.map(|ceiling| Rights::new(ceiling).with_perm(perm)))
    }

    #[test]
    fn kind_frame_and_rights_survive_encoding() {
        let frame = Frame::containing(PhysAddr((1 << 47) - 4096));
        for rights in all_rights() {
            let pages = [
                (Entry::zero(rights), Kind::Zero),
                (Entry::private(frame, rights, true), Kind::Private(frame)),
                (Entry::private(frame, rights, false), Kind::Private(frame)),
                (Entry::shared(frame, rights), Kind::Shared(frame)),
                (
                    Entry::private(frame, rights, true).condemned(),
                    Kind::Condemned(frame),
                ),
            ];
            for (entry, kind) in pages {
                assert_eq!((entry.kind(), entry.rights()), (kind, rights));
                assert!(!entry.is_empty());
                assert_eq!(entry.permits(Access::Write), rights.perm() == Perm::RW);
                assert_eq!(entry.permits(Access::Execute), rights.perm() == Perm::RX);
                assert!(rights.perm() == Perm::RW || !entry.is_writable());
            }
        }
        assert_eq!(Entry::EMPTY.kind(), Kind::Empty);
        assert!(!Entry::EMPTY.permits(Access::Read));
    }

    #[test]
    fn rights_never_grant_w_by_themselves() {
        let frame = Frame::containing(PhysAddr(0x5000));
        let raised = Rights::new(Perm::RW);
        let lowered = raised.with_perm(Perm::R);
        let page = Entry::private(frame, raised, true);
        assert!(page.is_writable());
        assert!(page.needs_flush(page.with_rights(lowered)));
        assert!(!page.with_rights(lowered).with_rights(raised).is_writable());
        assert!(!page.with_writable(false).needs_flush(page));
    }
}
