//! An endpoint with one server, used by CPUs that share the kernel.
//!
//! The claims are the kernel's own; the steps are those of `ipc/fast.rs` and `ipc/fast_events.rs`. Who does not get a claim
//! gives up here, too; what is left is done when the others have ended: in the kernel, by who has it alone.
//!
//! The server's claim goes with it, from the place where it waits to the CPU that runs it and back.

use std::sync::Arc;

use kernel_models::{
    Watched, Weakness,
    atomic::{AtomicU64, Ordering::Relaxed},
    check,
    sync::{Claimed, Keep},
};
use loom::thread;

/// No bits, no message.
const NOTHING: u64 = 0;

struct Endpoint {
    /// The first receiver: who has taken it out has the endpoint.
    receiver: Keep<Server>,
    bits: AtomicU64,
}

/// The thread that serves.
#[derive(Default)]
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
        let world = Arc::new(Self {
            endpoint: Endpoint {
                receiver: Keep::new(),
                bits: AtomicU64::known(NOTHING),
            },
            server: Server::default(),
        });
        assert!(world.server.claimed.claim());
        world.endpoint.receiver.put(world.server());
        world
    }

    fn server(&self) -> *mut Server {
        (&raw const self.server).cast_mut()
    }

    /// A client sends: its CPU runs the server from then on. `false`: it did not get what it needs.
    fn try_send(&self, message: u64) -> bool {
        let Some(receiver) = self.endpoint.receiver.take() else {
            return false;
        };
        let is_sent = receiver == self.server();
        if is_sent {
            self.server.message.set(message);
        }
        self.endpoint.receiver.put(std::ptr::null_mut());
        is_sent
    }

    /// The server, which runs, looks at its message, and waits for the next one; or takes the bits that were raised. `false`:
    /// it did not get what it needs, and runs still.
    fn try_receive(&self, order: Order) -> bool {
        let bits = &self.endpoint.bits;
        if !self.endpoint.receiver.take_nothing(|| bits.load(Relaxed)) {
            return self.try_take_bits();
        }
        if order == Order::WaitLast {
            self.note(0);
        }
        self.endpoint.receiver.put(self.server());
        if order == Order::WaitFirst {
            self.note(0);
        }
        true
    }

    /// The server takes the bits that were raised, and runs still.
    fn try_take_bits(&self) -> bool {
        if let Some(receiver) = self.endpoint.receiver.take() {
            if self.endpoint.bits.load(Relaxed) != NOTHING {
                self.endpoint.bits.store(NOTHING, Relaxed);
                self.note(1);
            }
            self.endpoint.receiver.put(receiver);
        }
        false
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
        let receiver = self.endpoint.receiver.take()?;
        let runs = !receiver.is_null();
        if runs {
            self.note(1);
        } else {
            self.endpoint.bits.store(1, Relaxed);
        }
        self.endpoint.receiver.put(std::ptr::null_mut());
        Some(runs)
    }
}

/// When the server's CPU says that it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// When it does not use the server any more.
    WaitLast,
    /// When it still has something to do with the server.
    WaitFirst,
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
    if world.endpoint.receiver.get().is_null() {
        let _ = world.try_receive(Order::WaitLast) || world.try_receive(Order::WaitLast);
    }
    assert_eq!(world.endpoint.receiver.take(), Some(world.server()));
    assert!(!world.server.claimed.claim());
    assert_eq!(world.endpoint.bits.load(Relaxed), NOTHING);
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
    check(3, || two_exchange(Order::WaitLast));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_thread_waits_when_nothing_is_left_to_do_with_it() {
    check(3, || two_exchange(Order::WaitFirst));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_must_acquire() {
    Weakness::Acquire.prevails();
    check(3, || two_exchange(Order::WaitLast));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn letting_go_must_release() {
    Weakness::Release.prevails();
    check(3, || two_exchange(Order::WaitLast));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn claiming_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(3, || two_exchange(Order::WaitLast));
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
                    world.try_receive(Order::WaitLast);
                }
                u64::from(runs.is_some())
            })
        };
        let nr_sent = exchange(&world, Order::WaitLast);
        settle(&world, nr_sent + other.join().unwrap());
    });
}
