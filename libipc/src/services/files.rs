//! The file server: the boot archive, read-only.
//!
//! | request | words | bytes | reply |
//! | --- | --- | --- | --- |
//! | `OPEN` | | the path | `w0`: number of the file; `w1`: its size in bytes |
//! | `READ` | `w0`: number; `w1`: offset; `w2`: most bytes wanted | | the bytes |
//! | `LIST` | `w0`: how many entries to skip | a directory | names, each ended by a zero byte; `w0`: how many |
//!
//! Files never change, so opening is only looking up: there is nothing to close. File contents
//! start on a page, so reading whole pages into a page-aligned buffer moves no bytes.

use super::{Error, request};
use crate::message::Message;
use crate::object::Endpoint;

/// Looks a file up.
pub const OPEN: u32 = 1;
/// Reads from a file.
pub const READ: u32 = 2;
/// Lists a directory.
pub const LIST: u32 = 3;

/// The longest path in bytes.
pub const MAX_PATH: usize = 100;

/// A file that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its number at the server.
    pub number: u64,
    /// Its size in bytes.
    pub size: usize,
}

/// Looks a file up.
///
/// # Errors
/// `NotFound`, `BadRequest` for a path that is too long or not UTF-8.
pub fn open(files: &Endpoint, path: &str) -> Result<File, Error> {
    let sent = request(files, Message::new(OPEN), path.as_bytes(), &mut [])?;
    let [number, size, ..] = sent.reply.words;
    Ok(File {
        number,
        size: size as usize,
    })
}

/// Reads up to `buffer.len()` bytes from `offset` on; returns how many there were.
///
/// # Errors
/// `NotFound` for a number that no file has.
pub fn read(
    files: &Endpoint,
    file: File,
    offset: usize,
    buffer: &mut [u8],
) -> Result<usize, Error> {
    let words = [file.number, offset as u64, buffer.len() as u64];
    let sent = request(files, Message::new(READ).with_words(words), &[], buffer)?;
    Ok(sent.reply_len.min(buffer.len()))
}

/// Fills `buffer` with names in a directory after the first `skip`, each ended by a zero byte;
/// returns how many names and bytes there are. No names: the end.
///
/// # Errors
/// `BadRequest` for a path that is too long or not UTF-8.
pub fn list(
    files: &Endpoint,
    directory: &str,
    skip: usize,
    buffer: &mut [u8],
) -> Result<(usize, usize), Error> {
    let message = Message::new(LIST).with_words([skip as u64, buffer.len() as u64]);
    let sent = request(files, message, directory.as_bytes(), buffer)?;
    Ok((
        sent.reply.words[0] as usize,
        sent.reply_len.min(buffer.len()),
    ))
}
