//! The smallest service: what `adder` serves, and `add` asks for.

use core::fmt;

use libipc::ErrorCode;

/// Adds.
#[libipc::service(version = 1)]
pub trait Adder {
    /// The sum of two numbers.
    ///
    /// # Errors
    /// [`AddError::Overflow`].
    fn add(&self, a: u64, b: u64) -> Result<u64, AddError>;
}

/// Why two numbers have no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
pub enum AddError {
    /// It is above 2^64 - 1.
    Overflow,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddError::Overflow => "the sum is too large",
        })
    }
}
