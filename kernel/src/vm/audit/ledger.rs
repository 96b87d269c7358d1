//! Where an audit keeps its notes: one for each frame.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cowslip_abi::Commit;

use super::{Flaw, Found, Note, Role};
use crate::mm::{Frame, Mm, OutOfMemory, PhysAddr, phys::FRAME_SIZE};

/// Notes of frames.
pub trait Ledger {
    /// What is known of a frame.
    fn get(&self, frame: Frame) -> Option<Note>;

    /// Notes what is known of a frame.
    fn set(&mut self, frame: Frame, note: Note) -> Result<(), OutOfMemory>;

    /// Visits all notes, until one is flawed.
    fn for_each(&self, visit: &mut dyn FnMut(Frame, Note) -> Result<(), Flaw>) -> Result<(), Flaw>;
}

/// Levels of the tree: notes, and two of places that lead to them, which is 256 GiB.
const LEVELS: u32 = 3;

/// How many notes are in a frame.
const NR_NOTES: usize = 256;

const COUNT: u64 = (1 << ROLE_SHIFT) - 1;
const ROLE_SHIFT: u32 = 32;
const WRITABLE_SHIFT: u32 = 36;
const WALKED: u64 = 1 << 37;
const PLAIN_SHIFT: u32 = 38;
const USED_SHIFT: u32 = 39;
const USED: u64 = (1 << (STRICT_SHIFT - USED_SHIFT)) - 1;
const STRICT_SHIFT: u32 = 49;

/// Notes in frames, two words for each frame, in a tree that looks like that of the reference counts.
///
/// ```text
///  63  50 49     48      39 38    37     36    35    32 31         0
/// +------+------+---------+-----+------+-----+--------+------------+
/// |  0   |strict| nr_used |plain|walked|write|role + 1|   count    |
/// +------+------+---------+-----+------+-----+--------+------------+
/// |                    charge for what is below                    |
/// +----------------------------------------------------------------+
/// ```
///
/// Its frames are free ones, and are free again when it is dropped.
pub struct FrameLedger<'m> {
    mm: &'m Mm,
    root: Frame,
    len: u64,
}

impl<'m> FrameLedger<'m> {
    /// A ledger without notes.
    pub fn new(mm: &'m Mm) -> Result<Self, OutOfMemory> {
        let root = mm.frames.alloc_zeroed().ok_or(OutOfMemory)?;
        Ok(Self { mm, root, len: 0 })
    }

    /// How many frames have a note.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no frame has a note.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The table that the word at this place of another one leads to.
    fn below(&self, table: Frame, index: usize) -> Option<Frame> {
        match self.mm.map.table(table)[index].load(Relaxed) {
            0 => None,
            word => Some(Frame::of_entry(word)),
        }
    }

    /// The place of a frame's note in a table of the lowest level.
    fn place(&self, table: Frame, frame: Frame) -> &'m [AtomicU64; 2] {
        &self.mm.map.table(table).as_chunks().0[index(frame, 0)]
    }

    /// The same as [`below`](Self::below), made if there is none.
    fn make_below(&self, table: Frame, index: usize) -> Result<Frame, OutOfMemory> {
        if let Some(below) = self.below(table, index) {
            return Ok(below);
        }
        let made = self.mm.frames.alloc_zeroed().ok_or(OutOfMemory)?;
        self.mm.map.table(table)[index].store(made.addr().0, Relaxed);
        Ok(made)
    }

    /// The tables below one of this level, which is not the lowest, each with the number of the first
    /// frame that it stands for.
    fn tables(&self, table: Frame, level: u32, first: u64) -> impl Iterator<Item = (Frame, u64)> {
        (0..512).filter_map(move |index| {
            let below = self.below(table, index)?;
            Some((below, first + ((index as u64) << shift(level))))
        })
    }

    /// Visits the notes below a table of this level.
    fn visit(
        &self,
        table: Frame,
        level: u32,
        first: u64,
        visit: &mut dyn FnMut(Frame, Note) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        if level > 0 {
            return self
                .tables(table, level, first)
                .try_for_each(|(below, first)| self.visit(below, level - 1, first, visit));
        }
        for (place, number) in self.mm.map.table(table).as_chunks().0.iter().zip(first..) {
            if let Some(note) = Note::load(place) {
                visit(Frame::containing(PhysAddr(number * FRAME_SIZE)), note)?;
            }
        }
        Ok(())
    }

    /// Frees a table of this level and all below it.
    fn free(&self, table: Frame, level: u32) {
        if level > 0 {
            for (below, _) in self.tables(table, level, 0) {
                self.free(below, level - 1);
            }
        }
        self.mm.frames.free(table);
    }
}

impl Ledger for FrameLedger<'_> {
    fn get(&self, frame: Frame) -> Option<Note> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            table = self.below(table, index(frame, level))?;
        }
        Note::load(self.place(table, frame))
    }

    fn set(&mut self, frame: Frame, note: Note) -> Result<(), OutOfMemory> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            table = self.make_below(table, index(frame, level))?;
        }
        let place = self.place(table, frame);
        self.len += u64::from(Note::load(place).is_none());
        note.store(place);
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(Frame, Note) -> Result<(), Flaw>) -> Result<(), Flaw> {
        self.visit(self.root, LEVELS - 1, 0, visit)
    }
}

