//! The file server: the boot archive, a memory file system, and pipes.
//!
//! | request | about |
//! | --- | --- |
//! | `open` `pipe` `close` | numbers of open files, which are the caller's alone |
//! | `read` `write` `seek` | the place where the last one ended, which belongs to what is open |
//! | `read_at` `write_at` `set_len` | files at any place |
//! | `metadata` `list` `create_dir` `remove` `rename` | paths |
//! | `hand_down` `forget` | what the process server tells of processes |
//!
//! An open file has a number of the process that has opened it: the badge says whose. Programs use
//! [`fs`](crate::fs), which closes what is dropped.

use bitflags::bitflags;

use super::Refusal;
use crate::Argument;
use crate::server::Answer;
use crate::service::{Caller, Contents, Parcel, Reply, WithBytes};

/// The longest path in bytes.
pub const MAX_PATH: usize = 255;

/// The most bytes of one `write`: what one page table covers, so that a whole one may go over.
pub const MAX_WRITE: usize = 2 << 20;

/// The largest file in bytes: what one message carries.
pub const MAX_FILE: u64 = 1 << 30;

/// The number of a process's standard input, where it was given one.
pub const STDIN: u32 = 1;

/// The number of a process's standard output, where it was given one.
pub const STDOUT: u32 = 2;

