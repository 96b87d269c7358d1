//! The kernel's lock.

use std::sync::Arc;

use kernel_models::{
    Patience, Watched, Weakness,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    check, new_lock,
    sync::{Claimed, Guard, Lock},
};
use loom::thread;

fn lock<T>(lock: &Lock<T>, cpu: usize) -> Guard<'_, T> {
    let patience = Patience::default();
    lock.lock(cpu, || patience.wait())
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
                let patience = Patience::default();
                lock.open(1, || patience.wait());
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

/// What a CPU does so many times that shares the lock, and opens its door if it is shut.
fn share_and_read(lock: &Lock<Watched>, cpu: usize, nr_times: usize) {
    for _ in 0..nr_times {
        match lock.share(lock.door(cpu)) {
            Some(shared) => {
                // SAFETY: loom checks that nobody writes it.
                unsafe { &*shared.as_ptr() }.get();
            }
            None => {
                let patience = Patience::default();
                lock.open(cpu, || patience.wait());
            }
        }
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

/// In which way CPU 0 goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    None,
    /// It waits for readers before it replaces anything.
    WaitsFirst,
    /// It does not wait.
    DoesNotWait,
}

/// CPU 1 reads so many times, while CPU 0 replaces what it reads; both share the lock.
fn one_replaces(nr_reads: usize, haste: Haste) {
    let lock = new_lock((), 2);
    let replaced = Arc::new(Replaced {
        place: AtomicU64::known(0),
        pages: Default::default(),
    });
    let reader = {
        let (lock, replaced) = (Arc::clone(&lock), Arc::clone(&replaced));
        thread::spawn(move || {
            for _ in 0..nr_reads {
                let shared = lock.share(lock.door(1)).expect("nobody has it alone");
                let number = replaced.place.load(Acquire);
                replaced.pages[number as usize].get();
                drop(shared);
            }
        })
    };
    let shared = lock.share_to_replace(0);
    assert!(shared.is_some(), "nobody has it alone");
    let wait = || {
        let patience = Patience::default();
        lock.wait_for_readers(0, || patience.wait());
    };
    if haste == Haste::WaitsFirst {
        wait();
    }
    replaced.place.store(1, Release);
    if haste == Haste::None {
        wait();
    }
    // It is somebody else's now.
    replaced.pages[0].set(7);
    drop(shared);
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
        let replace = |lock: &Lock<()>, cpu| {
            let shared = lock.share_to_replace(cpu);
            assert!(shared.is_some(), "nobody has it alone");
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
