//! How objects are named.

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU64;

use super::chunk::slot_shift;

/// Bits of an id that say where its object is.
pub(in crate::object) const PLACE_BITS: u32 = 24;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// Names one object of one pool, for as long as it lives; 0 is no id.
///
/// ```text
///  63                        24 23         12 11          0
/// +----------------------------+-------------+-------------+
/// | generation, from 1 on      | chunk       | byte offset |
/// +----------------------------+-------------+-------------+
/// ```
pub struct Id<T> {
    pub(super) bits: NonZeroU64,
    object: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        Some(Self {
            bits: NonZeroU64::new(bits)?,
            object: PhantomData,
        })
    }

    /// Where the object is, in [`PLACE_BITS`] bits: chunk and byte offset. No two objects that
    /// live at the same time are at the same place of a pool.
    #[must_use]
    #[inline]
    pub fn place(self) -> u64 {
        self.bits.get() & PLACE_MASK
    }

    /// The number that programs are told, to tell objects of a kind apart: not 0, never used again, and greater than
    /// those of all that were created before.
    #[must_use]
    #[inline]
    pub fn number(self) -> u64 {
        self.bits.get()
    }

    /// A number that is not 0 if there is an id.
    #[inline(always)]
    pub(crate) fn word(id: Option<Self>) -> u64 {
        id.map_or(0, |id| id.bits.get())
    }

    /// The slot in the pool; never 0.
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        self.place() as usize >> slot_shift::<T>()
    }

    /// Which life of the pool's slots this is; lives are numbered from 1 and never reused.
    #[must_use]
    #[inline]
    pub fn generation(self) -> u64 {
        self.bits.get() >> PLACE_BITS
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

impl<T> Eq for Id<T> {}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index(), self.generation())
    }
}
