//! The client's half of a call. Generated code calls it; by hand there is no need to.

use abi::Tag;

use super::error::refused;
use super::{
    Argument, ConnectError, Contents, Error, ErrorCode, IDENTIFY, Link, Mismatch, NONE, Protocol,
};
use crate::buffer::PageBuffer;
use crate::message::{Message, Sent};
use crate::names;
use crate::object::Endpoint;
use crate::services::{self, Refusal};

/// The endpoint that is registered under `name`, if who serves it speaks this protocol.
///
/// # Errors
/// Why there is no connection.
pub fn connect(name: &str, client: Protocol) -> Result<Endpoint, ConnectError> {
    let endpoint = names::lookup(name).map_err(not_found)?;
    let reply = endpoint.call(Message::new(IDENTIFY))?;
    if reply.tag.handles() > 0 {
        Contents::new(reply, &[]).discard();
    }
    match Protocol::from_words(reply.words).filter(|_| reply.label() == NONE) {
        Some(server) if server == client => Ok(endpoint),
        Some(server) => Err(ConnectError::Other { client, server }),
        None => Err(ConnectError::NoService),
    }
}

fn not_found(error: services::Error) -> ConnectError {
    match error {
        Error::Kernel(error) => ConnectError::Kernel(error),
        Error::Refused(Refusal::NotFound) => ConnectError::NoServer,
        Error::Refused(refusal) => ConnectError::Names(refusal),
        Error::Mismatch(_) | Error::Connect(_) => ConnectError::Names(Refusal::Broken),
    }
}

/// Sends a request, and tells errors from a result with so many handles.
///
/// # Errors
/// Why there is no result. Then all handles that came are closed.
#[inline]
pub fn ask<E: ErrorCode>(
    server: &impl Link,
    request: Message,
    data: &[u8],
    into: &mut [u8],
    nr_handles: usize,
) -> Result<Sent, Error<E>> {
    let sent = server.send(request, data, into)?;
    let expected = Tag::new(NONE).with_handles(nr_handles);
    if sent.reply.tag == expected || sent.reply.tag.selects() == expected {
        return Ok(sent);
    }
    Contents::new(sent.reply, &[]).discard();
    Err(match sent.reply.label() {
        NONE => Error::Mismatch(Mismatch::Reply),
        label => refused(label),
    })
}

/// The buffer that a reply's pages have come to, as long as they are.
///
/// # Errors
/// [`Mismatch::Reply`] for more than it has room for.
pub fn take_pages(mut into: PageBuffer, len: usize) -> Result<PageBuffer, Mismatch> {
    if len > into.len() {
        return Err(Mismatch::Reply);
    }
    into.truncate(len);
    Ok(into)
}

/// Takes a result out of a reply with these bytes; `None` stands for more of them than there is room for.
///
/// # Errors
/// [`Mismatch::Reply`] when it is not there; then all handles that came are closed.
#[inline]
pub fn take_reply<T: Argument>(reply: Message, data: Option<&[u8]>) -> Result<T, Mismatch> {
    let mut contents = Contents::new(reply, data.unwrap_or_default());
    if data.is_some()
        && let Some(result) = T::take(&mut contents)
        && contents.has_no_bytes()
    {
        return Ok(result);
    }
    contents.discard();
    Err(Mismatch::Reply)
}
