//! The server's half of a call. Generated code calls it; by hand there is no need to.

use super::error::undelivered;
use super::{Argument, Bytes, Contents, ErrorCode, IDENTIFY, Mismatch, NONE, Parcel, Protocol};
use crate::buffer::PageBuffer;
use crate::message::{Incoming, Message, ReplyToken};
use crate::server::Answer;

/// Takes the arguments out of a request that has as many handles as it should. `None` if they are not there, or something else
/// came as well; then all handles that came are closed.
#[inline]
pub fn open<'a, T>(
    incoming: &Incoming,
    data: &'a [u8],
    take: impl FnOnce(&mut Contents<'a>) -> Option<T>,
) -> Option<T> {
    let mut contents = Contents::new(incoming.message, data);
    if incoming.true_len == data.len()
        && let Some(taken) = take(&mut contents)
        && contents.has_no_bytes()
    {
        return Some(taken);
    }
    contents.discard();
    None
}

/// The answer to a request that came without what belongs to it.
#[cold]
pub fn malformed<'a>(token: ReplyToken) -> Option<Answer<'a>> {
    token.answer(Mismatch::Malformed.message())
}

/// The answer to a request that is none of the service's, or has another number of handles. They are closed.
#[cold]
pub fn unknown<'a>(incoming: Incoming, protocol: Protocol, nr_methods: u8) -> Option<Answer<'a>> {
    Contents::new(incoming.message, &[]).discard();
    let label = incoming.message.label();
    let is_method = (protocol.label(1)..=protocol.label(nr_methods)).contains(&label);
    incoming.token.answer(match label {
        IDENTIFY => Message::new(NONE).with_words(protocol.to_words()),
        _ if is_method => Mismatch::Malformed.message(),
        _ => Mismatch::Unknown.message(),
    })
}

/// The answer with a method's result, whose values have room here.
#[inline]
pub fn answer<T: Argument, E: ErrorCode>(
    token: ReplyToken,
    result: Result<T, E>,
    room: &mut [u8],
) -> Option<Answer<'_>> {
    let result = match result {
        Ok(result) => result,
        Err(error) => return refuse(token, &error),
    };
    let mut parcel = Parcel::new(room);
    result.put(&mut parcel);
    match parcel.close(NONE) {
        Ok((message, values)) => {
            // The loop closes them if the client is gone.
            result.gone();
            token.answer_with(moving::<T>(message), values)
        }
        Err(error) => token.answer(undelivered(error)),
    }
}

/// The answer with something that the service keeps.
#[inline]
pub fn answer_lent<'a, T: Argument, E: ErrorCode>(
    token: ReplyToken,
    result: Result<&T, E>,
    room: &'a mut [u8],
) -> Option<Answer<'a>> {
    let result = match result {
        Ok(result) => result,
        Err(error) => return refuse(token, &error),
    };
    let mut parcel = Parcel::new(room);
    result.put(&mut parcel);
    match parcel.close(NONE) {
        Ok((message, values)) => token.answer_with(message, values),
        Err(error) => token.answer(undelivered(error)),
    }
}

/// The answer with a result and bytes.
#[inline]
pub fn answer_with<'a, T: Argument, B: Bytes<'a>, E: ErrorCode>(
    token: ReplyToken,
    result: Result<(T, B), E>,
) -> Option<Answer<'a>> {
    const { assert!(!T::HAS_VALUES, "a reply has values or bytes") };
    match result {
        Ok((result, bytes)) => {
            let Answer { token, message, .. } = answer(token, Ok::<T, E>(result), &mut [])?;
            let message = if B::MOVES {
                message.moving_pages()
            } else {
                message
            };
            token.answer_with(message, bytes.bytes())
        }
        Err(error) => refuse(token, &error),
    }
}

/// The answer with pages that leave the server. The buffer stays in its place until the next result takes that.
#[inline]
pub fn answer_pages<E: ErrorCode>(
    token: ReplyToken,
    result: Result<PageBuffer, E>,
    place: &mut Option<PageBuffer>,
) -> Option<Answer<'_>> {
    match result {
        Ok(pages) => {
            let pages = place.insert(pages);
            token.answer_with(Message::new(NONE).moving_pages(), pages)
        }
        Err(error) => refuse(token, &error),
    }
}

/// The answer to a request that the server has no memory for, or no room.
#[cold]
pub fn failed<'a>(token: ReplyToken, error: abi::Error) -> Option<Answer<'a>> {
    token.answer(undelivered(error))
}

/// The same message, whose handles move if it has some.
#[inline]
pub(super) fn moving<T: Argument>(message: Message) -> Message {
    if T::NR_HANDLES > 0 {
        message.moving_handles()
    } else {
        message
    }
}

fn refuse<'a, E: ErrorCode>(token: ReplyToken, error: &E) -> Option<Answer<'a>> {
    token.answer(Message::new(error.to_label()))
}
