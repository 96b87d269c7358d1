//! The process server: spawn, fork, exec, exit, wait, kill, and who is whose relative.
//!
//! The badge of a process's handle is its number (pid), so the server knows who asks.
//!
//! | request | words | bytes | reply |
//! | --- | --- | --- | --- |
//! | `SPAWN` | `w0`: a [`Commit`], the class of its space | argument block | `w0`: pid |
//! | `FORK` | `w0`, `w1`: instruction and stack pointer of the child; `w2`: its `fs` base | | `w0`: pid |
//! | `EXEC` | | argument block | none: the program is another one |
//! | `EXIT` | `w0`: status | | none |
//! | `WAIT` | `w0`: pid, 0 for any child; `w1`: 1 not to block | | `w0`: pid, 0 if not to block and none ended; `w1`: status |
//! | `KILL` | `w0`: pid | | |
//! | `PARENT` | | | `w0`: pid of the parent |
//! | `ENDPOINT` | `w0`: pid of a parent, child or sibling | | `w0`: handle, in the sender's table, with `SEND` |
//! | `LIST` | `w0`: pids above this one | | [`Entry`] after `Entry`, in the order of the pids; `w0`: how many |
//! | `FOREGROUND` | `w0`: pid of a child that ^C ends, with its descendants, 0 for none | | |
//! | `SYSTEM` | | | `w0`: handle, in the sender's table, with `CREATE`, `OBSERVE` and `COPY` |
//! | `HANDLE` | `w0`: a [`Thing`] | | `w0`: handle, in the sender's table |
//!
//! An argument block is the path and the arguments, each ended by a zero byte.

use core::mem::MaybeUninit;

use abi::{Commit, Handle};

use super::{Error, Refusal, request};
use crate::message::Message;
use crate::object::Endpoint;
use crate::start::MAX_ARGS;

/// Starts a program as a child of the sender.
pub const SPAWN: u32 = 1;
/// Starts a copy of the sender as its child.
pub const FORK: u32 = 2;
/// Puts another program in the place of the sender.
pub const EXEC: u32 = 3;
/// Ends the sender.
pub const EXIT: u32 = 4;
/// Waits for the end of a child.
pub const WAIT: u32 = 5;
/// Ends the sender or a descendant.
pub const KILL: u32 = 6;
/// Asks for the parent.
pub const PARENT: u32 = 7;
/// Asks for the endpoint of a relative.
pub const ENDPOINT: u32 = 8;
/// Lists the processes.
pub const LIST: u32 = 9;
/// Names the child that ^C kills.
pub const FOREGROUND: u32 = 10;
/// Asks for the system object, to build address spaces with.
pub const SYSTEM: u32 = 11;
/// Asks for a handle that a process does not start with.
pub const HANDLE: u32 = 12;

/// What `HANDLE` gives a handle to. That to a server has `SEND`, and the pid as its badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Thing {
    /// The process's own endpoint, all rights.
    Inbox = 1,
    /// The name server.
    Names = 2,
    /// The file server.
    Files = 3,
    /// The memory statistics server.
    Memstat = 4,
    /// The process's first thread.
    Thread = 5,
}

impl Thing {
    /// Decodes a request's word.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Thing::Inbox),
            2 => Some(Thing::Names),
            3 => Some(Thing::Files),
            4 => Some(Thing::Memstat),
            5 => Some(Thing::Thread),
            _ => None,
        }
    }
}

/// The number of the first process, init: everyone's ancestor, and the parent of orphans.
pub const INIT_PID: u64 = 1;

/// What is added to the reason when a process did not end by itself.
pub const KILLED: i32 = 128;

/// Why a process was ended: the exit status is [`KILLED`] plus this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Reason {
    /// ^C on the console.
    Interrupt = 2,
    /// An exception that is none of the others, an illegal instruction first of all.
    Exception = 4,
    /// A legal access that no frame was free for.
    OutOfMemory = 7,
    /// A division by zero, or one whose result does not fit.
    Divide = 8,
    /// Killed by another process; or its space died without an exit.
    Killed = 9,
    /// An access that the page table does not allow.
    BadAccess = 11,
}

