//! Counting everything again, from nothing but the page tables: for tests on the host.

extern crate std;

use std::{collections::BTreeMap, vec::Vec};

use crate::{
    mm::{Frame, Mm},
    vm::{
        PageTable,
        cursor::LEVELS,
        entry::{Entry, Kind},
        table::user_entries,
    },
};

/// What a frame is used for, and how many entries say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// How many entries name the frame.
    pub count: u64,
    /// What they say it is.
    pub role: Role,
}

/// A frame has one role at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A page table of this level; the root has the highest.
    Table(u32),
    /// A private page.
    Private,
    /// A page of shared memory.
    Shared,
}

/// Walks all spaces, and returns every frame that they name.
///
/// `spaces` must be all that there are, and no operation may be going on.
///
/// # Panics
///
/// - An entry is condemned, or two entries disagree about what a frame is.
/// - A page is writable though others name its frame.
/// - A table is empty, or does not have as many entries in use as the entry that names it says.
/// - A count, or the number of shared frames, is not what was counted here.
#[must_use]
pub fn audit<'t>(
    mm: &Mm,
    spaces: impl IntoIterator<Item = &'t PageTable>,
) -> BTreeMap<Frame, Named> {
    let mut audit = Audit {
        mm,
        named: BTreeMap::new(),
        writable: Vec::new(),
    };
    for space in spaces {
        audit.name(space.root(), Role::Table(LEVELS - 1));
        audit.table(space.root(), LEVELS - 1);
    }
    let counts = &mm.counts;
    for (frame, named) in &audit.named {
        assert_eq!(counts.get(*frame), named.count, "count of {frame:?}");
    }
    for frame in &audit.writable {
        assert_eq!(counts.get(*frame), 1, "{frame:?} is writable and not sole");
    }
    let nr_shared = audit.named.values().filter(|named| named.count > 1).count();
    assert_eq!(counts.shared(), nr_shared as u64);
    audit.named
}

struct Audit<'m> {
    mm: &'m Mm,
    named: BTreeMap<Frame, Named>,
    /// The frames of private pages that user code may write at once.
    writable: Vec<Frame>,
}

impl Audit<'_> {
    fn name(&mut self, frame: Frame, role: Role) {
        let named = self.named.entry(frame).or_insert(Named { count: 0, role });
        named.count += 1;
        assert_eq!(named.role, role, "{frame:?} has two roles");
    }

    /// Names all that is below a table. Returns how many of its entries are used.
    fn table(&mut self, table: Frame, level: u32) -> usize {
        let mut nr_used = 0;
        for slot in user_entries(self.mm, table, level) {
            let entry = slot.get();
            nr_used += usize::from(!entry.is_empty());
            if level == 0 {
                self.page(entry);
            } else if let Some(below) = entry.table_below() {
                self.name(below, Role::Table(level - 1));
                let found = self.table(below, level - 1);
                assert_eq!(entry.nr_used(), found, "entries in use of {below:?}");
                assert!(found > 0, "an empty table was kept");
            }
        }
        nr_used
    }

    fn page(&mut self, entry: Entry) {
        match entry.kind() {
            Kind::Empty | Kind::Zero => {}
            Kind::Private(frame) => {
                self.name(frame, Role::Private);
                if entry.is_writable() {
                    self.writable.push(frame);
                }
            }
            Kind::Shared(frame) => self.name(frame, Role::Shared),
            Kind::Condemned(frame) => panic!("{frame:?} is left condemned"),
        }
    }
}
