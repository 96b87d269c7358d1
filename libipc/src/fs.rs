//! Files, directories and pipes: [`services::files`](crate::services::files) as types that close what they have open.
//!
//! Paths begin at the root, with or without a `/`. Reading and writing are those of [`embedded_io`].
//!
//! ```ignore
//! let mut file = File::create("/notes")?;
//! file.write_all(b"a line\n")?;
//! file.seek(SeekFrom::Start(0))?;
//! ```

use embedded_io::{ErrorKind, ErrorType};
pub use embedded_io::{Read, Seek, SeekFrom, Write};

use crate::object::Borrowed;
pub use crate::services::files::{Entry, Kind, Metadata, Options};
use crate::services::files::{FilesClient, MAX_FILE, MAX_PATH, MAX_WRITE, Opened, Whence};
use crate::services::procd::Streams;
use crate::services::{Error, Refusal};
use crate::start;

/// The last part of a path.
#[must_use]
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn server() -> Borrowed<'static, FilesClient> {
    FilesClient::borrow(start::files())
}

/// An open file, or an end of a pipe; closed when it is dropped.
///
/// It belongs to the process that has opened it: in a forked child it names nothing.
#[derive(Debug)]
pub struct File {
    id: u32,
    /// The process that it belongs to.
    owner: u64,
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `IsDirectory`; `BadRequest` for a path that is none; `Full`, `NoMemory`.
    pub fn open(path: &str) -> Result<Self, Error> {
        Self::open_with(path, Options::READ)
    }

    /// Opens a file for reading and writing: an empty one, whatever was there.
    ///
    /// # Errors
    /// As for [`open`](Self::open); `ReadOnly`, `NoSpace`.
    pub fn create(path: &str) -> Result<Self, Error> {
        let options = Options::READ | Options::WRITE | Options::CREATE | Options::TRUNCATE;
        Self::open_with(path, options)
    }

    /// Opens a file so that all that is written goes to its end; makes one if there is none.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn append(path: &str) -> Result<Self, Error> {
        Self::open_with(path, Options::WRITE | Options::APPEND | Options::CREATE)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As for [`create`](Self::create); `Taken`.
    pub fn open_with(path: &str, options: Options) -> Result<Self, Error> {
        let Opened { id, .. } = server().open(options, path)?;
        Ok(Self::from_id(id))
    }

    fn from_id(id: u32) -> Self {
        File {
            id,
            owner: start::pid(),
        }
    }

    /// Its number at the file server: what makes it a standard stream of a [spawned](crate::process::spawn_between) process. 0,
    /// for nothing, in a process that it does not belong to.
    #[must_use]
    pub fn id(&self) -> u32 {
        if self.owner == start::pid() {
            self.id
        } else {
            0
        }
    }

    /// Reads from a place in the file; returns how many bytes there were, which are fewer than asked for only at the end. The place where
    /// the next `read` begins stays.
    ///
    /// Whole pages are shared copy-on-write where file and buffer begin at one: the bytes are those of this moment, whatever is written
    /// later on either side.
    ///
    /// # Errors
    /// `Denied` if it is not open for reading, or a pipe; `NoMemory`.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut len = 0;
        // One message, if it is not more than a message carries.
        for part in buffer.chunks_mut(MAX_FILE as usize) {
            let read = server().read_at(self.id(), offset + len as u64, part.len(), part)?;
            len += read;
            if read < part.len() {
                break;
            }
        }
        Ok(len)
    }

    /// Writes all of these bytes at a place in the file. The place where the next `write` begins stays.
    ///
    /// # Errors
    /// `Denied` if it is not open for writing, or a pipe; `NoSpace`, `NoMemory`: some of the bytes may have been written, in pieces of
    /// [`MAX_WRITE`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        for (part, offset) in bytes.chunks(MAX_WRITE).zip((offset..).step_by(MAX_WRITE)) {
            server().write_at(self.id(), offset, part)?;
        }
        Ok(())
    }

    /// Cuts it off, or makes it longer by zeros.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    pub fn set_len(&self, len: u64) -> Result<(), Error> {
        server().set_len(self.id(), len)
    }

    /// What it is, and its size.
    ///
    /// # Errors
    /// Only when the message does not get through.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        server().stat(self.id())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.id() != 0 {
            let _ = server().close(self.id());
        }
    }
}

impl embedded_io::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused(Refusal::NotFound) => ErrorKind::NotFound,
            Error::Refused(Refusal::Denied | Refusal::ReadOnly) => ErrorKind::PermissionDenied,
            Error::Refused(Refusal::ReaderGone) => ErrorKind::BrokenPipe,
            Error::Refused(Refusal::Taken) => ErrorKind::AlreadyExists,
            Error::Refused(Refusal::BadRequest) => ErrorKind::InvalidInput,
            Error::Refused(Refusal::NoMemory | Refusal::NoSpace) => ErrorKind::OutOfMemory,
            _ => ErrorKind::Other,
        }
    }
}

