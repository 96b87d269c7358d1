//! Ends in a way of one's choice, to see what the process server makes of it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;

use libipc::services::init::{self, InitClient};
use libipc::services::names::Name;
use libipc::thread::{self, Supervisor};
use libipc::time::{Duration, sleep};
use libipc::{PAGE_SIZE, PageBuffer, exit, getpid, println, process, start};

libipc::program!(run);

/// An address that no program has mapped.
const NOWHERE: usize = 0x1000;

fn run() -> i32 {
    let mut args = start::args().skip(1);
    match (args.next(), args.next()) {
        (Some("read"), None) => read(),
        (Some("write"), None) => write(),
        (Some("null"), None) => read_at(core::ptr::null()),
        (Some("overflow"), None) => {
            descend(u64::MAX);
        }
        (Some("thread"), None) => in_thread(),
        (Some("exec"), None) => execute(),
        (Some("div"), None) => divide(),
        (Some("kill"), None) => {
            let _ = process::kill(getpid());
        }
        (Some("oom"), None) => exhaust(),
        (Some("server"), Some(server)) => end_server(server),
        (Some("panic"), None) => panic!("as asked for"),
        (Some("exit"), Some(status)) => exit(status.parse().unwrap_or(1)),
        _ => println!(
            "usage: crash read|write|null|overflow|thread|exec|div|kill|oom|panic|exit N|server NAME"
        ),
    }
    2
}

fn read() {
    read_at(black_box(NOWHERE) as *const u8);
}

fn read_at(address: *const u8) {
    // SAFETY: none: the access faults.
    black_box(unsafe { core::ptr::read_volatile(black_box(address)) });
}

/// Calls itself until the stack is at its end.
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    match depth {
        0 => 0,
        _ => descend(depth - 1) + frame[0],
    }
}

/// Reads from nowhere in a second thread.
fn in_thread() {
    let stack = PageBuffer::new(4 * PAGE_SIZE).expect("stack");
    let thread = thread::spawn(|_| read(), 0, stack, Supervisor::Process);
    let _thread = thread.expect("thread");
    // The fault ends the process.
    let _ = sleep(Duration::MAX);
}

/// Writes to code.
fn write() {
    let code = run as *const () as usize;
    // SAFETY: none: the access faults.
    unsafe { core::ptr::write_volatile(black_box(code) as *mut u8, 0) };
}

/// Runs data: a return instruction, for a machine that would let it.
fn execute() {
    static mut DATA: [u8; 16] = [0xc3; 16];
    let data = black_box(&raw mut DATA as *const ());
    // SAFETY: none: the jump faults, for no memory is writable and executable.
    let function = unsafe { core::mem::transmute::<*const (), extern "C" fn()>(data) };
    function();
}

/// Divides by zero past the check that the compiler makes.
fn divide() {
    // SAFETY: none: the instruction raises an exception.
    #[cfg(target_os = "none")]
    unsafe {
        core::arch::asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _);
    }
}

/// Ends a server as often as it is there: init lets who asks do that if the kernel's command line has the word `mortal`.
fn end_server(server: &str) {
    let name = Name::new(server).unwrap_or_else(|| panic!("{server} is no name"));
    let init = InitClient::connect(init::NAME);
    while init.as_ref().is_ok_and(|init| init.end(name).is_ok()) {}
    println!("crash: {server} cannot be ended");
}

/// Touches memory until there is none.
fn exhaust() {
    while let Ok(mut memory) = PageBuffer::new(1 << 24) {
        for page in memory.chunks_mut(PAGE_SIZE) {
            page[0] = 1;
        }
        core::mem::forget(memory);
    }
    println!("crash: no more memory to reserve");
}