impl Drop for FrameLedger<'_> {
    fn drop(&mut self) {
        self.free(self.root, LEVELS - 1);
    }
}

/// Log2 of the frames that an entry of this level stands for.
const fn shift(level: u32) -> u32 {
    match level {
        0 => 0,
        _ => NR_NOTES.ilog2() + 9 * (level - 1),
    }
}

fn index(frame: Frame, level: u32) -> usize {
    let nr_places = if level == 0 { NR_NOTES } else { 512 };
    (frame.number() >> shift(level)) as usize % nr_places
}

impl Note {
    fn load(place: &[AtomicU64; 2]) -> Option<Self> {
        Self::of_words(place.each_ref().map(|word| word.load(Relaxed)))
    }

    fn store(self, place: &[AtomicU64; 2]) {
        for (word, value) in place.iter().zip(self.to_words()) {
            word.store(value, Relaxed);
        }
    }

    fn to_words(self) -> [u64; 2] {
        debug_assert!(self.count <= COUNT);
        let role = match self.role {
            Role::Private => 1,
            Role::Shared => 2,
            Role::Kernel => 3,
            Role::Table(level) => 4 + u64::from(level),
        };
        let found = self.found.map_or(0, |found| {
            WALKED | u64::from(found.is_plain) << PLAIN_SHIFT | (found.nr_used as u64) << USED_SHIFT
        });
        let is_strict = u64::from(self.class == Commit::Strict);
        let word = self.count
            | role << ROLE_SHIFT
            | u64::from(self.is_writable) << WRITABLE_SHIFT
            | is_strict << STRICT_SHIFT
            | found;
        [word, self.found.map_or(0, |found| found.charge)]
    }

    fn of_words([word, charge]: [u64; 2]) -> Option<Self> {
        let role = match word >> ROLE_SHIFT & 15 {
            0 => return None,
            1 => Role::Private,
            2 => Role::Shared,
            3 => Role::Kernel,
            more => Role::Table(more as u32 - 4),
        };
        Some(Self {
            count: word & COUNT,
            role,
            class: match word >> STRICT_SHIFT & 1 {
                0 => Commit::Overcommit,
                _ => Commit::Strict,
            },
            is_writable: word >> WRITABLE_SHIFT & 1 != 0,
            found: (word & WALKED != 0).then_some(Found {
                nr_used: (word >> USED_SHIFT & USED) as usize,
                is_plain: word >> PLAIN_SHIFT & 1 != 0,
                charge,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mm::sim::SimMemory,
        vm::{commit, cursor::ROOT},
    };

    const NOTE: Note = Note {
        count: 300,
        role: Role::Table(3),
        class: Commit::Strict,
        is_writable: true,
        found: Some(Found {
            nr_used: 512,
            is_plain: true,
            charge: commit::of_zero(ROOT) - 1,
        }),
    };

    #[test]
    fn a_note_comes_back_as_it_was() {
        let roles = [
            Role::Private,
            Role::Shared,
            Role::Kernel,
            Role::Table(0),
            Role::Table(3),
        ];
        for role in roles {
            for found in [None, NOTE.found] {
                for class in [Commit::Overcommit, Commit::Strict] {
                    let note = Note {
                        role,
                        class,
                        found,
                        is_writable: found.is_none(),
                        ..NOTE
                    };
                    assert_eq!(Note::of_words(note.to_words()), Some(note));
                }
            }
        }
        assert_eq!(Note::of_words([0; 2]), None);
    }

    #[test]
    fn notes_stay_with_their_frames_and_the_ledger_gives_all_frames_back() {
        let sim = SimMemory::new(64);
        let mm = sim.mm();
        let free = mm.frames.free_count();
        let far = |n: u64| Frame::containing(PhysAddr(n * FRAME_SIZE));
        let frames = [far(1), far(2), far(257), far(256 * 512 + 1)];
        let mut ledger = FrameLedger::new(mm).unwrap();
        for (frame, count) in frames.into_iter().zip(1..) {
            for _ in 0..2 {
                ledger.set(frame, Note { count, ..NOTE }).unwrap();
            }
        }
        assert_eq!(ledger.get(far(3)), None);
        assert_eq!(ledger.len(), 4);
        let mut seen = std::vec::Vec::new();
        let visited = ledger.for_each(&mut |frame, note| {
            seen.push((frame, note.count));
            Ok(())
        });
        assert_eq!(visited, Ok(()));
        assert!(seen.iter().copied().eq(frames.into_iter().zip(1..)));
        drop(ledger);
        assert_eq!(mm.frames.free_count(), free);
    }

    #[test]
    fn a_ledger_without_room_gives_all_frames_back() {
        let sim = SimMemory::new(64);
        let mm = sim.mm();
        let free = mm.frames.free_count();
        let hoard: std::vec::Vec<_> = (2..free).filter_map(|_| mm.frames.alloc()).collect();
        let mut ledger = FrameLedger::new(mm).unwrap();
        assert_eq!(ledger.set(hoard[0], NOTE), Err(OutOfMemory));
        drop(ledger);
        hoard.into_iter().for_each(|frame| mm.frames.free(frame));
        assert_eq!(mm.frames.free_count(), free);
    }
}
