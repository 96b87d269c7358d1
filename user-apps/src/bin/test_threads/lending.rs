//! Priorities that are lent: a thread of middle priority that never waits keeps nobody of a higher one from being served
//! by a server of a lower one. All threads are on one CPU, where they would need each other's.

use libipc::object::clock;
use libipc::thread::{Running, Supervisor};
use libipc::{Endpoint, Message, Received};
use user_apps::scenario::cpus;
use user_apps::scenario::memory::{peek, poke};
use user_apps::scenario::peer::{rest_until, thread_with, until_state};

use super::{board, slot};
use libipc::abi::{Handle, ThreadState};

/// Is answered at once.
const QUICK: u32 = 0;
/// Is answered when it may be.
const SLOW: u32 = 1;
/// Is answered when a slow request to the next server is.
const CHAINED: u32 = 2;

/// The slow request has arrived.
const ARRIVED: u64 = 0;
/// It may be answered.
const MAY_ANSWER: u64 = 1;
/// How often the spinner has gone round.
const SPINS: u64 = 2;
/// It may end.
const MAY_END: u64 = 3;
/// It has ended before it might.
const GAVE_UP: u64 = 4;

/// How long the spinner spins at most, in nanoseconds: then the case has failed.
const LIMIT_NS: u64 = 5_000_000_000;

/// A server of this priority, which may ask another one.
fn server(priority: u8, next: Handle) -> (Endpoint, Running) {
    let endpoint = Endpoint::create().expect("endpoint");
    let from = endpoint.handle();
    let thread = thread_with(priority, Supervisor::Process, move || {
        while let Ok(Received::Message(incoming)) = Endpoint::borrow(from).recv(&mut []) {
            match incoming.message.label() {
                SLOW => {
                    poke(slot(ARRIVED), 1);
                    while peek(slot(MAY_ANSWER)) == 0 {
                        core::hint::spin_loop();
                    }
                }
                CHAINED => {
                    let _ = Endpoint::borrow(next).call(Message::new(SLOW));
                }
                _ => {}
            }
            let _ = incoming.token.reply(Message::new(0), &[]);
        }
    });
    (endpoint, thread)
}

/// A client of low priority, whose request keeps a server busy.
fn busy_with(endpoint: &Endpoint, label: u32) -> Running {
    let to = endpoint.handle();
    let client = thread_with(3, Supervisor::Process, move || {
        let _ = Endpoint::borrow(to).call(Message::new(label));
    });
    rest_until("the slow request", || peek(slot(ARRIVED)) == 1);
    client
}

/// A thread of middle priority that never waits, until it may end.
fn spinner() -> Running {
    let spinner = thread_with(9, Supervisor::Process, || {
        let now = || clock().expect("clock").0;
        let end = now() + LIMIT_NS;
        while peek(slot(MAY_END)) == 0 {
            poke(slot(SPINS), peek(slot(SPINS)) + 1);
            if now() > end {
                return poke(slot(GAVE_UP), 1);
            }
        }
    });
    rest_until("the spinner", || peek(slot(SPINS)) > 0);
    spinner
}

/// Sends a request to a busy server while the spinner spins.
fn assert_is_served(by: &Endpoint) {
    let spinner = spinner();
    poke(slot(MAY_ANSWER), 1);
    by.call(Message::new(QUICK)).expect("an answer");
    poke(slot(MAY_END), 1);
    rest_until("the end of the spinner", || spinner.is_finished());
    assert_eq!(peek(slot(GAVE_UP)), 0, "a middle priority went first");
}

pub(super) fn a_queued_sender_lends_its_priority_to_the_busy_server() {
    cpus::stay_on_one();
    let _board = board();
    let (endpoint, server) = server(2, Handle::NONE);
    let client = busy_with(&endpoint, SLOW);
    assert_is_served(&endpoint);
    let info = server.thread().info().expect("info");
    assert_eq!((info.base_priority, info.priority), (2, 2), "given back");
    drop((client, server));
}

pub(super) fn a_priority_is_lent_along_a_chain_of_servers() {
    cpus::stay_on_one();
    let _board = board();
    let (back, last) = server(1, Handle::NONE);
    let (front, first) = server(2, back.handle());
    let client = busy_with(&front, CHAINED);
    assert_is_served(&front);
    drop((client, first, last));
}

/// What is lent goes back with who lent it: the server of low priority goes on only when the spinner has ended.
pub(super) fn a_killed_sender_takes_its_priority_along() {
    cpus::stay_on_one();
    let _board = board();
    let (endpoint, server) = server(2, Handle::NONE);
    let client = busy_with(&endpoint, SLOW);
    let priority = || server.thread().info().expect("info").priority;
    let to = endpoint.handle();
    let sender = thread_with(8, Supervisor::Process, move || {
        let _ = Endpoint::borrow(to).call(Message::new(QUICK));
    });
    rest_until("the sender", || {
        let info = sender.thread().info();
        info.is_ok_and(|info| info.state == ThreadState::Sending)
    });
    until_state(server.thread(), ThreadState::Runnable);
    assert_eq!(priority(), 8);
    sender.thread().kill().expect("kill");
    assert_eq!(priority(), 3, "the other client waits still");
    client.thread().kill().expect("kill");
    assert_eq!(priority(), 2);
    drop(server);
}
