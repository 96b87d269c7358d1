//! A key-value store that lends its pages: a value lies on pages of its own, and who reads it into a buffer that begins at a
//! page shares them, copy-on-write, however many readers there are.

use core::fmt;

use alloc::vec::Vec;

use libipc::services::names::Name;
use libipc::{ErrorCode, PageBuffer};

/// The longest value in bytes.
pub const MAX_LEN: usize = 1 << 16;

/// Most values.
const MAX_VALUES: usize = 64;

/// The store. Keys have up to 16 bytes.
#[libipc::service(version = 1, max_bytes = MAX_LEN)]
pub trait Store {
    /// Keeps a value, in the place of the one that the key has had.
    ///
    /// # Errors
    /// `Full`, `NoMemory`.
    fn put(&mut self, key: Name, value: &[u8]) -> Result<(), StoreError>;

    /// The value of a key, and how long it is.
    ///
    /// # Errors
    /// `NotFound`.
    fn get(&self, key: Name) -> Result<(usize, &[u8]), StoreError>;

    /// Forgets a key.
    ///
    /// # Errors
    /// `NotFound`.
    fn remove(&mut self, key: Name) -> Result<(), StoreError>;
}

/// What a store cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
pub enum StoreError {
    /// The key has no value.
    NotFound,
    /// There are too many values.
    Full,
    /// There is no memory for it.
    NoMemory,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreError::NotFound => "no such key",
            StoreError::Full => "too many keys",
            StoreError::NoMemory => "out of memory",
        })
    }
}

/// The values, in no order.
#[derive(Debug, Default)]
pub struct Values(Vec<(Name, PageBuffer)>);

impl Values {
    fn position(&self, key: Name) -> Result<usize, StoreError> {
        let found = self.0.iter().position(|(known, _)| *known == key);
        found.ok_or(StoreError::NotFound)
    }
}

impl Store for Values {
    fn put(&mut self, key: Name, value: &[u8]) -> Result<(), StoreError> {
        let kept = PageBuffer::copy_of(value).map_err(|_| StoreError::NoMemory)?;
        match self.position(key) {
            Ok(place) => self.0[place].1 = kept,
            Err(_) if self.0.len() == MAX_VALUES => return Err(StoreError::Full),
            Err(_) => self.0.push((key, kept)),
        }
        Ok(())
    }

    fn get(&self, key: Name) -> Result<(usize, &[u8]), StoreError> {
        let (_, value) = &self.0[self.position(key)?];
        Ok((value.len(), value))
    }

    fn remove(&mut self, key: Name) -> Result<(), StoreError> {
        let place = self.position(key)?;
        self.0.swap_remove(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::service::Error;
    use libipc::{Handle, fake};

    use super::*;

    #[test]
    fn values_are_kept_replaced_and_forgotten() {
        let server = StoreServer::new(Values::default());
        fake::serve(Handle(1), 0, Rc::new(RefCell::new(server)));
        let store = StoreClient::borrow(Handle(1));
        let key = |nr: usize| Name::new(&std::format!("key {nr}")).unwrap();
        let missing = Err(Error::Refused(StoreError::NotFound));
        let mut into = [0; 8];
        assert_eq!(store.get(key(0), &mut into), missing);
        store.put(key(0), b"one").unwrap();
        store.put(key(0), b"another one").unwrap();
        // What does not fit is told by the length.
        assert_eq!(store.get(key(0), &mut into), Ok((11, 8)));
        assert_eq!(into, *b"another ");
        for nr in 1..MAX_VALUES {
            store.put(key(nr), b"").unwrap();
        }
        let full = Err(Error::Refused(StoreError::Full));
        assert_eq!(store.put(key(MAX_VALUES), b""), full);
        store.remove(key(0)).unwrap();
        assert_eq!(store.get(key(0), &mut into), missing);
        store.put(key(MAX_VALUES), b"").unwrap();
    }
}
