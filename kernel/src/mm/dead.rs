//! Tables that no entry names any more, and that still name others.
//!
//! What hangs below such a table may be a gigabyte, so it is worked off [in steps](fn@crate::vm::reap),
//! some other time. Until then the entries count: a frame named by a dead table is in use. The list
//! needs no memory. A dead table has no count any more; the place of the count holds the word that
//! leads to the next one:
//!
//! ```text
//!  63 62 61     52 51                   12 11 10      2 1   0
//! +--+---+--------+----------------------+--+----------+-----+
//! | 0|cls|  left  |   frame of the table | 0|   next   |level|
//! +--+---+--------+----------------------+--+----------+-----+
//! ```

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cowslip_abi::Commit;

use super::{Frame, RefCounts};
use crate::sync::{Ordered, Rank};

const STRICT: u64 = 1 << 62;
const LEFT_SHIFT: u32 = 52;
const NEXT_SHIFT: u32 = 2;

/// A dead table, and how far it has been worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadTable {
    /// The table.
    pub frame: Frame,
    /// Its level.
    pub level: u32,
    /// The number of the first entry that still counts: below 512.
    pub next: usize,
    /// How many entries count, at most: no more than 512.
    pub left: usize,
    /// The class of the space that had it.
    pub class: Commit,
}

impl DeadTable {
    fn to_word(self) -> u64 {
        debug_assert!(self.level < 4 && self.next < 512 && self.left <= 512);
        let class = match self.class {
            Commit::Overcommit => 0,
            Commit::Strict => STRICT,
        };
        class
            | self.frame.addr().0
            | u64::from(self.level)
            | (self.next as u64) << NEXT_SHIFT
            | (self.left as u64) << LEFT_SHIFT
    }

    fn of_word(word: u64) -> Option<Self> {
        (word != 0).then(|| Self {
            frame: Frame::of_entry(word),
            level: word as u32 % 4,
            next: (word >> NEXT_SHIFT) as usize % 512,
            left: (word >> LEFT_SHIFT) as usize % 1024,
            class: match word & STRICT {
                0 => Commit::Overcommit,
                _ => Commit::Strict,
            },
        })
    }
}

/// The dead tables: the one that died last is the first to be worked off, so that those below a
/// table go before the rest of it, and the list stays short.
#[derive(Debug)]
pub struct DeadTables {
    /// The word of the first one; 0 for none. Anybody may look.
    first: AtomicU64,
    /// For whoever changes the list.
    lock: Ordered<()>,
}

impl DeadTables {
    pub(super) const fn new() -> Self {
        Self {
            first: AtomicU64::new(0),
            lock: Ordered::new(Rank::DeadTables, ()),
        }
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.load(Relaxed) == 0
    }

    /// Adds a table, whose count must be one.
    pub(super) fn push(&self, counts: &RefCounts, dead: DeadTable) {
        let _guard = self.lock.lock();
        counts.of(dead.frame).set_word(self.first.load(Relaxed));
        self.first.store(dead.to_word(), Relaxed);
    }

    /// Takes the first one away.
    pub(super) fn pop(&self, counts: &RefCounts) -> Option<DeadTable> {
        let _guard = self.lock.lock();
        let dead = DeadTable::of_word(self.first.load(Relaxed))?;
        let count = counts.of(dead.frame);
        self.first.store(count.word(), Relaxed);
        count.set_word(0);
        Some(dead)
    }

    /// All of them, if nothing changes meanwhile: for audits.
    #[cfg(any(not(target_os = "none"), debug_assertions))]
    pub fn iter<'m>(&self, counts: &'m RefCounts) -> impl Iterator<Item = DeadTable> + use<'m> {
        let mut word = self.first.load(Relaxed);
        core::iter::from_fn(move || {
            let dead = DeadTable::of_word(word)?;
            word = counts.of(dead.frame).word();
            Some(dead)
        })
    }
}
