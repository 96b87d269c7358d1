//! What a method may ask for besides its arguments: who calls, and the right to answer later.

use core::fmt;
use core::marker::PhantomData;

use super::error::undelivered;
use super::{Argument, ErrorCode, MAX_VALUES, NONE, Parcel};
use crate::buffer::PageBuffer;
use crate::message::{Message, ReplyToken};
use crate::server::Answer;

/// Who asks: an argument that the client does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The badge of the handle that the request was sent to, which the sender cannot forge.
    pub badge: u64,
}

/// The result has bytes as well.
#[derive(Debug)]
pub enum WithBytes {}

/// The right to answer a request once, whenever there is something to say: an argument that the client does not give.
///
/// A method that has it returns `Option<Answer<'_>>`: what [`now`](Reply::now) gives, to be sent in one system call with the receive
/// that follows; or `None`, and the reply is kept for [`send`](Reply::send). Dropping it leaves the client waiting.
#[must_use = "the client waits for a reply"]
pub struct Reply<T, E, B = ()> {
    token: ReplyToken,
    result: PhantomData<fn(T, E, B)>,
}

impl<T, E, B> Reply<T, E, B> {
    /// The typed form of a token.
    pub const fn new(token: ReplyToken) -> Self {
        Reply {
            token,
            result: PhantomData,
        }
    }

    /// Gives the type up.
    pub fn into_token(self) -> ReplyToken {
        self.token
    }
}

impl<T: Argument, E: ErrorCode> Reply<T, E> {
    /// Answers as soon as the method has returned. Not for values, which have no place to stay until then.
    #[inline]
    pub fn now(self, result: Result<T, E>) -> Option<Answer<'static>> {
        const { assert!(!T::HAS_VALUES, "values are answered by `send`") };
        super::answer(self.token, result, &mut [])
    }

    /// Answers. An answer that finds no room at the client is an error there.
    ///
    /// # Errors
    /// `StaleToken` when the client is gone. Then handles of the result are closed.
    pub fn send(self, result: Result<T, E>) -> Result<(), abi::Error> {
        send(self.token, result, &[])
    }
}

impl<E: ErrorCode> Reply<PageBuffer, E> {
    /// Answers with pages, which leave the buffer.
    ///
    /// # Errors
    /// `StaleToken` when the client is gone: then the pages are still there.
    pub fn send(self, result: Result<&mut PageBuffer, E>) -> Result<(), abi::Error> {
        match result {
            Ok(pages) => deliver(self.token, Message::new(NONE).moving_pages(), pages),
            Err(error) => deliver(self.token, Message::new(error.to_label()), &[]),
        }
    }
}

impl<T: Argument, E: ErrorCode> Reply<T, E, WithBytes> {
    /// Answers, with bytes. The result itself has no values.
    ///
    /// # Errors
    /// As for [`send`](Reply::send).
    pub fn send(self, result: Result<T, E>, data: &[u8]) -> Result<(), abi::Error> {
        const { assert!(!T::HAS_VALUES, "a reply has values or bytes") };
        send(self.token, result, data)
    }

    /// Answers as soon as the method has returned, with bytes.
    #[inline]
    pub fn now(self, result: Result<T, E>, data: &[u8]) -> Option<Answer<'_>> {
        super::answer_with(self.token, result.map(|result| (result, data)))
    }
}

impl<T, E, B> fmt::Debug for Reply<T, E, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.token).finish()
    }
}

fn send<T: Argument, E: ErrorCode>(
    token: ReplyToken,
    result: Result<T, E>,
    data: &[u8],
) -> Result<(), abi::Error> {
    let result = match result {
        Ok(result) => result,
        Err(error) => return deliver(token, Message::new(error.to_label()), &[]),
    };
    let mut room = [0; MAX_VALUES];
    let mut parcel = Parcel::new(&mut room);
    result.put(&mut parcel);
    match parcel.close(NONE) {
        Ok((message, values)) => {
            let data = if T::HAS_VALUES { values } else { data };
            deliver(token, super::server::moving::<T>(message), data)?;
            result.gone();
            Ok(())
        }
        Err(error) => deliver(token, undelivered(error), &[]),
    }
}

/// Replies; a client that waits for what cannot be delivered is told so.
fn deliver(token: ReplyToken, message: Message, data: &[u8]) -> Result<(), abi::Error> {
    let number = token.0;
    token
        .reply(message, data)
        .map(|_| ())
        .inspect_err(|&error| {
            if error != abi::Error::StaleToken {
                let _ = ReplyToken(number).reply(undelivered(error), &[]);
            }
        })
}
