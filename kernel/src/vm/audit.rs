//! Counting everything again, from nothing but the page tables: for tests on the host.

extern crate std;

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use cowslip_abi::Commit;

use crate::{
    mm::{Frame, Mm},
    vm::{
        PageTable,
        cursor::ROOT,
        entry::{Entry, Kind, Slot},
        table::nr_user_entries,
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

/// Walks all spaces and what is left of dead tables, and returns every frame that they name, and the
/// dead tables themselves.
///
/// `spaces` must be all that there are, and no operation may be going on.
///
/// # Panics
///
/// - An entry is condemned, or two entries disagree about what a frame is.
/// - A table or a private page is writable though other entries name its frame.
/// - A table is empty, or does not have as many entries in use as the entry that names it says.
/// - A table says that it is plain, and something below is not.
/// - A count, or the number of shared frames, is not what was counted here.
#[must_use]
pub fn audit<'t>(
    mm: &Mm,
    spaces: impl IntoIterator<Item = &'t PageTable>,
) -> BTreeMap<Frame, Named> {
    let mut audit = Audit::new(mm);
    for space in spaces {
        audit.name(space.root(), Role::Table(ROOT));
        audit.entries(space.root(), ROOT, 0);
    }
    let dead: Vec<_> = mm.dead.iter(&mm.counts).collect();
    for table in &dead {
        audit.entries(table.frame, table.level, table.next);
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
    for table in dead {
        audit.name(table.frame, Role::Table(table.level));
    }
    audit.named
}

/// All frames that spaces of this class have: their tables, pages, and what is left of their dead tables.
///
/// `spaces` must be all that there are, and no operation may be going on.
#[must_use]
pub fn frames_of<'t>(
    mm: &Mm,
    spaces: impl IntoIterator<Item = &'t PageTable>,
    class: Commit,
) -> BTreeSet<Frame> {
    let mut audit = Audit::new(mm);
    for space in spaces.into_iter().filter(|space| space.class() == class) {
        audit.name(space.root(), Role::Table(ROOT));
        audit.entries(space.root(), ROOT, 0);
    }
    for table in mm.dead.iter(&mm.counts).filter(|dead| dead.class == class) {
        audit.name(table.frame, Role::Table(table.level));
        audit.entries(table.frame, table.level, table.next);
    }
    audit.named.into_keys().collect()
}

struct Audit<'m> {
    mm: &'m Mm,
    named: BTreeMap<Frame, Named>,
    /// The frames of tables and private pages that may be written, as far as they are concerned.
    writable: Vec<Frame>,
    /// What was found in tables.
    found: BTreeMap<Frame, Found>,
}

/// What a table has.
#[derive(Clone, Copy)]
struct Found {
    nr_used: usize,
    is_plain: bool,
}

impl<'m> Audit<'m> {
    const fn new(mm: &'m Mm) -> Self {
        Self {
            mm,
            named: BTreeMap::new(),
            writable: Vec::new(),
            found: BTreeMap::new(),
        }
    }

    fn name(&mut self, frame: Frame, role: Role) {
        let named = self.named.entry(frame).or_insert(Named { count: 0, role });
        named.count += 1;
        assert_eq!(named.role, role, "{frame:?} has two roles");
    }

    /// Names all that is below a table, from the entry with this number on.
    fn entries(&mut self, table: Frame, level: u32, first: usize) -> Found {
        let mut found = Found {
            nr_used: 0,
            is_plain: true,
        };
        let places = &self.mm.map.table(table)[first..nr_user_entries(level)];
        for entry in places.iter().map(|place| Slot::new(place).get()) {
            found.nr_used += usize::from(!entry.is_empty());
            found.is_plain &= match entry.table_below() {
                Some(below) if level > 0 => self.table(entry, below, level - 1),
                _ => {
                    self.page(entry);
                    entry.is_plain()
                }
            };
        }
        found
    }

    /// Names a table, and what is below it if that was not done before. Returns whether all of it is
    /// plain.
    fn table(&mut self, entry: Entry, table: Frame, level: u32) -> bool {
        self.name(table, Role::Table(level));
        if entry.is_writable() {
            self.writable.push(table);
        }
        let found = match self.found.get(&table) {
            Some(found) => *found,
            None => {
                let found = self.entries(table, level, 0);
                self.found.insert(table, found);
                found
            }
        };
        assert_eq!(
            entry.nr_used(),
            found.nr_used,
            "entries in use of {table:?}"
        );
        assert!(found.nr_used > 0, "an empty table was kept");
        assert!(
            found.is_plain || !entry.is_plain(),
            "{table:?} of level {level} is not plain"
        );
        found.is_plain
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
