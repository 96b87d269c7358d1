//! Others to test against: threads of the same process, and processes.

use alloc::boxed::Box;

use libipc::abi::ThreadState;
use libipc::object::{clock, cpus, yield_now};
use libipc::services::procd::Ended;
use libipc::thread::{PRIORITY, Running, Supervisor, spawn_at};
use libipc::time::{Duration, sleep};
use libipc::{PageBuffer, Thread, process};

/// Size of a peer thread's stack in bytes.
const STACK: usize = 64 * 1024;

/// How long a condition may take that others bring about, in nanoseconds: far more than any does, on
/// a host that has other things to do as well.
const PATIENCE_NS: u64 = 100_000_000_000;

/// How long who waits for a condition leaves its CPU alone between two looks, in nanoseconds: at first,
/// and in the end.
const REST_NS: u64 = 100_000;
const LONG_REST_NS: u64 = 3_000_000;

type Body = Box<dyn FnOnce()>;

/// Runs a closure in a thread of this process. Dropping the result kills the thread.
///
/// # Panics
/// When no thread can be made. A panic of the closure ends the process.
#[track_caller]
pub fn thread(body: impl FnOnce() + 'static) -> Running {
    thread_with(PRIORITY, Supervisor::Process, body)
}

/// [`thread`] with a priority and a supervisor.
///
/// # Panics
/// When no thread can be made.
#[track_caller]
pub fn thread_with(
    priority: u8,
    supervisor: Supervisor<'_>,
    body: impl FnOnce() + 'static,
) -> Running {
    let body: Box<Body> = Box::new(Box::new(body));
    let stack = PageBuffer::new(STACK).expect("stack");
    spawn_at(run, Box::into_raw(body) as u64, stack, supervisor, priority).expect("thread")
}

fn run(body: u64) {
    // SAFETY: `thread_with` made the pointer and passes it to one thread.
    let body = unsafe { Box::from_raw(body as *mut Body) };
    body();
}

/// Lets others run until the condition holds.
///
/// # Panics
/// When it does not in a time that no condition needs.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_for(PATIENCE_NS, condition), "waited in vain: {what}");
}

/// Lets others run until the condition holds, but not for longer than this. Returns whether it does.
///
/// With several CPUs, to yield is to go on at once: a CPU that does nothing else takes time from the
/// others, as they may be threads of one host. So who has yielded some times rests, and its CPU halts.
pub fn wait_for(limit_ns: u64, mut condition: impl FnMut() -> bool) -> bool {
    /// Turns between two rests, or two looks at the clock.
    const TURNS: u32 = 2;
    let has_others = cpus().is_ok_and(|cpus| cpus.count_ones() > 1);
    let now = || clock().expect("clock").0;
    let end = now() + limit_ns;
    let mut rest_ns = REST_NS;
    loop {
        for _ in 0..TURNS {
            if condition() {
                return true;
            }
            yield_now();
        }
        if now() > end {
            return condition();
        }
        if has_others {
            rest(rest_ns);
            rest_ns = (2 * rest_ns).min(LONG_REST_NS);
        }
    }
}

/// Lets a time pass, in nanoseconds, without taking a CPU from anybody.
///
/// # Panics
/// When there is no clock.
#[track_caller]
pub fn rest(ns: u64) {
    sleep(Duration::from_nanos(ns)).expect("clock");
}

/// Waits for a condition as [`until`] does, but rests between two looks also with one CPU, so that
/// threads of lower priority run.
///
/// # Panics
/// When the condition does not hold in a time that no condition needs.
#[track_caller]
pub fn rest_until(what: &str, condition: impl Fn() -> bool) {
    let now = || clock().expect("clock").0;
    let end = now() + PATIENCE_NS;
    while !condition() {
        assert!(now() <= end, "waited in vain: {what}");
        rest(REST_NS);
    }
}

/// Waits for the end of a thread.
#[track_caller]
pub fn join(thread: Running) {
    until("end of a thread", || thread.is_finished());
}

/// Waits until a thread is in this state.
#[track_caller]
pub fn until_state(thread: &Thread, state: ThreadState) {
    until("state of a thread", || {
        thread.info().is_ok_and(|info| info.state == state)
    });
}

/// Runs a closure in a child process, whose exit status it returns; returns the child's number.
///
/// # Panics
/// When the fork fails.
#[track_caller]
pub fn child(body: impl FnOnce() -> i32) -> u64 {
    match process::fork().expect("fork") {
        0 => process::exit(body()),
        pid => pid,
    }
}

/// Waits for a child and returns its exit status.
///
/// # Panics
/// When there is no such child.
#[track_caller]
pub fn status_of(pid: u64) -> i32 {
    let Ended { pid: ended, status } = process::wait(pid).expect("wait");
    assert_eq!(ended, pid, "wait told of another child");
    status
}

/// Runs a closure in a child process and fails the case unless it ends with this status.
#[track_caller]
pub fn expect_status(status: i32, body: impl FnOnce() -> i32) {
    assert_eq!(status_of(child(body)), status);
}
