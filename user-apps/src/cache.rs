//! A cache that lends its pages: what many clients ask for is fetched once, and all of them get the same frames, copy-on-write.

use core::fmt;

use alloc::collections::VecDeque;

use libipc::services::names::Name;
use libipc::{Argument, ErrorCode, PageBuffer};

/// Values that have room.
pub const ROOM: usize = 8;

/// The cache. Keys have up to 16 bytes.
#[libipc::service(version = 1)]
pub trait Cache {
    /// The length of a key's value, and its bytes as far as there is room for them: copy-on-write in a buffer that begins at a
    /// page.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when the value cannot be fetched.
    fn get(&mut self, key: Name) -> Result<(usize, &[u8]), CacheError>;

    /// What it has done.
    fn counts(&self) -> Counts;
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Argument)]
pub struct Counts {
    /// Values that were here.
    pub found: u64,
    /// Values that had to be fetched.
    pub fetched: u64,
}

/// What a cache cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
pub enum CacheError {
    /// The key has no value.
    NotFound,
    /// The value cannot be fetched.
    Unavailable,
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheError::NotFound => "no such key",
            CacheError::Unavailable => "the value cannot be fetched",
        })
    }
}

/// The values that were asked for last, the last one first, and where others come from.
#[derive(Debug)]
pub struct Recent<F> {
    values: VecDeque<(Name, PageBuffer)>,
    fetch: F,
    counts: Counts,
}

impl<F> Recent<F> {
    /// An empty cache.
    pub fn new(fetch: F) -> Self {
        Recent {
            values: VecDeque::new(),
            fetch,
            counts: Counts::default(),
        }
    }
}

impl<F: FnMut(Name) -> Result<PageBuffer, CacheError>> Cache for Recent<F> {
    fn get(&mut self, key: Name) -> Result<(usize, &[u8]), CacheError> {
        let place = self.values.iter().position(|(known, _)| *known == key);
        let value = match place.and_then(|place| self.values.remove(place)) {
            Some(value) => {
                self.counts.found += 1;
                value
            }
            None => {
                let pages = (self.fetch)(key)?;
                self.counts.fetched += 1;
                // Clients that have the pages of the last one keep them.
                self.values.truncate(ROOM - 1);
                (key, pages)
            }
        };
        self.values.push_front(value);
        let (_, pages) = &self.values[0];
        Ok((pages.len(), pages))
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::service::Error;
    use libipc::{Handle, fake};

    use super::*;

    /// The key without a value.
    const MISSING: usize = 99;

    fn key(nr: usize) -> Name {
        Name::new(&std::format!("key {nr}")).unwrap()
    }

    fn fetch(wanted: Name) -> Result<PageBuffer, CacheError> {
        if wanted == key(MISSING) {
            return Err(CacheError::NotFound);
        }
        PageBuffer::copy_of(b"value").map_err(|_| CacheError::Unavailable)
    }

    #[test]
    fn the_values_that_were_asked_for_last_are_here() {
        let server = CacheServer::new(Recent::new(fetch));
        fake::serve(Handle(1), 0, Rc::new(RefCell::new(server)));
        let cache = CacheClient::borrow(Handle(1));
        let mut into = [0; 8];
        let mut get = |nr| cache.get(key(nr), &mut into);
        let counts = |found, fetched| Ok(Counts { found, fetched });
        let value = Ok((5, 5));
        for nr in 0..ROOM {
            assert_eq!(get(nr), value);
        }
        assert_eq!(get(0), value);
        assert_eq!(cache.counts(), counts(1, ROOM as u64));
        // Key 1 is the one that was asked for longest ago: another one takes its place.
        assert_eq!(get(ROOM), value);
        assert_eq!(get(0), value);
        assert_eq!(cache.counts(), counts(2, ROOM as u64 + 1));
        assert_eq!(get(1), value);
        assert_eq!(cache.counts(), counts(2, ROOM as u64 + 2));
        assert_eq!(get(MISSING), Err(Error::Refused(CacheError::NotFound)));
    }
}