impl ErrorType for File {
    type Error = Error;
}

impl Read for File {
    /// Waits for a pipe that is empty. 0 is the end of the file, or of a pipe that nobody writes to any more.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        read(self.id(), buffer)
    }
}

impl Write for File {
    /// Waits for a pipe that is full.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        write(self.id(), bytes)
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Error> {
        let (from, by) = match to {
            SeekFrom::Start(place) => {
                let place = i64::try_from(place).map_err(|_| Refusal::BadRequest)?;
                (Whence::Start, place)
            }
            SeekFrom::Current(by) => (Whence::Current, by),
            SeekFrom::End(by) => (Whence::End, by),
        };
        server().seek(self.id(), from, by)
    }
}

/// Reads from what is open under a number.
pub(crate) fn read(id: u32, buffer: &mut [u8]) -> Result<usize, Error> {
    let most = buffer.len().min(MAX_FILE as usize);
    let buffer = &mut buffer[..most];
    server().read(id, buffer.len(), buffer)
}

/// Writes to what is open under a number.
pub(crate) fn write(id: u32, bytes: &[u8]) -> Result<usize, Error> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let bytes = &bytes[..bytes.len().min(MAX_WRITE)];
    loop {
        match server().write(id, bytes)? {
            // The pipe was full, and there is room.
            0 => {}
            len => return Ok(len),
        }
    }
}

/// Writes all of these bytes to what is open under a number.
pub(crate) fn write_all(id: u32, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        bytes = &bytes[write(id, bytes)?..];
    }
    Ok(())
}

/// A pipe: what is written to the second end is read from the first. When all ends of one kind are closed, those at the
/// other are told.
///
/// # Errors
/// `Full`, `NoSpace`, `NoMemory`.
pub fn pipe() -> Result<(File, File), Error> {
    let (reader, writer) = server().pipe()?;
    Ok((File::from_id(reader), File::from_id(writer)))
}

/// Standard streams for a process that is [spawned](crate::process::spawn_between); `None` for those of this process.
#[must_use]
pub fn streams(stdin: Option<&File>, stdout: Option<&File>) -> Streams {
    Streams {
        stdin: stdin.map_or_else(start::stdin, File::id),
        stdout: stdout.map_or_else(start::stdout, File::id),
    }
}

/// What is at a path.
///
/// # Errors
/// `NotFound`, `NotDirectory`, `BadRequest` for a path that is none.
pub fn metadata(path: &str) -> Result<Metadata, Error> {
    server().metadata(path)
}

/// Makes an empty directory.
///
/// # Errors
/// `Taken`, `NotFound`, `NotDirectory`, `ReadOnly`, `BadRequest`, `NoSpace`, `NoMemory`.
pub fn create_dir(path: &str) -> Result<(), Error> {
    server().create_dir(path)
}

/// Removes a file, or an empty directory.
///
/// # Errors
/// `NotFound`, `NotDirectory`, `NotEmpty`, `ReadOnly`, `BadRequest`.
pub fn remove(path: &str) -> Result<(), Error> {
    server().remove(path)
}

/// Gives what has one path another one. A file that was there is removed.
///
/// # Errors
/// `NotFound`, `NotDirectory`, `ReadOnly`, `Taken`, `IsDirectory`, `BadRequest`, `NoMemory`.
pub fn rename(from: &str, to: &str) -> Result<(), Error> {
    let mut paths = [0; 2 * MAX_PATH + 1];
    let len = from.len() + 1 + to.len();
    let room = paths.get_mut(..len).ok_or(Refusal::BadRequest)?;
    room[..from.len()].copy_from_slice(from.as_bytes());
    room[from.len() + 1..].copy_from_slice(to.as_bytes());
    let paths = core::str::from_utf8(room).map_err(|_| Refusal::BadRequest)?;
    server().rename(paths)
}

/// Goes through a directory, in the order of names.
///
/// What is added or removed meanwhile may lead to an entry that comes twice, or not at all.
///
/// # Errors
/// What `visit` returns; `NotFound`, `NotDirectory`, `BadRequest`.
pub fn read_dir<E: From<Error>>(
    path: &str,
    mut visit: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut room = [0; 4 * Entry::MAX_LEN];
    let mut skip = 0;
    loop {
        let (count, len) = server().list(path, skip, room.len(), &mut room)?;
        let mut rest = &room[..len];
        while let Some((entry, next)) = Entry::split(rest) {
            visit(entry)?;
            rest = next;
        }
        if count == 0 {
            return Ok(());
        }
        skip += count;
    }
}
