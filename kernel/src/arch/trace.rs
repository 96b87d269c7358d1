//! What is told in kernels that [trace](kernel::trace) of the ways into the kernel and out of it. Each way out is told in the entry
//! code, whether a short path leads there or the general one, so nobody else need say who runs.

#[cfg(feature = "trace")]
use kernel::{
    object::Registers,
    trace::{self, Machine},
};

#[cfg(feature = "trace")]
use super::{clock, percpu::PerCpu};

/// Begins to record, if the kernel does so. The clock must have its rate.
pub fn init() {
    #[cfg(feature = "trace")]
    trace::start(
        Machine {
            ticks: clock::ticks,
            cpu: PerCpu::number,
            running,
        },
        clock::ticks_per_s(),
    );
}

/// The running thread met a page fault.
#[inline(always)]
pub fn page_fault(address: u64, error: u64) {
    #[cfg(feature = "trace")]
    trace::page_fault(address, error, saved().rip);
    let _ = (address, error);
}

/// The running thread was interrupted, or met another exception.
#[inline(always)]
pub fn trap(vector: u64) {
    #[cfg(feature = "trace")]
    trace::trap(vector, saved().rip);
    let _ = vector;
}

/// The CPU has no thread to run.
#[inline(always)]
pub fn idle() {
    #[cfg(feature = "trace")]
    trace::idle();
}

/// The running thread made a call. For the entry code.
#[cfg(feature = "trace")]
pub extern "C" fn enter() {
    let regs = saved();
    trace::call([regs.rax, regs.rdi, regs.rsi, regs.rdx, regs.r8]);
}

/// The CPU goes on with the running thread; if that has made a call, it returns this. For the entry code.
#[cfg(feature = "trace")]
pub extern "C" fn leave(result: u64) {
    trace::leave(result);
}

/// The registers of the running thread.
#[cfg(feature = "trace")]
fn saved() -> Registers {
    // SAFETY: the entry code has just saved the registers there, and nobody else uses them.
    unsafe { *PerCpu::get().registers() }
}

/// The number of the thread that runs on this CPU, or 0.
#[cfg(feature = "trace")]
fn running() -> u64 {
    let pin = PerCpu::seat().running;
    if pin.is_null() {
        return 0; // it does not run threads yet
    }
    // SAFETY: the seat is the CPU's own. Others take a thread from it only while it waits for the kernel, and nothing is
    // recorded meanwhile.
    unsafe { (*pin).number() }
}
