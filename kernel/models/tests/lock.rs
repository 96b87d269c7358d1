//! The kernel's lock.

use std::sync::Arc;

use kernel_models::{
    Patience, Watched, Weakness,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    check, new_lock,
    sync::{self, Apart, Claimed, Door, Guard, Lock},
};
use loom::thread;

type Shared<'l, T> = sync::Shared<'l, T, &'l Door>;

fn lock<T>(lock: &Lock<T>, cpu: usize) -> Guard<'_, T> {
    let patience = Patience::default();
    lock.lock(cpu, || patience.wait())
}

/// Shares the lock for a CPU whose door is shut.
fn share_later<T>(lock: &Lock<T>, cpu: usize) -> Shared<'_, T> {
    let patience = Patience::default();
    lock.share_later(cpu, lock.door(cpu), || patience.wait())
}

fn settle<T>(lock: &Lock<T>, cpu: usize) {
    let patience = Patience::default();
    lock.settle(cpu, || patience.wait());
}

fn wait_for_readers<T>(lock: &Lock<T>, cpu: usize) {
    let patience = Patience::default();
    lock.wait_for_readers(cpu, || patience.wait());
}

/// Takes the lock as the kernel does, and adds one.
fn add_one(lock: &Lock<Watched>, cpu: usize) {
    let again = lock.retake(cpu);
    let guard = again.unwrap_or_else(|| self::lock(lock, cpu));
    guard.set(guard.get() + 1);
}

fn read(lock: &Lock<Watched>, cpu: usize) -> u64 {
    self::lock(lock, cpu).get()
}

/// Every CPU adds so many times.
fn they_add(nr_times: &'static [u64]) {
    let lock = new_lock(Watched::default(), 0);
    let others: Vec<_> = (1..nr_times.len())
        .map(|cpu| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || (0..nr_times[cpu]).for_each(|_| add_one(&lock, cpu)))
        })
        .collect();
    (0..nr_times[0]).for_each(|_| add_one(&lock, 0));
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(read(&lock, 0), nr_times.iter().sum());
    assert!((0..nr_times.len()).all(|cpu| !lock.is_waiting(cpu)));
}

#[test]
fn one_of_two_at_a_time_has_it_whether_it_takes_or_retakes() {
    check(4, || they_add(&[3, 3]));
}

#[test]
fn one_of_three_at_a_time_has_it() {
    check(2, || they_add(&[2, 1, 1]));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn taking_it_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || they_add(&[3, 3]));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn giving_it_back_must_release() {
    Weakness::Release.prevails();
    check(4, || they_add(&[3, 3]));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn taking_it_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(4, || they_add(&[3, 3]));
}

/// CPU 0 has the lock twice. If it could retake it, nobody else had it between.
fn it_retakes(other: usize) {
    let lock = new_lock(Watched::default(), 0);
    add_one(&lock, 0);
    let thread = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || add_one(&lock, other))
    };
    let before = read(&lock, 0);
    if let Some(guard) = lock.retake(0) {
        assert_eq!(guard.get(), before);
    }
    thread.join().unwrap();
}

#[test]
fn nobody_else_has_had_what_is_retaken() {
    check(4, || it_retakes(1));
}

#[test]
#[should_panic(expected = "left == right")]
fn no_two_cpus_may_have_the_same_number() {
    check(4, || it_retakes(0));
}

/// CPU 1 writes something and then waits for the lock; or it says first that it waits. CPU 0, which has the
/// lock, reads what was written when it finds CPU 1 waiting.
fn it_waits(writes_first: bool) {
    let lock = new_lock((), 0);
    let state = Arc::new(Watched::default());
    let guard = lock.retake(0).expect("it is free");
    let waiting = {
        let (lock, state) = (Arc::clone(&lock), Arc::clone(&state));
        let write = move || state.set(7);
        thread::spawn(move || {
            if writes_first {
                write();
                drop(self::lock(&lock, 1));
            } else {
                let mut is_written = false;
                let wait = || {
                    if !std::mem::replace(&mut is_written, true) {
                        write();
                    }
                    thread::yield_now();
                };
                drop(lock.lock(1, wait));
            }
        })
    };
    if lock.is_waiting(1) {
        assert_eq!(state.get(), 7);
    }
    drop(guard);
    waiting.join().unwrap();
}

