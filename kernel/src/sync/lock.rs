//! A lock that knows who had it last.
//!
//! Whoever had it last can [have it again](Lock::retake) for less: nobody else has had it meanwhile, so
//! there is no need to look at what others may have changed.
//!
//! The lock is not handed on in the order in which it was asked for: of those who wait, whoever looks first
//! when it is free gets it. What it guards is kept for a short time only, so nobody waits for long; and in a
//! virtual machine with more CPUs than the host has, the next in order would often be one that does not run.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use super::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use super::MAX_CPUS;

/// Something that one CPU at a time has.
pub struct Lock<T: ?Sized> {
    /// The number of the CPU that had it last, and [`TAKEN`] more while it has it.
    state: AtomicUsize,
    /// The CPUs that wait, a bit each.
    waiting: AtomicU64,
    value: UnsafeCell<T>,
}

const TAKEN: usize = 1 << 8;
const _: () = assert!(MAX_CPUS <= TAKEN);

// SAFETY: the lock gives the value to one CPU at a time.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

/// The locked value, until this is dropped.
pub struct Guard<'l, T: ?Sized> {
    lock: &'l Lock<T>,
}

impl<T> Lock<T> {
    /// A lock that is free, as if CPU 0 had had it last.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock for a CPU if it is free and that CPU had it last.
    #[inline(always)]
    pub fn retake(&self, cpu: usize) -> Option<Guard<'_, T>> {
        let taken = self
            .state
            .compare_exchange(cpu, cpu + TAKEN, Acquire, Relaxed);
        // Only then: a guard that is dropped gives the lock back.
        taken.is_ok().then(|| Guard { lock: self })
    }

    /// Takes the lock for a CPU, which does `wait` again and again until it is free.
    pub fn lock(&self, cpu: usize, wait: impl FnMut()) -> Guard<'_, T> {
        self.take(cpu, wait);
        // SAFETY: it has just been taken.
        unsafe { self.taken() }
    }

    /// What [`lock`](Self::lock) returns, after [`take`](Self::take).
    ///
    /// # Safety
    ///
    /// This CPU has taken the lock, and nothing was returned for that yet.
    #[inline(always)]
    pub unsafe fn taken(&self) -> Guard<'_, T> {
        Guard { lock: self }
    }

    /// Does what [`lock`](Self::lock) does, and leaves it to the caller to say what follows: until it
    /// does, the lock stays taken.
    pub fn take(&self, cpu: usize, mut wait: impl FnMut()) {
        // All that the CPU has done so far is seen by who finds it waiting.
        self.waiting.fetch_or(1 << cpu, SeqCst);
        loop {
            let last = self.state.load(Relaxed);
            if last < TAKEN
                && self
                    .state
                    .compare_exchange_weak(last, cpu + TAKEN, Acquire, Relaxed)
                    .is_ok()
            {
                self.waiting.fetch_and(!(1 << cpu), Relaxed);
                return;
            }
            wait();
        }
    }

    /// Whether a CPU waits for the lock. If the caller has it, the other one goes on waiting.
    #[must_use]
    pub fn is_waiting(&self, cpu: usize) -> bool {
        self.waiting.load(SeqCst) >> cpu & 1 != 0
    }
}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: whoever has the guard has the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // Nobody else changes it meanwhile.
        let state = self.lock.state.load(Relaxed);
        self.lock.state.store(state - TAKEN, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn one_at_a_time_has_it_whether_it_takes_or_retakes() {
        const ROUNDS: u64 = 10_000;
        let lock = Lock::new(0_u64);
        thread::scope(|scope| {
            for cpu in 0..4 {
                let lock = &lock;
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let again = lock.retake(cpu);
                        let mut guard = again.unwrap_or_else(|| lock.lock(cpu, thread::yield_now));
                        let value = *guard;
                        *guard = value + 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(0, || unreachable!("it is free")), 4 * ROUNDS);
        assert_eq!(lock.waiting.load(SeqCst), 0);
    }

    #[test]
    fn it_is_retaken_only_by_who_had_it_last_and_not_while_it_is_taken() {
        let lock = Lock::new(());
        let guard = lock.lock(3, || unreachable!("it is free"));
        assert!(lock.retake(3).is_none());
        drop(guard);
        assert!(lock.retake(0).is_none());
        assert!(lock.retake(3).is_some() && lock.retake(3).is_some());
    }

    #[test]
    fn waiting_is_seen() {
        let lock = Lock::new(());
        let guard = lock.retake(0).expect("it is free");
        thread::scope(|scope| {
            scope.spawn(|| drop(lock.lock(5, thread::yield_now)));
            while !lock.is_waiting(5) {
                thread::yield_now();
            }
            assert!(!lock.is_waiting(4));
            drop(guard);
        });
        assert!(!lock.is_waiting(5));
        assert!(lock.retake(5).is_some());
    }
}
