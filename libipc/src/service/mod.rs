//! Services: a trait, from which the attribute [`service`](macro@crate::service) makes client, server and message
//! numbers.
//!
//! ```ignore
//! #[libipc::service(version = 1)]
//! pub trait Adder {
//!     /// The sum.
//!     fn add(&self, a: u64, b: u64) -> Result<u64, AddError>;
//! }
//!
//! let adder = AdderClient::connect("adder")?;      // in one process
//! let sum = adder.add(2, 3)?;
//!
//! libipc::serve("adder", AdderServer::new(MyAdder))?; // in another one, where `impl Adder for MyAdder`
//! ```
//!
//! What an argument is says how it travels:
//!
//! | in the trait | the client gives | the server gets | on the way |
//! | --- | --- | --- | --- |
//! | `u64`, `bool`, an enum or a struct of such | the same | the same | words, in registers |
//! | a type that is a [`Value`] | the same, or `&` | the same | bytes, by `postcard` |
//! | `Endpoint`, `Space`, a client, ... | its own, to give away | its own | a handle that moves |
//! | `&Endpoint`, ... | one that it keeps | one for as long as the method runs | a copy of the handle |
//! | `&[u8]`, `&str` | the same | the same | bytes: whole pages copy-on-write where both sides begin at a page, the rest copied |
//! | [`Moved`] | pages that it gives away | the bytes | pages that move |
//! | [`PageBuffer`](crate::PageBuffer) | its own, to give away | its own | pages that move |
//! | `&`[`Shared`](crate::Shared) | memory | what [`map`](crate::Shared::map) makes the same memory of | a handle and a length |
//! | [`Caller`] | | who asks | the badge |
//! | [`Reply`] | | the right to answer later | the reply token |
//!
//! Results are the same, in the other direction; a result of `&[u8]` becomes an argument of the client,
//! the buffer that it goes to.
//!
//! What cannot go along, or has no room, is an error of the compiler at that argument:
//!
//! ```compile_fail,E0277
//! #[libipc::service(version = 1)]
//! trait Wrong {
//!     fn send(&self, text: String);
//! }
//! ```
//!
//! ```compile_fail,E0080
//! #[libipc::service(version = 1)]
//! trait Wrong {
//!     fn send(&self, a: u64, b: u64, c: u64, d: u64, e: u64);
//! }
//! ```
//!
//! Labels consist of a hash of the service (its name, version and signatures) and a method's number. So a server
//! never takes one request for another, whoever sends it; and [`connect`] asks for the protocol first, for the
//! sake of a clear error.

mod argument;
mod bytes;
mod client;
mod error;
mod link;
mod parcel;
mod reconnect;
mod reply;
mod server;
mod size;
#[cfg(test)]
mod tests;

pub use argument::{Argument, Value};
pub use bytes::{Bytes, Moved};
pub use client::{ask, connect, take_pages, take_reply};
pub use error::{ConnectError, Error, ErrorCode, Mismatch, NONE, mismatch};
pub(crate) use error::{refused, undelivered};
pub use libipc_macros::{Argument, ErrorCode};
pub use link::{Link, Until};
pub use parcel::{Contents, Parcel};
pub use reconnect::{Reconnecting, again};
pub use reply::{Caller, Reply, WithBytes};
pub use server::{
    answer, answer_lent, answer_pages, answer_with, failed, malformed, open, unknown,
};
pub use size::{fits, room, sum};

/// The most bytes of [values](Value) in a request or a reply.
pub const MAX_VALUES: usize = 512;

/// The label of a request that every server knows: which protocol is it that you speak?
pub const IDENTIFY: u32 = 0;

/// The first word of the answer, so that it is not mistaken for another one's.
const MAGIC: u64 = u64::from_le_bytes(*b"cowslipS");

/// What a client and a server have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The service's version, as the trait says.
    pub version: u32,
    /// A hash of its name, its version, and all that its methods take and give.
    pub fingerprint: u64,
}

impl Protocol {
    /// The label of the method with this number, from 1 on.
    #[must_use]
    pub const fn label(self, method: u8) -> u32 {
        // Never 0, which is everybody's label `IDENTIFY`.
        (self.fingerprint >> 40) as u32 * 256 + method as u32
    }

    fn to_words(self) -> [u64; 3] {
        [MAGIC, self.version.into(), self.fingerprint]
    }

    fn from_words([magic, version, fingerprint, _]: [u64; 4]) -> Option<Self> {
        let version = u32::try_from(version).ok().filter(|_| magic == MAGIC)?;
        Some(Protocol {
            version,
            fingerprint,
        })
    }
}
