//! What the kernel needs of the machine, apart from memory.
//!
//! `arch` implements this for real hardware, tests implement it in a few lines; nothing above
//! knows the difference.

use crate::mm::Frame;

/// The machine as the portable part of the kernel sees it.
pub trait Platform: Sync {
    /// Nanoseconds since boot; never goes backwards.
    fn now_ns(&self) -> u64;

    /// The time-stamp counter.
    fn now_ticks(&self) -> u64;

    /// Ticks per second of the time-stamp counter.
    fn ticks_per_s(&self) -> u64;

    /// A number of ticks in nanoseconds.
    fn ticks_to_ns(&self, ticks: u64) -> u64;

    /// Interrupts another CPU, so that it comes into the kernel and looks who runs next.
    fn kick(&self, cpu: usize);

    /// Returns once another CPU, which runs a thread, waits for the kernel: the thread's registers are
    /// complete, and it may be taken from the CPU.
    fn halt(&self, cpu: usize);

    /// Whether other CPUs run threads too, so that what can be done beside them is not to be done by who has the kernel alone.
    fn has_others(&self) -> bool;

    /// Returns once no other CPU works on page tables or frames [apart](crate::sync::Apart) from the kernel, which the caller has
    /// alone. Whether one did: then it may have given frames back.
    fn settle(&self) -> bool;

    /// Returns once no CPU uses the page table at `root` any more. The next flush of it returns once none has it loaded.
    fn retire(&self, root: Frame);

    /// Whether the interrupt controllers have this line (a global system interrupt).
    fn interrupt_exists(&self, line: u32) -> bool;

    /// Lets the line interrupt once more, or stops it from doing so.
    fn interrupt_enable(&self, line: u32, enabled: bool);

    /// Reads `width` bytes (1, 2 or 4) from an I/O port.
    fn port_read(&self, port: u16, width: u64) -> u32;

    /// Writes `width` bytes (1, 2 or 4) to an I/O port.
    fn port_write(&self, port: u16, width: u64, value: u32);

    /// Writes a program's text to the kernel's log.
    fn log(&self, text: &[u8]);

    /// Ends the machine with this status.
    fn shutdown(&self, status: u64);
}
