//! The file server: the boot archive, read-only.
//!
//! Files never change, so opening is only looking up: there is nothing to close. File contents
//! start on a page, so reading whole pages into a page-aligned buffer moves no bytes.

use super::{Error, Refusal};
use crate::Argument;

/// The longest path in bytes.
pub const MAX_PATH: usize = 100;

/// The file server.
#[crate::service(version = 1, max_bytes = MAX_PATH)]
pub trait Files {
    /// Looks a file up.
    ///
    /// # Errors
    /// `NotFound`; `BadRequest` for a path that is none.
    fn open(&self, path: &str) -> Result<File, Refusal>;

    /// Up to `count` bytes of a file, from `offset` on.
    ///
    /// # Errors
    /// `NotFound` for a number that no file has.
    fn read(&self, number: u64, offset: usize, count: usize) -> Result<&[u8], Refusal>;

    /// Names in a directory after the first `skip`, each ended by a zero byte, as many as have `room`: how many, and the
    /// names. No names: the end.
    ///
    /// # Errors
    /// `BadRequest` for a path that is none.
    fn list(
        &mut self,
        directory: &str,
        skip: usize,
        room: usize,
    ) -> Result<(usize, &[u8]), Refusal>;
}

/// A file that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
pub struct File {
    /// Its number at the server.
    pub number: u64,
    /// Its size in bytes.
    pub size: usize,
}

impl FilesClient {
    /// Reads up to `buffer.len()` bytes from `offset` on; returns how many there were.
    ///
    /// # Errors
    /// `NotFound` for a number that no file has.
    pub fn read_at(&self, file: File, offset: usize, buffer: &mut [u8]) -> Result<usize, Error> {
        self.read(file.number, offset, buffer.len(), buffer)
    }

    /// Fills `buffer` with names in a directory after the first `skip`; returns how many names and bytes there are.
    ///
    /// # Errors
    /// `BadRequest` for a path that is none.
    pub fn list_into(
        &self,
        directory: &str,
        skip: usize,
        buffer: &mut [u8],
    ) -> Result<(usize, usize), Error> {
        self.list(directory, skip, buffer.len(), buffer)
    }
}