/// The file server. The caller is the process that asks, or 0 for the process server.
#[crate::service(version = 2, max_bytes = MAX_WRITE)]
pub trait Files {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory` for what stands before the name, `IsDirectory`, `ReadOnly`; `Taken` for `EXCLUSIVE`;
    /// `BadRequest` for a path that is none; `Full`, `NoSpace`, `NoMemory`.
    fn open(&mut self, caller: Caller, options: Options, path: &str) -> Result<Opened, Refusal>;

    /// Makes a pipe, open at both ends: the numbers of that to read from and of that to write to.
    ///
    /// # Errors
    /// `Full`, `NoSpace`, `NoMemory`.
    fn pipe(&mut self, caller: Caller) -> Result<(u32, u32), Refusal>;

    /// Closes what is open under a number.
    ///
    /// # Errors
    /// `NotOpen`.
    fn close(&mut self, caller: Caller, id: u32) -> Result<(), Refusal>;

    /// The next bytes, up to `count`: none at the end. An empty pipe is waited for, as long as anybody may write to it.
    ///
    /// # Errors
    /// `NotOpen`; `Denied` if it is not open for reading; `Full` when too many wait.
    fn read(
        &mut self,
        caller: Caller,
        id: u32,
        count: usize,
        reply: Reply<(), Refusal, WithBytes>,
    ) -> Option<Answer<'_>>;

    /// Up to `count` bytes of a file, from `offset` on.
    ///
    /// # Errors
    /// `NotOpen`; `Denied` if it is not open for reading, or a pipe.
    fn read_at(&self, caller: Caller, id: u32, offset: u64, count: usize)
    -> Result<&[u8], Refusal>;

    /// Writes the next bytes: how many of them. A full pipe is waited for: 0 says that there is room again.
    ///
    /// # Errors
    /// `NotOpen`; `Denied` if it is not open for writing; `NoSpace`, `NoMemory`; `ReaderGone`; `Full` when too many wait.
    fn write(
        &mut self,
        caller: Caller,
        id: u32,
        bytes: &[u8],
        reply: Reply<usize, Refusal>,
    ) -> Option<Answer<'_>>;

    /// Writes all of these bytes to a file, at `offset`. What lies between its end and there reads as zeros.
    ///
    /// # Errors
    /// As for `write`; `Denied` for a pipe as well.
    fn write_at(
        &mut self,
        caller: Caller,
        id: u32,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Refusal>;

    /// Chooses where the next `read` or `write` begins; returns that place.
    ///
    /// # Errors
    /// `NotOpen`; `Denied` for a pipe; `BadRequest` for a place before the beginning.
    fn seek(&mut self, caller: Caller, id: u32, from: Whence, by: i64) -> Result<u64, Refusal>;

    /// Cuts a file off, or makes it longer by zeros.
    ///
    /// # Errors
    /// As for `write_at`.
    fn set_len(&mut self, caller: Caller, id: u32, len: u64) -> Result<(), Refusal>;

    /// What is open under a number; a pipe has as many bytes as wait in it.
    ///
    /// # Errors
    /// `NotOpen`.
    fn stat(&self, caller: Caller, id: u32) -> Result<Metadata, Refusal>;

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `BadRequest`.
    fn metadata(&self, path: &str) -> Result<Metadata, Refusal>;

    /// What is in a directory, in the order of names, after the first `skip`, as much as has `room`: how many [`Entry`]s,
    /// and their bytes. None: the end.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `BadRequest`.
    fn list(
        &mut self,
        directory: &str,
        skip: usize,
        room: usize,
    ) -> Result<(usize, &[u8]), Refusal>;

    /// Makes an empty directory.
    ///
    /// # Errors
    /// `Taken`, `NotFound`, `NotDirectory`, `ReadOnly`, `BadRequest`, `NoSpace`, `NoMemory`.
    fn create_dir(&mut self, caller: Caller, path: &str) -> Result<(), Refusal>;

    /// Removes a file, or an empty directory. Who has the file open keeps it until the last of them closes it.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `ReadOnly`, `BadRequest`.
    fn remove(&mut self, path: &str) -> Result<(), Refusal>;

    /// Gives what has the first of two paths the other one; a zero byte stands between the two. A file that was there is
    /// removed, in the same moment.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `ReadOnly`; `Taken` by a directory; `IsDirectory` for a directory to the place of a
    /// file; `BadRequest` for a directory to a place in itself; `NoMemory`.
    fn rename(&mut self, paths: &str) -> Result<(), Refusal>;

    /// Opens what the parent has open under these numbers (0 for nothing) for the child, as [`STDIN`] and [`STDOUT`]; the child
    /// has nothing else open then. They may be the same process.
    ///
    /// # Errors
    /// `Denied` for all but the process server; `NotOpen`, `Full`, `NoMemory`.
    fn hand_down(
        &mut self,
        caller: Caller,
        parent: u64,
        child: u64,
        stdin: u32,
        stdout: u32,
    ) -> Result<(), Refusal>;

    /// Closes what a process that has ended had open.
    ///
    /// # Errors
    /// `Denied` for all but the process server.
    fn forget(&mut self, caller: Caller, process: u64) -> Result<(), Refusal>;
}

bitflags! {
    /// How a file is opened.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Options: u32 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 2;
        /// Every `write` goes to the end.
        const APPEND = 4;
        /// Makes an empty file if there is none.
        const CREATE = 8;
        /// There must be none.
        const EXCLUSIVE = 16;
        /// Begins with an empty file.
        const TRUNCATE = 32;
    }
}

/// A word.
impl Argument for Options {
    const NR_WORDS: usize = 1;

    fn put(&self, parcel: &mut Parcel<'_>) {
        self.bits().put(parcel);
    }

    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        Self::from_bits(u32::take(contents)?)
    }
}

/// A file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
pub struct Opened {
    /// Its number.
    pub id: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Whether nobody can ever change it.
    pub is_constant: bool,
}

/// What something in the file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
#[repr(u64)]
pub enum Kind {
    /// Bytes.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A pipe, which has no path.
    Pipe = 2,
}

/// What there is to know of a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes; of a directory, how many entries it has.
    pub size: u64,
    /// Whether nobody can ever change it.
    pub is_constant: bool,
}

/// What `seek` counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
#[repr(u64)]
pub enum Whence {
    /// The beginning.
    Start = 0,
    /// The place where the last `read` or `write` ended.
    Current = 1,
    /// The end.
    End = 2,
}

/// Bytes before the name of an [`Entry`].
const HEAD: usize = 10;

/// A line of a directory, as it travels: the kind in a byte, the size in eight, the name's length in one, the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes; of a directory, how many entries it has.
    pub size: u64,
    /// Its name, of at most [`MAX_PATH`] bytes.
    pub name: &'a str,
}

impl<'a> Entry<'a> {
    /// The most bytes on the way.
    pub const MAX_LEN: usize = HEAD + MAX_PATH;

    /// Puts it at the beginning of `room`; returns how many bytes it takes, or `None` if that is not enough.
    pub fn put(&self, room: &mut [u8]) -> Option<usize> {
        let name = self.name.as_bytes();
        let len = HEAD + name.len();
        let room = room.get_mut(..len)?;
        room[0] = self.kind as u8;
        room[1..9].copy_from_slice(&self.size.to_le_bytes());
        room[9] = u8::try_from(name.len()).ok()?;
        room[10..].copy_from_slice(name);
        Some(len)
    }

    /// The first of several, and the bytes behind it.
    #[must_use]
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<{ HEAD }>()?;
        let [kind, size @ .., name_len] = *head;
        let (name, rest) = rest.split_at_checked(name_len.into())?;
        let kind = match kind {
            0 => Kind::File,
            1 => Kind::Directory,
            _ => return None,
        };
        let entry = Entry {
            kind,
            size: u64::from_le_bytes(size),
            name: core::str::from_utf8(name).ok()?,
        };
        Some((entry, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_way() {
        let entries = [
            Entry {
                kind: Kind::File,
                size: u64::MAX,
                name: "a",
            },
            Entry {
                kind: Kind::Directory,
                size: 3,
                name: "wörld",
            },
        ];
        let mut room = [0; 40];
        let first = entries[0].put(&mut room).unwrap();
        let second = entries[1].put(&mut room[first..]).unwrap();
        let (entry, rest) = Entry::split(&room[..first + second]).unwrap();
        assert_eq!(entry, entries[0]);
        assert_eq!(Entry::split(rest), Some((entries[1], &[][..])));
        assert_eq!(entries[1].put(&mut [0; 15]), None);
    }

    #[test]
    fn what_is_no_entry_is_none() {
        assert_eq!(Entry::split(&[]), None);
        assert_eq!(Entry::split(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 2, b'x']), None);
        assert_eq!(Entry::split(&[7, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Entry::split(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]), None);
    }
}
