//! What the benchmarks of the copy-on-write engine are made of: spaces over simulated memory, and
//! clocks around operations.

use std::time::{Duration, Instant};

use cowslip_abi::{Access, PAGE_SIZE, Perm, ShareMode};
use kernel::mm::{Counter, Mm, sim::SimMemory};
use kernel::vm::{self, Fault, PageTable, Passage, Sharing, Transfer};

/// A page, as addresses count.
const PAGE: u64 = PAGE_SIZE as u64;

/// So many pages at least are in what is measured at once.
const AT_ONCE: u64 = 256;

/// Where memory begins, in every space.
const BASE: u64 = 0x4000_0000_0000;

/// Times an operation that needs no preparation.
pub fn many(memory: &SimMemory, iterations: u64, mut operation: impl FnMut()) -> Duration {
    let mut time = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let now = left.min(256);
        let begin = Instant::now();
        (0..now).for_each(|_| operation());
        time += begin.elapsed();
        // The simulation keeps a list of flushes.
        drop(memory.take_flushes());
        left -= now;
    }
    time
}

/// An operation on some pages, as often as it takes to be measured at once.
#[derive(Clone, Copy)]
pub struct Batch {
    size: u64,
    times: u64,
}

impl Batch {
    /// Of operations on so many pages each.
    #[must_use]
    pub fn of(nr_pages: u64) -> Batch {
        Batch {
            size: nr_pages,
            times: AT_ONCE.div_ceil(nr_pages),
        }
    }

    /// The pages of all of them.
    #[must_use]
    pub fn nr_pages(self) -> u64 {
        self.size * self.times
    }

    /// One of something for each.
    pub fn times<T>(self, mut make: impl FnMut() -> T) -> Vec<T> {
        (0..self.times).map(|_| make()).collect()
    }

    /// The time that so many iterations take, in which only `operation` counts. It is told which
    /// one of its kind it is.
    pub fn time<T>(
        self,
        memory: &SimMemory,
        iterations: u64,
        mut prepare: impl FnMut() -> T,
        mut operation: impl FnMut(&mut T, u64),
        mut finish: impl FnMut(T),
    ) -> Duration {
        let mut time = Duration::ZERO;
        let rounds = iterations.div_ceil(self.times);
        for _ in 0..rounds {
            let mut prepared = prepare();
            drop(memory.take_flushes());
            let begin = Instant::now();
            (0..self.times).for_each(|nth| operation(&mut prepared, nth));
            time += begin.elapsed();
            finish(prepared);
        }
        time.mul_f64(iterations as f64 / (rounds * self.times) as f64)
    }

    /// Fails unless the event has happened once for each page.
    pub fn expect_all(self, counter: &Counter, before: u64) {
        assert_eq!(counter.get() - before, self.nr_pages());
    }
}

/// An address space.
pub struct Space<'m> {
    mm: &'m Mm,
    table: PageTable,
}

impl<'m> Space<'m> {
    /// With nothing.
    #[must_use]
    pub fn new(mm: &'m Mm) -> Self {
        let table = PageTable::new(mm, &[0; 256]).expect("memory");
        Space { mm, table }
    }

    /// With untouched pages.
    #[must_use]
    pub fn mapped(mm: &'m Mm, nr_pages: u64) -> Self {
        let space = Space::new(mm);
        let len = nr_pages * PAGE;
        let mapped = space.table.map_zero(mm, BASE, len, Perm::RW);
        mapped.expect("memory");
        space
    }

    /// With pages that tell their number and this seed.
    #[must_use]
    pub fn written(mm: &'m Mm, nr_pages: u64, seed: u64) -> Self {
        let space = Space::mapped(mm, nr_pages);
        space.write(0, nr_pages);
        for page in 0..nr_pages {
            let word = content(page, seed).to_le_bytes();
            vm::write_user(mm, &space.table, address(page), &word).expect("a written page");
        }
        space
    }

    /// Write faults at pages, as far as the page-table entry does not allow the write.
    pub fn write(&self, first: u64, nr_pages: u64) {
        for page in first..first + nr_pages {
            let resolved = vm::fault(self.mm, &self.table, address(page), Access::Write);
            assert_eq!(resolved, Fault::Resolved);
        }
    }

    /// Takes a parent's pages, copy-on-write.
    pub fn share(&self, parent: &Space<'_>, first: u64, nr_pages: u64) {
        let (addr, len) = (address(first), nr_pages * PAGE);
        let sharing = Sharing {
            mm: self.mm,
            dst: &self.table,
            to: addr,
            src: &parent.table,
            from: addr,
            len,
            mode: ShareMode::CopyOnWrite,
            perm: None,
        };
        sharing.share().expect("memory");
    }

    /// A message.
    pub fn send(&self, from: u64, receiver: &Space<'_>, into: u64, nr_pages: u64) {
        let passage = Passage {
            mm: self.mm,
            dst: &receiver.table,
            to: address(into),
            src: &self.table,
            from: address(from),
            len: nr_pages * PAGE,
            transfer: Transfer::Copy,
        };
        passage.copy().expect("memory");
    }

    /// Gives pages up.
    pub fn unmap(&self, first: u64, nr_pages: u64) {
        let unmapped = self.table.unmap(self.mm, address(first), nr_pages * PAGE);
        unmapped.expect("there is memory");
        while !vm::reap(self.mm) {}
    }

    /// How many pages it has that nobody shares.
    #[must_use]
    pub fn nr_private(&self) -> u64 {
        self.table.statistics(self.mm).private
    }

    /// Fails unless pages from `first` on are what those from `origin` on were written as.
    pub fn expect(&self, first: u64, nr_pages: u64, origin: u64, seed: u64) {
        for nth in 0..nr_pages {
            let mut word = [0; 8];
            vm::read_user(self.mm, &self.table, address(first + nth), &mut word).expect("a page");
            assert_eq!(u64::from_le_bytes(word), content(origin + nth, seed));
        }
    }

    /// Gives everything up.
    pub fn end(self) {
        self.table.destroy(self.mm);
        while !vm::reap(self.mm) {}
    }
}

fn address(page: u64) -> u64 {
    BASE + page * PAGE
}

fn content(page: u64, seed: u64) -> u64 {
    seed << 32 | page
}
