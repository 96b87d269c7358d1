//! Init's own service: for the name server, whose names outlive it here, and for who may end servers.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::names::Name;
use crate::Argument;
use crate::object::{Endpoint, Space};
use crate::service::{Caller, Value};

/// Init. The caller is a server, by its number in the order of their start, or [`WHO_ENDS`].
#[crate::service(version = 2)]
pub trait Init {
    /// Keeps a name for the next name server, and lends the endpoint back. Names whose endpoints are dead make room.
    ///
    /// # Errors
    /// `Full`; `Denied` for all but the name server.
    fn keep(&mut self, caller: Caller, named: Named) -> Result<&Named, Refusal>;

    /// One of the names that are kept: they are numbered from 0 on.
    ///
    /// # Errors
    /// `NotFound` from the first number on that has none; `Denied` for all but the name server.
    fn kept(&self, caller: Caller, number: usize) -> Result<&Named, Refusal>;

    /// Forgets what a process has registered.
    ///
    /// # Errors
    /// `Denied` for all but the name server.
    fn forget(&mut self, caller: Caller, process: u64) -> Result<(), Refusal>;

    /// The space of a server, by its number in the order of their start, or behind them all init's own; for looking, and for handing on.
    ///
    /// # Errors
    /// `NotFound` if there is none at the moment; `Denied` for all but the process server.
    fn space(&self, caller: Caller, number: usize) -> Result<Space, Refusal>;

    /// Ends a server, whatever it is doing.
    ///
    /// # Errors
    /// `NotFound` for a name that no server has; `Denied` for all but who may.
    fn end(&mut self, caller: Caller, server: Name) -> Result<(), Refusal>;

    /// Takes all its memory from a server, which faults when it runs the next time.
    ///
    /// # Errors
    /// As for [`end`](Self::end).
    fn empty(&mut self, caller: Caller, server: Name) -> Result<(), Refusal>;
}

/// The badge of the handle that may end servers. It is registered as `init` if the kernel's command line has the word `mortal`.
pub const WHO_ENDS: u64 = 1 << 32;

/// The name of that handle.
pub const NAME: &str = "init";

/// An endpoint with a name.
#[derive(Debug, Argument)]
pub struct Named {
    /// What it is called, and by whom.
    pub registration: Registration,
    /// The endpoint: with the rights and the badge that it was registered with.
    pub endpoint: Endpoint,
}

/// What is known of an endpoint with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name.
    pub name: Name,
    /// The process that has registered it.
    pub owner: u64,
}

impl Value for Registration {}
