//! Reply tokens: what a receiver addresses its reply with.
//!
//! ```text
//!  63                        24 23                      0
//! +----------------------------+-------------------------+
//! | sequence number            | place of the sender     |
//! +----------------------------+-------------------------+
//! ```
//!
//! Each thread counts its own, so one comparison tells whether a token is good, and the sequence
//! number makes it good once. A thread begins where no other that has been at its place has come to.

use super::pool::PLACE_BITS;
use super::{Id, Thread};

/// What the last request of a thread is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Token(u64);

impl Token {
    /// The token for the next request.
    #[inline(always)]
    pub(crate) fn advance(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1 << PLACE_BITS);
        self.0
    }

    /// Whether this is what the receiver says.
    #[inline(always)]
    pub(crate) fn is(self, alleged: u64) -> bool {
        self.0 == alleged
    }
}

/// How far threads have come that are gone.
#[derive(Debug)]
pub(super) struct PastTokens {
    /// The greatest sequence number of all, where tokens have it.
    last: u64,
}

impl PastTokens {
    /// No thread is gone.
    pub(super) const fn new() -> Self {
        Self { last: 0 }
    }

    /// Where a thread begins.
    pub(super) fn first(&self, thread: Id<Thread>) -> Token {
        Token(self.last | thread.place())
    }

    /// A thread is gone that has come to `token`.
    pub(super) fn note(&mut self, token: Token) {
        self.last = self.last.max(token.0 >> PLACE_BITS << PLACE_BITS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_never_repeats_the_tokens_of_one_that_was_at_its_place() {
        let mut past = PastTokens::new();
        let mut first = Token(past.last | 7);
        let used = [first.advance(), first.advance()];
        past.note(first);
        past.note(Token(7));
        let mut second = Token(past.last | 7);
        assert!(!used.contains(&second.advance()));
    }
}
