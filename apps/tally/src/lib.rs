//! A service: what clients may ask, and what answers them.
//!
//! `src/bin` has the programs: the server, a client for the shell, and the tests that run on the real system.
#![cfg_attr(target_os = "none", no_std)]

use core::fmt;

use libipc::ErrorCode;

/// The name that clients find the server by: 16 bytes at most.
pub const NAME: &str = "tally";

/// A number that all clients share.
#[libipc::service(version = 1)]
pub trait Tally {
    /// Adds to the number, and returns it.
    ///
    /// # Errors
    /// [`TallyError::TooLarge`]: nothing has changed.
    fn add(&mut self, amount: u64) -> Result<u64, TallyError>;

    /// The number.
    fn value(&self) -> u64;
}

/// What the server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
pub enum TallyError {
    /// The number would be above 2^64 - 1.
    TooLarge,
}

impl fmt::Display for TallyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TallyError::TooLarge => "too large a number",
        })
    }
}

/// What the server keeps.
#[derive(Debug, Default)]
pub struct State {
    value: u64,
}

impl Tally for State {
    fn add(&mut self, amount: u64) -> Result<u64, TallyError> {
        let value = self.value.checked_add(amount);
        self.value = value.ok_or(TallyError::TooLarge)?;
        Ok(self.value)
    }

    fn value(&self) -> u64 {
        self.value
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
    fn clients_share_a_number_that_has_an_end() {
        // On the host, messages go to a server in the same thread.
        let server = TallyServer::new(State::default());
        fake::serve(Handle(1), 0, Rc::new(RefCell::new(server)));
        let [first, second] = [(); 2].map(|()| TallyClient::borrow(Handle(1)));
        assert_eq!(first.add(2), Ok(2));
        assert_eq!(second.add(3), Ok(5));
        let too_large = Err(Error::Refused(TallyError::TooLarge));
        assert_eq!(first.add(u64::MAX), too_large);
        assert_eq!(second.value(), Ok(5));
    }
}
