//! What programs that work on files have in common.

use alloc::format;
use alloc::string::String;

use libipc::fs::{self, Kind, Read, Write};
use libipc::services::procd::Reason;
use libipc::services::{Error, Refusal};
use libipc::{PageBuffer, eprintln, process, start};

/// Bytes that are read at a time where there may be many.
pub const CHUNK: usize = 64 * 1024;

/// The program's name.
#[must_use]
pub fn name() -> &'static str {
    fs::file_name(start::args().next().unwrap_or("?"))
}

/// Says what went wrong.
pub fn complain(what: &str, error: Error) {
    eprintln!("{}: {what}: {error}", name());
}

/// Says how the program is used; returns the exit status for that.
#[must_use]
pub fn usage(arguments: &str) -> i32 {
    eprintln!("usage: {} {arguments}", name());
    2
}

/// Does something with each of these paths, says with which it went wrong, and returns the exit status.
pub fn for_each<'a>(
    paths: impl IntoIterator<Item = &'a str>,
    mut action: impl FnMut(&str) -> Result<(), Error>,
) -> i32 {
    let mut status = 0;
    for path in paths {
        if let Err(error) = action(path) {
            complain(path, error);
            status = 1;
        }
    }
    status
}

/// The path that `from` gets at `to`: in it, if that is a directory.
#[must_use]
pub fn destination(from: &str, to: &str) -> String {
    let from = from.trim_end_matches('/');
    let name = fs::file_name(from);
    match fs::metadata(to) {
        Ok(there) if there.kind == Kind::Directory => format!("{to}/{name}"),
        _ => String::from(to),
    }
}

/// Goes through all bytes that there are to be read.
///
/// # Errors
/// Those of reading, and of `action`.
pub fn for_each_chunk(
    from: &mut impl Read<Error = Error>,
    mut action: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = PageBuffer::new(CHUNK)?;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            len => action(&buffer[..len])?,
        }
    }
}

/// Writes to the standard output. A program that nobody reads from any more ends.
///
/// # Errors
/// Those of writing.
pub fn put(bytes: &[u8]) -> Result<(), Error> {
    match libipc::io::stdout().write_all(bytes) {
        Err(Error::Refused(Refusal::ReaderGone)) => process::exit(Reason::ReaderGone.status()),
        outcome => outcome,
    }
}
