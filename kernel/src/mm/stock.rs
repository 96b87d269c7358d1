//! Frames that a CPU has at hand, so that CPUs that take frames and give them back at the same time write nothing in common.

use core::hint;

use spin::MutexGuard;

use super::phys::Frame;
use crate::sync::{Ordered, OrderedGuard, Rank};

/// How many frames a CPU has at hand at most: with the rest of its stock, 512 bytes.
pub(super) const CAPACITY: usize = 60;

/// The free frames that a CPU has at hand, in a line of the cache that others write only when memory is short.
#[repr(align(128))]
pub(super) struct CpuStock(Ordered<Stock>);

impl CpuStock {
    pub(super) const fn new() -> Self {
        Self(Ordered::new(
            Rank::Stocks,
            Stock {
                frames: [Frame::of_entry(0); CAPACITY],
                len: 0,
                nr_reserved: 0,
            },
        ))
    }

    /// Waits for the stock, and locks it.
    pub(super) fn lock(&self) -> OrderedGuard<'_, Stock> {
        self.0.lock()
    }

    /// The same for a CPU that has [noted](crate::sync::Held) that it has stocks, and locks several.
    pub(super) fn lock_as_noted(&self) -> MutexGuard<'_, Stock> {
        loop {
            if let Some(stock) = self.0.try_lock() {
                return stock;
            }
            hint::spin_loop();
        }
    }
}

/// Free frames, of which some are set aside.
pub(super) struct Stock {
    frames: [Frame; CAPACITY],
    len: usize,
    nr_reserved: usize,
}

impl Stock {
    /// How many frames are not set aside.
    pub(super) fn nr_spare(&self) -> usize {
        self.len - self.nr_reserved
    }

    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        CAPACITY - self.len
    }

    /// Adds a frame, for which there is room.
    pub(super) fn push(&mut self, frame: Frame) {
        self.frames[self.len] = frame;
        self.len += 1;
    }

    /// Takes the frame that came last. One is not set aside.
    pub(super) fn pop(&mut self) -> Frame {
        debug_assert!(self.nr_spare() > 0);
        self.len -= 1;
        self.frames[self.len]
    }

    /// Sets frames aside, which there are.
    pub(super) fn reserve(&mut self, nr_frames: usize) {
        debug_assert!(self.nr_spare() >= nr_frames);
        self.nr_reserved += nr_frames;
    }

    /// Gives frames back that were set aside.
    pub(super) fn give_back(&mut self, nr_frames: usize) {
        self.nr_reserved -= nr_frames;
    }

    /// Takes one of the frames that were set aside.
    pub(super) fn take(&mut self) -> Frame {
        self.give_back(1);
        self.pop()
    }
}
