//! Pipes: bytes on their way from who writes to who reads.
//!
//! ```text
//!    slot  |......|####### waiting #######|.....................|
//!                 start                   start + len            capacity
//! ```
//!
//! A ring in a slot of memory. Who reads from an empty one, or writes to a full one, waits here; how long what is written takes is
//! nobody's business but that of the two.

use alloc::vec::Vec;

use libipc::service::{Reply, WithBytes};
use libipc::services::Refusal;

use super::memory::{Memory, Size, Slot};
use super::slab::reserve;

/// How many bytes may wait in a pipe.
pub const CAPACITY: usize = Size::Small.in_bytes();

/// The most threads that wait at each end of a pipe.
const MAX_WAITING: usize = 16;

/// The right to tell a reader of its bytes.
pub type ReadReply = Reply<(), Refusal, WithBytes>;

/// The right to tell a writer that there is room.
pub type WriteReply = Reply<usize, Refusal>;

/// A thread that waits, and what it waits for.
#[derive(Debug)]
struct Waiting<R> {
    process: u64,
    /// The most bytes that it reads.
    count: usize,
    reply: R,
}

/// A pipe.
#[derive(Debug)]
pub struct Pipe {
    slot: Slot,
    start: usize,
    len: usize,
    /// How often it is open for reading.
    pub nr_readers: usize,
    /// How often it is open for writing.
    pub nr_writers: usize,
    /// The process that it is charged to.
    pub payer: u64,
    readers: Vec<Waiting<ReadReply>>,
    writers: Vec<Waiting<WriteReply>>,
}

impl Pipe {
    /// An empty pipe, open at neither end.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(payer: u64, memory: &mut Memory) -> Result<Self, Refusal> {
        let slot = memory.take(Size::Small)?;
        if let Err(refusal) = memory.map(&slot, 0, CAPACITY) {
            memory.give(slot);
            return Err(refusal);
        }
        Ok(Pipe {
            slot,
            start: 0,
            len: 0,
            nr_readers: 0,
            nr_writers: 0,
            payer,
            readers: Vec::new(),
            writers: Vec::new(),
        })
    }

    /// Gives its memory back.
    pub fn end(self, memory: &mut Memory) {
        memory.give(self.slot);
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a reader has to wait: there is nothing to read, and there may be.
    #[must_use]
    pub const fn keeps_readers(&self) -> bool {
        self.len == 0 && self.nr_writers > 0
    }

    /// Whether a writer has to wait: there is no room, and there may be.
    #[must_use]
    pub const fn keeps_writers(&self) -> bool {
        self.len == CAPACITY && self.nr_readers > 0
    }

    /// Takes the next bytes, up to `count`, as far as they lie in one piece, and tells writers of the room. They are for a
    /// reply, before anything else happens to the pipe.
    pub fn read(&mut self, count: usize) -> &[u8] {
        let (start, end) = self.next(count);
        self.skip(end - start);
        self.serve_writers();
        self.slot.bytes(start, end)
    }

    /// Where the next bytes are.
    fn next(&self, count: usize) -> (usize, usize) {
        let len = count.min(self.len).min(CAPACITY - self.start);
        (self.start, self.start + len)
    }

    fn skip(&mut self, count: usize) {
        self.start = (self.start + count) % CAPACITY;
        self.len -= count;
        if self.len == 0 {
            // What comes next begins at a page.
            self.start = 0;
        }
    }

    /// Takes as many bytes as there is room for, and gives them to who waits for them; returns how many.
    ///
    /// # Errors
    /// `ReaderGone`; `NoMemory`: then nothing has changed.
    pub fn write(&mut self, bytes: &[u8], memory: &mut Memory) -> Result<usize, Refusal> {
        if self.nr_readers == 0 {
            return Err(Refusal::ReaderGone);
        }
        let bytes = &bytes[..bytes.len().min(CAPACITY - self.len)];
        let end = (self.start + self.len) % CAPACITY;
        let (first, second) = bytes.split_at(bytes.len().min(CAPACITY - end));
        memory.write(&self.slot, end, first)?;
        memory.write(&self.slot, 0, second)?;
        self.len += bytes.len();
        self.serve_readers();
        Ok(bytes.len())
    }

    /// Gives bytes to readers that wait, and tells them of the end.
    pub fn serve_readers(&mut self) {
        while !self.readers.is_empty() && !self.keeps_readers() {
            let Waiting { count, reply, .. } = self.readers.remove(0);
            let (start, end) = self.next(count);
            // If it was killed, or finds no memory for them, they are the next one's.
            if reply.send(Ok(()), self.slot.bytes(start, end)).is_ok() {
                self.skip(end - start);
            }
        }
    }

    /// Tells writers that wait of room, or that nobody reads.
    pub fn serve_writers(&mut self) {
        if self.keeps_writers() {
            return;
        }
        for Waiting { reply, .. } in self.writers.drain(..) {
            let room = match self.nr_readers {
                0 => Err(Refusal::ReaderGone),
                _ => Ok(0),
            };
            let _ = reply.send(room);
        }
    }

    /// Keeps a reader waiting.
    ///
    /// # Errors
    /// The reply, and why it cannot wait.
    pub fn keep_reader(
        &mut self,
        process: u64,
        count: usize,
        reply: ReadReply,
    ) -> Result<(), (ReadReply, Refusal)> {
        keep(&mut self.readers, process, count, reply)
    }

    /// Keeps a writer waiting.
    ///
    /// # Errors
    /// The reply, and why it cannot wait.
    pub fn keep_writer(
        &mut self,
        process: u64,
        reply: WriteReply,
    ) -> Result<(), (WriteReply, Refusal)> {
        keep(&mut self.writers, process, 0, reply)
    }

    /// Forgets the threads of a process that has ended.
    pub fn forget(&mut self, process: u64) {
        self.readers.retain(|waiting| waiting.process != process);
        self.writers.retain(|waiting| waiting.process != process);
    }
}

fn keep<R>(
    waiting: &mut Vec<Waiting<R>>,
    process: u64,
    count: usize,
    reply: R,
) -> Result<(), (R, Refusal)> {
    if waiting.len() == MAX_WAITING {
        return Err((reply, Refusal::Full));
    }
    if let Err(refusal) = reserve(waiting, 1) {
        return Err((reply, refusal));
    }
    waiting.push(Waiting {
        process,
        count,
        reply,
    });
    Ok(())
}
