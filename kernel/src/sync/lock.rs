//! A lock that one CPU has alone, or several share.
//!
//! To [share](Lock::share) it, a CPU says in a place of its own that it is inside, and looks whether another has it
//! alone: it writes nothing that others write. To have it alone, a CPU says so in one word, and
//! then looks at the places of all others. This is known as a big-reader lock; only that those who share it may
//! change what they have [claimed](crate::object::Claim).
//!
//! Whoever had it alone last can [have it again](Lock::retake) for less: nobody else has had it so meanwhile, and
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
    fence,
};

use super::{Held, MAX_CPUS, Rank};

/// Something that one CPU has alone, or several share.
pub struct Lock<T: ?Sized> {
    /// The number of the CPU that had it alone last, [`TAKEN`] more while it has it, and [`SEVERAL`] more while several
    /// may share it.
    state: AtomicUsize,
    /// The CPUs that wait until nobody has it alone, a bit each.
    waiting: AtomicU64,
    /// The CPUs that may share it, a bit each.
    sharers: AtomicU64,
    places: [Place; MAX_CPUS],
    value: UnsafeCell<T>,
}

/// Where a CPU says whether it is inside with others: a line of the cache that nobody else writes.
#[repr(align(128))]
pub struct Place(AtomicUsize);

const SEVERAL: usize = 1 << 7;
/// Above all others, so that one comparison finds it.
const TAKEN: usize = 1 << 8;
const _: () = assert!(MAX_CPUS <= SEVERAL);

// SAFETY: the lock gives the value to one CPU at a time, or says to several where it is.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

/// The locked value, which nobody else has, until this is dropped.
pub struct Guard<'l, T: ?Sized> {
    lock: &'l Lock<T>,
    _held: Held,
}

/// The locked value, which nobody has alone until this is dropped.
pub struct Shared<'l, T: ?Sized> {
    lock: &'l Lock<T>,
    place: &'l Place,
    _held: Held,
}

impl<T> Lock<T> {
    /// A lock that is free, as if CPU 0 had had it last. Nobody may share it so far.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            sharers: AtomicU64::new(0),
            places: [const { Place(AtomicUsize::new(0)) }; MAX_CPUS],
            value: UnsafeCell::new(value),
        }
    }

    /// The place of a CPU.
    pub fn place(&self, cpu: usize) -> &Place {
        &self.places[cpu]
    }

    /// Shares the lock, for the CPU whose place this is. It has been [admitted](Guard::admit), and neither shares nor has
    /// the lock. `None`: somebody has it alone.
    #[inline(always)]
    pub fn share<'l>(&'l self, place: &'l Place) -> Option<Shared<'l, T>> {
        place.0.store(1, Relaxed);
        // Whoever takes the lock sees that, or it is seen here that it was taken.
        fence(SeqCst);
        if self.state.load(Acquire) < TAKEN {
            let _held = Held::new(Rank::Kernel);
            Some(Shared {
                lock: self,
                place,
                _held,
            })
        } else {
            place.0.store(0, Relaxed);
            None
        }
    }

    /// Takes the lock for a CPU if nobody has it alone, that CPU had it last, and no other may share it.
    #[inline(always)]
    pub fn retake(&self, cpu: usize) -> Option<Guard<'_, T>> {
        let taken = self
            .state
            .compare_exchange(cpu, cpu + TAKEN, Acquire, Relaxed);
        // Only then: a guard that is dropped gives the lock back.
        // SAFETY: it has just been taken.
        taken.is_ok().then(|| unsafe { self.taken() })
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
        Guard {
            lock: self,
            _held: Held::new(Rank::Kernel),
        }
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
                    .compare_exchange_weak(last, cpu + TAKEN + (last & SEVERAL), Acquire, Relaxed)
                    .is_ok()
            {
                break;
            }
            wait();
        }
        self.wait_for_sharers(cpu, wait);
        self.waiting.fetch_and(!(1 << cpu), Relaxed);
    }

    /// Waits until nobody has the lock alone: the CPU does `wait` again and again, and is found waiting.
    pub fn wait(&self, cpu: usize, mut wait: impl FnMut()) {
        // As in `take`.
        self.waiting.fetch_or(1 << cpu, SeqCst);
        while self.state.load(Acquire) >= TAKEN {
            wait();
        }
        self.waiting.fetch_and(!(1 << cpu), Relaxed);
    }

    /// Waits until nobody else shares the lock that this CPU has taken.
    fn wait_for_sharers(&self, cpu: usize, mut wait: impl FnMut()) {
        let mut others = self.sharers.load(Relaxed) & !(1 << cpu);
        if others != 0 {
            // As in `share`, the other way round.
            fence(SeqCst);
        }
        while let Some(number) = others.checked_ilog2() {
            while self.places[number as usize].0.load(Acquire) != 0 {
                wait();
            }
            others &= !(1 << number);
        }
    }

    /// The CPUs that may share the lock, a bit each. Nobody changes that while the caller has the lock.
    pub fn sharers(&self) -> u64 {
        self.sharers.load(Relaxed)
    }

    /// Whether several may share the lock.
    #[inline(always)]
    pub fn has_several_sharers(&self) -> bool {
        self.state.load(Relaxed) & SEVERAL != 0
    }

    /// Whether a CPU waits until nobody has the lock alone. If the caller has it, the other one goes on waiting.
    #[must_use]
    pub fn is_waiting(&self, cpu: usize) -> bool {
        self.waiting.load(SeqCst) >> cpu & 1 != 0
    }
}

