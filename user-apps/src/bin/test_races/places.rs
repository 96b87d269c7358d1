//! Which CPU a thread runs on.

use core::sync::atomic::Ordering::SeqCst;

use alloc::vec::Vec;

use libipc::thread::Running;
use libipc::{Thread, start};
use user_apps::scenario::cpus;
use user_apps::scenario::peer::{rest, thread, until, wait_for};
use user_apps::scenario::rng::Rng;

use super::*;

/// The most threads that run here.
const MOST: usize = 32;

/// What a thread does: its turns, and the CPU of the last one.
struct Spinner {
    turns: AtomicU64,
    cpu: AtomicU64,
}

static SPINNERS: [Spinner; MOST] = [const {
    Spinner {
        turns: AtomicU64::new(0),
        cpu: AtomicU64::new(u64::MAX),
    }
}; MOST];

/// The number by which the hardware knows the CPU that runs this: its local APIC identifier (Intel SDM, volume 2,
/// `CPUID` leaf 11, or where that is missing the low byte in leaf 1).
fn here() -> u64 {
    let topology = core::arch::x86_64::__cpuid_count(11, 0);
    let number = match topology.ebx {
        0 => core::arch::x86_64::__cpuid(1).ebx >> 24,
        _ => topology.edx,
    };
    number.into()
}

/// A thread that never enters the kernel.
fn spinner(who: usize) -> Running {
    thread(move || {
        loop {
            SPINNERS[who].cpu.store(here(), SeqCst);
            SPINNERS[who].turns.fetch_add(1, SeqCst);
        }
    })
}

fn turns(who: usize) -> u64 {
    SPINNERS[who].turns.load(SeqCst)
}

fn place(who: usize) -> u64 {
    SPINNERS[who].cpu.load(SeqCst)
}

/// The hardware's numbers of all CPUs, in the order of the kernel's.
fn hardware_numbers() -> Vec<u64> {
    let own = Thread::borrow(start::thread());
    let numbers = (0..cpus::count())
        .map(|cpu| {
            cpus::bind(&own, 1 << cpu).expect("a CPU");
            let mut number = here();
            // The next entry to the kernel ends at the new place.
            assert!(wait_for(1_000_000_000, || {
                let last = core::mem::replace(&mut number, here());
                last == number
            }));
            number
        })
        .collect::<Vec<_>>();
    cpus::bind(&own, u64::MAX).expect("all CPUs");
    numbers
}

pub(crate) fn a_running_thread_goes_where_it_is_bound() {
    let numbers = hardware_numbers();
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), numbers.len(), "{numbers:?}");
    let running = spinner(0);
    let mut rng = Rng::new(30);
    for _ in rounds(5000) {
        let cpu = rng.below(numbers.len() as u64);
        cpus::bind(running.thread(), 1 << cpu).expect("a CPU");
        until("its place", || place(0) == numbers[cpu as usize]);
        let before = turns(0);
        until("turns", || turns(0) > before + 1);
        assert_eq!(place(0), numbers[cpu as usize], "it left the place");
    }
    drop(running);
}

/// Two threads bind a third one that runs, and itself, at the same time.
pub(crate) fn a_thread_bound_from_several_cpus_at_once_goes_on() {
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    let all = (1 << cpus::count()) - 1;
    let running = spinner(0);
    let handle = running.thread().handle();
    let binders = [31, 32].map(|seed| {
        thread(move || {
            let mut rng = Rng::new(seed);
            loop {
                let cpus = 1 + rng.below(all);
                cpus::bind(&Thread::borrow(handle), cpus).expect("CPUs");
                let own = Thread::borrow(libipc::Handle::NONE);
                cpus::bind(&own, 1 + rng.below(all)).expect("CPUs");
                ROUNDS.fetch_add(1, SeqCst);
            }
        })
    });
    for _ in rounds(1000) {
        let (before, bound) = (turns(0), ROUNDS.load(SeqCst));
        until("progress", || {
            turns(0) > before && ROUNDS.load(SeqCst) > bound + 2
        });
    }
    drop((binders, running));
}

pub(crate) fn more_threads_than_cpus_all_make_progress() {
    let nr = (3 * cpus::count() as usize).min(MOST);
    let running: Vec<_> = (0..nr).map(spinner).collect();
    for _ in rounds(50) {
        let before: Vec<_> = (0..nr).map(turns).collect();
        until("all of them", || {
            (0..nr).all(|who| turns(who) > before[who])
        });
    }
    drop(running);
}

/// As many threads as CPUs, which begin wherever they do, end up on one each, and stay there.
pub(crate) fn idle_cpus_take_work_until_all_run_at_once() {
    let nr = (cpus::count() as usize).min(MOST);
    for _ in rounds(200) {
        let running: Vec<_> = (0..nr).map(spinner).collect();
        let are_spread = || {
            rest(2_000_000);
            let mut places: Vec<_> = (0..nr).map(place).collect();
            places.sort_unstable();
            places.dedup();
            places.len() == nr
        };
        until("a CPU for each", are_spread);
        drop(running);
        for spinner in &SPINNERS {
            spinner.cpu.store(u64::MAX, SeqCst);
        }
    }
}
