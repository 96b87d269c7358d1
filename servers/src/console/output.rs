//! Text on its way out: a queue of fixed size, and who waits for it.
//!
//! ```text
//!             text                          reserve
//! |------------------------------------|---------------|
//!  WRITE, whole texts in their order     echo of one key
//! ```
//!
//! A text goes in whole or not at all: lines of several writers do not mix. One that does not fit
//! is [held](Output::is_holding) with the token of its writer until it does, and whoever drives the
//! queue takes no further requests meanwhile: they wait in the kernel, in order, in their senders' own memory.
//! So there is no bound on how many write at a time, and nothing that a writer's death leaves
//! behind but its text and a stale token.

use libipc::service::Reply;
use libipc::services::Refusal;
use libipc::services::console::MAX_TEXT;

/// The right to tell a writer how many bytes are queued.
pub type Writer = Reply<usize, Refusal>;

/// The right to tell who flushes that all is out.
pub type Flush = Reply<(), Refusal>;

/// The longest echo of one key: the whole line is removed and another one shown.
const MAX_ECHO: usize = 4 * libipc::services::console::MAX_LINE;

/// Bytes of the queue.
const CAPACITY: usize = 8192;

/// Clients that wait until all text is out.
const FLUSHERS: usize = 16;

const _: () = assert!(MAX_TEXT + MAX_ECHO <= CAPACITY);

/// Text that has no room, and its writer.
#[derive(Debug)]
struct Held {
    text: heapless::Vec<u8, MAX_TEXT>,
    writer: Writer,
}

/// A client that waits until the bytes before its request are out.
#[derive(Debug)]
struct Flusher {
    reply: Flush,
    /// How many bytes were there.
    after: u64,
}

/// The output of a terminal.
#[derive(Debug, Default)]
pub struct Output {
    bytes: heapless::Deque<u8, CAPACITY>,
    /// The carriage return in front of the first byte, a line feed, is out.
    returned: bool,
    held: Option<Held>,
    flushers: heapless::Deque<Flusher, FLUSHERS>,
    /// Bytes that have come into the queue, ever.
    nr_in: u64,
}

impl Output {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Output {
            bytes: heapless::Deque::new(),
            returned: false,
            held: None,
            flushers: heapless::Deque::new(),
            nr_in: 0,
        }
    }

    /// Queues a text, as far as [`MAX_TEXT`]. Returns the writer with what is to be answered, unless
    /// the text and its writer have to wait for room.
    pub fn write(
        &mut self,
        text: &[u8],
        writer: Writer,
    ) -> Option<(Writer, Result<usize, Refusal>)> {
        let text = &text[..text.len().min(MAX_TEXT)];
        if self.is_holding() {
            return Some((writer, Err(Refusal::Full)));
        }
        if self.fits(text.len()) {
            self.push(text);
            return Some((writer, Ok(text.len())));
        }
        let text = heapless::Vec::from_slice(text).unwrap_or_default();
        self.held = Some(Held { text, writer });
        None
    }

    /// Whether a text waits for room.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Queues the text that waits, if there is room, and answers its writer.
    pub fn admit(&mut self) {
        let len = self.held.as_ref().map_or(0, |held| held.text.len());
        if self.fits(len)
            && let Some(Held { text, writer }) = self.held.take()
        {
            self.push(&text);
            // A writer that is gone has written all the same.
            let _ = writer.send(Ok(len));
        }
    }

    /// Whether any key can be echoed.
    #[must_use]
    pub fn can_echo(&self) -> bool {
        CAPACITY - self.bytes.len() >= MAX_ECHO
    }

    /// Queues an echo, which must be [possible](Self::can_echo).
    pub fn echo(&mut self, echo: &[u8]) {
        self.push(echo);
    }

    /// The next byte for the port: each line feed after a carriage return.
    pub fn next_byte(&mut self) -> Option<u8> {
        let first = *self.bytes.front()?;
        if first == b'\n' && !core::mem::replace(&mut self.returned, true) {
            return Some(b'\r');
        }
        self.returned = false;
        self.bytes.pop_front()
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Keeps a client until the bytes that are queued are out.
    ///
    /// # Errors
    /// The client when too many wait.
    pub fn flush(&mut self, reply: Flush) -> Result<(), Flush> {
        let after = self.nr_in;
        self.flushers
            .push_back(Flusher { reply, after })
            .map_err(|flusher| flusher.reply)
    }

    /// Whether somebody waits until bytes are out.
    #[must_use]
    pub fn has_flushers(&self) -> bool {
        !self.flushers.is_empty()
    }

    /// Whether somebody waits for nothing but bytes that have left the queue.
    #[must_use]
    pub fn owes_flush(&self) -> bool {
        let nr_out = self.nr_in - self.bytes.len() as u64;
        self.flushers
            .front()
            .is_some_and(|flusher| flusher.after <= nr_out)
    }

    /// All bytes that have left the queue are out: answers who waits for that.
    pub fn flushed(&mut self) {
        while self.owes_flush()
            && let Some(flusher) = self.flushers.pop_front()
        {
            let _ = flusher.reply.send(Ok(()));
        }
    }

    fn fits(&self, len: usize) -> bool {
        self.bytes.len() + len <= CAPACITY - MAX_ECHO
    }

    fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if self.bytes.push_back(byte).is_ok() {
                self.nr_in += 1;
            }
        }
    }
}
