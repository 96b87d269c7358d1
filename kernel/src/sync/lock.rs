//! A lock that one CPU has alone, or several share.
//!
//! Each CPU has a [`Door`] of its own, which is open, or which that CPU has gone in through, or which is shut. To
//! [share](Lock::share) the lock, a CPU goes in through its door: it writes nothing that others write. To have it alone, a
//! CPU says so in one word, and then shuts the doors of all others, each as soon as nobody is inside. This is
//! known as a big-reader lock; only that those who share it may change what they have
//! [claimed](super::Claimed).
//!
//! What takes long and needs only what was claimed is done [apart](Apart): the CPU says so at its door, comes out, and goes on. Who
//! knows what to claim without looking need not [go in](Lock::apart) for that. Nobody
//! waits for it who wants the lock alone, until he wants what may be claimed that way, and [settles](Lock::settle): then nobody begins
//! to work apart, either, before his own door was opened again.
//!
//! Not even a claim is needed to *read* something that others replace meanwhile, by whoever shares the lock, if each of them then
//! [waits for those who read](Lock::wait_for_readers) before what it has replaced is used for something else. This is known as
//! quiescent-state reclamation: who reads is inside, and who replaces is apart.
//!
//! Doors stay shut until their CPUs want to go in again, and [open](Lock::share_later) them. So whoever had the lock alone last can
//! [have it again](Lock::retake) for less: as long as no door was opened, nobody else has had it, and there is
//! no need to look at what others may have changed.
//!
//! The lock is not handed on in the order in which it was asked for: of those who wait, whoever looks first
//! when it is free gets it. In a virtual machine with more CPUs than the host has, the next in order would often be one that does
//! not run. But nobody waits for ever:
//!
//! - Who has looked [many times](PATIENCE) without getting the lock has it *reserved*: then nobody else takes it. If several have, they
//!   get it one after the other, in the order of their numbers.
//! - Who finds a door taken [some times](NR_LOOKS) when he shuts it has its CPU *called*, by an interrupt: where that waits, it is not inside.
//! - Who finds his door shut goes in as he [opens](Lock::share_later) it, before it can be shut again.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use super::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use super::{Apart, Door, Doors, Entrance, Held, MAX_CPUS, NR_LOOKS, PATIENCE, Rank};

/// Something that one CPU has alone, or several share.
pub struct Lock<T: ?Sized, D = [Door; MAX_CPUS]> {
    /// The number of the CPU that had it alone last, or [`NOBODY`] if a door was opened since; [`TAKEN`] more while it is
    /// taken; and from [`RESERVED`] on the number of the CPU that it is reserved for, and one more.
    state: AtomicUsize,
    /// The CPUs that wait until nobody has it alone, a bit each.
    waiting: AtomicU64,
    /// Those of them that have waited for long.
    impatient: AtomicU64,
    /// The CPUs that may share it, a bit each.
    sharers: AtomicU64,
    /// Whether they are several: 1 or 0.
    several: AtomicUsize,
    /// Whether they count as several, however many they are: 1 or 0.
    always_several: AtomicUsize,
    doors: D,
    value: UnsafeCell<T>,
}

/// No CPU's number.
const NOBODY: usize = MAX_CPUS;
/// Above all of these.
const TAKEN: usize = 1 << 8;
/// The unit of the number above that.
const RESERVED: usize = 1 << 9;
const _: () = assert!(NOBODY < TAKEN && TAKEN < RESERVED);

// SAFETY: the lock gives the value to one CPU at a time, or says to several where it is.
unsafe impl<T: ?Sized + Send, D: Sync> Sync for Lock<T, D> {}

/// The locked value, which nobody else has, until this is dropped.
pub struct Guard<'l, T: ?Sized, D = [Door; MAX_CPUS]> {
    lock: &'l Lock<T, D>,
    _held: Held,
}

/// The locked value, which nobody has alone until this is dropped.
pub struct Shared<'l, T: ?Sized, E: Entrance> {
    value: &'l UnsafeCell<T>,
    entrance: E,
    _held: Held,
}