#[test]
fn what_a_waiting_cpu_has_done_is_seen() {
    check(4, || it_waits(true));
}

/// The same for one that waits until it can open its door.
#[test]
fn what_a_cpu_that_waits_to_share_has_done_is_seen() {
    check(4, || {
        let lock = new_lock((), 2);
        let state = Arc::new(Watched::default());
        let guard = self::lock(&lock, 0);
        let waiting = {
            let (lock, state) = (Arc::clone(&lock), Arc::clone(&state));
            thread::spawn(move || {
                state.set(7);
                drop(share_later(&lock, 1));
            })
        };
        if lock.is_waiting(1) {
            assert_eq!(state.get(), 7);
        }
        drop(guard);
        waiting.join().unwrap();
        assert!(!lock.is_waiting(1));
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn what_it_does_while_it_waits_is_not() {
    check(4, || it_waits(false));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn finding_it_waiting_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || it_waits(true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn waiting_must_release() {
    Weakness::Release.prevails();
    check(4, || it_waits(true));
}

/// How many looks take the patience of a CPU that waits, and reserve the lock.
const ENOUGH: u64 = 3;

/// CPU 0 gives the lock back while others wait that have looked so many times each, and asks for it again, once for each of them: then
/// they have all had it.
fn it_asks_again(nr_others: usize, nr_looks: u64) {
    let lock = new_lock(Watched::default(), 0);
    let guard = lock.retake(0).expect("it is free");
    let others: Vec<_> = (1..=nr_others)
        .map(|cpu| {
            let lock = Arc::clone(&lock);
            let looks = Arc::new(AtomicU64::known(0));
            let seen = Arc::clone(&looks);
            let thread = thread::spawn(move || {
                let patience = Patience::default();
                let guard = lock.lock(cpu, || {
                    looks.fetch_add(1, Release);
                    patience.wait();
                });
                guard.set(guard.get() + 1);
            });
            (thread, seen)
        })
        .collect();
    for (_, looks) in &others {
        let patience = Patience::default();
        while looks.load(Acquire) < nr_looks {
            patience.wait();
        }
    }
    drop(guard);
    let ask = || {
        let again = lock.retake(0);
        again.unwrap_or_else(|| self::lock(&lock, 0)).get()
    };
    (1..nr_others).for_each(|_| _ = ask());
    assert_eq!(ask(), nr_others as u64);
    others
        .into_iter()
        .for_each(|(other, _)| other.join().unwrap());
}

#[test]
fn nobody_has_it_again_before_one_that_has_waited_for_long() {
    check(4, || it_asks_again(1, ENOUGH));
}

#[test]
fn nobody_has_it_twice_before_two_that_have_waited_for_long() {
    check(1, || it_asks_again(2, ENOUGH));
}

#[test]
#[should_panic(expected = "left == right")]
fn who_has_not_waited_for_long_may_be_overtaken() {
    check(4, || it_asks_again(1, ENOUGH - 1));
}

/// What a CPU does so many times that shares the lock, if its door is shut as soon as it can.
fn share_and_read(lock: &Lock<Watched>, cpu: usize, nr_times: usize) {
    for _ in 0..nr_times {
        let shared = lock.share(lock.door(cpu));
        let shared = shared.unwrap_or_else(|| share_later(lock, cpu));
        // SAFETY: loom checks that nobody writes it.
        unsafe { &*shared.as_ptr() }.get();
    }
}

/// CPU 0 has the lock alone and writes, so many times, while the others share it and read.
fn they_share(nr_sharers: usize, nr_writes: usize, nr_reads: usize) {
    let lock = new_lock(Watched::default(), nr_sharers);
    let others: Vec<_> = (1..nr_sharers)
        .map(|cpu| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || share_and_read(&lock, cpu, nr_reads))
        })
        .collect();
    (0..nr_writes).for_each(|_| add_one(&lock, 0));
    others.into_iter().for_each(|other| other.join().unwrap());
}

#[test]
fn nobody_writes_what_others_share() {
    check(4, || they_share(2, 2, 1));
}

#[test]
fn nobody_writes_what_two_others_share() {
    check(2, || they_share(3, 1, 1));
}

/// The one that writes retakes the lock if no door was opened meanwhile.
#[test]
fn nobody_writes_what_others_share_that_have_opened_their_doors() {
    check(4, || they_share(2, 2, 3));
}

/// Two have the lock alone in turns, of which one shares it as well.
#[test]
fn a_door_stays_shut_from_one_that_has_it_alone_to_the_next() {
    check(2, || {
        let lock = new_lock(Watched::default(), 3);
        let others = [1, 2].map(|cpu| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                if cpu == 1 {
                    add_one(&lock, cpu);
                }
                share_and_read(&lock, cpu, cpu);
            })
        });
        add_one(&lock, 0);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(read(&lock, 0), 2);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn shutting_a_door_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(4, || they_share(2, 1, 1));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sharing_it_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || they_share(2, 2, 2));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sharing_it_no_longer_must_release() {
    Weakness::Release.prevails();
    check(4, || they_share(2, 2, 1));
}

/// What CPU 0 replaces while CPU 1 reads it: a place that says where to look, and a page that is given to somebody else
/// then.
struct Replaced {
    place: AtomicU64,
    pages: [Watched; 2],
}

impl Replaced {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            place: AtomicU64::known(0),
            pages: Default::default(),
        })
    }

    /// Looks where to look, and looks there.
    fn read(&self) {
        self.pages[self.place.load(Acquire) as usize].get();
    }

    /// Lets everybody look elsewhere from now on.
    fn replace(&self) {
        self.place.store(1, Release);
    }

    /// The page that was replaced is somebody else's now.
    fn give_away(&self) {
        self.pages[0].set(7);
    }
}

