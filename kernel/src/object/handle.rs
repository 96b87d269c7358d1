//! Handle tables: what a space may name, and what it may do with it.

use cowslip_abi::{Error, Handle, Rights};

use super::pool::Pool;
use super::{Endpoint, Id, Space, Spaces, Thread};
#[cfg(any(not(target_os = "none"), debug_assertions))]
use crate::mm::Frame;
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

    /// The badge that the holder asks for in the place of this one; 0 asks for this one.
    ///
    /// # Errors
    ///
    /// `Denied`: choosing takes the right to. `BadArgument`: it stands for more than this one does.
    pub fn badge_for(self, asked: u64) -> Result<u64, Error> {
        if asked == 0 {
            return Ok(self.badge);
        }
        self.having(Rights::MINT)?;
        let is_within = match self.object {
            Object::Endpoint(_) => true,
            Object::Interrupt => self.badge == Self::ALL_LINES || self.badge == asked,
            Object::Ports => {
                let (inner, outer) = (PortRange::of_badge(asked), PortRange::of_badge(self.badge));
                outer.contains(inner.first, inner.count)
            }
            Object::Space(_) | Object::Thread(_) | Object::System => false,
        };
        if is_within {
            Ok(asked)
        } else {
            Err(Error::BadArgument)
        }
    }
}

/// The ports that a handle stands for.
#[derive(Clone, Copy, Debug)]
pub struct PortRange {
    first: u64,
    count: u64,
}

impl PortRange {
    /// Decodes `first | count << 16`.
    #[must_use]
    pub fn of_badge(badge: u64) -> Self {
        Self {
            first: badge & 0xffff,
            count: badge >> 16,
        }
    }

    /// Whether `count` ports from `first` on are within the range.
    #[must_use]
    pub fn contains(self, first: u64, count: u64) -> bool {
        first >= self.first
            && first
                .checked_add(count)
                .is_some_and(|end| end <= self.first + self.count)
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

    /// The frames that the table has.
    #[cfg(any(not(target_os = "none"), debug_assertions))]
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        self.entries.frames()
    }

    /// Adds a handle.
    #[inline]
    pub fn insert(&mut self, mm: &Mm, entry: HandleEntry) -> Result<Handle, Error> {
        let id = self.entries.insert(mm, entry).map_err(|(error, _)| error)?;
        Ok(Self::number(id))
    }

    /// What adds a handle, if there is room without a further frame.
    pub(super) fn room_at_hand(&mut self) -> Option<impl FnOnce(HandleEntry) -> Handle> {
        // SAFETY: the table is borrowed as long as the room is there.
        let room = unsafe { self.entries.room_at_hand() }?;
        Some(|entry| Self::number(room.fill(|_| entry)))
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
        let (id, entry) = self.entries.object_at(Self::index(handle))?;
        Self::is_of(handle, id).then_some((id, entry))
    }

    /// Moves a handle that may be copied to another table. `None`: that is not possible, and nothing
    /// has changed. Also returns what it names.
    #[inline(always)]
    fn move_to(&mut self, mm: &Mm, handle: Handle, other: &mut Self) -> Option<(Handle, Object)> {
        let mut object = Object::System;
        let may_go = |id, entry: &HandleEntry| {
            object = entry.object;
            Self::is_of(handle, id) && entry.rights.contains(Rights::COPY)
        };
        let index = Self::index(handle);
        let moved = self
            .entries
            .move_to(mm, index, &mut other.entries, may_go)?;
        Some((Self::number(moved), object))
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

    /// The slot that a handle's number names.
    fn index(handle: Handle) -> usize {
        handle.0 as usize & ((1 << INDEX_BITS) - 1)
    }

    /// Whether what is in that slot is what the number names.
    fn is_of(handle: Handle, id: Id<HandleEntry>) -> bool {
        id.generation() & GENERATION_MASK == u64::from(handle.0 >> INDEX_BITS)
    }

    fn number(id: Id<HandleEntry>) -> Handle {
        Handle(((id.generation() & GENERATION_MASK) << INDEX_BITS) as u32 | id.index() as u32)
    }
}

impl Spaces {
    /// Moves a handle that may be copied from the table of a thread's space to another's, in one go:
    /// what counts the handles of an object need not know. `None`: that is not possible, and nothing
    /// has changed.
    ///
    /// Also says whether the [epoch](Pool::end_epoch) of the endpoints must end, because threads
    /// may remember where the handle led.
    #[inline(always)]
    pub(crate) fn move_handle(
        &mut self,
        mm: &Mm,
        from: &mut Thread,
        to: Id<Space>,
        handle: Handle,
    ) -> Option<(Handle, bool)> {
        let (source, target) = self.two_mut(from.space, to)?;
        let (moved, object) = source.handles.move_to(mm, handle, &mut target.handles)?;
        if source.nr_threads == 1 {
            from.forget(handle, object);
            return Some((moved, false));
        }
        if let Object::Space(_) = object {
            self.end_epoch();
        }
        Some((moved, matches!(object, Object::Endpoint(_))))
    }
}
