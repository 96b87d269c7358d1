//! Counting everything again, from nothing but the page tables.
//!
//! Host tests do it after every step, and a debug build of the kernel [when it is asked
//! to](crate::object::Kernel::audit). An audit walks all spaces and what is left of dead tables, keeps a
//! [note](Note) of each frame that it comes across, and in the end compares the notes with the shadow
//! table of reference counts. On the way it adds up what each space must be charged, and what is to be
//! promised to strict ones. Where the notes are kept is the caller's choice: the kernel has no heap,
//! so its [ledger](FrameLedger) is made of free frames.

use core::fmt;

use cowslip_abi::Commit;

use crate::{
    mm::{Frame, Mm, OutOfMemory, PerClass},
    vm::{
        PageTable, commit,
        cursor::ROOT,
        entry::{Entry, Kind, Slot},
        table::nr_user_entries,
    },
};

#[cfg(not(target_os = "none"))]
mod hosted;
mod ledger;

#[cfg(not(target_os = "none"))]
pub use hosted::audit;
pub use ledger::{FrameLedger, Ledger};

/// What an audit knows about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// How many entries name the frame.
    pub count: u64,
    /// What they say it is.
    pub role: Role,
    /// The class of the spaces that have it; what the kernel has for itself is nobody's commit.
    class: Commit,
    /// Whether one of them lets it be written, which is for its only owner. Never set for shared memory.
    is_writable: bool,
    /// What was found in it, if it is a table that has been walked.
    found: Option<Found>,
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
    /// The kernel's own: objects, handles, vector registers. No entry names it.
    Kernel,
}

/// What a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    nr_used: usize,
    is_plain: bool,
    /// What a space is charged for all that is below, in frames.
    charge: u64,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The shadow table counts another number of references than there are.
    Count {
        /// The frame.
        frame: Frame,
        /// The reference count.
        counted: u64,
        /// How many references there are.
        found: u64,
    },
    /// Two entries disagree about what a frame is.
    TwoRoles(Frame),
    /// A table or a private page may be written, though it has more than one reference.
    WritableNotSole(Frame),
    /// An entry is condemned, and no operation is going on.
    Condemned(Frame),
    /// The entry that names a table says another number of entries in use than there are, or there is
    /// none at all.
    EntriesInUse {
        /// The table.
        frame: Frame,
        /// What the entry says.
        counted: u64,
        /// How many there are.
        found: u64,
    },
    /// A table is said to be plain, and something below is not.
    NotPlain(Frame),
    /// The number of frames with more than one reference is another one.
    Shared {
        /// What the kernel has counted.
        counted: u64,
        /// How many there are.
        found: u64,
    },
    /// Frames are lost, or counted twice: all frames are free, set aside, or found in use.
    Total {
        /// How many frames the machine has.
        counted: u64,
        /// How many are accounted for.
        found: u64,
    },
    /// A space is charged another number of frames than it would have if nothing of it were shared and
    /// everything there.
    Charge {
        /// Its root.
        frame: Frame,
        /// What it is charged.
        counted: u64,
        /// What it must be charged.
        found: u64,
    },
    /// The promise is another one than what strict spaces are charged less what they have, or had and is
    /// not worked off, or is set aside for them.
    Promise {
        /// The promise.
        counted: i64,
        /// What it must be.
        found: i64,
    },
    /// Spaces of both classes have a frame.
    TwoClasses(Frame),
}