impl<T> Lock<T> {
    /// A lock that is free, as if CPU 0 had had it last, with doors of its own. Nobody may share it so far.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self::with_doors(value, [const { Door::new() }; MAX_CPUS])
    }
}

impl<T, D> Lock<T, D> {
    /// The same with these doors, which are no other lock's.
    #[must_use]
    pub const fn with_doors(value: T, doors: D) -> Self {
        Self {
            state: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            impatient: AtomicU64::new(0),
            sharers: AtomicU64::new(0),
            several: AtomicUsize::new(0),
            always_several: AtomicUsize::new(0),
            doors,
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized, D: Doors> Lock<T, D> {
    /// The door of a CPU.
    pub fn door(&self, cpu: usize) -> &Door {
        self.doors.of(cpu)
    }

    /// Shares the lock, for the CPU whose entrance this is. It has been [admitted](Guard::admit), and neither shares nor has
    /// the lock. `None`: the door is shut, and the CPU can share the lock [later](Self::share_later).
    ///
    /// It may read what others replace, and waits for nobody meanwhile.
    #[inline(always)]
    pub fn share<E: Entrance>(&self, entrance: E) -> Option<Shared<'_, T, E>> {
        // Only then: what is dropped leaves.
        // SAFETY: it has just gone in.
        entrance.enter().then(|| unsafe { self.shared(entrance) })
    }

    /// Shares the lock for a CPU that did not get in, when nobody has the lock alone. The CPU does `wait` until then, and is found
    /// waiting.
    pub fn share_later<E: Entrance>(
        &self,
        cpu: usize,
        entrance: E,
        wait: impl FnMut(),
    ) -> Shared<'_, T, E> {
        self.while_waiting(cpu, || {
            self.take_state(cpu, NOBODY, wait);
            // Whoever takes the lock next looks at the door after this.
            self.door(cpu).open_and_enter();
            self.state.fetch_sub(TAKEN, Release);
        });
        // As in `Entrance::enter`.
        fence(SeqCst);
        // SAFETY: it has just gone in.
        unsafe { self.shared(entrance) }
    }

    /// What [`share`](Self::share) returns, for a CPU that is inside.
    ///
    /// # Safety
    ///
    /// The CPU has gone in through this entrance, and nothing stands for that any more: what stood for it was forgotten.
    #[inline(always)]
    pub unsafe fn shared<E: Entrance>(&self, entrance: E) -> Shared<'_, T, E> {
        Shared {
            value: &self.value,
            entrance,
            _held: Held::new(Rank::Kernel),
        }
    }

    /// Waits until each other CPU was seen not to [read](Self::share): then none of them looks any more at what this CPU, which
    /// works [apart](Apart), has replaced before. It does `wait` again and again.
    ///
    /// A CPU that reads waits for nobody, so this ends, also if two wait at once. Nobody reads what one has alone, so that one does not
    /// wait.
    pub fn wait_for_readers(&self, cpu: usize, mut wait: impl FnMut()) {
        if !self.door(cpu).is_apart() {
            return;
        }
        // As in `Entrance::enter`, the other way round.
        fence(SeqCst);
        self.each_other_door(cpu, |_, door| {
            while door.is_reading() {
                wait();
            }
        });
    }

