//! How CPUs wait for each other.
//!
//! | | |
//! | --- | --- |
//! | [`Lock`] | one CPU at a time has what is locked; it is known who waits |
//! | [`Mailboxes`] | one CPU asks others to do something, and waits until they have |
//!
//! **Whoever waits answers.** A CPU that waits for a lock or for answers goes on answering requests
//! itself, so two CPUs that want something of each other both get it.

mod lock;
mod mailbox;

// The parts below take their atomics from here, because `kernel/models` gives them others.
use core::sync::atomic;

pub use lock::{Guard, Lock};
pub use mailbox::Mailboxes;

/// The most CPUs that can take part: a bit of a word each.
pub const MAX_CPUS: usize = 64;
