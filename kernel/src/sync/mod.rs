//! How CPUs wait for each other.
//!
//! | | |
//! | --- | --- |
//! | [`Lock`] | one CPU has what is locked alone, or several share it; it is known who waits |
//! | [`Claimed`] | somebody uses something, and others do without it |
//! | [`Keep`] | somebody uses what is kept there, and others do without it |
//! | [`Mailboxes`] | one CPU asks others to do something, and waits until they have |
//! | [`order`] | in which order a CPU may do any of that |
//!
//! **Whoever waits answers.** A CPU that waits for a lock or for answers goes on answering requests
//! itself, so two CPUs that want something of each other both get it.

mod claim;
mod door;
mod lock;
mod mailbox;
pub mod order;

// The parts below take their atomics from here, because `kernel/models` gives them others.
use core::sync::atomic;

pub use claim::{Claimed, Keep};
pub use door::{Apart, Door, Doors, Entrance};
pub use lock::{Guard, Lock, Shared};
pub use mailbox::Mailboxes;
pub use order::{Held, Ordered, OrderedGuard, Rank};

/// The most CPUs that can take part: a bit of a word each.
pub const MAX_CPUS: usize = 64;

/// How many times a CPU looks whether it can have the [`Lock`] before that is reserved for it: some milliseconds, many times what
/// anybody has it for. In a virtual machine, where the next in order may not run, order is what costs most.
const PATIENCE: u32 = 1 << 16;

/// How many times a CPU is found inside before it is called: some microseconds, longer than a message takes, even right after a switch,
/// when no translation is known. To be called costs both CPUs more than that. The looks follow each other at once.
const NR_LOOKS: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// One CPU has the lock and asks the other, which waits for it.
    #[test]
    fn lesson_2_who_waits_for_the_lock_answers() {
        let (lock, mailboxes) = (Lock::new(()), Mailboxes::<()>::new());
        let guard = lock.lock(0, || unreachable!("it is free"));
        thread::scope(|scope| {
            scope.spawn(|| {
                drop(lock.lock(1, || mailboxes.answer(1, |&()| ())));
            });
            while !lock.is_waiting(1) {
                thread::yield_now();
            }
            mailboxes.ask(0, 0b10, (), |_| (), thread::yield_now);
            drop(guard);
        });
    }
}
