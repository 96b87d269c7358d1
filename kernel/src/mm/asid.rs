//! What a CPU may keep of page tables that it does not use.
//!
//! Some CPUs mark what their TLB knows with an address-space identifier (ASID; on x86 a process-context identifier, PCID): they
//! go over to another page table, and still know the first one when they come back. Then a flush cannot ask all CPUs that know
//! a page table, as nobody knows which these are. It asks those that *use* it, and lets the others find out by themselves.
//!
//! For that each page table has a [generation](Generation), a number that no page table has had before, and that each flush replaces. A
//! CPU [notes](Asids) for each ASID which page table it is for, and the generation that its translations are of:
//!
//! ```text
//!  the CPU that comes to a table          the CPU that changes it
//!  says that it uses it                   writes entries
//!  waits until that can be seen           replaces the generation
//!  reads the generation                   waits until both can be seen
//!  keeps what it knows, or forgets it     asks all that use the table
//! ```
//!
//! Either the second sees that the first uses the table, or the first finds a generation that it does not know. Several flushes of one
//! table may overlap: none replaces a generation by one that was there before.
//!
//! The generation is in the root, in [an entry](PLACE) of the kernel's half that maps nothing: it goes when the table goes, and whoever flushes
//! need know no more than the root.

use core::{
    cell::Cell,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::phys::{PhysAddr, Table};

/// The entry of a root with the generation: what it would map is [used for nothing](super::layout).
pub const PLACE: usize = 510;

/// How many ASIDs a CPU uses, from 0 on: who has more page tables in use begins anew with the one that was chosen first.
pub const NR_ASIDS: usize = 8;

/// What a page table is called until it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    /// That of a page table which no CPU has come to yet.
    const NONE: Self = Self(0);
}

/// Where generations come from.
#[derive(Debug)]
pub struct Generations {
    last: AtomicU64,
}

impl Generations {
    /// None were made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in constants")]
    pub const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
        }
    }

    /// The generation of a page table, for a CPU that has said that it uses it.
    pub fn of(&self, root: &Table) -> Generation {
        let place = &root[PLACE];
        let now = place.load(Acquire);
        if now != Generation::NONE.0 {
            return Generation(now);
        }
        let first = self.make();
        match place.compare_exchange(Generation::NONE.0, first.0, Release, Acquire) {
            Ok(_) => first,
            Err(other) => Generation(other),
        }
    }

    /// Gives a page table that has changed another generation. Returns the last one, and this.
    pub fn replace(&self, root: &Table) -> [Generation; 2] {
        let new = self.make();
        let last = root[PLACE].swap(new.0, Release);
        [Generation(last), new]
    }

    /// One that no page table has had: an even number, as an entry that is not present.
    fn make(&self) -> Generation {
        Generation(2 * (self.last.fetch_add(1, Relaxed) + 1))
    }
}

/// What one CPU's TLB knows under which ASID.
#[derive(Debug)]
pub struct Asids {
    known: [Cell<Known>; NR_ASIDS],
    /// The one that is given away next.
    next: Cell<usize>,
}

/// What a TLB knows under one ASID.
#[derive(Clone, Copy, Debug)]
struct Known {
    root: PhysAddr,
    /// What it knows was looked up in this generation; [`Generation::NONE`]: nothing.
    generation: Generation,
}

impl Known {
    const NOTHING: Self = Self {
        root: PhysAddr(0),
        generation: Generation::NONE,
    };
}

/// How a CPU comes to a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is known under the ASID may be another page table's"]
pub struct Choice {
    /// The ASID to be used.
    pub asid: usize,
    /// Whether what is known under it still holds. Else it must be forgotten.
    pub keeps: bool,
}

impl Asids {
    /// Nothing is known.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in constants")]
    pub const fn new() -> Self {
        Self {
            known: [const { Cell::new(Known::NOTHING) }; NR_ASIDS],
            next: Cell::new(0),
        }
    }

    /// Chooses an ASID for the page table with this root, which is of this generation.
    pub fn choose(&self, root: PhysAddr, generation: Generation) -> Choice {
        let new = Known { root, generation };
        let own = self.known.iter().position(|known| known.get().root == root);
        let asid = own.unwrap_or_else(|| {
            let next = self.next.get();
            self.next.set((next + 1) % NR_ASIDS);
            next
        });
        let last = self.known[asid].replace(new);
        Choice {
            asid,
            keeps: last.root == root && last.generation == generation,
        }
    }

    /// This CPU has forgotten what became wrong when a page table's generation was [replaced](Generations::replace). If it knew
    /// the last one, it knows the new one.
    pub fn follow(&self, root: PhysAddr, [last, new]: [Generation; 2]) {
        let own = self.known.iter().find(|known| known.get().root == root);
        if let Some(known) = own.filter(|known| known.get().generation == last) {
            known.set(Known {
                root,
                generation: new,
            });
        }
    }
}

#[cfg(test)]
mod tests;