impl<T: ?Sized> Guard<'_, T> {
    /// Lets a CPU share the lock, or does so no longer.
    pub fn admit(&mut self, cpu: usize, may_share: bool) {
        let before = self.lock.sharers.load(Relaxed);
        let sharers = if may_share {
            before | 1 << cpu
        } else {
            before & !(1 << cpu)
        };
        self.lock.sharers.store(sharers, Relaxed);
        // Nobody else changes it meanwhile.
        let state = self.lock.state.load(Relaxed) & !SEVERAL;
        let several = if sharers.count_ones() > 1 { SEVERAL } else { 0 };
        self.lock.state.store(state + several, Relaxed);
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

impl<T: ?Sized> Shared<'_, T> {
    /// Where the value is. What of it others may use at the same time is for the caller to know.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut T {
        self.lock.value.get()
    }
}

impl<T: ?Sized> Drop for Shared<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.place.0.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn admit<T>(lock: &Lock<T>, nr_cpus: usize) {
        let mut guard = lock.lock(0, || unreachable!("it is free"));
        (0..nr_cpus).for_each(|cpu| guard.admit(cpu, true));
    }

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
    fn nobody_shares_what_one_has_alone() {
        const ROUNDS: u64 = 10_000;
        let lock = Lock::new([0_u64; 2]);
        admit(&lock, 4);
        thread::scope(|scope| {
            for cpu in 0..4 {
                let lock = &lock;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        if round % 4 == 0 {
                            assert!(lock.retake(cpu).is_none());
                            let mut guard = lock.lock(cpu, thread::yield_now);
                            guard[0] += 1;
                            guard[1] += 1;
                        } else if let Some(shared) = lock.share(lock.place(cpu)) {
                            // SAFETY: nobody writes what several share.
                            let [a, b] = unsafe { shared.as_ptr().read_volatile() };
                            assert_eq!(a, b);
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.lock(0, || unreachable!("it is free")), [ROUNDS; 2]);
    }

    #[test]
    fn several_share_it_and_whoever_wants_it_alone_waits_for_them() {
        let lock = Lock::new(());
        admit(&lock, 2);
        let share = |cpu| lock.share(lock.place(cpu)).expect("nobody has it alone");
        let first = share(0);
        let second = thread::scope(|scope| scope.spawn(|| share(1)).join().expect("it is shared"));
        drop(first);
        thread::scope(|scope| {
            let alone = scope.spawn(|| drop(lock.lock(0, thread::yield_now)));
            while lock.share(lock.place(0)).is_some() {
                thread::yield_now();
            }
            assert!(lock.is_waiting(0) && !alone.is_finished());
            drop(second);
        });
        drop(share(0));
        drop(share(1));
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
