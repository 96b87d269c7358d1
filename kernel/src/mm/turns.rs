//! Turns: who shares what a table names that several spaces have.
//!
//! Each space's CPU may do so whenever it wants, under the lock of its own space, be it to copy the table or to fork a
//! part of it. It counts up what the table names, and takes W from it. Two that do so in turns find what is true:
//! the second finds no W, and sees which references are a frame's second.

use core::sync::atomic::AtomicU64;

use super::phys::FRAME_SIZE;
use crate::sync::{Ordered, OrderedGuard, Rank};

/// How many tables may have their turn at once, if no two of them have the same place.
const NR_PLACES: usize = 64;

/// A lock for every table. Who has one waits for nothing.
#[derive(Debug)]
pub struct Turns([Ordered<()>; NR_PLACES]);

impl Turns {
    pub(super) const fn new() -> Self {
        Self([const { Ordered::new(Rank::Turns, ()) }; NR_PLACES])
    }

    /// Waits until nobody else shares what this table names, or the one that these entries are of.
    pub fn take(&self, table: &[AtomicU64]) -> OrderedGuard<'_, ()> {
        let number = table.as_ptr().addr() / FRAME_SIZE as usize;
        self.0[number % NR_PLACES].lock()
    }
}
