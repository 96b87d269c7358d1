//! The machine's CPUs, as threads are bound to them.

use libipc::Thread;
use libipc::abi::{Error, ThreadField};
use libipc::start;

/// The most CPUs that a set can name.
const MOST: u64 = 64;

/// How many CPUs run threads.
///
/// The calling thread may run on all of them afterwards.
///
/// # Panics
/// When a thread cannot be bound to CPUs.
#[must_use]
pub fn count() -> u64 {
    let own = Thread::borrow(start::thread());
    let count = (0..MOST)
        .take_while(|cpu| bind(&own, 1 << cpu).is_ok())
        .count() as u64;
    bind(&own, u64::MAX).expect("some CPU is there");
    count
}

/// Lets this thread, and those that it makes from now on, run on the first CPU only: elsewhere a lower
/// priority need not wait, nor anybody take turns.
///
/// # Panics
/// When a thread cannot be bound to CPUs.
#[track_caller]
pub fn stay_on_one() {
    let own = Thread::borrow(start::thread());
    bind(&own, 1).expect("the first CPU is there");
}

/// Lets a thread run on these CPUs only, a bit each.
///
/// # Errors
/// Those of the call `thread_set`.
pub fn bind(thread: &Thread, cpus: u64) -> Result<(), Error> {
    thread.set(ThreadField::Affinity, cpus)
}
