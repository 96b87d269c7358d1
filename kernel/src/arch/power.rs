//! The end of the machine.
//!
//! Under QEMU the emulator's front end learns how it came: the debug console (port 0xe9) gets a
//! line, `exit STATUS` or `panic`, and the debug-exit device (port 0xf4) ends the emulator with 33
//! or 35. A machine that has no such device is powered off by ACPI.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use spin::Once;
use x86_64::instructions::port::Port;

use super::{cpu, smp};

/// Ends QEMU with exit code 33.
const EXIT: u32 = 0x10;
/// Ends QEMU with exit code 35.
const PANIC: u32 = 0x11;

/// The end of the machine is to be a panic.
static PANIC_TEST: AtomicBool = AtomicBool::new(false);

static POWER_OFF: Once<PowerOff> = Once::new();

/// How to enter the state "soft off" of ACPI.
#[derive(Debug)]
pub struct PowerOff {
    /// Port of the PM1a control register.
    pub control_a: u16,
    /// Port of the PM1b control register.
    pub control_b: Option<u16>,
    /// What "soft off" is in the first.
    pub sleep_a: u8,
    /// What "soft off" is in the second.
    pub sleep_b: u8,
    /// Port by which the firmware is asked to hand over.
    pub enable_port: Option<u16>,
    /// What to ask.
    pub enable_value: u8,
}

impl PowerOff {
    const ENABLED: u16 = 1 << 0;
    const SLEEP: u16 = 1 << 13;

    fn enter(&self) {
        let mut control_a = Port::<u16>::new(self.control_a);
        // SAFETY: the firmware's tables name these ports for this purpose.
        unsafe {
            if let Some(port) = self.enable_port
                && control_a.read() & Self::ENABLED == 0
            {
                Port::<u8>::new(port).write(self.enable_value);
                for _ in 0..1_000_000 {
                    if control_a.read() & Self::ENABLED != 0 {
                        break;
                    }
                }
            }
            control_a.write(Self::SLEEP | u16::from(self.sleep_a) << 10);
            if let Some(port) = self.control_b {
                Port::<u16>::new(port).write(Self::SLEEP | u16::from(self.sleep_b) << 10);
            }
        }
    }
}

/// Remembers how to power off.
pub fn init(power_off: Option<PowerOff>) {
    if let Some(power_off) = power_off {
        POWER_OFF.call_once(|| power_off);
    }
}

/// Makes [`shutdown`] panic: no program can make the kernel panic, so this is how it is seen that a
/// panic says what it should.
pub fn test_panic() {
    PANIC_TEST.store(true, Relaxed);
}

/// Ends the machine.
pub fn shutdown(status: u64) -> ! {
    assert!(
        !PANIC_TEST.load(Relaxed),
        "as the command line asks for, at shutdown with status {status}"
    );
    smp::stop_others();
    end(format_args!("exit {status}\n"), EXIT);
    if let Some(power_off) = POWER_OFF.get() {
        power_off.enter();
    }
    cpu::halt()
}

/// Ends the emulator, or stops for ever, so that what is on the screen can be read.
pub fn panicked() -> ! {
    end(format_args!("panic\n"), PANIC);
    cpu::halt()
}

fn end(line: fmt::Arguments<'_>, code: u32) {
    // Writing to the port does not fail.
    let _ = DebugConsole.write_fmt(line);
    // SAFETY: the port ends QEMU, and elsewhere belongs to a numeric coprocessor long gone.
    unsafe { Port::<u32>::new(0xf4).write(code) };
}

struct DebugConsole;

impl Write for DebugConsole {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut port = Port::<u8>::new(0xe9);
        // SAFETY: the port is QEMU's debug console, and nothing elsewhere.
        text.bytes().for_each(|byte| unsafe { port.write(byte) });
        Ok(())
    }
}

/// The values of the sleep-type fields in the package `_S5_` of the firmware's code, found by its
/// name: `Name (_S5_, Package {a, b, ...})`.
pub fn soft_off_values(code: &[u8]) -> Option<[u8; 2]> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    let found = |at: &usize| {
        let before = &code[..*at];
        before.ends_with(&[NAME]) || before.ends_with(&[NAME, b'\\'])
    };
    let starts = code
        .windows(4)
        .enumerate()
        .filter(|(_, name)| *name == b"_S5_");
    let start = starts.map(|(at, _)| at).find(found)?;
    let (&PACKAGE, package) = code[start + 4..].split_first()? else {
        return None;
    };
    // The length has up to three more bytes, by the top bits of the first; then comes the number of
    // elements.
    let elements = package.get(2 + usize::from(package.first()? >> 6)..)?;
    let (a, rest) = small_integer(elements)?;
    let (b, _) = small_integer(rest).unwrap_or((a, rest));
    Some([a, b])
}

/// An integer below 256, and what follows it.
fn small_integer(code: &[u8]) -> Option<(u8, &[u8])> {
    match code {
        [value @ 0..=1, rest @ ..] | [0x0a, value, rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}