impl Flaw {
    /// The flaw as the values of `info`: which it is, from 1 on, the physical address of the frame if it
    /// is about one, what was counted and what was found. A promise below zero is a number modulo 2^64.
    #[must_use]
    pub fn to_words(self) -> [u64; 4] {
        match self {
            Self::Count {
                frame,
                counted,
                found,
            } => [1, frame.addr().0, counted, found],
            Self::TwoRoles(frame) => [2, frame.addr().0, 0, 0],
            Self::WritableNotSole(frame) => [3, frame.addr().0, 0, 0],
            Self::Condemned(frame) => [4, frame.addr().0, 0, 0],
            Self::EntriesInUse {
                frame,
                counted,
                found,
            } => [5, frame.addr().0, counted, found],
            Self::NotPlain(frame) => [6, frame.addr().0, 0, 0],
            Self::Shared { counted, found } => [7, 0, counted, found],
            Self::Total { counted, found } => [8, 0, counted, found],
            Self::Charge {
                frame,
                counted,
                found,
            } => [9, frame.addr().0, counted, found],
            Self::Promise { counted, found } => [10, 0, counted as u64, found as u64],
            Self::TwoClasses(frame) => [11, frame.addr().0, 0, 0],
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count {
                frame,
                counted,
                found,
            } => write!(f, "count of {frame:?} is {counted}, of references {found}"),
            Self::TwoRoles(frame) => write!(f, "{frame:?} has two roles"),
            Self::WritableNotSole(frame) => write!(f, "{frame:?} is writable and not sole"),
            Self::Condemned(frame) => write!(f, "{frame:?} is left condemned"),
            Self::EntriesInUse {
                frame,
                counted,
                found,
            } => write!(f, "{found} entries in use of {frame:?}, not {counted}"),
            Self::NotPlain(frame) => write!(f, "the table in {frame:?} is not plain"),
            Self::Shared { counted, found } => {
                write!(f, "{found} frames have several references, not {counted}")
            }
            Self::Total { counted, found } => {
                write!(f, "{found} of {counted} frames are accounted for")
            }
            Self::Charge {
                frame,
                counted,
                found,
            } => write!(
                f,
                "the space with the root {frame:?} is charged {counted} frames, not {found}"
            ),
            Self::Promise { counted, found } => {
                write!(f, "{counted} frames are promised, not {found}")
            }
            Self::TwoClasses(frame) => write!(f, "{frame:?} is of two classes"),
        }
    }
}

/// Why an audit ended before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Something is wrong.
    At(Flaw),
    /// There is no frame for the notes. Nothing is known.
    OutOfMemory,
}

impl From<OutOfMemory> for Stopped {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<Flaw> for Stopped {
    fn from(flaw: Flaw) -> Self {
        Self::At(flaw)
    }
}

/// An audit under way. It must be told of everything that there is before it [ends](Self::finish), and
/// no operation may be going on meanwhile.
pub struct Audit<'m, L> {
    mm: &'m Mm,
    ledger: L,
    /// Of what is looked at.
    class: Commit,
    /// What is to be promised: what strict spaces are charged, less the frames that they have.
    promise: i64,
}

impl<'m, L: Ledger> Audit<'m, L> {
    /// An audit that has seen nothing.
    pub const fn new(mm: &'m Mm, ledger: L) -> Self {
        Self {
            mm,
            ledger,
            class: Commit::Overcommit,
            promise: 0,
        }
    }

    /// Notes a frame that the kernel has for itself.
    pub fn kernel_frame(&mut self, frame: Frame) -> Result<(), Stopped> {
        self.class = Commit::Overcommit;
        self.name(frame, Role::Kernel)
    }

    /// Notes frames that are [set aside](crate::mm::frames::FrameAllocator::set_aside): they are not
    /// promised a second time.
    pub const fn set_aside(&mut self, nr_frames: PerClass) {
        self.promise -= nr_frames.strict as i64;
    }

    /// Notes all that a space has, and compares what it is charged.
    pub fn space(&mut self, space: &PageTable) -> Result<(), Stopped> {
        self.class = space.class();
        self.name(space.root(), Role::Table(ROOT))?;
        let charge = 1 + self.entries(space.root(), ROOT, 0)?.charge;
        if space.commit() != charge {
            return Err(Stopped::At(Flaw::Charge {
                frame: space.root(),
                counted: space.commit(),
                found: charge,
            }));
        }
        if self.class == Commit::Strict {
            self.promise += charge as i64;
        }
        Ok(())
    }

    /// Notes what dead tables still name, and has the ledger with everything compared with the counts and
    /// the promise.
    ///
    /// The last to be noted are the dead tables: what stands in the place of their counts is no count.
    pub fn finish(mut self) -> Result<L, Stopped> {
        for dead in self.mm.dead.iter(&self.mm.counts) {
            self.class = dead.class;
            self.entries(dead.frame, dead.level, dead.next)?;
        }
        self.compare()?;
        for dead in self.mm.dead.iter(&self.mm.counts) {
            self.class = dead.class;
            self.name(dead.frame, Role::Table(dead.level))?;
        }
        self.compare_promise()?;
        Ok(self.ledger)
    }