    /// Lets a CPU, which neither shares nor has the lock, work apart with what is its own, or what it then claims. `None`: somebody has
    /// [settled](Self::settle) since it has opened its door. If others [may share](Self::has_several_sharers) the lock now, they are
    /// there as long as it works apart.
    pub fn apart(&self, cpu: usize) -> Option<Apart<'_>> {
        self.door(cpu).begin_apart()
    }

    /// Where the value is. What of it a CPU may use that neither shares nor has the lock is for the caller to know.
    pub fn as_ptr(&self) -> *mut T {
        self.value.get()
    }

    /// Waits until no other CPU works [apart](Apart), for one that has the lock alone. None begins to before the lock is given
    /// back. It does `wait` again and again. Returns whether it had to.
    ///
    /// A CPU that works apart waits for readers, of which there are none meanwhile, and for nobody who has the lock.
    pub fn settle(&self, cpu: usize, mut wait: impl FnMut()) -> bool {
        let mut has_waited = false;
        self.each_other_door(cpu, |_, door| {
            while !door.settle() {
                has_waited = true;
                wait();
            }
        });
        has_waited
    }

    /// Takes the lock for a CPU if nobody has it alone, that CPU had it last, and no other has shared it since.
    #[inline(always)]
    pub fn retake(&self, cpu: usize) -> Option<Guard<'_, T, D>> {
        let taken = self
            .state
            .compare_exchange(cpu, cpu + TAKEN, Acquire, Relaxed);
        // Only then: a guard that is dropped gives the lock back.
        // SAFETY: it has just been taken.
        taken.is_ok().then(|| unsafe { self.taken() })
    }

    /// Takes the lock for a CPU, which does `wait` again and again until it is free. Others come out by themselves.
    pub fn lock(&self, cpu: usize, wait: impl FnMut()) -> Guard<'_, T, D> {
        self.take(cpu, wait, |_| ());
        // SAFETY: it has just been taken.
        unsafe { self.taken() }
    }

    /// What [`lock`](Self::lock) returns, after [`take`](Self::take).
    ///
    /// # Safety
    ///
    /// This CPU has taken the lock, and nothing was returned for that yet.
    #[inline(always)]
    pub unsafe fn taken(&self) -> Guard<'_, T, D> {
        Guard {
            lock: self,
            _held: Held::new(Rank::Kernel),
        }
    }

    /// Does what [`lock`](Self::lock) does, and leaves it to the caller to say what follows: until it
    /// does, the lock stays taken. `call` lets another CPU, which may be going in again and again, come and wait for the lock as well.
    pub fn take(&self, cpu: usize, mut wait: impl FnMut(), call: impl FnMut(usize)) {
        self.while_waiting(cpu, || {
            self.take_state(cpu, cpu, &mut wait);
            self.shut_others(cpu, &mut wait, call);
            self.count_sharers();
        });
    }

    /// Does something for which a CPU may have to wait, and lets others know.
    fn while_waiting(&self, cpu: usize, act: impl FnOnce()) {
        // All that the CPU has done so far is seen by who finds it waiting.
        self.waiting.fetch_or(1 << cpu, SeqCst);
        act();
        self.waiting.fetch_and(!(1 << cpu), Relaxed);
    }

    /// Waits until nobody has the lock alone and it is reserved for nobody else, and lets nobody else have it. As of now it was
    /// `new` that had it last.
    fn take_state(&self, cpu: usize, new: usize, mut wait: impl FnMut()) {
        let mut patience = PATIENCE;
        while !self.try_take_state(cpu, new) {
            if patience == 0 {
                self.impatient.fetch_or(1 << cpu, Relaxed);
                self.reserve(cpu);
            }
            patience = patience.saturating_sub(1);
            wait();
        }
        if patience == 0 {
            self.impatient.fetch_and(!(1 << cpu), Relaxed);
        }
        self.reserve_for_next(cpu);
    }

    /// Takes the lock if nobody has it and it is reserved for nobody else.
    #[inline(always)]
    fn try_take_state(&self, cpu: usize, new: usize) -> bool {
        let state = self.state.load(Relaxed);
        let is_free = state & TAKEN == 0 && [0, cpu + 1].contains(&(state / RESERVED));
        is_free
            && self
                .state
                .compare_exchange_weak(state, new + TAKEN, Acquire, Relaxed)
                .is_ok()
    }

    /// Reserves the lock for a CPU that waits for it, unless it is reserved already.
    #[cold]
    #[inline(never)]
    fn reserve(&self, cpu: usize) {
        let state = self.state.load(Relaxed);
        if state < RESERVED {
            // If that fails, somebody has taken the lock, given it back, or reserved it.
            let reserved = state + (cpu + 1) * RESERVED;
            let _ = self
                .state
                .compare_exchange(state, reserved, Relaxed, Relaxed);
        }
    }

    /// Reserves what a CPU has just taken for the next one that has waited for long: the one with the next number. None of them
    /// ceases to wait meanwhile.
    #[inline(always)]
    fn reserve_for_next(&self, cpu: usize) {
        let impatient = self.impatient.load(Relaxed);
        if impatient != 0 {
            let behind = impatient & !1 << cpu;
            let next = if behind != 0 { behind } else { impatient };
            self.reserve(next.trailing_zeros() as usize);
        }
    }

    /// Waits until nobody else shares the lock that this CPU takes, and lets nobody in.
    fn shut_others(&self, cpu: usize, mut wait: impl FnMut(), mut call: impl FnMut(usize)) {
        self.each_other_door(cpu, |number, door| {
            // Who is inside waits for nobody, so nobody need be answered meanwhile.
            if (0..NR_LOOKS).any(|_| door.shut()) {
                return;
            }
            // Once will do: where it waits next, or halts, it is not inside.
            call(number);
            while !door.shut() {
                wait();
            }
        });
    }

    /// Notes whether several may share the lock, for who has it alone. One that works apart may rely on what it was told before,
    /// that there are others; and if there are none, the last one does not begin to.
    fn count_sharers(&self) {
        let sharers = self.sharers.load(Relaxed);
        let is_apart = |last: u32| !self.doors.of(last as usize).settle();
        let several = self.always_several.load(Relaxed) != 0
            || !(sharers == 0 || sharers.is_power_of_two())
            || sharers.checked_ilog2().is_some_and(is_apart);
        self.several.store(several.into(), Relaxed);
    }

    /// The doors of all others that may share the lock.
    #[inline(always)]
    fn each_other_door(&self, cpu: usize, mut visit: impl FnMut(usize, &Door)) {
        let mut others = self.sharers.load(Relaxed) & !(1 << cpu);
        while let Some(number) = others.checked_ilog2() {
            visit(number as usize, self.doors.of(number as usize));
            others &= !(1 << number);
        }
    }
}

