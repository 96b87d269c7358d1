//! The kernel's lock.

use std::sync::Arc;

use kernel_models::{
    Patience, Watched, Weakness, check, new_lock,
    sync::{Guard, Lock},
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
