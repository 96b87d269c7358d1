//! Reply tokens: what a receiver addresses its reply with.
//!
//! ```text
//!  63                        24 23                      0
//! +----------------------------+-------------------------+
//! | sequence number            | place of the sender     |
//! +----------------------------+-------------------------+
//! ```
//!
//! The sender's state has the token that it waits for, so one comparison tells whether a token is
//! good; the sequence number makes it good once.

use super::pool::PLACE_BITS;
use super::{Id, Thread};

/// Makes tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The last one without its place.
    last: u64,
}

impl Tokens {
    /// No token has been made.
    pub(crate) const fn new() -> Self {
        Self { last: 0 }
    }

    /// A new token for the reply to a thread.
    #[inline(always)]
    pub(crate) fn next(&mut self, sender: Id<Thread>) -> u64 {
        self.last = self.last.wrapping_add(1 << PLACE_BITS);
        self.last | sender.place()
    }
}