impl<T: ?Sized, D> Lock<T, D> {
    /// The CPUs that may share the lock, a bit each. Nobody changes that while the caller has the lock, or shares it.
    pub fn sharers(&self) -> u64 {
        self.sharers.load(Relaxed)
    }

    /// Whether several may share the lock.
    #[inline(always)]
    pub fn has_several_sharers(&self) -> bool {
        self.several.load(Relaxed) != 0
    }

    /// Whether a CPU waits until nobody has the lock alone. If the caller has it, the other one goes on waiting.
    #[must_use]
    pub fn is_waiting(&self, cpu: usize) -> bool {
        self.waiting.load(SeqCst) >> cpu & 1 != 0
    }
}

impl<'l, T: ?Sized, D: Doors> Guard<'l, T, D> {
    /// Lets this CPU, whose number is given, go on apart when it gives the lock back.
    pub fn apart(&self, cpu: usize) -> Apart<'l> {
        Apart::begin(self.lock.door(cpu))
    }

    /// Says from the next [admission](Self::admit) on that several share the lock, however many do.
    pub fn assume_several(&mut self) {
        self.lock.always_several.store(1, Relaxed);
    }

    /// Lets a CPU share the lock, or does so no longer.
    pub fn admit(&mut self, cpu: usize, may_share: bool) {
        let before = self.lock.sharers.load(Relaxed);
        let sharers = if may_share {
            before | 1 << cpu
        } else {
            before & !(1 << cpu)
        };
        // Nobody else changes them meanwhile.
        self.lock.sharers.store(sharers, Relaxed);
        self.lock.count_sharers();
    }
}