impl Reason {
    /// The exit status.
    #[must_use]
    pub const fn status(self) -> i32 {
        KILLED + self as i32
    }
}

/// A line of the process list, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// The process.
    pub pid: u64,
    /// Its parent.
    pub ppid: u64,
    /// 0 while it runs, 1 when it ended and nobody waited for it.
    pub ended: u64,
    /// The commit of its space, in frames; 0 if it has ended.
    pub commit: u64,
    /// The end of its program's path, filled up with zero bytes.
    pub name: [u8; 24],
}

impl Entry {
    /// Bytes on the way.
    pub const LEN: usize = 56;

    /// The bytes on the way.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.pid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.ppid.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ended.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.commit.to_le_bytes());
        bytes[32..].copy_from_slice(&self.name);
        bytes
    }

    /// Back from the bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let word = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        let mut name = [0; 24];
        name.copy_from_slice(&bytes[32..]);
        Entry {
            pid: word(0),
            ppid: word(8),
            ended: word(16),
            commit: word(24),
            name,
        }
    }

    /// The name as text.
    #[must_use]
    pub fn name(&self) -> &str {
        let len = self
            .name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..len]).unwrap_or("?")
    }
}

/// A child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub pid: u64,
    /// Its exit status.
    pub status: i32,
}

/// An argument block under construction.
#[derive(Debug)]
pub struct ArgBlock {
    /// The first `len` bytes are set. Most blocks are short: the others are not even touched.
    bytes: [MaybeUninit<u8>; MAX_ARGS],
    len: usize,
}

impl ArgBlock {
    /// The block of a path and its arguments.
    ///
    /// # Errors
    /// `BadRequest` when they are too long, or one contains a zero byte.
    #[inline]
    pub fn new<'a>(
        path: &'a str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Refusal> {
        let mut block = ArgBlock {
            bytes: [MaybeUninit::uninit(); MAX_ARGS],
            len: 0,
        };
        for text in core::iter::once(path).chain(args) {
            block.push(text.as_bytes())?;
        }
        Ok(block)
    }

    fn push(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let end = self.len + text.len();
        if end >= MAX_ARGS || text.contains(&0) {
            return Err(Refusal::BadRequest);
        }
        for (to, &from) in self.bytes[self.len..end].iter_mut().zip(text) {
            to.write(from);
        }
        self.bytes[end].write(0);
        self.len = end + 1;
        Ok(())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `push` has set the first `len` bytes.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.len) }
    }
}

fn ask<const N: usize>(procd: &Endpoint, label: u32, words: [u64; N]) -> Result<[u64; 4], Error> {
    request(procd, Message::new(label).with_words(words), &[], &mut []).map(|sent| sent.reply.words)
}

/// Starts a program, in a space of this class; returns its pid.
///
/// # Errors
/// `NotFound`, `NotExecutable`, `NoMemory`, `Full`, `BadRequest` for a malformed block.
pub fn spawn(procd: &Endpoint, class: Commit, block: &[u8]) -> Result<u64, Error> {
    let message = Message::new(SPAWN).with_words([class as u64]);
    let sent = request(procd, message, block, &mut [])?;
    Ok(sent.reply.words[0])
}

/// Puts another program in the place of this one. Returns only if that fails.
///
/// # Errors
/// As for [`spawn`].
pub fn exec(procd: &Endpoint, block: &[u8]) -> Result<core::convert::Infallible, Error> {
    request(procd, Message::new(EXEC), block, &mut [])?;
    Err(Refusal::Broken.into())
}

/// Waits for a child, 0 for any. With `block` false, `None` when none has ended.
///
/// # Errors
/// `NoChild` when there is no such child.
pub fn wait(procd: &Endpoint, pid: u64, block: bool) -> Result<Option<Ended>, Error> {
    let [pid, status, ..] = ask(procd, WAIT, [pid, u64::from(!block)])?;
    Ok((pid != 0).then_some(Ended {
        pid,
        status: status as i32,
    }))
}

