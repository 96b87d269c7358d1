//! An endpoint with one server, used by CPUs that share the kernel.
//!
//! The claims are the kernel's own; the steps are those of `ipc/fast.rs` and `ipc/fast_events.rs`. Who does not get a claim
//! gives up here, too; what is left is done when the others have ended: in the kernel, by who has it alone.

use std::sync::Arc;

use kernel_models::{Watched, Weakness, check, sync::Claimed};
use loom::thread;

/// No thread, no bits, no message.
const NOTHING: u64 = 0;
const SERVER: u64 = 1;

struct Endpoint {
    claimed: Claimed,
    /// The first receiver.
    receiver: Watched,
    bits: Watched,
}

/// The thread that serves.
struct Server {
    claimed: Claimed,
    /// What it has received, as its registers say.
    message: Watched,
    nr_received: Watched,
}

struct World {
    endpoint: Endpoint,
    server: Server,
}

impl World {
    /// The server waits for the first message.
    fn new() -> Arc<Self> {
        let world = Self {
            endpoint: Endpoint {
                claimed: Claimed::new(),
                receiver: Watched::default(),
                bits: Watched::default(),
            },
            server: Server {
                claimed: Claimed::new(),
                message: Watched::default(),
                nr_received: Watched::default(),
            },
        };
        for claimed in [&world.endpoint.claimed, &world.server.claimed] {
            assert!(claimed.claim());
            claimed.release();
        }
        world.endpoint.receiver.set(SERVER);
        Arc::new(world)
    }

    /// A client sends: its CPU runs the server from then on, which it has claimed. `false`: it did not get what it needs.
    fn try_send(&self, message: u64) -> bool {
        if !self.endpoint.claimed.claim() {
            return false;
        }
        let is_sent = self.endpoint.receiver.get() == SERVER && self.server.claimed.claim();
        if is_sent {
            self.endpoint.receiver.set(NOTHING);
            self.server.message.set(message);
        }
        self.endpoint.claimed.release();
        is_sent
    }

    /// The server, which runs, looks at its message, and waits for the next one; or takes the bits that were raised. `false`:
    /// it did not get what it needs, and runs still.
    fn try_receive(&self, order: Order) -> bool {
        if !self.endpoint.claimed.claim() {
            return false;
        }
        if self.endpoint.bits.get() != NOTHING {
            self.endpoint.bits.set(NOTHING);
            self.note(1);
            self.endpoint.claimed.release();
            return false;
        }
        self.endpoint.receiver.set(SERVER);
        if order == Order::LetGoLast {
            self.note(0);
        }
        self.server.claimed.release();
        self.endpoint.claimed.release();
        if order == Order::LetGoFirst {
            self.note(0);
        }
        true
    }

    /// The server has got so many more events, and looks at its message.
    fn note(&self, nr: u64) {
        let is_message = self.server.message.get() != NOTHING;
        self.server.message.set(NOTHING);
        let before = self.server.nr_received.get();
        self.server
            .nr_received
            .set(before + nr + u64::from(is_message));
    }

    /// Somebody raises bits: the server gets them at once, and runs; or they stay. `None`: it did not get what it needs.
    fn try_notify(&self) -> Option<bool> {
        if !self.endpoint.claimed.claim() {
            return None;
        }
        let mut done = None;
        if self.endpoint.receiver.get() == NOTHING {
            self.endpoint.bits.set(1);
            done = Some(false);
        } else if self.server.claimed.claim() {
            self.endpoint.receiver.set(NOTHING);
            self.note(1);
            done = Some(true);
        }
        self.endpoint.claimed.release();
        done
    }
}

/// When the server's CPU lets go of what it has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// When it does not use the server any more.
    LetGoLast,
    /// When it still has something to do with the server.
    LetGoFirst,
}

/// A CPU sends, and runs the server until it waits again, as far as it gets what it needs. Returns how many messages it
/// has sent.
fn exchange(world: &World, order: Order) -> u64 {
    let is_sent = world.try_send(7);
    if is_sent {
        // After bits, the server receives once more.
        let _ = world.try_receive(order) || world.try_receive(order);
    }
    is_sent.into()
}

/// Nobody else is there any more: the server receives until it waits, and must have got so many events.
fn settle(world: &World, nr_events: u64) {
    if world.endpoint.receiver.get() == NOTHING {
        let _ = world.try_receive(Order::LetGoLast) || world.try_receive(Order::LetGoLast);
    }
    assert!(world.endpoint.claimed.claim() && world.server.claimed.claim());
    assert_eq!(world.endpoint.receiver.get(), SERVER);
    assert_eq!(world.endpoint.bits.get(), NOTHING);
    assert_eq!(world.server.nr_received.get(), nr_events);
}

fn two_exchange(order: Order) {
    let world = World::new();
    let other = {
        let world = Arc::clone(&world);
        thread::spawn(move || exchange(&world, order))
    };
    let nr_sent = exchange(&world, order);
    let nr_sent = nr_sent + other.join().unwrap();
    assert_ne!(nr_sent, 0, "one of them comes first");
    settle(&world, nr_sent);
}

#[test]
fn each_message_is_received_once() {
    check(3, || two_exchange(Order::LetGoLast));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_thread_is_let_go_when_nothing_is_left_to_do_with_it() {
    check(3, || two_exchange(Order::LetGoFirst));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_must_acquire() {
    Weakness::Acquire.prevails();
    check(3, || two_exchange(Order::LetGoLast));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn letting_go_must_release() {
    Weakness::Release.prevails();
    check(3, || two_exchange(Order::LetGoLast));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(3, || two_exchange(Order::LetGoLast));
}

/// One CPU sends and lets the server receive again, another one raises bits.
#[test]
fn no_bits_are_lost_between_looking_for_them_and_waiting() {
    check(4, || {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let runs = world.try_notify();
                if runs == Some(true) {
                    world.try_receive(Order::LetGoLast);
                }
                u64::from(runs.is_some())
            })
        };
        let nr_sent = exchange(&world, Order::LetGoLast);
        settle(&world, nr_sent + other.join().unwrap());
    });
}
