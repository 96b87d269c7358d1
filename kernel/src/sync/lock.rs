//! A lock that is handed on in the order in which it was asked for.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

/// Something that one CPU at a time has.
pub struct Lock<T: ?Sized> {
    /// The number of the next CPU to come.
    next: AtomicU32,
    /// The number of the one whose turn it is.
    serving: AtomicU32,
    /// The CPUs that wait, a bit each.
    waiting: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one CPU at a time.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

/// The locked value, until this is dropped.
pub struct Guard<'l, T: ?Sized> {
    lock: &'l Lock<T>,
}

impl<T> Lock<T> {
    /// A lock that is free.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            next: AtomicU32::new(0),
            serving: AtomicU32::new(0),
            waiting: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock if nobody has it.
    #[inline(always)]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let serving = self.serving.load(Relaxed);
        let taken = self
            .next
            .compare_exchange(serving, serving.wrapping_add(1), Acquire, Relaxed);
        // Only then: a guard that is dropped gives the lock back.
        taken.is_ok().then(|| Guard { lock: self })
    }

    /// Takes the lock for a CPU, which does `wait` again and again until it is its turn.
    #[inline(always)]
    pub fn lock(&self, cpu: usize, wait: impl FnMut()) -> Guard<'_, T> {
        self.try_lock()
            .unwrap_or_else(|| self.lock_in_turn(cpu, wait))
    }

    #[inline(never)]
    fn lock_in_turn(&self, cpu: usize, mut wait: impl FnMut()) -> Guard<'_, T> {
        // All that the CPU has done so far is seen by who finds it waiting.
        self.waiting.fetch_or(1 << cpu, SeqCst);
        let number = self.next.fetch_add(1, Relaxed);
        while self.serving.load(Acquire) != number {
            wait();
        }
        self.waiting.fetch_and(!(1 << cpu), Relaxed);
        Guard { lock: self }
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
        let serving = self.lock.serving.load(Relaxed);
        self.lock.serving.store(serving.wrapping_add(1), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn one_at_a_time_has_it() {
        const ROUNDS: u64 = 10_000;
        let lock = Lock::new(0_u64);
        thread::scope(|scope| {
            for cpu in 0..4 {
                let lock = &lock;
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let mut guard = lock.lock(cpu, thread::yield_now);
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
    fn it_is_not_taken_twice_and_waiting_is_seen() {
        let lock = Lock::new(());
        let guard = lock.try_lock().expect("it is free");
        assert!(lock.try_lock().is_none());
        thread::scope(|scope| {
            scope.spawn(|| drop(lock.lock(5, thread::yield_now)));
            while !lock.is_waiting(5) {
                thread::yield_now();
            }
            assert!(!lock.is_waiting(4));
            drop(guard);
        });
        assert!(!lock.is_waiting(5));
        assert!(lock.try_lock().is_some());
    }
}
