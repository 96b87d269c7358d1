//! How a client's requests get to the server.

use crate::message::{Message, Sent};
use crate::object::Endpoint;
use crate::time::Instant;

/// What a client sends over.
pub trait Link {
    /// Sends a request with `data`, and waits for the reply, whose bytes go to `reply`.
    ///
    /// # Errors
    /// Those of the call `send`.
    fn send(&self, request: Message, data: &[u8], reply: &mut [u8]) -> Result<Sent, abi::Error>;
}

impl Link for Endpoint {
    #[inline]
    fn send(&self, request: Message, data: &[u8], reply: &mut [u8]) -> Result<Sent, abi::Error> {
        Endpoint::send(self, request, data, reply)
    }
}

/// An endpoint, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Until<'a> {
    endpoint: &'a Endpoint,
    deadline: Instant,
}

impl<'a> Until<'a> {
    /// Requests to `endpoint` that fail with `TimedOut` at the deadline.
    #[must_use]
    pub const fn new(endpoint: &'a Endpoint, deadline: Instant) -> Self {
        Until { endpoint, deadline }
    }
}

impl Link for Until<'_> {
    fn send(&self, request: Message, data: &[u8], reply: &mut [u8]) -> Result<Sent, abi::Error> {
        self.endpoint
            .send_until(self.deadline, request, data, reply)
    }
}
