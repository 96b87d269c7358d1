//! The kernel's lock, mailboxes and reference counts, over atomics that try every order.
//!
//! The files are the kernel's own. What they take from elsewhere is here, and their atomics are
//! [ours](atomic): [loom](https://docs.rs/loom) runs a model again and again, with another order of the
//! threads' steps each time, and lets loads return every value that the memory model allows. A thread of a
//! model is a CPU.
//!
//! A model says nothing as long as nobody knows that it could fail. So for each one there are tests that
//! it must fail: with [weaker](Weakness) atomics under the kernel's own code, or with steps left out or in
//! another order where a model writes them itself.
//!
//! What loom does not do:
//!
//! - A thread is stopped only so many times where it could go on (see [`check`]), and one that waits takes only so
//!   many turns (see [`Patience`]).
//! - When it looks for an order in which two accesses are swapped, it takes only the last one before an access.
//!   If that was a load, orders may be missed in which a change comes before an earlier load. So a CPU waits for what
//!   it wants to see, rather than look once; and where two CPUs do different things, each is first in one test.
//! - `SeqCst` is to it as `AcqRel`, but for fences.

pub mod atomic;
pub mod mm;
pub mod sync;

pub use atomic::Weakness;

use std::{cell::Cell, sync::Arc};

use loom::{cell::UnsafeCell, model::Builder, thread};

/// A free lock that all threads may use which start from now on, the first so many CPUs together.
#[must_use]
pub fn new_lock<T>(value: T, nr_sharers: usize) -> Arc<sync::Lock<T>> {
    let lock = sync::Lock::new(value);
    let mut guard = lock.lock(0, || unreachable!("it is free"));
    for cpu in 0..sync::MAX_CPUS {
        guard.admit(cpu, cpu < nr_sharers);
    }
    drop(guard);
    for cpu in 0..nr_sharers {
        drop(lock.share_later(cpu, lock.door(cpu), || unreachable!("it is free")));
    }
    Arc::new(lock)
}

/// Mailboxes that all threads may use which start from now on. In each is `nothing`, of which nobody knows.
#[must_use]
pub fn new_mailboxes<R>(nothing: impl Fn() -> R) -> sync::Mailboxes<R> {
    let mailboxes = sync::Mailboxes::new();
    for cpu in 0..sync::MAX_CPUS {
        let _ = mailboxes.is_asked(cpu);
        mailboxes.ask(cpu, 0, nothing(), |_| (), || ());
    }
    mailboxes
}

/// Runs a model in all orders in which no more than so many times a thread has to stop that could go on.
///
/// # Panics
///
/// If the model does, in one of them.
pub fn check(nr_preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(nr_preemptions);
    builder.check(model);
}

/// What a CPU does that waits for another one.
///
/// Two that wait could take turns for ever before the third goes on. So after some rounds one order is
/// enough of what is left of the run, in which all CPUs get their turns.
#[derive(Debug, Default)]
pub struct Patience(Cell<u32>);

impl Patience {
    const NR_ROUNDS: u32 = 4;

    /// Lets the others go on.
    pub fn wait(&self) {
        self.0.set(self.0.get() + 1);
        if self.0.get() == Self::NR_ROUNDS {
            loom::skip_branch();
        }
        thread::yield_now();
    }
}

/// Memory that no CPU may write while another one uses it. A model fails where that is possible.
#[derive(Debug, Default)]
pub struct Watched(UnsafeCell<u64>);

// SAFETY: loom stops whoever would write it while others use it, before it does.
unsafe impl Sync for Watched {}

impl Watched {
    /// Reads it.
    pub fn get(&self) -> u64 {
        // SAFETY: loom checks that nobody writes it.
        self.0.with(|value| unsafe { *value })
    }

    /// Writes it.
    pub fn set(&self, new: u64) {
        // SAFETY: loom checks that nobody else uses it.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}
