//! The console server: the serial port COM1 as text out and edited lines in.
//!
//! ```text
//! port --interrupt--> input --while somebody reads--> editor --a line--> the reader
//!                                                       | echo
//! WRITE --------------------------------------------> port
//! ```
//!
//! Writing waits for the port, so a reply means that the text is out and no text is ever lost.
//! Input waits unedited, and without echo, until somebody reads a line: so echoes come where the
//! reader is. When the input buffer is full the port's own buffer holds the sender back.

pub mod editor;
pub mod uart;

use libipc::message::{Incoming, Message, ReplyToken};
use libipc::object::Endpoint;
use libipc::server::{Answer, Service};
use libipc::services::Refusal;
use libipc::services::console::{FLUSH, READ_LINE, WRITE, WRITE_SHORT, short_text};

use editor::{Editor, Outcome};
use uart::{Registers, Uart};

/// The first of COM1's ports.
pub const FIRST_PORT: u16 = 0x3f8;

/// How many ports it has.
pub const NR_PORTS: u64 = 8;

/// Its interrupt line.
pub const LINE: u64 = 4;

/// Which of the start page's extra handles stands for the ports,
pub const EXTRA_PORTS: usize = 0;

/// which for the interrupt line,
pub const EXTRA_INTERRUPT: usize = 1;

/// and which is notified of ^C.
pub const EXTRA_INTERRUPTED: usize = 2;

/// Bytes of input that wait for a reader.
const INPUT: usize = 1024;

/// Readers that wait for a line.
const READERS: usize = 8;

/// ^C.
const INTERRUPT: u8 = 3;

/// The console server on a serial port.
pub struct Console<R> {
    uart: Uart<R>,
    editor: Editor,
    input: heapless::Deque<u8, INPUT>,
    readers: heapless::Deque<ReplyToken, READERS>,
    /// Notified of ^C.
    interrupted: Option<Endpoint>,
}

impl<R: Registers> Console<R> {
    /// A console on this port. `interrupted` is notified of each ^C.
    pub fn new(registers: R, interrupted: Option<Endpoint>) -> Self {
        let mut console = Console {
            uart: Uart::new(registers),
            editor: Editor::new(),
            input: heapless::Deque::new(),
            readers: heapless::Deque::new(),
            interrupted,
        };
        // Setting the port up empties its buffers: what came before is saved first.
        console.drain();
        console.uart.set_up();
        console
    }

    /// Takes what the port has received.
    fn drain(&mut self) {
        while !self.input.is_full()
            && let Some(byte) = self.uart.receive()
        {
            if byte == INTERRUPT {
                self.interrupt();
            }
            // A line that somebody edits is given up; otherwise the key is used up.
            if byte != INTERRUPT || !self.readers.is_empty() {
                // There is room: the loop asked.
                let _ = self.input.push_back(byte);
            }
        }
    }

    /// Forgets the input before a ^C, and tells who ends programs.
    fn interrupt(&mut self) {
        self.input.clear();
        if self.readers.is_empty() {
            self.uart.write(b"^C\n");
        }
        if let Some(endpoint) = &self.interrupted {
            let _ = endpoint.notify();
        }
    }

    /// Gives input to the readers that wait for it.
    fn pump(&mut self) {
        self.drain();
        while !self.readers.is_empty()
            && let Some(byte) = self.input.pop_front()
        {
            let uart = &mut self.uart;
            let outcome = self.editor.feed(byte, &mut |echo| uart.write(echo));
            if let Some(outcome) = outcome {
                self.deliver(outcome);
            }
            self.drain();
        }
    }

    /// Answers the first reader that is still there; a line without a reader is gone.
    fn deliver(&mut self, outcome: Outcome) {
        let end = Message::new(0).with_words([u64::from(outcome == Outcome::EndOfInput)]);
        while let Some(reader) = self.readers.pop_front() {
            if reader.reply(end, self.editor.line()).is_ok() {
                break;
            }
        }
        self.editor.clear();
    }

    fn write(&mut self, text: &[u8]) -> Result<Message, Refusal> {
        for piece in text.chunks(uart::FIFO) {
            self.uart.write(piece);
            self.drain();
        }
        Ok(Message::new(0).with_words([text.len() as u64]))
    }
}

impl<R: Registers> Service for Console<R> {
    fn message(&mut self, incoming: Incoming, data: &[u8]) -> Option<Answer<'_>> {
        let Incoming { message, token, .. } = incoming;
        let result = match message.label() {
            WRITE => self.write(data),
            WRITE_SHORT => match short_text(message.words) {
                Some((text, len)) => self.write(&text[..len]),
                None => Err(Refusal::BadRequest),
            },
            FLUSH => {
                self.uart.flush();
                Ok(Message::new(0))
            }
            READ_LINE => match self.readers.push_back(token) {
                Ok(()) => {
                    self.pump();
                    return None;
                }
                Err(token) => return token.answer(Refusal::Full.message()),
            },
            _ => Err(Refusal::BadRequest),
        };
        token.answer(result.unwrap_or_else(Refusal::message))
    }

    /// The port's interrupt, the only notification that a console gets.
    fn notification(&mut self, _: u64) {
        self.drain();
        self.uart.acknowledge();
        // What came before the line was unmasked raised nothing.
        self.pump();
    }
}

#[cfg(test)]
mod tests;
