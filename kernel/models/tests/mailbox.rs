//! The kernel's mailboxes.

use std::sync::Arc;

use kernel_models::{
    Patience, Watched, Weakness,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    check, new_lock, new_mailboxes,
    sync::{MAX_CPUS, Mailboxes},
};
use loom::thread;

/// A request to do something for the CPU `from`, which does so for the `round`th time.
struct Request {
    from: usize,
    round: Watched,
}

impl Request {
    fn new(from: usize, round: u64) -> Self {
        let request = Self {
            from,
            round: Watched::default(),
        };
        request.round.set(round);
        request
    }
}

impl Drop for Request {
    /// Nobody may look at it any more.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.round.set(0);
        }
    }
}

/// CPUs that ask each other.
struct Machine {
    mailboxes: Mailboxes<Request>,
    /// By CPU: the last round that it has done for each of the others.
    done: [[Watched; MAX_CPUS]; MAX_CPUS],
    /// The CPUs that ask no more.
    nr_ready: AtomicU64,
}

impl Machine {
    fn new() -> Self {
        Self {
            mailboxes: new_mailboxes(|| Request::new(0, 0)),
            done: Default::default(),
            nr_ready: AtomicU64::known(0),
        }
    }

    fn answer(&self, me: usize) {
        if self.mailboxes.is_asked(me) {
            self.mailboxes.answer(me, |request| {
                self.done[me][request.from].set(request.round.get())
            });
        }
    }

    /// Asks others, and checks that they have done it.
    fn ask(&self, me: usize, others: u64, round: u64, while_it_waits: impl Fn()) {
        let patience = Patience::default();
        let wait = || {
            while_it_waits();
            patience.wait();
        };
        self.mailboxes
            .ask(me, others, Request::new(me, round), |_| (), wait);
        for cpu in (0..MAX_CPUS).filter(|cpu| others >> cpu & 1 != 0) {
            assert_eq!(self.done[cpu][me].get(), round);
        }
    }

    /// Answers as long as one of so many CPUs may ask.
    fn serve(&self, me: usize, nr_asking: u64) {
        let patience = Patience::default();
        while self.nr_ready.load(Acquire) < nr_asking {
            self.answer(me);
            patience.wait();
        }
    }

    fn is_ready(&self) {
        self.nr_ready.fetch_add(1, Release);
    }
}

/// Each CPU asks the others that `asks` has for it, so many times, and then answers until all have asked.
fn they_ask(asks: &'static [(u64, u64)], answers_while_it_waits: bool) {
    let machine = Arc::new(Machine::new());
    let nr_asking = asks.len() as u64;
    let run = move |machine: &Machine, me: usize| {
        let (others, nr_times) = asks[me];
        for round in 1..=nr_times {
            machine.ask(me, others, round, || {
                if answers_while_it_waits {
                    machine.answer(me);
                }
            });
        }
        machine.is_ready();
        machine.serve(me, nr_asking);
    };
    let threads: Vec<_> = (1..asks.len())
        .map(|me| {
            let machine = Arc::clone(&machine);
            thread::spawn(move || run(&machine, me))
        })
        .collect();
    run(&machine, 0);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

/// One asks the other twice.
const TWICE: &[(u64, u64)] = &[(0b10, 2), (0, 0)];
/// Two ask each other.
const EACH_OTHER: &[(u64, u64)] = &[(0b10, 1), (0b01, 1)];
/// One asks two at once.
const BOTH: &[(u64, u64)] = &[(0b110, 1), (0, 0), (0, 0)];
/// Two ask a third.
const ONE: &[(u64, u64)] = &[(0b100, 1), (0b100, 1), (0, 0)];
/// Each asks the next.
const IN_A_RING: &[(u64, u64)] = &[(0b010, 1), (0b100, 1), (0b001, 1)];

#[test]
fn what_was_asked_is_done_when_asking_returns() {
    check(4, || they_ask(TWICE, true));
}

#[test]
fn two_cpus_ask_each_other() {
    check(3, || they_ask(EACH_OTHER, true));
}

#[test]
fn one_cpu_asks_two() {
    check(1, || they_ask(BOTH, true));
}

#[test]
fn two_cpus_ask_one() {
    check(1, || they_ask(ONE, true));
}

#[test]
fn three_cpus_ask_each_other() {
    check(1, || they_ask(IN_A_RING, true));
}

#[test]
#[should_panic(expected = "exceeded maximum number of branches")]
fn who_waits_for_an_answer_must_answer() {
    check(3, || they_ask(EACH_OTHER, false));
}

/// CPU 0 has the lock and asks CPU 1, which waits for it.
fn who_has_the_lock_asks(answers_while_it_waits: bool) {
    let machine = Arc::new(Machine::new());
    let lock = new_lock((), 0);
    let guard = lock.retake(0).expect("it is free");
    let waiting = {
        let (machine, lock) = (Arc::clone(&machine), Arc::clone(&lock));
        thread::spawn(move || {
            let patience = Patience::default();
            let wait = || {
                if answers_while_it_waits {
                    machine.answer(1);
                }
                patience.wait();
            };
            drop(lock.lock(1, wait));
            machine.serve(1, 1);
        })
    };
    machine.ask(0, 0b10, 1, || ());
    drop(guard);
    machine.is_ready();
    waiting.join().unwrap();
}

#[test]
fn lesson_2_who_waits_for_the_lock_answers_who_has_it() {
    check(4, || who_has_the_lock_asks(true));
}

#[test]
#[should_panic(expected = "exceeded maximum number of branches")]
fn lesson_2_who_waits_for_the_lock_must_answer() {
    check(4, || who_has_the_lock_asks(false));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn answering_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || they_ask(TWICE, true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn asking_must_release() {
    Weakness::Release.prevails();
    check(4, || they_ask(TWICE, true));
}

#[test]
#[should_panic(expected = "exceeded maximum number of branches")]
fn no_request_may_be_lost() {
    Weakness::Atomicity.prevails();
    check(2, || they_ask(ONE, true));
}