    /// Notes one more reference to a frame.
    fn name(&mut self, frame: Frame, role: Role) -> Result<(), Stopped> {
        let known = self.ledger.get(frame);
        if known.is_none() && self.class == Commit::Strict {
            self.promise -= 1;
        }
        let mut note = known.unwrap_or(Note {
            count: 0,
            role,
            class: self.class,
            is_writable: false,
            found: None,
        });
        if note.role != role {
            return Err(Flaw::TwoRoles(frame).into());
        }
        if note.class != self.class {
            return Err(Flaw::TwoClasses(frame).into());
        }
        note.count += 1;
        Ok(self.ledger.set(frame, note)?)
    }

    /// Changes what is known of a frame that has been named.
    fn amend(&mut self, frame: Frame, amend: impl FnOnce(&mut Note)) -> Result<(), Stopped> {
        if let Some(mut note) = self.ledger.get(frame) {
            amend(&mut note);
            self.ledger.set(frame, note)?;
        }
        Ok(())
    }

    /// Notes all that is below a table, from the entry with this number on.
    fn entries(&mut self, table: Frame, level: u32, first: usize) -> Result<Found, Stopped> {
        let mut found = Found {
            nr_used: 0,
            is_plain: true,
            charge: 0,
        };
        let places = &self.mm.map.table(table)[first..nr_user_entries(level)];
        for entry in places.iter().map(|place| Slot::new(place).get()) {
            found.nr_used += usize::from(!entry.is_empty());
            match entry.table_below() {
                Some(below) if level > 0 => {
                    let inner = self.table(entry, below, level - 1)?;
                    found.is_plain &= inner.is_plain;
                    found.charge += 1 + inner.charge;
                }
                _ => {
                    self.page(entry)?;
                    found.is_plain &= entry.is_plain();
                    if !entry.is_empty() {
                        found.charge += commit::of_zero(level);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Notes a table, and what is below it if that was not done before.
    fn table(&mut self, entry: Entry, table: Frame, level: u32) -> Result<Found, Stopped> {
        self.name(table, Role::Table(level))?;
        let found = match self.ledger.get(table).and_then(|note| note.found) {
            Some(found) => found,
            None => self.entries(table, level, 0)?,
        };
        self.amend(table, |note| {
            note.is_writable |= entry.is_writable();
            note.found = Some(found);
        })?;
        if entry.nr_used() != found.nr_used || found.nr_used == 0 {
            return Err(Stopped::At(Flaw::EntriesInUse {
                frame: table,
                counted: entry.nr_used() as u64,
                found: found.nr_used as u64,
            }));
        }
        if entry.is_plain() && !found.is_plain {
            return Err(Flaw::NotPlain(table).into());
        }
        Ok(found)
    }

    fn page(&mut self, entry: Entry) -> Result<(), Stopped> {
        match entry.kind() {
            Kind::Empty | Kind::Zero => Ok(()),
            Kind::Private(frame) => {
                self.name(frame, Role::Private)?;
                self.amend(frame, |note| note.is_writable |= entry.is_writable())
            }
            Kind::Shared(frame) => self.name(frame, Role::Shared),
            Kind::Condemned(frame) => Err(Flaw::Condemned(frame).into()),
        }
    }

    /// Compares the notes with the reference counts.
    fn compare(&self) -> Result<(), Stopped> {
        let counts = &self.mm.counts;
        let mut nr_shared = 0;
        self.ledger.for_each(&mut |frame, note| {
            let found = note.count + u64::from(self.mm.keeps(frame));
            let counted = counts.get(frame);
            if counted != found {
                return Err(Flaw::Count {
                    frame,
                    counted,
                    found,
                });
            }
            if note.is_writable && found > 1 {
                return Err(Flaw::WritableNotSole(frame));
            }
            nr_shared += u64::from(found > 1);
            Ok(())
        })?;
        if counts.shared() != nr_shared {
            return Err(Stopped::At(Flaw::Shared {
                counted: counts.shared(),
                found: nr_shared,
            }));
        }
        Ok(())
    }

    fn compare_promise(&self) -> Result<(), Stopped> {
        let (counted, found) = (self.mm.frames.promised(), self.promise);
        if counted != found {
            return Err(Stopped::At(Flaw::Promise { counted, found }));
        }
        Ok(())
    }
}
