//! The machine's CPUs, as threads are bound to them.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libipc::Thread;
use libipc::abi::{Error, ThreadField};
use libipc::{object, start};

/// The most CPUs that a set can name.
const MOST: u64 = 64;

/// Whether this process [stays on one](stay_on_one).
static IS_ON_ONE: AtomicBool = AtomicBool::new(false);

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
/// priority need not wait, nor anybody take turns. Children of the process must do it for themselves.
///
/// # Panics
/// When a thread cannot be bound to CPUs.
#[track_caller]
pub fn stay_on_one() {
    let own = Thread::borrow(start::thread());
    bind(&own, 1).expect("the first CPU is there");
    IS_ON_ONE.store(true, Relaxed);
}

/// Whether others may run while this thread does.
pub(super) fn has_others() -> bool {
    !IS_ON_ONE.load(Relaxed) && object::cpus().is_ok_and(|cpus| cpus.count_ones() > 1)
}

/// Lets a thread run on these CPUs only, a bit each.
///
/// # Errors
/// Those of the call `thread_set`.
pub fn bind(thread: &Thread, cpus: u64) -> Result<(), Error> {
    thread.set(ThreadField::Affinity, cpus)
}