/// In which way CPU 0 goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    None,
    /// It waits for readers before it replaces anything.
    WaitsFirst,
    /// It does not wait.
    DoesNotWait,
}

/// Goes in, and out again to work apart, where nobody has the lock alone.
fn go_apart<T>(lock: &Lock<T>, cpu: usize) -> Apart<'_> {
    let shared = lock.share(lock.door(cpu)).expect("nobody has it alone");
    shared.apart()
}

/// CPU 1 reads so many times, and shares the lock for that, while CPU 0 replaces what it reads, apart.
fn one_replaces(nr_reads: usize, haste: Haste) {
    let lock = new_lock((), 2);
    let replaced = Replaced::new();
    let reader = {
        let (lock, replaced) = (Arc::clone(&lock), Arc::clone(&replaced));
        thread::spawn(move || {
            for _ in 0..nr_reads {
                let shared = lock.share(lock.door(1)).expect("nobody has it alone");
                replaced.read();
                drop(shared);
            }
        })
    };
    let apart = go_apart(&lock, 0);
    if haste == Haste::WaitsFirst {
        wait_for_readers(&lock, 0);
    }
    replaced.replace();
    if haste == Haste::None {
        wait_for_readers(&lock, 0);
    }
    replaced.give_away();
    drop(apart);
    reader.join().unwrap();
}

