//! Turns: who copies a table that several spaces name.
//!
//! Each space's CPU may copy such a table whenever it wants, under the lock of its own space. It counts up all that the
//! table names, and takes W from it. Two that do so in turns find what is true: the second finds no W, and sees
//! which references are a frame's second.

use spin::{Mutex, MutexGuard};

use super::Frame;

/// How many tables may be copied at once, if no two of them have the same place.
const NR_PLACES: usize = 64;

/// A lock for every table. Who has one waits for nothing.
#[derive(Debug)]
pub struct Turns([Mutex<()>; NR_PLACES]);

impl Turns {
    pub(super) const fn new() -> Self {
        Self([const { Mutex::new(()) }; NR_PLACES])
    }

    /// Waits until nobody else copies this table.
    pub fn take(&self, table: Frame) -> MutexGuard<'_, ()> {
        self.0[table.number() as usize % NR_PLACES].lock()
    }
}