/// Ends a process.
///
/// # Errors
/// `NotFound`; `Denied` when it is neither the sender nor its descendant.
pub fn kill(procd: &Endpoint, pid: u64) -> Result<(), Error> {
    ask(procd, KILL, [pid]).map(|_| ())
}

/// Ends the sender.
///
/// # Errors
/// Only when the message does not get through.
pub fn exit(procd: &Endpoint, status: i32) -> Result<(), Error> {
    ask(procd, EXIT, [status as u32 as u64]).map(|_| ())
}

/// The sender's parent.
///
/// # Errors
/// Only when the message does not get through.
pub fn parent(procd: &Endpoint) -> Result<u64, Error> {
    ask(procd, PARENT, []).map(|words| words[0])
}

/// The endpoint of a parent, child or sibling; the badge is the sender's pid.
///
/// # Errors
/// `NotFound`; `Denied` for all others.
pub fn endpoint(procd: &Endpoint, pid: u64) -> Result<Handle, Error> {
    ask(procd, ENDPOINT, [pid]).map(|words| Handle(words[0] as u32))
}

/// The next processes above `pid`, as many as fit; returns them and how many.
///
/// # Errors
/// Only when the message does not get through.
pub fn list(procd: &Endpoint, pid: u64) -> Result<([Entry; 16], usize), Error> {
    let empty = Entry {
        pid: 0,
        ppid: 0,
        ended: 0,
        commit: 0,
        name: [0; 24],
    };
    let mut entries = [empty; 16];
    let mut bytes = [0; 16 * Entry::LEN];
    let sent = request(procd, Message::new(LIST).with_words([pid]), &[], &mut bytes)?;
    let count = (sent.reply_len / Entry::LEN).min(entries.len());
    for (entry, bytes) in entries.iter_mut().zip(bytes.as_chunks().0) {
        *entry = Entry::from_bytes(bytes);
    }
    Ok((entries, count))
}

/// A handle that a process does not start with. Each time it is another one.
///
/// # Errors
/// `Full`, `NoMemory` when the handle finds no room.
pub fn handle(procd: &Endpoint, thing: Thing) -> Result<Handle, Error> {
    ask(procd, HANDLE, [thing as u64]).map(|words| Handle(words[0] as u32))
}

/// Names the child that ^C kills; 0 for none.
///
/// # Errors
/// `Denied` when it is not a child of the sender.
pub fn foreground(procd: &Endpoint, pid: u64) -> Result<(), Error> {
    ask(procd, FOREGROUND, [pid]).map(|_| ())
}

/// The system object, with the rights to create spaces, to read the counters and to pass it on.
/// Spaces that a process creates die with it.
///
/// # Errors
/// `Full`, `NoMemory` when the handle finds no room.
pub fn system(procd: &Endpoint) -> Result<Handle, Error> {
    ask(procd, SYSTEM, []).map(|words| Handle(words[0] as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_way() {
        let mut name = [0; 24];
        name[..5].copy_from_slice(b"hello");
        let entry = Entry {
            pid: 1 << 40,
            ppid: 7,
            ended: 1,
            commit: 12,
            name,
        };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
        assert_eq!(entry.name(), "hello");
    }

    #[test]
    fn argument_blocks_are_bounded() {
        let block = ArgBlock::new("/bin/x", ["a", ""]).unwrap();
        assert_eq!(block.as_bytes(), b"/bin/x\0a\0\0");
        let long = "x".repeat(MAX_ARGS);
        assert_eq!(ArgBlock::new(&long, []).err(), Some(Refusal::BadRequest));
        assert!(ArgBlock::new(&long[1..], []).is_ok());
        assert_eq!(ArgBlock::new("a\0b", []).err(), Some(Refusal::BadRequest));
    }
}
