//! Text out and lines in: to the console server, else the kernel's log, else nowhere.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use abi::Error;
use spin::mutex::SpinMutex;

use crate::object::System;
use crate::rt::YieldRelax;
use crate::service::again;
use crate::services;
use crate::services::console::ConsoleClient;
use crate::start;

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print(::core::format_args!($($arg)*)) };
}

/// Prints to the console, with a line end.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints to the console, with a line end, in front of nothing that is still buffered.
#[macro_export]
macro_rules! eprintln {
    ($($arg:tt)*) => {{
        $crate::print!("{}\n", ::core::format_args!($($arg)*));
        $crate::io::flush();
    }};
}

/// Bytes that wait for the end of their line.
const LINE: usize = 512;

static OUTPUT: SpinMutex<Buffer, YieldRelax> = SpinMutex::new(Buffer {
    bytes: [0; LINE],
    len: 0,
});

struct Buffer {
    bytes: [u8; LINE],
    len: usize,
}

impl Buffer {
    fn flush(&mut self) {
        write_out(&self.bytes[..self.len]);
        self.len = 0;
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

/// Prints a panic's message, past a buffer that the panicking thread may hold locked.
#[cfg(target_os = "none")]
pub(crate) fn panic_message(message: &dyn fmt::Display) {
    let mut buffer = Buffer {
        bytes: [0; LINE],
        len: 0,
    };
    if let Some(mut output) = OUTPUT.try_lock() {
        output.flush();
    }
    let name = start::args().next().unwrap_or("program");
    let _ = writeln!(buffer, "{name}: {message}");
    buffer.flush();
}

/// Reads a line from the console into `buffer`, its line end included, as far as it fits. `None`
/// is the end of the input. A console that dies meanwhile takes with it what was typed; the next one is asked.
///
/// # Errors
/// Those of the console server; [`services::Error::Kernel`] without one.
pub fn read_line(buffer: &mut [u8]) -> Result<Option<usize>, services::Error> {
    flush();
    let console = ConsoleClient::borrow(start::console());
    again(|| console.read_line_into(buffer))
}

fn write_out(bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
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
