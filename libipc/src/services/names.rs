//! The name server: endpoints by name.
//!
//! | request | words | handles | reply |
//! | --- | --- | --- | --- |
//! | `REGISTER` | name | the endpoint | |
//! | `LOOKUP` | name | | a copy of the endpoint's handle |
//! | `FORGET` (process server only) | process | | |
//!
//! A name is up to 16 bytes, packed into two words. The rights and the badge that a registered
//! handle has are those that everyone gets who looks it up; it must have `COPY`, and name something alive. A name belongs to
//! the process that registered it, until that process ends.

use abi::{Handle, Rights};

use super::{Error, Refusal, pack_name, request};
use crate::message::Message;
use crate::object::Endpoint;

/// Registers a name.
pub const REGISTER: u32 = 1;
/// Looks a name up.
pub const LOOKUP: u32 = 2;
/// Forgets the names of a process.
pub const FORGET: u32 = 3;

/// Registers a handle with the rights `SEND` and `COPY` and this badge to `endpoint`.
///
/// # Errors
/// `Taken`, `Full`, `BadRequest` for a name that is empty or too long.
pub fn register(
    names: &Endpoint,
    name: &str,
    endpoint: &Endpoint,
    badge: u64,
) -> Result<(), Error> {
    let name = pack_name(name).ok_or(Refusal::BadRequest)?;
    let public = endpoint.copy(Rights::SEND | Rights::COPY, badge)?;
    let message = Message::new(REGISTER)
        .with_words(name)
        .with_handles(&[public.handle()]);
    request(names, message, &[], &mut []).map(|_| ())
}

/// Looks a name up.
///
/// # Errors
/// `NotFound`, `BadRequest` for a name that is empty or too long.
pub fn lookup(names: &Endpoint, name: &str) -> Result<Endpoint, Error> {
    let name = pack_name(name).ok_or(Refusal::BadRequest)?;
    let sent = request(names, Message::new(LOOKUP).with_words(name), &[], &mut [])?;
    match sent.reply.handles()[0] {
        Handle::NONE => Err(Refusal::Broken.into()),
        handle => Ok(Endpoint::from_raw(handle)),
    }
}

/// Forgets what a process registered.
///
/// # Errors
/// `Denied` for all but the process server.
pub fn forget(names: &Endpoint, pid: u64) -> Result<(), Error> {
    request(names, Message::new(FORGET).with_words([pid]), &[], &mut []).map(|_| ())
}
