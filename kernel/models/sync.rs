//! `kernel::sync`, for a few CPUs.

use crate::atomic;

#[path = "../src/sync/claim.rs"]
mod claim;
#[path = "../src/sync/door.rs"]
mod door;
#[path = "../src/sync/lock.rs"]
mod lock;
#[path = "../src/sync/mailbox.rs"]
mod mailbox;

pub use claim::{Claimed, Keep};
pub use door::{Apart, Door, Doors, Entrance};
pub use lock::{Guard, Lock, Shared};
pub use mailbox::Mailboxes;

/// The most CPUs that a model has.
pub const MAX_CPUS: usize = 4;

/// How many times a CPU looks whether it can have the lock before that is reserved for it.
const PATIENCE: u32 = 2;

/// How many times a CPU is found inside before it is called.
const NR_LOOKS: u32 = 1;

/// What the kernel notes of the order of locks, which has one here.
pub struct Held;

/// The rank of that one.
pub enum Rank {
    /// It has none.
    Kernel,
}

impl Held {
    /// Notes nothing.
    pub fn new(_: Rank) -> Self {
        Self
    }
}
