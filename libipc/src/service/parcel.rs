//! What goes into a message, and what is taken out of one, piece by piece in the same order.

use abi::{Handle, MAX_HANDLES, Tag, WORDS};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Message;
use crate::object::close_raw;

/// A message that is being filled.
///
/// How much fits is checked when the service is compiled; only how long values are is seen here.
#[derive(Debug)]
pub struct Parcel<'b> {
    words: [u64; WORDS],
    nr_words: usize,
    handles: [Handle; MAX_HANDLES],
    nr_handles: usize,
    room: &'b mut [u8],
    nr_bytes: usize,
    is_too_long: bool,
}

impl<'b> Parcel<'b> {
    /// An empty one, with room for values.
    #[inline]
    pub fn new(room: &'b mut [u8]) -> Self {
        Parcel {
            words: [0; WORDS],
            nr_words: 0,
            handles: [Handle::NONE; MAX_HANDLES],
            nr_handles: 0,
            room,
            nr_bytes: 0,
            is_too_long: false,
        }
    }

    /// Adds a word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        self.words[self.nr_words] = word;
        self.nr_words += 1;
    }

    /// Adds a handle.
    #[inline]
    pub fn handle(&mut self, handle: Handle) {
        self.handles[self.nr_handles] = handle;
        self.nr_handles += 1;
    }

    /// Adds a value.
    pub fn value<T: Serialize>(&mut self, value: &T) {
        match postcard::to_slice(value, &mut self.room[self.nr_bytes..]) {
            Ok(bytes) => self.nr_bytes += bytes.len(),
            Err(_) => self.is_too_long = true,
        }
    }

    /// The message, and the bytes of the values.
    ///
    /// # Errors
    /// `TooLong` when the values had no room.
    #[inline]
    pub fn close(self, label: u32) -> Result<(Message, &'b [u8]), abi::Error> {
        if self.is_too_long {
            return Err(abi::Error::TooLong);
        }
        let mut message = Message::new(label).with_words(self.words);
        if self.nr_handles > 0 {
            message = message.with_handles(&self.handles[..self.nr_handles]);
        }
        Ok((message, &self.room[..self.nr_bytes]))
    }
}

/// What came with a message.
#[derive(Debug)]
pub struct Contents<'a> {
    message: Message,
    nr_words: usize,
    nr_handles: usize,
    data: &'a [u8],
}

impl<'a> Contents<'a> {
    /// Those of a message with these bytes.
    #[inline]
    #[must_use]
    pub const fn new(message: Message, data: &'a [u8]) -> Self {
        Contents {
            message,
            nr_words: 0,
            nr_handles: 0,
            data,
        }
    }

    /// Takes the next word.
    #[inline]
    pub fn word(&mut self) -> u64 {
        let word = self.message.words[self.nr_words];
        self.nr_words += 1;
        word
    }

    /// Takes the next handle: who calls has to close it. [`Handle::NONE`] when no other came.
    #[inline]
    pub fn handle(&mut self) -> Handle {
        let handle = self.message.handles()[self.nr_handles];
        self.nr_handles += 1;
        handle
    }

    /// Takes the next value.
    pub fn value<T: DeserializeOwned>(&mut self) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(self.data).ok()?;
        self.data = rest;
        Some(value)
    }

    /// Takes all bytes.
    #[inline]
    pub const fn bytes(&mut self) -> &'a [u8] {
        let bytes = self.data;
        self.data = &[];
        bytes
    }

    /// Whether no byte is left.
    #[inline]
    #[must_use]
    pub const fn has_no_bytes(&self) -> bool {
        self.data.is_empty()
    }

    /// Closes the handles that nobody has taken.
    #[inline]
    pub fn discard(self) {
        let [_, _, first, second] = self.message.words;
        close_all(self.message.tag, first, second, self.nr_handles);
    }
}

/// Closes the handles of a message but the first few. The message comes in pieces, so that no call has to have it in memory
/// for this.
#[cold]
fn close_all(tag: Tag, first: u64, second: u64, nr_taken: usize) {
    let words = [0, 0, first, second];
    let handles = Message { tag, words }.handles();
    handles.into_iter().skip(nr_taken).for_each(close_raw);
}
