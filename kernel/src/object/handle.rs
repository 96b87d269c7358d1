//! Handle tables: what a space may name, and what it may do with it.

use cowslip_abi::{Error, Handle, Rights};

use super::pool::Pool;
use super::{Endpoint, Id, Space, Spaces, Thread};
use crate::mm::Mm;

/// Frames of entries that a space's table may have.
const MAX_CHUNKS: usize = 32;
const INDEX_BITS: u32 = 11;
const GENERATION_MASK: u64 = (1 << (32 - INDEX_BITS)) - 1;

type Entries = Pool<HandleEntry, MAX_CHUNKS>;

/// The most handles that a space can have.
pub const MAX_HANDLES_PER_SPACE: usize = Entries::CAPACITY;

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A message endpoint.
    Endpoint(Id<Endpoint>),
    /// An address space.
    Space(Id<Space>),
    /// A thread.
    Thread(Id<Thread>),
    /// The machine as a whole.
    System,
    /// Interrupt lines: the one in the badge, or all of them ([`HandleEntry::ALL_LINES`]).
    Interrupt,
    /// I/O ports: `first | count << 16` in the badge.
    Ports,
}

/// One entry of a handle table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleEntry {
    /// What it names.
    pub object: Object,
    /// What the holder may do.
    pub rights: Rights,
    /// Endpoint: what the receiver sees, and the bits that a notification raises. Device: which.
    pub badge: u64,
}

impl HandleEntry {
    /// A placeholder that allows nothing.
    pub const NOTHING: Self = Self {
        object: Object::System,
        rights: Rights::empty(),
        badge: 0,
    };

    /// The badge of an interrupt handle that stands for every line.
    pub const ALL_LINES: u64 = u64::MAX;

    /// This entry, if it has all these rights.
    pub fn having(self, rights: Rights) -> Result<Self, Error> {
        if self.rights.contains(rights) {
            Ok(self)
        } else {
            Err(Error::Denied)
        }
    }
}

/// The handles of one space.
///
/// A handle number is the slot in its low 11 bits and the low 21 bits of the slot's generation
/// above: a number that was closed stays an error until its table has seen two million handles more.
#[derive(Default)]
pub struct HandleTable {
    entries: Entries,
}

// Every index fits the number, and none is 0, so no handle is `Handle::NONE`.
const _: () = assert!(Entries::INDEX_END <= 1 << INDEX_BITS);

impl HandleTable {
    /// An empty table, which owns no frame.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Pool::new(),
        }
    }

    /// How many handles there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no handles.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a handle.
    pub fn insert(&mut self, mm: &Mm, entry: HandleEntry) -> Result<Handle, Error> {
        let id = self.entries.insert(mm, entry).map_err(|(error, _)| error)?;
        Ok(Self::number(id))
    }

    /// The entry of a handle.
    pub fn get(&self, handle: Handle) -> Result<HandleEntry, Error> {
        self.find(handle)
            .map(|(_, entry)| *entry)
            .ok_or(Error::BadHandle)
    }

    /// The entry of a handle, where it is, and its place.
    #[inline(always)]
    pub(crate) fn find(&self, handle: Handle) -> Option<(Id<HandleEntry>, &HandleEntry)> {
        let index = handle.0 as usize & ((1 << INDEX_BITS) - 1);
        let (id, entry) = self.entries.object_at(index)?;
        let generation = u64::from(handle.0 >> INDEX_BITS);
        (id.generation() & GENERATION_MASK == generation).then_some((id, entry))
    }

    /// Takes a handle out.
    pub fn remove(&mut self, mm: &Mm, handle: Handle) -> Result<HandleEntry, Error> {
        let (id, _) = self.find(handle).ok_or(Error::BadHandle)?;
        self.entries.remove(mm, id).ok_or(Error::BadHandle)
    }

    /// Takes any one handle out; `None` when the table is empty, and then owns no frame.
    pub fn remove_any(&mut self, mm: &Mm) -> Option<HandleEntry> {
        let id = self.entries.next_id(0)?;
        self.entries.remove(mm, id)
    }

    fn number(id: Id<HandleEntry>) -> Handle {
        Handle(((id.generation() & GENERATION_MASK) << INDEX_BITS) as u32 | id.index() as u32)
    }
}

impl Spaces {
    /// Moves a handle that may be copied from one space's table to another's. `None`: that is not
    /// possible, and nothing has changed. What it named is returned too: whoever remembers endpoints
    /// by their handles must forget them.
    pub(crate) fn move_handle(
        &mut self,
        mm: &Mm,
        from: Id<Space>,
        to: Id<Space>,
        handle: Handle,
    ) -> Option<(Handle, Object)> {
        let (id, entry) = self.get(from)?.handles.find(handle)?;
        let entry = *entry;
        if from == to || !entry.rights.contains(Rights::COPY) {
            return None;
        }
        let moved = self.get_mut(to)?.handles.insert(mm, entry).ok()?;
        self.get_mut(from)?.handles.entries.remove(mm, id);
        if let Object::Space(_) = entry.object {
            self.end_epoch();
        }
        Some((moved, entry.object))
    }
}
