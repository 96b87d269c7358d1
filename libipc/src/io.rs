//! Text out and lines in: the standard streams.
//!
//! | | goes to, or comes from |
//! | --- | --- |
//! | `print!`, `println!`, [`stdout`] | the file or pipe that the program was started with; else the console, else the kernel's log, else nowhere |
//! | `eprintln!`, panics | the console, whatever the program was started with; else as above |
//! | [`stdin`], [`read_line`] | the file or pipe that the program was started with, else the console |
//!
//! A program that prints to a pipe which nobody reads any more ends, with status 141; one whose output has no room ends with status
//! 1, and says so. Who wants to know writes to [`stdout`], which returns errors.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use abi::Error;
use embedded_io::{ErrorType, Read};
use spin::mutex::SpinMutex;

#[cfg(target_os = "none")]
use crate::backtrace;
use crate::object::System;
use crate::rt::YieldRelax;
use crate::service::again;
use crate::services::console::ConsoleClient;
use crate::services::procd::Reason;
use crate::services::{self, Refusal};
use crate::{fs, process, start};

/// Prints to the standard output.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print(::core::format_args!($($arg)*)) };
}

/// Prints to the standard output, with a line end.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints to the console, with a line end, behind all that is still buffered.
#[macro_export]
macro_rules! eprintln {
    ($($arg:tt)*) => {
        $crate::io::eprint(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}

/// Bytes that wait for the end of their line.
const LINE: usize = 512;

static OUTPUT: SpinMutex<Buffer, YieldRelax> = SpinMutex::new(Buffer::new(print_out));

struct Buffer {
    bytes: [u8; LINE],
    len: usize,
    write_out: fn(&[u8]),
}

impl Buffer {
    /// An empty one, whose lines go there.
    const fn new(write_out: fn(&[u8])) -> Self {
        Buffer {
            bytes: [0; LINE],
            len: 0,
            write_out,
        }
    }

    fn flush(&mut self) {
        if self.len > 0 {
            (self.write_out)(&self.bytes[..self.len]);
            self.len = 0;
        }
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == LINE {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
            if byte == b'\n' {
                self.flush();
            }
        }
        Ok(())
    }
}

/// Whether nothing is buffered: known without the lock, which would be a write to a page that a
/// program that prints nothing need not have.
static EMPTY: AtomicBool = AtomicBool::new(true);

/// Prints; [`print!`](crate::print) is the way in.
pub fn print(args: fmt::Arguments<'_>) {
    let mut output = OUTPUT.lock();
    let _ = output.write_fmt(args);
    let is_empty = output.len == 0;
    if is_empty != EMPTY.load(Ordering::Relaxed) {
        EMPTY.store(is_empty, Ordering::Relaxed);
    }
}

/// Sends what is buffered on its way.
pub fn flush() {
    if !EMPTY.load(Ordering::Relaxed) {
        let mut output = OUTPUT.lock();
        output.flush();
        EMPTY.store(true, Ordering::Relaxed);
    }
}

/// Prints to the console; [`eprintln!`](crate::eprintln) is the way in.
pub fn eprint(args: fmt::Arguments<'_>) {
    flush();
    let mut buffer = Buffer::new(to_console);
    let _ = buffer.write_fmt(args);
    buffer.flush();
}

/// Prints a panic's message and a backtrace, past a buffer that the panicking thread may hold locked.
#[cfg(target_os = "none")]
pub(crate) fn panic_message(message: &dyn fmt::Display) {
    let mut buffer = Buffer::new(to_console);
    if let Some(mut output) = OUTPUT.try_lock() {
        output.flush();
    }
    let _ = writeln!(buffer, "{}: {message}", name());
    let program = crate::fs::file_name(name());
    for line in backtrace::lines(program, backtrace::of_this_thread().skip(1)) {
        let _ = writeln!(buffer, "{line}");
    }
    buffer.flush();
}

fn name() -> &'static str {
    start::args().next().unwrap_or("program")
}

/// Bytes of the standard input that were read and not taken yet.
static INPUT: SpinMutex<Input, YieldRelax> = SpinMutex::new(Input {
    bytes: [0; LINE],
    start: 0,
    end: 0,
});

struct Input {
    bytes: [u8; LINE],
    start: usize,
    end: usize,
}

impl Input {
    /// The bytes that are there; if there are none, what comes next: of the console a line. None at the end. A console that dies
    /// meanwhile takes with it what was typed; the next one is asked.
    fn fill(&mut self) -> Result<&[u8], services::Error> {
        if self.start == self.end {
            self.end = match start::stdin() {
                0 => {
                    let console = ConsoleClient::borrow(start::console());
                    again(|| console.read_line_into(&mut self.bytes))?.unwrap_or(0)
                }
                id => fs::read(id, &mut self.bytes)?,
            };
            self.start = 0;
        }
        Ok(&self.bytes[self.start..self.end])
    }

    /// Reads bytes up to a line end, or as many as fit.
    fn read_line(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, services::Error> {
        let mut len = 0;
        while len < buffer.len() && !buffer[..len].ends_with(b"\n") {
            let bytes = self.fill()?;
            let line = bytes.iter().position(|&byte| byte == b'\n');
            let part = line
                .map_or(bytes.len(), |end| end + 1)
                .min(buffer.len() - len);
            if part == 0 {
                break;
            }
            buffer[len..len + part].copy_from_slice(&bytes[..part]);
            self.start += part;
            len += part;
        }
        Ok((len > 0).then_some(len))
    }

    /// Takes bytes that are there.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let len = buffer.len().min(self.end - self.start);
        buffer[..len].copy_from_slice(&self.bytes[self.start..self.start + len]);
        self.start += len;
        len
    }
}

/// Reads a line of the standard input into `buffer`, its line end included, as far as it fits. `None`
/// is the end of the input.
///
/// # Errors
/// Those of the console server or the file server; [`services::Error::Kernel`] without one.
pub fn read_line(buffer: &mut [u8]) -> Result<Option<usize>, services::Error> {
    flush();
    INPUT.lock().read_line(buffer)
}

/// The standard input: bytes.
#[derive(Debug, Default)]
pub struct Stdin(());

/// The standard input.
#[must_use]
pub fn stdin() -> Stdin {
    Stdin(())
}

impl ErrorType for Stdin {
    type Error = services::Error;
}

impl Read for Stdin {
    /// Of the console, at most a line.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, services::Error> {
        flush();
        let mut input = INPUT.lock();
        if input.start == input.end && start::stdin() != 0 {
            return fs::read(start::stdin(), buffer);
        }
        input.fill()?;
        Ok(input.take(buffer))
    }
}

