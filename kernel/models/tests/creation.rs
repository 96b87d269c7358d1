//! An object that one CPU adds to a pool while another looks at its slot, because somebody alleges that there is one.
//!
//! The claim is the kernel's own; the steps are those of `object/pool.rs` and `object/pool/claim.rs`.

use std::sync::Arc;

use kernel_models::{
    Watched,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    check,
    sync::Claimed,
};
use loom::thread;

/// No object.
const EMPTY: u64 = 0;
const ID: u64 = 1;
/// What the object is.
const CONTENT: u64 = 7;

struct Slot {
    id: AtomicU64,
    claimed: Claimed,
    object: Watched,
}

impl Slot {
    fn new() -> Self {
        Self {
            id: AtomicU64::known(EMPTY),
            claimed: Claimed::new(),
            object: Watched::default(),
        }
    }

    /// What was there before may have been claimed to the end.
    fn add(&self, order: Order) {
        if order == Order::First {
            self.id.store(ID, Release);
        }
        self.object.set(CONTENT);
        self.claimed.release();
        match order {
            Order::Last => self.id.store(ID, Release),
            Order::Unordered => self.id.store(ID, Relaxed),
            Order::First => {}
        }
    }

    /// Uses what is there, if it gets it. Returns whether it did.
    fn use_it(&self) -> bool {
        let is_ours = self.id.load(Acquire) != EMPTY && self.claimed.claim();
        if is_ours {
            assert_eq!(self.object.get(), CONTENT, "half an object");
            self.claimed.release();
        }
        is_ours
    }
}

/// When the id is written, by which others find the object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Last,
    Unordered,
    First,
}

/// One CPU adds an object, and the other looks at the same time. In the end it is there, and nobody has it.
fn add_and_look(order: Order) {
    check(3, move || {
        let slot = Arc::new(Slot::new());
        let adder = Arc::clone(&slot);
        let adding = thread::spawn(move || adder.add(order));
        slot.use_it();
        adding.join().expect("it ends");
        assert!(slot.use_it(), "nobody has it");
    });
}

#[test]
fn who_looks_finds_a_whole_object_or_none() {
    add_and_look(Order::Last);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_id_must_come_last() {
    add_and_look(Order::First);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn what_comes_before_the_id_must_be_seen_before_it() {
    add_and_look(Order::Unordered);
}
