//! The console server: text out, lines in.
//!
//! | request | words | bytes | reply |
//! | --- | --- | --- | --- |
//! | `WRITE` | | the text, any bytes | when it is queued: `w0`, how many bytes of it |
//! | `WRITE_SHORT` | `w0`: length, at most 24; `w1..w3`: the text | | likewise |
//! | `READ_LINE` | | | when a line is there: its bytes, the line end included; `w0`: 1 at the end of the input |
//! | `FLUSH` | | | when all text that was written before has left the machine |

use super::{Error, request};
use crate::message::Message;
use crate::object::Endpoint;

/// Writes bytes.
pub const WRITE: u32 = 1;
/// Writes up to [`SHORT`] bytes that travel in the words.
pub const WRITE_SHORT: u32 = 2;
/// Reads a line.
pub const READ_LINE: u32 = 3;

/// Waits until all text has left the machine.
pub const FLUSH: u32 = 4;

/// The longest text of `WRITE_SHORT`, in bytes.
pub const SHORT: usize = 24;

/// The longest line in bytes, its line end included.
pub const MAX_LINE: usize = 512;

/// Writes all of `text`.
///
/// # Errors
/// When the message does not get through.
pub fn write(console: &Endpoint, mut text: &[u8]) -> Result<(), Error> {
    while !text.is_empty() {
        let sent = if text.len() <= SHORT {
            request(console, short(text), &[], &mut [])?
        } else {
            request(console, Message::new(WRITE), text, &mut [])?
        };
        let written = sent.reply.words[0] as usize;
        if written == 0 {
            return Err(super::Refusal::Broken.into());
        }
        text = &text[written.min(text.len())..];
    }
    Ok(())
}

/// Reads a line into `buffer`, as far as it fits. `None` is the end of the input.
///
/// # Errors
/// `Full` when too many readers wait.
pub fn read_line(console: &Endpoint, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
    let sent = request(console, Message::new(READ_LINE), &[], buffer)?;
    let len = sent.reply_len.min(buffer.len());
    Ok((sent.reply.words[0] == 0).then_some(len))
}

/// Waits until all text has left the machine.
///
/// # Errors
/// When the message does not get through.
pub fn flush(console: &Endpoint) -> Result<(), Error> {
    request(console, Message::new(FLUSH), &[], &mut []).map(|_| ())
}

/// A message with the text in its words.
fn short(text: &[u8]) -> Message {
    let mut words = [text.len() as u64, 0, 0, 0];
    for (i, &byte) in text.iter().enumerate() {
        words[1 + i / 8] |= u64::from(byte) << (8 * (i % 8));
    }
    Message::new(WRITE_SHORT).with_words(words)
}

/// The text in the words of a `WRITE_SHORT`; `None` when its length is impossible.
#[must_use]
pub fn short_text(words: [u64; 4]) -> Option<([u8; SHORT], usize)> {
    let len = usize::try_from(words[0]).ok().filter(|&len| len <= SHORT)?;
    let mut text = [0; SHORT];
    for (bytes, word) in text.chunks_mut(8).zip(&words[1..]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Some((text, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_survive_the_words() {
        for len in 0..=SHORT {
            let text: Vec<u8> = (1..=len as u8).collect();
            let (bytes, n) = short_text(short(&text).words).unwrap();
            assert_eq!(&bytes[..n], &text[..]);
        }
        assert_eq!(short_text([25, 0, 0, 0]), None);
        assert_eq!(short_text([u64::MAX, 0, 0, 0]), None);
    }
}
