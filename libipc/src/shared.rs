//! Memory that processes share, and what each makes of it.
//!
//! ```text
//!   client                    an object without threads                    server
//!   Mapping  <----- map ----- Shared: len bytes, demand-zero ----- map -----> Mapping
//!                                 \____ handle and length, in a message ____/
//! ```
//!
//! Who gets it can map it, and nothing else: neither side sees anything of the other's memory. Nobody can take it away from
//! who has mapped it. Others write to it at any time, so its bytes are atomic: a server copies what it is going to check.

use core::ops::Deref;
use core::sync::atomic::AtomicU8;

use abi::{Error, PAGE_SIZE, Perm, Rights};

use crate::buffer::memory;
use crate::object::Space;
use crate::service::{Argument, Contents, Parcel};
use crate::{process, services};

/// Where the memory is in its object.
const BASE: u64 = 1 << 30;

/// Memory to be shared: an argument of services. It lasts as long as somebody has a handle to it and the process that made it
/// lives; what is mapped stays.
#[derive(Debug)]
pub struct Shared {
    /// A space that never has a thread, with the rights that mapping needs.
    object: Space,
    len: usize,
}

/// Shared memory where this process sees it.
#[derive(Debug)]
pub struct Mapping {
    addr: u64,
    mapped: usize,
    len: usize,
}

impl Shared {
    /// Memory of `len` bytes, all zero.
    ///
    /// # Errors
    /// `TooLong` for more than addresses reach; those of the process server, which allows to make objects; those of the calls
    /// `space_create` and `map`.
    pub fn new(len: usize) -> Result<Self, services::Error> {
        let mapped = mapped_len(len)?;
        let object = process::system()?.create_space(None)?;
        object.map(BASE, mapped as u64, Perm::RW)?;
        let rights = Rights::READ | Rights::MAP | Rights::COPY;
        let object = object.copy(rights, 0)?;
        Ok(Shared { object, len })
    }

    /// How many bytes it has, as who sent it says.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "nobody asks for no memory")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Maps it. More than `max_len` bytes are refused: who maps pays for them.
    ///
    /// # Errors
    /// `TooLong`; those of the call `share`: `NotMapped` if the memory is shorter than was said.
    pub fn map(&self, max_len: usize) -> Result<Mapping, Error> {
        let len = self.len;
        if len > max_len {
            return Err(Error::TooLong);
        }
        let mapped = mapped_len(len)?;
        let addr = memory::map_shared(&self.object, BASE, mapped)?;
        Ok(Mapping { addr, mapped, len })
    }
}

fn mapped_len(len: usize) -> Result<usize, Error> {
    let pages = len.max(1).checked_next_multiple_of(PAGE_SIZE);
    pages.ok_or(Error::TooLong)
}

impl Deref for Mapping {
    type Target = [AtomicU8];

    fn deref(&self) -> &[AtomicU8] {
        // SAFETY: the mapping lives as long as this, is zero at first, and all who see it see atomic bytes: other
        // processes' writes are as those of other threads.
        unsafe { core::slice::from_raw_parts(self.addr as *const AtomicU8, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        memory::unmap(self.addr, self.mapped);
    }
}

/// A handle, and the length.
impl Argument for Shared {
    const NR_WORDS: usize = 1;
    const NR_HANDLES: usize = 1;

    #[inline]
    fn put(&self, parcel: &mut Parcel<'_>) {
        self.len.put(parcel);
        self.object.put(parcel);
    }

    #[inline]
    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        let len = usize::take(contents)?;
        let object = Space::take(contents)?;
        Some(Shared { object, len })
    }

    #[inline]
    fn gone(self) {
        self.object.gone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Handle;
    use core::sync::atomic::Ordering;

    #[test]
    fn who_maps_says_how_much_that_may_be() {
        let object = Space::from_raw(Handle(1));
        let shared = Shared { object, len: 5000 };
        assert_eq!(shared.map(4999).err(), Some(Error::TooLong));
        let mapping = shared.map(5000).unwrap();
        assert_eq!(mapping.len(), 5000);
        mapping[4999].store(1, Ordering::Relaxed);
        let endless = Shared {
            len: usize::MAX,
            ..shared
        };
        assert_eq!(endless.map(usize::MAX).err(), Some(Error::TooLong));
    }
}
