//! The order in which a CPU takes locks. Debug builds stop where somebody takes them in another one.
//!
//! What a CPU has is a bit for each [`Rank`], and it may take what ranks above all of that. As the kernel's own lock ranks
//! lowest, whoever takes that has nothing: so nothing that was taken is still there when a CPU comes from user mode, or
//! has gone to sleep. Claims are not here, as [nobody waits for one](super::Claimed).

use core::ops::{Deref, DerefMut};

use spin::{Mutex, MutexGuard};

/// What a CPU may wait for, in the order in which it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The kernel's lock, alone or shared.
    Kernel,
    /// What is made beside others.
    Creation,
    /// Answers of other CPUs. They may be waiting for a lock: if for the kernel's, they answer meanwhile; if for one
    /// below, they do not, so who has one of those must not ask.
    Answers,
    /// The I/O APICs.
    Lines,
    /// The turn of a table.
    Turns,
    /// The list of tables that are dead.
    DeadTables,
    /// Free frames that a CPU has at hand; or those of all CPUs, which are locked in the order of their numbers.
    Stocks,
    /// The other free frames.
    Frames,
    /// A line of the log.
    Log,
}

/// Says that a CPU has something, until it is dropped. In release builds it is nothing.
#[must_use]
pub struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
}

impl Held {
    /// Notes that the CPU waits for something, or has it.
    ///
    /// # Panics
    ///
    /// In debug builds, if it has something that does not rank below.
    #[inline(always)]
    pub fn new(rank: Rank) -> Self {
        #[cfg(debug_assertions)]
        held::take(rank);
        let _ = rank;
        Self {
            #[cfg(debug_assertions)]
            rank,
        }
    }

    /// Whoever had this has forgotten it, and another one will say that it has it.
    pub fn pass_on(rank: Rank) {
        #[cfg(debug_assertions)]
        held::give_back(rank);
        let _ = rank;
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        held::give_back(self.rank);
    }
}

/// A lock with a rank, which a CPU has alone for a few instructions.
#[derive(Debug)]
pub struct Ordered<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    mutex: Mutex<T>,
}

/// What is locked, until it is dropped.
pub struct OrderedGuard<'l, T> {
    guard: MutexGuard<'l, T>,
    _held: Held,
}

impl<T> Ordered<T> {
    /// A lock that is free.
    pub const fn new(rank: Rank, value: T) -> Self {
        let _ = rank;
        Self {
            #[cfg(debug_assertions)]
            rank,
            mutex: Mutex::new(value),
        }
    }

    /// Takes the lock if it is free, whatever the CPU has: for one that panics, or that has noted it already.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.mutex.try_lock()
    }

    /// Waits for the lock, and takes it.
    #[inline(always)]
    pub fn lock(&self) -> OrderedGuard<'_, T> {
        #[cfg(debug_assertions)]
        let rank = self.rank;
        #[cfg(not(debug_assertions))]
        let rank = Rank::Kernel; // nobody looks
        OrderedGuard {
            _held: Held::new(rank),
            guard: self.mutex.lock(),
        }
    }
}

impl<T> Deref for OrderedGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for OrderedGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Lets debug builds find out which CPU asks. Until then, and for a CPU without a number, nothing is checked.
pub fn identify(who: fn() -> Option<usize>) {
    #[cfg(debug_assertions)]
    held::identify(who);
    let _ = who;
}

/// What each CPU has.
#[cfg(debug_assertions)]
mod held {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use spin::Once;

    use super::Rank;
    use crate::sync::MAX_CPUS;

    /// A bit for each rank. Each CPU looks at its own word.
    static HELD: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
    static WHO: Once<fn() -> Option<usize>> = Once::new();

    pub(super) fn identify(who: fn() -> Option<usize>) {
        WHO.call_once(|| who);
    }

    #[track_caller]
    pub(super) fn take(rank: Rank) {
        with_own(|held| {
            let before = held.fetch_or(1 << rank as u32, Relaxed);
            assert!(
                before >> rank as u32 == 0,
                "{rank:?} is wanted by who has {before:#b} already"
            );
        });
    }

    pub(super) fn give_back(rank: Rank) {
        with_own(|held| {
            held.fetch_and(!(1 << rank as u32), Relaxed);
        });
    }

    #[cfg(not(test))]
    fn with_own(act: impl FnOnce(&AtomicU64)) {
        if let Some(cpu) = WHO.get().and_then(|who| who()) {
            act(&HELD[cpu]);
        }
    }

    /// In tests each thread is a CPU.
    #[cfg(test)]
    fn with_own(act: impl FnOnce(&AtomicU64)) {
        std::thread_local! {
            static OWN: AtomicU64 = const { AtomicU64::new(0) };
        }
        let _ = (&HELD, &WHO);
        OWN.with(act);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn is_refused(act: impl FnOnce() + Send + std::panic::UnwindSafe + 'static) -> bool {
        std::thread::spawn(move || catch_unwind(act).is_err())
            .join()
            .expect("the panic is caught")
    }

    #[test]
    fn locks_are_taken_in_the_order_of_their_ranks() {
        let kernel = Held::new(Rank::Kernel);
        let frames = Ordered::new(Rank::Frames, 7);
        let log = Ordered::new(Rank::Log, 8);
        for _ in 0..2 {
            let (first, second) = (frames.lock(), log.lock());
            assert_eq!(*first + *second, 15);
        }
        drop(kernel);
        drop(Held::new(Rank::Kernel));
    }

    #[test]
    fn an_inversion_is_caught() {
        assert!(is_refused(|| {
            let log = Ordered::new(Rank::Log, ());
            let frames = Ordered::new(Rank::Frames, ());
            let _log = log.lock();
            let _frames = frames.lock();
        }));
    }

    #[test]
    fn a_lock_that_a_cpu_has_already_is_caught() {
        assert!(is_refused(|| {
            let frames = Ordered::new(Rank::Frames, ());
            let _first = frames.lock();
            let _second = frames.lock();
        }));
    }

    #[test]
    fn who_has_a_lock_for_which_nobody_answers_may_not_ask() {
        assert!(is_refused(|| {
            let dead = Ordered::new(Rank::DeadTables, ());
            let _dead = dead.lock();
            let _answers = Held::new(Rank::Answers);
        }));
    }

    #[test]
    fn what_is_left_over_is_caught_at_the_next_way_into_the_kernel() {
        assert!(is_refused(|| {
            let frames = Ordered::new(Rank::Frames, ());
            core::mem::forget(frames.lock());
            let _kernel = Held::new(Rank::Kernel);
        }));
    }
}
