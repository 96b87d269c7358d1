//! The console server: text out, lines in.

use super::{Error, Refusal};
use crate::server::Answer;
use crate::service::{Argument, Contents, Parcel, Reply, WithBytes};

/// The longest text of one request, in bytes. Less than a page, so that no client's page ends up at the server.
pub const MAX_TEXT: usize = 2048;

/// The longest text that travels in words, in bytes.
pub const SHORT: usize = 24;

/// The longest line in bytes, its line end included.
pub const MAX_LINE: usize = 512;

/// The console server.
#[crate::service(version = 1, max_bytes = MAX_TEXT)]
pub trait Console {
    /// Writes any bytes. Answers when they are queued, with how many they are.
    fn write(&mut self, text: &[u8], reply: Reply<usize, Refusal>) -> Option<Answer<'_>>;

    /// Writes a few.
    fn write_short(&mut self, text: Short, reply: Reply<usize, Refusal>) -> Option<Answer<'_>>;

    /// Reads a line, its line end included. Answers when there is one; with `true` at the end of the input.
    ///
    /// # Errors
    /// `Full` when too many readers wait.
    fn read_line(&mut self, reply: Reply<bool, Refusal, WithBytes>) -> Option<Answer<'_>>;

    /// Answers when all text that was written before has left the machine.
    ///
    /// # Errors
    /// `Full` when too many wait.
    fn flush(&mut self, reply: Reply<(), Refusal>) -> Option<Answer<'_>>;
}

/// A text of up to [`SHORT`] bytes: its length in the first word, and it in the other three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    bytes: [u8; SHORT],
    len: usize,
}

impl Short {
    /// A short text; `None` if it is too long.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; SHORT];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let len = text.len();
        Some(Short { bytes, len })
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Argument for Short {
    const NR_WORDS: usize = 4;

    fn put(&self, parcel: &mut Parcel<'_>) {
        self.len.put(parcel);
        for bytes in self.bytes.as_chunks().0 {
            u64::from_le_bytes(*bytes).put(parcel);
        }
    }

    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        let len = usize::take(contents).filter(|&len| len <= SHORT)?;
        let mut bytes = [0; SHORT];
        for bytes in bytes.as_chunks_mut().0 {
            *bytes = u64::take(contents)?.to_le_bytes();
        }
        Some(Short { bytes, len })
    }
}

impl ConsoleClient {
    /// Writes all of a text, of any length.
    ///
    /// # Errors
    /// When a message does not get through.
    pub fn write_all(&self, text: &[u8]) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        if let Some(short) = Short::new(text) {
            return self.write_short(short).map(|_| ());
        }
        text.chunks(MAX_TEXT)
            .try_for_each(|chunk| self.write(chunk).map(|_| ()))
    }

    /// Reads a line into `buffer`, as far as it fits. `None` is the end of the input.
    ///
    /// # Errors
    /// `Full` when too many readers wait.
    pub fn read_line_into(&self, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        let (is_end, len) = self.read_line(buffer)?;
        Ok((!is_end).then_some(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_survive_the_words() {
        for len in 0..=SHORT {
            let text: Vec<u8> = (1..=len as u8).collect();
            let short = Short::new(&text).unwrap();
            let mut parcel = Parcel::new(&mut []);
            short.put(&mut parcel);
            let (message, _) = parcel.close(1).unwrap();
            let back = Short::take(&mut Contents::new(message, &[])).unwrap();
            assert_eq!(back.as_bytes(), &text[..]);
        }
        assert_eq!(Short::new(&[0; 25]), None);
        for len in [25, u64::MAX] {
            let message = crate::Message::new(1).with_words([len]);
            assert_eq!(Short::take(&mut Contents::new(message, &[])), None);
        }
    }
}
