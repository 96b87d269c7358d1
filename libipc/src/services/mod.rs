//! The standard servers' protocols: labels and word layouts, shared by client and server, and the
//! client's side as typed functions.
//!
//! In every protocol the label of a reply is 0, or a [`Refusal`] and nothing else in the message.
//! Names and labels are numbers of one protocol: 1 means something else to each server.

pub mod console;
pub mod files;
pub mod memstat;
pub mod names;
pub mod procd;

use core::fmt;

use crate::message::{Message, Sent};
use crate::object::Endpoint;
use crate::{ErrorCode, service};

/// Why a server did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ErrorCode)]
#[repr(u32)]
pub enum Refusal {
    /// The request has no meaning: unknown label, impossible value, missing bytes.
    BadRequest = 1,
    /// Nothing has this name or number.
    NotFound = 2,
    /// The sender may not do that.
    Denied = 3,
    /// Memory is missing.
    NoMemory = 4,
    /// A table of the server is full.
    Full = 5,
    /// The sender has no child to wait for.
    NoChild = 6,
    /// The file is not a program that can be loaded.
    NotExecutable = 7,
    /// The name is taken.
    Taken = 8,
    /// The server could not do its own part.
    Broken = 9,
}

impl Refusal {
    const ALL: [Refusal; 9] = [
        Refusal::BadRequest,
        Refusal::NotFound,
        Refusal::Denied,
        Refusal::NoMemory,
        Refusal::Full,
        Refusal::NoChild,
        Refusal::NotExecutable,
        Refusal::Taken,
        Refusal::Broken,
    ];

    /// Decodes the label of a reply: `None` is success.
    #[must_use]
    pub fn from_label(label: u32) -> Option<Self> {
        let index = label.checked_sub(1)?;
        Some(
            Self::ALL
                .get(index as usize)
                .copied()
                .unwrap_or(Self::Broken),
        )
    }

    /// The reply that says so.
    #[must_use]
    pub const fn message(self) -> Message {
        Message::new(self as u32)
    }
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

/// Sends a request, and sorts refusals from answers.
pub(crate) fn request(
    server: &Endpoint,
    message: Message,
    data: &[u8],
    reply: &mut [u8],
) -> Result<Sent, Error> {
    service::ask(server, message, data, reply)
}

/// A short name in two words: the bytes in order, the rest zero.
#[must_use]
pub fn pack_name(name: &str) -> Option<[u64; 2]> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 16 || bytes.contains(&0) {
        return None;
    }
    let mut packed = [0; 16];
    packed[..bytes.len()].copy_from_slice(bytes);
    let [low, high] = [&packed[..8], &packed[8..]].map(|half| {
        half.iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte))
    });
    Some([low, high])
}
