//! The end of the kernel: says what happened, where, and who was running.

use core::{
    fmt::{self, Arguments, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use super::{
    paging,
    percpu::{self, PerCpu},
    power, serial, smp, symbols,
};

const MAX_FRAMES: usize = 32;

static PANICKING: AtomicBool = AtomicBool::new(false);
/// Instruction and frame pointer of a fault in the kernel: where the backtrace starts.
static ORIGIN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Makes the backtrace of the panic that follows start at a fault.
pub fn set_origin(ip: u64, frame: u64) {
    ORIGIN[0].store(ip, Relaxed);
    ORIGIN[1].store(frame, Relaxed);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    smp::stop_others();
    if PANICKING.swap(true, Relaxed) {
        print(format_args!("\npanic while panicking: {info}\n"));
        power::panicked();
    }
    let cpu = PerCpu::try_get();
    let number = cpu.map_or(0, |_| PerCpu::number());
    print(format_args!(
        "\nkernel panic on CPU {number}: {}\n",
        info.message()
    ));
    if let Some(location) = info.location() {
        print(format_args!("  at {location}\n"));
    }
    backtrace();
    if let Some(cpu) = cpu.filter(|cpu| cpu.has_run()) {
        // SAFETY: the registers of a thread that ran are in a frame that the kernel has mapped, be
        // the thread alive or not.
        let registers = unsafe { cpu.registers().read() };
        print(format_args!("running thread: {registers:#x?}\n"));
    }
    power::panicked()
}

fn print(text: Arguments<'_>) {
    serial::print_in_panic(text);
}

/// Follows the frame pointers as long as they make sense.
fn backtrace() {
    let [mut ip, mut frame] = ORIGIN.each_ref().map(|part| part.load(Relaxed));
    if ip == 0 {
        // SAFETY: copies a register.
        unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) };
    }
    for _ in 0..MAX_FRAMES {
        if ip != 0 {
            print(format_args!("  {}\n", Place(ip)));
        }
        if !is_frame(frame) {
            return;
        }
        // SAFETY: the two words lie in the image's data, where the stacks are, and are mapped.
        let [next, return_address] = unsafe { (frame as *const [u64; 2]).read() };
        if return_address == 0 {
            return;
        }
        // The call, not what follows it, which may be another function.
        (ip, frame) = (return_address - 1, if next > frame { next } else { 0 });
    }
}

/// Whether two words at this address can be read: in the image's data, and in no guard page, or on the
/// stack of a CPU that is not the first.
fn is_frame(frame: u64) -> bool {
    let number = PerCpu::try_get().map_or(0, |_| PerCpu::number());
    if number > 0 {
        return frame.is_multiple_of(8)
            && percpu::is_on_stack(number, frame)
            && percpu::is_on_stack(number, frame + 8);
    }
    let [_, _, data, end] = paging::image();
    let guarded = percpu::boot_guards()
        .iter()
        .any(|guard| (*guard..guard + 4096).contains(&frame));
    frame.is_multiple_of(8) && (data..end - 16).contains(&frame) && !guarded
}

/// A code address with the name of its function.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)?;
        match symbols::find(self.0) {
            Some((name, distance)) => {
                write!(f, " {:#}+{distance:#x}", rustc_demangle::demangle(name))
            }
            None => f.write_char(' '),
        }
    }
}
