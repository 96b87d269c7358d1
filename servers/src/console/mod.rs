//! The console server: the serial port COM1 as text out and edited lines in.
//!
//! ```text
//! port --interrupt--> input --while somebody reads--> editor --a line--> the reader
//!                                                       | echo
//! WRITE ---------------------------------------------> output --interrupt--> port
//! ```
//!
//! A reply to `WRITE` means that the text is in the output queue, in one piece and in its place; a
//! text that does not fit is answered when it does. No text is ever lost. `FLUSH` waits until what
//! was queued before it is out. While a text waits for room, the [loop](serve) takes interrupts only.
//!
//! Input waits unedited, and without echo, until somebody reads a line: so echoes come where the
//! reader is. When the input buffer is full the port's own buffer holds the sender back.

pub mod editor;
pub mod output;
pub mod uart;

use libipc::object::{Endpoint, Interrupt};
use libipc::server::{self, Answer, Service};
use libipc::service::{Reply, WithBytes};
use libipc::services::Refusal;
use libipc::services::console::{self, ConsoleServer, MAX_TEXT, Short};
use libipc::{Error, Rights};

use editor::{Editor, Outcome};
use output::{Flush, Output, Writer};
use uart::{Cause, Registers, Uart};

/// The first of COM1's ports.
pub const FIRST_PORT: u16 = 0x3f8;

/// How many ports it has.
pub const NR_PORTS: u64 = 8;

/// Its interrupt line.
pub const LINE: u64 = 4;

/// Which of a server's extra handles stands for the ports,
pub const EXTRA_PORTS: usize = 0;

/// which for the interrupt line,
pub const EXTRA_INTERRUPT: usize = 1;

/// and which is notified of ^C.
pub const EXTRA_INTERRUPTED: usize = 2;

/// Bytes of input that wait for a reader.
const INPUT: usize = 1024;

/// Readers that wait for a line.
const READERS: usize = 8;

/// Causes that are seen to at one interrupt. The port interrupts again for those that are left, so
/// that requests get their turn however much there is to do.
const ROUNDS: usize = 64;

/// The right to give a line to who reads.
type Reader = Reply<bool, Refusal, WithBytes>;

/// ^C.
const INTERRUPT: u8 = 3;

/// The console server on a serial port.
pub struct Console<R> {
    uart: Uart<R>,
    output: Output,
    editor: Editor,
    input: heapless::Deque<u8, INPUT>,
    readers: heapless::Deque<Reader, READERS>,
    /// Notified of ^C.
    interrupted: Option<Endpoint>,
}

impl<R: Registers> Console<R> {
    /// A console on this port. `interrupted` is notified of each ^C.
    pub fn new(registers: R, interrupted: Option<Endpoint>) -> Self {
        let mut console = Console {
            uart: Uart::new(registers),
            output: Output::new(),
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

    /// Whether a text waits for room. Until it has some, only interrupts are of use.
    pub fn is_full(&self) -> bool {
        self.output.is_holding()
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
        if self.readers.is_empty() && self.output.can_echo() {
            self.output.echo(b"^C\n");
        }
        if let Some(endpoint) = &self.interrupted {
            let _ = endpoint.notify();
        }
    }

    /// Gives input to the readers that wait for it, as long as the echo has room.
    fn edit(&mut self) {
        while !self.readers.is_empty()
            && self.output.can_echo()
            && let Some(byte) = self.input.pop_front()
        {
            let output = &mut self.output;
            let outcome = self.editor.feed(byte, &mut |text| output.echo(text));
            if let Some(outcome) = outcome {
                self.deliver(outcome);
            }
            // A full input buffer has silenced the port.
            if !self.uart.tells_received() {
                self.drain();
            }
        }
    }

    /// The transmit buffer is empty: fills it, and answers who has waited for that.
    fn transmit(&mut self) {
        if self.output.owes_flush() {
            self.uart.wait_idle();
            self.output.flushed();
        }
        self.uart.send(|| self.output.next_byte());
        self.output.admit();
    }

    /// Sends what is new, unless the port interrupts when it can take it; and says what it is to
    /// interrupt for.
    fn update(&mut self) {
        if self.has_output() && !self.uart.tells_room() && self.uart.has_room() {
            self.transmit();
        }
        self.uart.enable(!self.input.is_full(), self.has_output());
    }

    /// Whether somebody waits for the port.
    fn has_output(&self) -> bool {
        !self.output.is_empty() || self.output.has_flushers()
    }

    /// Answers the first reader that is still there; a line without a reader is gone.
    fn deliver(&mut self, outcome: Outcome) {
        let is_end = outcome == Outcome::EndOfInput;
        while let Some(reader) = self.readers.pop_front() {
            if reader.send(Ok(is_end), self.editor.line()).is_ok() {
                break;
            }
        }
        self.editor.clear();
    }
}

impl<R: Registers> console::Console for Console<R> {
    fn write(&mut self, text: &[u8], reply: Writer) -> Option<Answer<'_>> {
        let answer = self.output.write(text, reply);
        self.update();
        let (writer, result) = answer?;
        writer.now(result)
    }

    fn write_short(&mut self, text: Short, reply: Writer) -> Option<Answer<'_>> {
        self.write(text.as_bytes(), reply)
    }

    fn read_line(&mut self, reply: Reader) -> Option<Answer<'_>> {
        match self.readers.push_back(reply) {
            Ok(()) => {
                self.edit();
                self.update();
                None
            }
            Err(reply) => reply.now(Err(Refusal::Full), &[]),
        }
    }

    fn flush(&mut self, reply: Flush) -> Option<Answer<'_>> {
        match self.output.flush(reply) {
            Ok(()) => {
                self.update();
                None
            }
            Err(reply) => reply.now(Err(Refusal::Full)),
        }
    }

    /// The port's interrupt, the only notification that a console gets.
    fn notification(&mut self, _: u64) {
        for _ in 0..ROUNDS {
            match self.uart.cause() {
                None => return self.uart.acknowledge(),
                Some(Cause::Received) => self.drain(),
                Some(Cause::Room) => self.transmit(),
                Some(Cause::Other) => {}
            }
            self.edit();
            self.update();
        }
        self.uart.interrupt_again();
        self.uart.acknowledge();
    }
}

/// The notification bit of the port's interrupt.
const INTERRUPTED: u64 = 1;

/// Serves on `inbox`, with the port's `interrupt`, for ever.
///
/// While a text waits for room, the interrupt goes to an endpoint of its own, and requests wait in
/// the kernel.
///
/// # Errors
/// What ends it all the same.
pub fn serve<R: Registers>(
    console: &mut ConsoleServer<Console<R>>,
    inbox: &Endpoint,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let aside = Endpoint::create()?;
    let [to_inbox, to_aside] = [
        inbox.copy(Rights::NOTIFY, INTERRUPTED)?,
        aside.copy(Rights::NOTIFY, INTERRUPTED)?,
    ];
    let mut buffer = [0; MAX_TEXT];
    loop {
        interrupt.bind(&to_inbox)?;
        // An interrupt that went to the other endpoint last has not been seen to.
        console.notification(INTERRUPTED);
        server::serve_while(inbox, &mut buffer, console, |console| {
            !console.state.is_full()
        })?;
        interrupt.bind(&to_aside)?;
        console.notification(INTERRUPTED);
        server::serve_while(&aside, &mut [], console, |console| console.state.is_full())?;
    }
}

#[cfg(test)]
mod tests;
