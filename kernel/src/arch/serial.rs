//! The kernel's log, on the first serial port.
//!
//! A 16550 at I/O port 0x3f8, polled. A program may drive the same port by interrupt: the log
//! changes no register but the transmitter's after [`init`].

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use kernel::sync::{Ordered, Rank};
use log::{LevelFilter, Log, Metadata, Record};
use x86_64::instructions::port::Port as IoPort;

use super::clock;

const BASE: u16 = 0x3f8;
/// Far longer than a character takes at the slowest speed.
const PATIENCE: u32 = 1_000_000;

/// Held for one line.
static PORT: Ordered<Port> = Ordered::new(Rank::Log, Port);
static PRESENT: AtomicBool = AtomicBool::new(false);

struct Port;

fn register(number: u16) -> IoPort<u8> {
    IoPort::new(BASE + number)
}

impl Port {
    fn write_byte(&mut self, byte: u8) {
        // SAFETY: reading the line status and sending a byte touch no memory.
        unsafe {
            for _ in 0..PATIENCE {
                if register(5).read() & 0x20 != 0 {
                    return register(0).write(byte);
                }
                core::hint::spin_loop();
            }
        }
        // Nobody takes the bytes: no more waiting.
        PRESENT.store(false, Relaxed);
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_bytes(self, text.as_bytes());
        Ok(())
    }
}

fn write_bytes(port: &mut Port, bytes: &[u8]) {
    for &byte in bytes {
        if !PRESENT.load(Relaxed) {
            return;
        }
        if byte == b'\n' {
            port.write_byte(b'\r');
        }
        port.write_byte(byte);
    }
}

struct KernelLog;

impl Log for KernelLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let now_us = clock::now_ns() / 1000;
            let (s, us) = (now_us / 1_000_000, now_us % 1_000_000);
            let level = record.level();
            // Writing to the port does not fail.
            let _ = writeln!(PORT.lock(), "[{s:4}.{us:06}] {level:<5} {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Sets the port up (115200 baud, 8N1, FIFOs on, no interrupts) and starts logging at `level`.
pub fn init(level: LevelFilter) {
    // SAFETY: these are the registers of the serial port, which the kernel owns at boot.
    unsafe {
        // A scratch register that remembers is a sign of life.
        register(7).write(0x5a);
        PRESENT.store(register(7).read() == 0x5a, Relaxed);
        for (number, value) in [
            (1, 0x00),
            (3, 0x80),
            (0, 0x01),
            (1, 0x00),
            (3, 0x03),
            (2, 0x07),
            (4, 0x0b),
        ] {
            register(number).write(value);
        }
    }
    log::set_max_level(level);
    // Fails only if there is a logger, which would be this one.
    let _ = log::set_logger(&KernelLog);
}

/// Writes a program's text as it is, with a carriage return before each line feed.
pub fn write(text: &[u8]) {
    write_bytes(&mut PORT.lock(), text);
}

/// Prints, whoever holds the lock: for a CPU that panics, perhaps in the middle of a line.
pub fn print_in_panic(text: fmt::Arguments<'_>) {
    let lock = (0..PATIENCE).find_map(|_| PORT.try_lock());
    // Writing to the port does not fail.
    let _ = match lock {
        Some(mut port) => port.write_fmt(text),
        None => Port.write_fmt(text),
    };
}