/// The standard output: bytes, behind all that was printed before.
#[derive(Debug, Default)]
pub struct Stdout(());

/// The standard output.
#[must_use]
pub fn stdout() -> Stdout {
    Stdout(())
}

impl ErrorType for Stdout {
    type Error = services::Error;
}

impl embedded_io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, services::Error> {
        flush();
        match start::stdout() {
            0 => {
                to_console(bytes);
                Ok(bytes.len())
            }
            id => fs::write(id, bytes),
        }
    }

    fn flush(&mut self) -> Result<(), services::Error> {
        flush();
        Ok(())
    }
}

/// Sends what was printed to the standard output.
fn print_out(bytes: &[u8]) {
    let id = start::stdout();
    if id == 0 {
        return to_console(bytes);
    }
    match fs::write_all(id, bytes) {
        Ok(()) => {}
        Err(services::Error::Refused(Refusal::ReaderGone)) => {
            process::end(Reason::ReaderGone.status())
        }
        Err(error) => {
            // Not `eprintln!`, which would flush the buffer that this comes out of.
            let mut line = Buffer::new(to_console);
            let _ = writeln!(line, "{}: standard output: {error}", name());
            line.flush();
            process::end(1)
        }
    }
}

fn to_console(bytes: &[u8]) {
    if !start::console().is_none() {
        let console = ConsoleClient::borrow(start::console());
        let _ = again(|| console.write_all(bytes));
    } else if !start::system().is_none() {
        let _ = log(bytes);
    } else {
        nowhere(bytes);
    }
}

fn log(bytes: &[u8]) -> Result<(), Error> {
    let system = System::borrow(start::system());
    for chunk in bytes.utf8_chunks() {
        system.log(chunk.valid())?;
    }
    Ok(())
}

#[cfg(target_os = "none")]
fn nowhere(_: &[u8]) {}

#[cfg(not(target_os = "none"))]
fn nowhere(bytes: &[u8]) {
    std::print!("{}", String::from_utf8_lossy(bytes));
}
