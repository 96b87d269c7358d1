//! Threads of the same program: a function, an argument, a stack.

use abi::{Error, ThreadState};

use crate::buffer::PageBuffer;
use crate::object::{Endpoint, Entry, Space, Thread};
use crate::start;

/// Who hears of a thread's faults.
#[derive(Clone, Copy, Debug)]
pub enum Supervisor<'a> {
    /// The process server, which reports the fault and ends the process.
    Process,
    /// Nobody: a fault ends the thread.
    Nobody,
    /// This endpoint, with its handle's badge.
    Endpoint(&'a Endpoint),
}

/// A thread that runs on a stack of its own; dropping it kills the thread.
#[derive(Debug)]
pub struct Running {
    thread: Thread,
    stack: PageBuffer,
}

impl Running {
    /// The thread.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Its stack.
    #[must_use]
    pub fn stack(&self) -> &PageBuffer {
        &self.stack
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !matches!(self.thread.info(), Ok(info) if info.state != ThreadState::Dead)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The stack is unmapped next: nobody may stand on it.
        let _ = self.thread.kill();
    }
}

/// Runs `function(arg)` in a thread with this stack and priority 16, the priority of processes.
///
/// # Errors
/// Those of the calls `thread_create` and `thread_start`.
pub fn spawn(
    function: fn(u64),
    arg: u64,
    stack: PageBuffer,
    supervisor: Supervisor<'_>,
) -> Result<Running, Error> {
    spawn_at(function, arg, stack, supervisor, PRIORITY)
}

/// Priority of a process's threads.
pub const PRIORITY: u8 = 16;

/// [`spawn`] with a priority, 0 to 31 and at most the caller's.
///
/// # Errors
/// Those of the calls `thread_create` and `thread_start`.
pub fn spawn_at(
    function: fn(u64),
    arg: u64,
    stack: PageBuffer,
    supervisor: Supervisor<'_>,
    priority: u8,
) -> Result<Running, Error> {
    let process = Endpoint::borrow(start::supervisor());
    let supervisor = match supervisor {
        Supervisor::Process => Some(&*process).filter(|endpoint| !endpoint.handle().is_none()),
        Supervisor::Nobody => None,
        Supervisor::Endpoint(endpoint) => Some(endpoint),
    };
    let supervisor = supervisor.map(|endpoint| (endpoint, 0));
    let thread = Space::own().create_thread(supervisor, priority)?;
    thread.start(Entry {
        ip: entry as *const () as u64,
        // As after a call instruction: 8 below a multiple of 16.
        sp: stack.addr() + stack.mapped_len() as u64 - 8,
        args: [function as *const () as u64, arg, 0],
        fs_base: 0,
    })?;
    Ok(Running { thread, stack })
}

extern "C" fn entry(function: *const (), arg: u64) -> ! {
    // SAFETY: `spawn_at`, the only one that starts threads here, passes a `fn(u64)`.
    let function = unsafe { core::mem::transmute::<*const (), fn(u64)>(function) };
    function(arg);
    crate::rt::thread_exit()
}
