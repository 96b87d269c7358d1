//! System calls with arguments that the typed wrappers would not let through.

use libipc::abi::{Call, Error, Handle};
use libipc::raw::{self, Args};

/// No arguments.
pub const NOTHING: Args = [0; 6];

/// Makes a call.
///
/// # Errors
/// Those of the call.
pub fn call(call: Call, handle: Handle, args: Args) -> Result<Args, Error> {
    number(call as u32, handle, args)
}

/// Makes a call by its number.
///
/// # Errors
/// Those of the call.
pub fn number(number: u32, handle: Handle, args: Args) -> Result<Args, Error> {
    let (code, results) = raw::call(number, handle, args);
    match Error::from_code(code) {
        None => Ok(results),
        Some(error) => Err(error),
    }
}

/// Fails the case unless the call fails with this error.
#[track_caller]
pub fn refused(which: Call, handle: Handle, args: Args, expected: Error) {
    match call(which, handle, args) {
        Ok(_) => panic!("{which:?} {handle:?} {args:x?} succeeded instead of {expected:?}"),
        Err(error) => assert_eq!(error, expected, "{which:?} {handle:?} {args:x?}"),
    }
}

/// An argument that is a handle.
#[must_use]
pub fn arg(handle: Handle) -> u64 {
    handle.0.into()
}
