//! The process server: spawn, fork, exec, exit, wait, kill, and who is whose relative.
//!
//! The badge of a process's handle is its number (pid), so the server knows who asks: the caller is the process.
//!
//! An argument block is the path and the arguments, each ended by a zero byte.

use core::mem::MaybeUninit;

use abi::{Commit, Handle};

pub use super::records::{
    Counted, Entry, FIRST_SERVER, LIST_LEN, Name, RangeEntry, Record, ThreadEntry, name_text,
};

use super::files::{STDIN, STDOUT};
use super::records::records;
use super::{Error, Refusal};
use crate::Argument;
use crate::server::Answer;
use crate::service::{Caller, Contents, Parcel, Reply};
use crate::start::MAX_ARGS;

/// The process server.
#[crate::service(version = 3, max_bytes = MAX_ARGS)]
pub trait Procd {
    /// Starts a program as a child of the caller, in a space of this class, with these of the caller's open files as its
    /// standard streams; its pid.
    ///
    /// # Errors
    /// `NotFound`, `NotExecutable`, `NoMemory`, `Full`, `BadRequest` for a malformed block; `NotOpen`.
    fn spawn(
        &mut self,
        caller: Caller,
        class: Commit,
        streams: Streams,
        args: &[u8],
    ) -> Result<u64, Refusal>;

    /// Starts a copy of the caller as its child, which goes on at this place, with its pid in `rdi`; its pid.
    ///
    /// # Errors
    /// `NoMemory`, `Full`, `BadRequest` for a place that no program can have.
    fn fork(&mut self, caller: Caller, ip: u64, sp: u64, fs_base: u64) -> Result<u64, Refusal>;

    /// Puts another program in the place of the caller. Answers only if that fails.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn).
    fn exec(
        &mut self,
        caller: Caller,
        args: &[u8],
        reply: Reply<(), Refusal>,
    ) -> Option<Answer<'_>>;

    /// Ends the caller. Answers only who is no process.
    ///
    /// # Errors
    /// `Denied`.
    fn exit(
        &mut self,
        caller: Caller,
        status: i32,
        reply: Reply<(), Refusal>,
    ) -> Option<Answer<'_>>;

    /// Waits for a child, 0 for any. `None`, when none has ended, if it is not to block.
    ///
    /// # Errors
    /// `NoChild` when there is no such child; `Full` when too many wait.
    fn wait(
        &mut self,
        caller: Caller,
        child: u64,
        blocks: bool,
        reply: Reply<Option<Ended>, Refusal>,
    ) -> Option<Answer<'_>>;

    /// Ends a process. Who has ended itself is not answered.
    ///
    /// # Errors
    /// `NotFound`; `Denied` when it is neither the caller nor its descendant.
    fn kill(
        &mut self,
        caller: Caller,
        victim: u64,
        reply: Reply<(), Refusal>,
    ) -> Option<Answer<'_>>;

    /// The caller's parent.
    fn parent(&self, caller: Caller) -> u64;

    /// The endpoint of a parent, child or sibling, with `SEND`; the badge is the caller's pid.
    ///
    /// # Errors
    /// `NotFound`; `Denied` for all others.
    fn endpoint(&mut self, caller: Caller, relative: u64) -> Result<Given, Refusal>;

    /// The next processes above a pid: [`Entry`] after `Entry`, in the order of their pids, as many as fit. The standard servers have
    /// [numbers](FIRST_SERVER) that no process has, and are listed above the last of those.
    fn list(&mut self, above: u64) -> &[u8];

    /// The next threads of a process, or of a standard server, behind the one with this number, or from the first on, for 0:
    /// [`ThreadEntry`] after `ThreadEntry`, as many as fit.
    ///
    /// # Errors
    /// `NotFound`: no such process, or it or the thread has ended.
    fn threads(&mut self, pid: u64, after: u64) -> Result<&[u8], Refusal>;

    /// Counts the pages of a process, or of a standard server, from an address on, which is 0 or where the last such call ended.
    ///
    /// # Errors
    /// `NotFound`: no such process, or it has ended; `BadRequest` for another address.
    fn memory(&self, pid: u64, from: u64) -> Result<Counted, Refusal>;

    /// What lies where in the caller's or a descendant's memory, from an address on: [`RangeEntry`] after `RangeEntry`, the last of
    /// which may go on in the next answer. Holes are left out unless one is the last.
    ///
    /// # Errors
    /// `NotFound`: no such process, or it has ended; `Denied` for all others; `BadRequest` for an address where no page begins.
    fn ranges(&mut self, caller: Caller, pid: u64, from: u64) -> Result<&[u8], Refusal>;

