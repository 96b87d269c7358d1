//! The standard servers: each a [service](mod@crate::service), whose client is here and whose server is in `servers/src`.
//!
//! Their errors are one enum, [`Refusal`].

pub mod console;
pub mod files;
pub mod init;
pub mod memstat;
pub mod names;
pub mod procd;
mod records;

use core::fmt;

use crate::{ErrorCode, service};

/// Why a server did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ErrorCode)]
pub enum Refusal {
    /// The request has no meaning: unknown label, impossible value, missing bytes.
    BadRequest,
    /// Nothing has this name or number.
    NotFound,
    /// The sender may not do that.
    Denied,
    /// Memory is missing.
    NoMemory,
    /// A table of the server is full.
    Full,
    /// The sender has no child to wait for.
    NoChild,
    /// The file is not a program that can be loaded.
    NotExecutable,
    /// The name is taken.
    Taken,
    /// The server could not do its own part.
    Broken,
    /// The sender has nothing open under this number.
    NotOpen,
    /// It is a directory, where a file is wanted.
    IsDirectory,
    /// It is a file, where a directory is wanted.
    NotDirectory,
    /// The directory is not empty.
    NotEmpty,
    /// It can never be changed.
    ReadOnly,
    /// The files are too large, or too many: those of the sender, or of all.
    NoSpace,
    /// Nobody reads what is written any more.
    ReaderGone,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::BadRequest => "bad request",
            Refusal::NotFound => "not found",
            Refusal::Denied => "not allowed",
            Refusal::NoMemory => "out of memory",
            Refusal::Full => "too many",
            Refusal::NoChild => "no child",
            Refusal::NotExecutable => "not a program",
            Refusal::Taken => "name taken",
            Refusal::Broken => "server failure",
            Refusal::NotOpen => "not open",
            Refusal::IsDirectory => "is a directory",
            Refusal::NotDirectory => "not a directory",
            Refusal::NotEmpty => "directory not empty",
            Refusal::ReadOnly => "read-only",
            Refusal::NoSpace => "no space left",
            Refusal::ReaderGone => "nobody reads it any more",
        })
    }
}

/// What a server answers when a system call that it made for a client failed.
impl From<abi::Error> for Refusal {
    fn from(error: abi::Error) -> Self {
        match error {
            abi::Error::NoMemory | abi::Error::OverBudget => Refusal::NoMemory,
            abi::Error::TableFull => Refusal::Full,
            abi::Error::KernelAddress | abi::Error::NonCanonical => Refusal::BadRequest,
            _ => Refusal::Broken,
        }
    }
}

/// Why a request to a standard server failed.
pub type Error = service::Error<Refusal>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(refusal)
    }
}

/// What a server answers when another server that it asked for a client did not do its part.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Kernel(error) => error.into(),
            Error::Refused(refusal) => refusal,
            Error::Mismatch(_) | Error::Connect(_) => Refusal::Broken,
        }
    }
}
