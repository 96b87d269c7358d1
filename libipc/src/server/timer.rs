//! Time in a server's loop: a deadline arrives as a notification.

use abi::{Error, Rights};

use crate::object::{Endpoint, clock};

/// Raises bits at an endpoint when a deadline has come: a service hears of it as `notification`.
///
/// A thread has one timer: setting another one, or this one again, takes back what was set before. It ends with the
/// thread that has set it.
#[derive(Debug)]
pub struct Timer(Endpoint);

impl Timer {
    /// A timer that raises these bits.
    ///
    /// # Errors
    /// Those of the call `handle_copy`.
    pub fn new(endpoint: &Endpoint, bits: u64) -> Result<Self, Error> {
        endpoint.copy(Rights::NOTIFY, bits).map(Timer)
    }

    /// Sets it to a time of the [clock], in nanoseconds.
    ///
    /// # Errors
    /// Those of the call `timer`.
    pub fn at(&self, deadline_ns: u64) -> Result<(), Error> {
        // 0 would take it back.
        self.0.timer(deadline_ns.max(1))
    }

    /// Sets it to so many nanoseconds from here on.
    ///
    /// # Errors
    /// Those of the calls `info` and `timer`.
    pub fn after(&self, ns: u64) -> Result<(), Error> {
        let (now, _) = clock()?;
        self.at(now.saturating_add(ns))
    }

    /// Takes back what was set.
    ///
    /// # Errors
    /// Those of the call `timer`.
    pub fn cancel(&self) -> Result<(), Error> {
        self.0.timer(0)
    }
}
