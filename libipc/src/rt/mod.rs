//! The run-time: entry, panic, heap. Only on bare metal; on the host the standard library's serve.

#[cfg(target_os = "none")]
mod heap;

use core::fmt::Display;

use abi::{Call, Handle};

use crate::{eprintln, raw, start};
#[cfg(target_os = "none")]
use crate::{io, process};

/// Exit status of a program that panicked.
pub const PANIC_STATUS: i32 = 101;

/// What a program's main function may return.
pub trait Exit {
    /// The exit status; says what went wrong, if something did.
    fn status(self) -> i32;
}

impl Exit for () {
    fn status(self) -> i32 {
        0
    }
}

impl Exit for i32 {
    fn status(self) -> i32 {
        self
    }
}

impl<T: Exit, E: Display> Exit for Result<T, E> {
    fn status(self) -> i32 {
        match self {
            Ok(value) => value.status(),
            Err(error) => {
                eprintln!("{}: {error}", start::args().next().unwrap_or("program"));
                1
            }
        }
    }
}

/// Makes a function the program's main function: `program!(run);`, where `run` takes nothing and
/// returns what [`Exit`] allows.
///
/// On the host the program is empty, so that the workspace's tests and lints see its code.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        /// The entry point: aligns the stack and passes on where the start information is.
        #[cfg(target_os = "none")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        extern "C" fn _start(info: u64) -> ! {
            extern "C" fn enter(info: u64) -> ! {
                $crate::rt::start(info, || $crate::rt::Exit::status($main()))
            }
            ::core::arch::naked_asm!("xor ebp, ebp", "and rsp, -16", "call {}", "ud2", sym enter)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _ = || $crate::rt::Exit::status($main());
        }
    };
}

/// From here on the heap grows only by memory that is there: without free frames an allocation fails, rather than that a later
/// write to it is a fault. For servers that go on when there are none; what they use of the heap must fit
/// into what it grows by then, or be asked for by `try_reserve`.
pub fn back_heap() {
    #[cfg(target_os = "none")]
    heap::back();
}

/// Runs a program. Not for calling: [`program!`](crate::program) does.
#[cfg(target_os = "none")]
#[doc(hidden)]
pub fn start(info: u64, main: impl FnOnce() -> i32) -> ! {
    start::set(info);
    process::exit(main())
}

/// Ends the thread without a word to anybody.
pub fn thread_exit() -> ! {
    loop {
        raw::call(Call::ThreadExit as u32, Handle::NONE, [0; 6]);
    }
}

/// What a thread does that waits for a lock: lets others run.
#[derive(Debug)]
pub struct YieldRelax;

impl spin::RelaxStrategy for YieldRelax {
    fn relax() {
        crate::object::yield_now();
    }
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::sync::atomic::{AtomicBool, Ordering};
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if !PANICKED.swap(true, Ordering::Relaxed) {
        io::panic_message(info);
    }
    process::exit(PANIC_STATUS)
}
