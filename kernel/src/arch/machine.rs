//! The machine as the portable kernel sees it.

use kernel::{
    mm::{Frame, Mm, PhysMap},
    platform::Platform,
};
use x86_64::instructions::port::Port;

use super::{clock, hold, lines, percpu::PerCpu, power, roots, serial, smp};

/// The machine's memory, which has no frames before `boot` adds them.
// SAFETY: the direct map has all memory of the memory map; what is not memory is never passed to the
// map. The kernel's image is not either.
pub static MM: Mm = Mm::new(unsafe { PhysMap::direct() }, roots::flush, PerCpu::number);

/// This machine.
pub struct Machine;

impl Platform for Machine {
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    fn now_ticks(&self) -> u64 {
        clock::ticks()
    }

    fn ticks_per_s(&self) -> u64 {
        clock::ticks_per_s()
    }

    fn ticks_to_ns(&self, ticks: u64) -> u64 {
        clock::ticks_to_ns(ticks)
    }

    fn kick(&self, cpu: usize) {
        smp::kick(cpu);
    }

    fn halt(&self, cpu: usize) {
        hold::halt(cpu);
    }

    fn has_others(&self) -> bool {
        hold::has_others()
    }

    fn settle(&self) -> bool {
        hold::settle()
    }

    fn retire(&self, root: Frame) {
        roots::retire(root);
    }

    fn interrupt_exists(&self, line: u32) -> bool {
        lines::exists(line)
    }

    fn interrupt_enable(&self, line: u32, enabled: bool) {
        lines::enable(line, enabled);
    }

    fn port_read(&self, port: u16, width: u64) -> u32 {
        // SAFETY: what a port does to a device is up to the holder of the handle; no port of a PC
        // reads into memory by itself, and drivers with such devices are trusted with them.
        unsafe {
            match width {
                1 => Port::<u8>::new(port).read().into(),
                2 => Port::<u16>::new(port).read().into(),
                _ => Port::<u32>::new(port).read(),
            }
        }
    }

    fn port_write(&self, port: u16, width: u64, value: u32) {
        // SAFETY: as above.
        unsafe {
            match width {
                1 => Port::<u8>::new(port).write(value as u8),
                2 => Port::<u16>::new(port).write(value as u16),
                _ => Port::<u32>::new(port).write(value),
            }
        }
    }

    fn log(&self, text: &[u8]) {
        serial::write(text);
    }

    fn shutdown(&self, status: u64) {
        power::shutdown(status);
    }
}
