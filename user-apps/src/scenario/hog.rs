//! Memory that is nearly used up: exactly so many frames are free.

use alloc::vec::Vec;

use libipc::{Perm, Space};

use super::frames::counters;
use super::memory::{PAGE, SCRATCH, poke};

/// Where the memory is that a hog takes: above what cases use of [`SCRATCH`].
const HERE: u64 = SCRATCH + (8 << 40);

/// Pages below one table.
const TABLE: u64 = 512;

/// The most pages that are given back at a time.
const MOST_OPEN: usize = 1024;

/// Whoever has all the memory that others shall not have. Dropping it gives it back.
#[derive(Debug)]
pub struct Hog {
    nr_reserved: u64,
    /// Pages that have a frame come before this one, but for those that are open.
    nr_taken: u64,
    /// Pages that were given back, whose tables are there.
    open: Vec<u64>,
}

impl Hog {
    /// Takes all but a few frames.
    ///
    /// # Panics
    /// When there is no room for what it takes.
    #[must_use]
    pub fn new() -> Self {
        let nr_reserved = counters().free;
        let own = Space::own();
        own.map(HERE, nr_reserved * PAGE, Perm::RW).expect("map");
        let mut hog = Self {
            nr_reserved,
            nr_taken: 0,
            // The list has its memory from the start.
            open: alloc::vec![0; MOST_OPEN],
        };
        hog.open.clear();
        loop {
            let free = counters().free;
            if free < TABLE {
                return hog;
            }
            // Tables are taken too: one for each of theirs.
            for _ in 0..free - free / TABLE - 8 {
                hog.take();
            }
        }
    }

    /// Sees to it that exactly so many frames are free.
    ///
    /// # Panics
    /// When the hog does not have as many.
    #[track_caller]
    pub fn leave(&mut self, nr_frames: u64) {
        loop {
            let free = counters().free;
            if free == nr_frames {
                return;
            }
            if free < nr_frames {
                self.give();
            } else if let Some(page) = self.open.pop() {
                Space::own().map(page, PAGE, Perm::RW).expect("map");
                poke(page, 1);
            } else {
                // The first page below a table takes that as well.
                let is_first = self.nr_taken.is_multiple_of(TABLE);
                if is_first && free - nr_frames == 1 {
                    self.give();
                }
                self.take();
            }
        }
    }

    fn take(&mut self) {
        assert!(self.nr_taken < self.nr_reserved, "the hog needs more room");
        poke(HERE + self.nr_taken * PAGE, 1);
        self.nr_taken += 1;
    }

    /// Gives back a page, and keeps the table that it is in.
    fn give(&mut self) {
        assert!(self.open.len() < MOST_OPEN);
        // The first page below each table stays.
        let nth = self.open.len() as u64;
        let page = HERE + (1 + nth % (TABLE - 1) + nth / (TABLE - 1) * TABLE) * PAGE;
        assert!(page < HERE + self.nr_taken * PAGE, "the hog has no more");
        Space::own().unmap(page, PAGE).expect("unmap");
        self.open.push(page);
    }
}

impl Default for Hog {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = Space::own().unmap(HERE, self.nr_reserved * PAGE);
    }
}
