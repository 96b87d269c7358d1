//! The name server: endpoints by name.

use abi::Rights;
use serde::{Deserialize, Serialize};

use super::{Error, Refusal};
use crate::Argument;
use crate::object::Endpoint;
use crate::service::Caller;

/// The name server. The caller is the process that asks, or 0 for who may forget the names of others.
#[crate::service(version = 1)]
pub trait Names {
    /// Lets everybody find an endpoint by a name: with the rights and the badge of this handle, which must have `COPY`
    /// and name something alive. The name belongs to the process that registers it, until that ends.
    ///
    /// # Errors
    /// `Taken`, `Full`; `BadRequest` for a handle that cannot be passed on.
    fn register(&mut self, caller: Caller, name: Name, endpoint: Endpoint) -> Result<(), Refusal>;

    /// The endpoint with this name.
    ///
    /// # Errors
    /// `NotFound`.
    fn lookup(&self, name: Name) -> Result<&Endpoint, Refusal>;

    /// Forgets what a process has registered.
    ///
    /// # Errors
    /// `Denied` for all but the process server.
    fn forget(&mut self, caller: Caller, process: u64) -> Result<(), Refusal>;
}

/// A name: up to 16 bytes, none of which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument, Serialize, Deserialize)]
pub struct Name([u64; 2]);

impl Name {
    /// The bytes in order in two words, the rest zero. `None` if it is empty or too long, or has a zero byte.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > 16 || bytes.contains(&0) {
            return None;
        }
        let mut packed = [0; 16];
        packed[..bytes.len()].copy_from_slice(bytes);
        let word = |half: &[u8]| {
            half.iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        Some(Name([word(&packed[..8]), word(&packed[8..])]))
    }

    /// Whether there is nothing in it: no client of this library sends that.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0[0] == 0
    }
}

impl NamesClient {
    /// Registers a handle with the rights `SEND` and `COPY` and this badge to `endpoint`.
    ///
    /// # Errors
    /// `Taken`, `Full`, `BadRequest` for a name that is empty or too long.
    pub fn publish(&self, name: &str, endpoint: &Endpoint, badge: u64) -> Result<(), Error> {
        let name = Name::new(name).ok_or(Refusal::BadRequest)?;
        self.register(name, endpoint.copy(Rights::SEND | Rights::COPY, badge)?)
    }

    /// Looks a name up.
    ///
    /// # Errors
    /// `NotFound`, `BadRequest` for a name that is empty or too long.
    pub fn find(&self, name: &str) -> Result<Endpoint, Error> {
        self.lookup(Name::new(name).ok_or(Refusal::BadRequest)?)
    }
}
