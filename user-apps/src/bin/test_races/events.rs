//! Messages, notifications and timers from every CPU.

use core::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};

use libipc::thread::Running;
use libipc::{Endpoint, Message, Received, Rights, Space};
use user_apps::scenario::cpus;
use user_apps::scenario::peer::{join, thread};
use user_apps::scenario::rng::Rng;

use super::*;

/// Threads that raise bits, or wait for timers.
const OTHERS: usize = 6;

static RAISED: [AtomicU64; OTHERS] = [const { AtomicU64::new(0) }; OTHERS];
static SEEN: [AtomicU64; OTHERS] = [const { AtomicU64::new(0) }; OTHERS];

/// A message that finds the kernel taken by others, again and again, waits and gets through.
pub(crate) fn messages_get_through_beside_calls_that_have_the_kernel_alone() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    IS_OVER.store(false, Relaxed);
    let endpoint = Endpoint::create().expect("endpoint");
    let from = endpoint.handle();
    let server = thread(move || echo(from));
    let callers = [(); OTHERS].map(|()| {
        thread(|| {
            while !IS_OVER.load(Relaxed) {
                Space::own().info().expect("info");
            }
        })
    });
    for round in rounds(20_000) {
        let reply = endpoint.call(Message::new(round as u32)).expect("reply");
        assert_eq!(reply.label(), round as u32);
    }
    IS_OVER.store(true, Relaxed);
    callers.into_iter().for_each(join);
    drop(server);
}

/// Whoever raises a bit waits until its count was seen: a bit that is lost is waited for in vain. Two
/// threads receive.
pub(crate) fn no_notification_of_any_cpu_is_lost() {
    const ROUNDS: u64 = 3000;
    let endpoint = Endpoint::create().expect("endpoint");
    let from = endpoint.handle();
    let receivers = [(); 2].map(|()| {
        thread(move || {
            while let Ok(Received::Notification(bits)) = Endpoint::borrow(from).recv(&mut []) {
                for who in (0..OTHERS).filter(|who| bits >> who & 1 != 0) {
                    let raised = RAISED[who].load(SeqCst);
                    SEEN[who].fetch_max(raised, SeqCst);
                }
            }
        })
    });
    let handles = core::array::from_fn(|who| endpoint.copy(Rights::NOTIFY, 1 << who));
    let handles: [Endpoint; OTHERS] = handles.map(|copy| copy.expect("copy"));
    let raisers: [Running; OTHERS] = core::array::from_fn(|who| {
        let handle = handles[who].handle();
        thread(move || {
            for round in rounds(ROUNDS) {
                RAISED[who].store(round, SeqCst);
                Endpoint::borrow(handle).notify().expect("notify");
                meet("a notification", || SEEN[who].load(SeqCst) == round);
            }
        })
    });
    raisers.into_iter().for_each(join);
    drop(receivers);
}

/// Timers that are set on one CPU and awaited on another, also replaced and cancelled ones.
pub(crate) fn no_timer_of_any_cpu_is_lost() {
    const ROUNDS: u64 = 2000;
    /// Longest time ahead, in nanoseconds.
    const AHEAD_NS: u64 = 300_000;
    let nr_cpus = cpus::count();
    let sleepers: [Running; OTHERS] = core::array::from_fn(|who| {
        thread(move || {
            let mut rng = Rng::new(20 + who as u64);
            let endpoint = Endpoint::create().expect("endpoint");
            let [first, second] = [1, 2].map(|bit| endpoint.copy(Rights::NOTIFY, bit));
            let (first, second) = (first.expect("copy"), second.expect("copy"));
            for _ in rounds(ROUNDS) {
                if rng.one_in(4) {
                    // Replaced by the other, unless it was faster.
                    first.timer(now() + AHEAD_NS).expect("timer");
                }
                let deadline = now() + rng.below(AHEAD_NS);
                second.timer(deadline).expect("timer");
                WHERE[who].store(rng.below(nr_cpus) + 1, SeqCst);
                while !matches!(endpoint.recv(&mut []), Ok(Received::Notification(bits)) if bits & 2 != 0)
                {
                }
                assert!(now() >= deadline, "too early");
            }
        })
    });
    // Their places change meanwhile.
    while sleepers.iter().any(|sleeper| !sleeper.is_finished()) {
        for (who, sleeper) in sleepers.iter().enumerate() {
            if let Some(cpu) = WHERE[who].swap(0, SeqCst).checked_sub(1) {
                // It may have ended.
                let _ = cpus::bind(sleeper.thread(), 1 << cpu);
            }
        }
        libipc::object::yield_now();
    }
}

/// Where sleepers are to go: a CPU's number and one.
static WHERE: [AtomicU64; OTHERS] = [const { AtomicU64::new(0) }; OTHERS];