    /// The backtrace of a thread of the caller or a descendant: addresses, 8 bytes each, the innermost first.
    ///
    /// # Errors
    /// `NotFound`: no such process, or thread of it; `Denied` for all others.
    fn stack(&mut self, caller: Caller, pid: u64, thread: u64) -> Result<&[u8], Refusal>;

    /// Names the child that ^C ends, with its descendants; 0 for none.
    ///
    /// # Errors
    /// `Denied` when it is not a child of the caller.
    fn foreground(&mut self, caller: Caller, child: u64) -> Result<(), Refusal>;

    /// The system object, with `CREATE`, `OBSERVE` and `COPY`. Spaces that a process creates die with it.
    ///
    /// # Errors
    /// `Full`, `NoMemory` when the handle finds no room.
    fn system(&mut self, caller: Caller) -> Result<Given, Refusal>;

    /// A handle that a process does not start with. Each time it is another one.
    ///
    /// # Errors
    /// `Full`, `NoMemory` when the handle finds no room.
    fn handle(&mut self, caller: Caller, thing: Thing) -> Result<Given, Refusal>;
}

/// A handle that the process server has put into the caller's table, as it is numbered there: it need not be one that could go
/// along in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
pub struct Given(u32);

impl From<Handle> for Given {
    fn from(handle: Handle) -> Self {
        Given(handle.0)
    }
}

impl From<Given> for Handle {
    fn from(given: Given) -> Self {
        Handle(given.0)
    }
}

/// Which open files a process has as its standard streams: their numbers at the file server, and 0 for the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
pub struct Streams {
    /// What it reads.
    pub stdin: u32,
    /// What it prints to.
    pub stdout: u32,
}

impl Streams {
    /// Both are the console.
    pub const CONSOLE: Streams = Streams {
        stdin: 0,
        stdout: 0,
    };

    /// The same files by the numbers that they have for the process that is given them.
    #[must_use]
    pub const fn handed_down(self) -> Self {
        Streams {
            stdin: if self.stdin == 0 { 0 } else { STDIN },
            stdout: if self.stdout == 0 { 0 } else { STDOUT },
        }
    }
}

/// A word.
impl Argument for Commit {
    const NR_WORDS: usize = 1;

    fn put(&self, parcel: &mut Parcel<'_>) {
        parcel.word(*self as u64);
    }

    fn take(contents: &mut Contents<'_>) -> Option<Self> {
        Commit::from_user(contents.word())
    }
}

/// What [`Procd::handle`] gives a handle to. That to a server has `SEND`, and the pid as its badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
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
    /// What it printed went to a pipe that nobody reads any more.
    ReaderGone = 13,
}

impl Reason {
    /// The exit status.
    #[must_use]
    pub const fn status(self) -> i32 {
        KILLED + self as i32
    }
}

/// A child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
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

impl ProcdClient {
    /// Puts another program in the place of this one. Returns only if that fails.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn).
    pub fn become_another(&self, args: &[u8]) -> Result<core::convert::Infallible, Error> {
        self.exec(args)?;
        Err(Refusal::Broken.into())
    }

    /// The next processes above a pid, as many as fit; returns them and how many.
    ///
    /// # Errors
    /// Only when the message does not get through.
    pub fn entries(&self, above: u64) -> Result<([Entry; Entry::LISTED], usize), Error> {
        let mut bytes = [0; LIST_LEN];
        let len = self
            .list(above, &mut bytes)
            .map_err(Error::from_infallible)?;
        Ok((records(&bytes), len / Entry::LEN))
    }

    /// The next threads of a process; returns them and how many.
    ///
    /// # Errors
    /// As for [`threads`](Self::threads).
    pub fn thread_entries(
        &self,
        pid: u64,
        after: u64,
    ) -> Result<([ThreadEntry; ThreadEntry::LISTED], usize), Error> {
        let mut bytes = [0; LIST_LEN];
        let len = self.threads(pid, after, &mut bytes)?;
        Ok((records(&bytes), len / ThreadEntry::LEN))
    }

    /// The next ranges of a process; returns them and how many.
    ///
    /// # Errors
    /// As for [`ranges`](Self::ranges).
    pub fn range_entries(
        &self,
        pid: u64,
        from: u64,
    ) -> Result<([RangeEntry; RangeEntry::LISTED], usize), Error> {
        let mut bytes = [0; LIST_LEN];
        let len = self.ranges(pid, from, &mut bytes)?;
        Ok((records(&bytes), len / RangeEntry::LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
