//! Why a call of a service failed, and how that is told in a reply's label.

use core::convert::Infallible;
use core::fmt;

use super::Protocol;
use crate::message::Message;
use crate::services::Refusal;

/// The label of a reply that is no error.
pub const NONE: u32 = 0;

/// The labels from here on are the same in every service.
const RESERVED: u32 = 0xffff_ff00;

/// No request has this label, or none of this version.
const UNKNOWN: u32 = 0xffff_ffff;

/// What came with the request is not what the request consists of.
const MALFORMED: u32 = 0xffff_fffe;

/// An error of a service: an enum without fields. `#[derive(libipc::ErrorCode)]` numbers its variants from 1 on.
pub trait ErrorCode: Sized {
    /// The label of the reply that tells of it: not 0, and below `0xffff_ff00`.
    fn to_label(&self) -> u32;

    /// The error with this label.
    fn from_label(label: u32) -> Option<Self>;
}

/// The error of a method that has none.
impl ErrorCode for Infallible {
    fn to_label(&self) -> u32 {
        match *self {}
    }

    fn from_label(_: u32) -> Option<Self> {
        None
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The message did not get through: `Died` when the server is gone.
    Kernel(abi::Error),
    /// The server refused: the service's own error.
    Refused(E),
    /// Client and server do not understand each other.
    Mismatch(Mismatch),
    /// There was no connection: what [`connect`](super::connect) said.
    Connect(ConnectError),
}

/// How client and server do not understand each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The server does not know the request: it serves something else, or another version.
    Unknown,
    /// The server knows the request, but not what came with it.
    Malformed,
    /// The reply is none that this request has.
    Reply,
}

/// Why there is no connection to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// A message did not get through.
    Kernel(abi::Error),
    /// The name server knows no such name.
    NoServer,
    /// The name server could not do its part.
    Names(Refusal),
    /// Who has this name serves something else, by hand.
    NoService,
    /// Who has this name speaks another protocol.
    Other {
        /// That of the client.
        client: Protocol,
        /// That of the server.
        server: Protocol,
    },
}

impl<E> Error<E> {
    /// The error of a method that has none of its own, as one of a service that has.
    pub fn from_infallible(error: Error<Infallible>) -> Self {
        match error {
            Error::Kernel(error) => Error::Kernel(error),
            Error::Refused(never) => match never {},
            Error::Mismatch(mismatch) => Error::Mismatch(mismatch),
            Error::Connect(error) => Error::Connect(error),
        }
    }
}

impl<E> From<abi::Error> for Error<E> {
    fn from(error: abi::Error) -> Self {
        Error::Kernel(error)
    }
}

impl<E> From<ConnectError> for Error<E> {
    fn from(error: ConnectError) -> Self {
        Error::Connect(error)
    }
}

impl<E> From<Mismatch> for Error<E> {
    fn from(mismatch: Mismatch) -> Self {
        Error::Mismatch(mismatch)
    }
}

impl From<abi::Error> for ConnectError {
    fn from(error: abi::Error) -> Self {
        ConnectError::Kernel(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Kernel(error) => error.fmt(f),
            Error::Refused(refusal) => refusal.fmt(f),
            Error::Mismatch(mismatch) => mismatch.fmt(f),
            Error::Connect(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mismatch::Unknown => "the server does not know this request",
            Mismatch::Malformed => "the server does not understand this request",
            Mismatch::Reply => "the server's reply makes no sense",
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Kernel(error) => error.fmt(f),
            ConnectError::NoServer => f.write_str("no server has this name"),
            ConnectError::Names(refusal) => write!(f, "the name server: {refusal}"),
            ConnectError::NoService => f.write_str("the server serves something else"),
            ConnectError::Other { client, server } if client.version == server.version => write!(
                f,
                "client and server have version {} each, but not the same requests",
                client.version
            ),
            ConnectError::Other { client, server } => write!(
                f,
                "the server has version {}, the client version {}",
                server.version, client.version
            ),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for Error<E> {}

impl core::error::Error for ConnectError {}

impl Mismatch {
    /// The reply that says so, for servers that look at messages by hand.
    #[must_use]
    pub const fn message(self) -> Message {
        Message::new(match self {
            Mismatch::Unknown => UNKNOWN,
            Mismatch::Malformed | Mismatch::Reply => MALFORMED,
        })
    }
}

/// The reply that says that the answer could not be delivered, and why.
pub(crate) const fn undelivered(error: abi::Error) -> Message {
    Message::new(RESERVED + error as u32)
}

/// Which mismatch this label tells of, if it is one that a server answers with.
#[must_use]
pub const fn mismatch(label: u32) -> Option<Mismatch> {
    match label {
        UNKNOWN => Some(Mismatch::Unknown),
        MALFORMED => Some(Mismatch::Malformed),
        _ => None,
    }
}

/// What the label of a reply says that is an error.
#[cold]
pub(crate) fn refused<E: ErrorCode>(label: u32) -> Error<E> {
    if let Some(mismatch) = mismatch(label) {
        return Error::Mismatch(mismatch);
    }
    match label {
        RESERVED.. => match abi::Error::from_code((label - RESERVED).into()) {
            Some(error) => Error::Kernel(error),
            None => Error::Mismatch(Mismatch::Reply),
        },
        label => E::from_label(label).map_or(Error::Mismatch(Mismatch::Reply), Error::Refused),
    }
}