#[test]
fn what_is_replaced_is_read_by_nobody_once_readers_were_waited_for() {
    check(4, || one_replaces(1, Haste::None));
    check(3, || one_replaces(2, Haste::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_replaces_must_wait_for_readers() {
    check(4, || one_replaces(1, Haste::DoesNotWait));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn readers_must_be_waited_for_after_the_replacement() {
    check(4, || one_replaces(1, Haste::WaitsFirst));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn reading_and_waiting_for_readers_must_be_in_one_order() {
    Weakness::Fence.prevails();
    check(4, || one_replaces(1, Haste::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn reading_no_longer_must_release() {
    Weakness::Release.prevails();
    check(4, || one_replaces(1, Haste::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn waiting_for_readers_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || one_replaces(1, Haste::None));
}

/// Two that replace something wait for readers, not for each other.
#[test]
fn two_that_replace_do_not_wait_for_each_other() {
    check(3, || {
        let lock = new_lock((), 2);
        let _apart = [0, 1].map(|cpu| go_apart(&lock, cpu));
        let replace = |lock: &Lock<()>, cpu| {
            lock.wait_for_readers(cpu, || panic!("nobody reads"));
        };
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || replace(&lock, 1))
        };
        replace(&lock, 0);
        other.join().unwrap();
    });
}

/// In which way CPU 0 goes wrong, which has the lock alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rush {
    None,
    /// It uses what was claimed as if nobody could be using it.
    DoesNotSettle,
    /// It settles, and takes the lock then.
    SettlesFirst,
}

/// What is locked: something that is used by who has the lock alone, and something that is used by who has claimed it, also
/// apart from the lock.
#[derive(Default)]
struct Parts {
    objects: Watched,
    claimed: Claimed,
    table: Watched,
}

/// CPU 1 claims the table, lets go of the lock, and works on the table, while CPU 0 has the lock alone and uses first the objects and
/// then the table. `shares`: CPU 1 shares the lock before, or it has it alone.
fn one_works_apart(shares: bool, rush: Rush) {
    let parts = Parts::default();
    let _ = parts.claimed.is_claimed();
    let lock = new_lock(parts, 2);
    let worker = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || {
            // SAFETY: what is used of it was claimed, or the lock is this CPU's alone.
            let parts = |place: *mut Parts| unsafe { &*place };
            let (apart, parts) = if shares {
                let Some(shared) = lock.share(lock.door(1)) else {
                    return;
                };
                let parts = parts(shared.as_ptr());
                assert!(parts.claimed.claim());
                (shared.apart(), parts)
            } else {
                let mut guard = self::lock(&lock, 1);
                let parts = parts(&raw mut *guard);
                parts.objects.set(1);
                assert!(parts.claimed.claim());
                (guard.apart(1), parts)
            };
            parts.table.set(parts.table.get() + 1);
            parts.claimed.release();
            drop(apart);
        })
    };
    if rush == Rush::SettlesFirst {
        settle(&lock, 0);
    }
    let guard = self::lock(&lock, 0);
    // Nobody waits for the worker for that.
    guard.objects.set(2);
    if rush == Rush::None {
        settle(&lock, 0);
    }
    guard.table.set(guard.table.get() + 1);
    assert!(!guard.claimed.is_claimed());
    drop(guard);
    worker.join().unwrap();
}

#[test]
fn who_has_it_alone_settles_before_it_uses_what_was_claimed_apart() {
    check(4, || one_works_apart(true, Rush::None));
    check(4, || one_works_apart(false, Rush::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_has_it_alone_must_settle() {
    check(4, || one_works_apart(true, Rush::DoesNotSettle));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_had_it_alone_must_be_settled_with_too() {
    check(4, || one_works_apart(false, Rush::DoesNotSettle));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_settles_must_have_it_alone() {
    check(4, || one_works_apart(true, Rush::SettlesFirst));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn settling_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || one_works_apart(true, Rush::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn coming_back_must_release() {
    Weakness::Release.prevails();
    check(4, || one_works_apart(true, Rush::None));
}

/// CPU 1 works on something of its own so many times, apart from the lock and without going in, while CPU 0 has the lock alone and
/// uses it once.
fn one_works_on_its_own(nr_times: usize, rush: Rush) {
    let lock = new_lock(Watched::default(), 2);
    let worker = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || {
            for _ in 0..nr_times {
                let apart = lock.apart(1);
                let _apart = apart.unwrap_or_else(|| share_later(&lock, 1).apart());
                // SAFETY: loom checks that nobody else uses it.
                let own = unsafe { &*lock.as_ptr() };
                own.set(own.get() + 1);
            }
        })
    };
    if rush == Rush::SettlesFirst {
        settle(&lock, 0);
    }
    let guard = self::lock(&lock, 0);
    if rush == Rush::None {
        settle(&lock, 0);
    }
    guard.set(guard.get() + 1);
    drop(guard);
    worker.join().unwrap();
    assert_eq!(read(&lock, 0), nr_times as u64 + 1);
}

#[test]
fn nobody_begins_to_work_on_its_own_where_one_has_settled() {
    check(4, || one_works_on_its_own(1, Rush::None));
    check(3, || one_works_on_its_own(2, Rush::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_uses_what_is_anothers_own_must_settle() {
    check(4, || one_works_on_its_own(1, Rush::DoesNotSettle));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_uses_what_is_anothers_own_must_settle_when_it_has_the_lock() {
    check(4, || one_works_on_its_own(2, Rush::SettlesFirst));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn beginning_to_work_on_its_own_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(4, || one_works_on_its_own(1, Rush::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn ceasing_to_work_on_its_own_must_release() {
    Weakness::Release.prevails();
    check(4, || one_works_on_its_own(1, Rush::None));
}

/// CPU 0 replaces something, and waits for readers if there are others.
fn replace_if_others(lock: &Lock<()>, replaced: &Replaced) {
    replaced.replace();
    if lock.has_several_sharers() {
        wait_for_readers(lock, 0);
    }
    replaced.give_away();
}

/// CPU 0 replaces what CPU 1 reads, which is the only other one, and ceases to share the lock and comes back meanwhile. Who
/// replaces something looks first whether there are others at all.
fn the_other_one_comes_back(says_that_it_is_apart: bool) {
    let lock = new_lock((), 2);
    let replaced = Replaced::new();
    let apart = says_that_it_is_apart.then(|| go_apart(&lock, 0));
    let other = {
        let (lock, replaced) = (Arc::clone(&lock), Arc::clone(&replaced));
        thread::spawn(move || {
            self::lock(&lock, 1).admit(1, false);
            self::lock(&lock, 1).admit(1, true);
            let shared = lock.share(lock.door(1)).expect("nobody has it alone");
            replaced.read();
            drop(shared);
        })
    };
    replace_if_others(&lock, &replaced);
    drop(apart);
    other.join().unwrap();
}

#[test]
fn who_works_apart_is_not_told_that_there_are_no_others() {
    check(3, || the_other_one_comes_back(true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_works_apart_must_say_so() {
    check(3, || the_other_one_comes_back(false));
}

/// The same where CPU 0 begins to work apart, without going in, while the other one is going away.
fn the_other_one_goes(says_that_it_is_apart: bool) {
    let lock = new_lock((), 2);
    let replaced = Replaced::new();
    let other = {
        let (lock, replaced) = (Arc::clone(&lock), Arc::clone(&replaced));
        thread::spawn(move || {
            self::lock(&lock, 1).admit(1, false);
            self::lock(&lock, 1).admit(1, true);
            let shared = share_later(&lock, 1);
            replaced.read();
            drop(shared);
        })
    };
    let apart = says_that_it_is_apart.then(|| lock.apart(0)).flatten();
    if lock.has_several_sharers() && apart.is_some() == says_that_it_is_apart {
        replace_if_others(&lock, &replaced);
    }
    drop(apart);
    other.join().unwrap();
}

#[test]
fn who_begins_to_work_apart_has_others_until_it_is_done() {
    check(3, || the_other_one_goes(true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn who_begins_to_work_apart_must_say_so() {
    check(3, || the_other_one_goes(false));
}

/// Two threads of one space fault: one of them gets the lock of its page table.
#[test]
fn one_of_two_gets_a_claim_and_sees_what_the_last_one_did() {
    check(4, they_claim);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, they_claim);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn letting_go_of_a_claim_must_release() {
    Weakness::Release.prevails();
    check(4, they_claim);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(4, they_claim);
}

fn they_claim() {
    let claimed = Arc::new((Claimed::new(), Watched::default()));
    let _ = claimed.0.is_claimed();
    let add = |(claimed, value): &(Claimed, Watched)| {
        if claimed.claim() {
            value.set(value.get() + 1);
            claimed.release();
        }
    };
    let other = {
        let claimed = Arc::clone(&claimed);
        thread::spawn(move || add(&claimed))
    };
    add(&claimed);
    add(&claimed);
    other.join().unwrap();
}