impl<T: ?Sized, D> Deref for Guard<'_, T, D> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: whoever has the guard has the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, D> DerefMut for Guard<'_, T, D> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized, D> Drop for Guard<'_, T, D> {
    #[inline(always)]
    fn drop(&mut self) {
        // Others may reserve it meanwhile.
        self.lock.state.fetch_sub(TAKEN, Release);
    }
}

impl<T: ?Sized, E: Entrance> Shared<'_, T, E> {
    /// Where the value is. What of it others may use at the same time is for the caller to know.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut T {
        self.value.get()
    }
}

impl<'l, T: ?Sized> Shared<'l, T, &'l Door> {
    /// Lets this CPU go on apart when it has come out. It reads nothing any more that others replace.
    pub fn apart(&self) -> Apart<'l> {
        Apart::begin(self.entrance)
    }
}

impl<T: ?Sized, E: Entrance> Drop for Shared<'_, T, E> {
    #[inline(always)]
    fn drop(&mut self) {
        self.entrance.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::super::atomic::AtomicU32;
    use super::*;
    use std::{mem, thread};

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
                            let again = lock.retake(cpu);
                            let mut guard =
                                again.unwrap_or_else(|| lock.lock(cpu, thread::yield_now));
                            guard[0] += 1;
                            guard[1] += 1;
                            continue;
                        }
                        let Some(shared) = lock.share(lock.door(cpu)) else {
                            drop(lock.share_later(cpu, lock.door(cpu), thread::yield_now));
                            continue;
                        };
                        // SAFETY: nobody writes what several share.
                        let [a, b] = unsafe { shared.as_ptr().read_volatile() };
                        assert_eq!(a, b);
                    }
                });
            }
        });
        assert_eq!(*lock.lock(0, || unreachable!("it is free")), [ROUNDS; 2]);
    }

    /// Opens the door of a CPU to a free lock.
    fn open_door<T>(lock: &Lock<T>, cpu: usize) {
        drop(lock.share_later(cpu, lock.door(cpu), || unreachable!("it is free")));
    }

    /// The same for the first so many CPUs.
    fn open<T>(lock: &Lock<T>, nr_cpus: usize) {
        admit(lock, nr_cpus);
        (0..nr_cpus).for_each(|cpu| open_door(lock, cpu));
    }

    #[test]
    fn several_share_it_and_whoever_wants_it_alone_waits_for_them() {
        const INSIDE: u32 = 1;
        const LEAVING: u32 = 2;
        let lock = Lock::new(());
        open(&lock, 2);
        let second = AtomicU32::new(0);
        let first = lock.share(lock.door(0)).expect("the door is open");
        thread::scope(|scope| {
            scope.spawn(|| {
                let shared = lock.share(lock.door(1)).expect("it is shared");
                second.store(INSIDE, Relaxed);
                while !lock.is_waiting(0) {
                    thread::yield_now();
                }
                second.store(LEAVING, Relaxed);
                drop(shared);
            });
            while second.load(Relaxed) != INSIDE {
                thread::yield_now();
            }
            drop(first);
            drop(lock.lock(0, thread::yield_now));
            assert_eq!(second.load(Relaxed), LEAVING);
        });
        assert!(lock.share(lock.door(0)).is_some());
    }

    #[test]
    fn who_goes_in_again_and_again_is_called_once_by_who_wants_it_alone() {
        let lock = Lock::new(());
        open(&lock, 2);
        let nr_calls = AtomicU32::new(0);
        thread::scope(|scope| {
            let shared = lock.share(lock.door(1)).expect("the door is open");
            scope.spawn(|| {
                let call = |cpu| {
                    assert_eq!(cpu, 1);
                    nr_calls.fetch_add(1, Relaxed);
                };
                lock.take(0, thread::yield_now, call);
                // SAFETY: it has just been taken.
                drop(unsafe { lock.taken() });
            });
            while nr_calls.load(Relaxed) == 0 {
                thread::yield_now();
            }
            drop(shared);
            drop(lock.lock(1, thread::yield_now));
        });
        assert_eq!(nr_calls.load(Relaxed), 1);
    }

    #[test]
    fn who_finds_its_door_shut_is_inside_when_it_has_waited() {
        let lock = Lock::new(());
        open(&lock, 2);
        let guard = lock.lock(0, || unreachable!("nobody is inside"));
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert!(lock.share(lock.door(1)).is_none());
                mem::forget(lock.share_later(1, lock.door(1), thread::yield_now));
                Held::pass_on(Rank::Kernel);
            });
            while !lock.is_waiting(1) {
                thread::yield_now();
            }
            drop(guard);
            other.join().expect("it got in");
            assert!(!lock.door(1).shut() && lock.retake(0).is_none());
            // SAFETY: it has gone in.
            drop(unsafe { lock.shared(lock.door(1)) });
        });
        assert!(lock.door(1).shut());
    }

    #[test]
    fn what_is_reserved_is_had_by_nobody_else() {
        let lock = Lock::new(());
        drop(lock.lock(0, || unreachable!("it is free")));
        lock.impatient.fetch_or(0b1010, Relaxed);
        lock.reserve(1);
        assert!(lock.retake(0).is_none());
        assert!(!lock.try_take_state(0, 0) && !lock.try_take_state(3, 3));
        assert!(lock.try_take_state(1, 1));
        lock.impatient.fetch_and(!0b0010, Relaxed);
        lock.reserve_for_next(1);
        // SAFETY: it has just been taken.
        drop(unsafe { lock.taken() });
        assert!(!lock.try_take_state(0, 0) && lock.try_take_state(3, 3));
    }

    #[test]
    fn doors_stay_shut_until_their_cpus_open_them() {
        let lock = Lock::new(());
        open(&lock, 2);
        drop(lock.lock(0, || unreachable!("nobody is inside")));
        assert!(lock.share(lock.door(0)).is_some());
        assert!(lock.share(lock.door(1)).is_none() && lock.share(lock.door(1)).is_none());
        open_door(&lock, 1);
        assert!(lock.share(lock.door(1)).is_some());
    }

    #[test]
    fn who_works_apart_begins_beside_one_that_has_it_alone_until_that_one_settles() {
        let lock = Lock::new(());
        open(&lock, 2);
        let guard = lock.lock(0, || unreachable!("nobody is inside"));
        drop(lock.apart(1).expect("nobody has settled"));
        assert!(!lock.settle(0, || unreachable!("nobody works apart")));
        assert!(lock.apart(1).is_none());
        drop(guard);
        assert!(lock.apart(1).is_none());
        open_door(&lock, 1);
        assert!(lock.apart(1).is_some());
    }

    #[test]
    fn the_last_one_does_not_begin_to_work_apart_where_there_were_others() {
        let lock = Lock::new(());
        open(&lock, 2);
        let apart = lock.apart(1).expect("nobody has settled");
        let leave = || lock.lock(0, || ()).admit(0, false);
        leave();
        assert!(lock.has_several_sharers());
        drop(apart);
        leave();
        assert!(!lock.has_several_sharers() && lock.apart(1).is_none());
    }

    #[test]
    fn one_counts_as_several_where_that_is_assumed() {
        let lock = Lock::new(());
        lock.lock(0, || ()).assume_several();
        admit(&lock, 1);
        assert!(lock.has_several_sharers());
        assert!(!lock.settle(0, || ()) && lock.apart(0).is_some());
    }

    #[test]
    fn it_is_retaken_until_somebody_opens_a_door() {
        let lock = Lock::new(());
        open(&lock, 2);
        assert!((0..2).all(|cpu| lock.retake(cpu).is_none()));
        drop(lock.lock(0, || unreachable!("nobody is inside")));
        assert!(lock.retake(1).is_none() && lock.retake(0).is_some());
        open_door(&lock, 1);
        assert!((0..2).all(|cpu| lock.retake(cpu).is_none()));
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
