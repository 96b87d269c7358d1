//! How many page-table entries name each frame.
//!
//! The counts live in a *shadow page table*: a radix tree with the shape of a four-level page
//! table, indexed by the physical address. Entries of the upper three levels are like page-table
//! entries (frame address and present bit); an entry of the lowest level holds a 40-bit count where
//! a page table would hold the frame address:
//!
//! ```text
//!  63    52 51                                   12 11     1  0
//! +--------+---------------------------------------+--------+---+
//! |   0    |        count (0 means: absent)        |    0   | P |
//! +--------+---------------------------------------+--------+---+
//! ```
//!
//! An absent entry, or an absent node, means **exactly one reference**: memory that was never
//! shared costs nothing. Nodes are made by [`RefCounts::ensure`] before an operation changes
//! anything, and are kept for ever, so that counting itself never fails.
//!
//! A count that reaches [`PINNED`] stays there: the frame is never freed again, which is a leak and
//! not a use after free.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::{
    OutOfMemory,
    frames::FrameAllocator,
    phys::{Frame, PhysMap, Table},
};

/// The count that means "at least this many", for ever.
pub const PINNED: u64 = (1 << 40) - 1;

const PRESENT: u64 = 1;
const COUNT_SHIFT: u32 = 12;

/// What is left after one reference went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Nothing: the caller owns the frame alone, and frees it.
    Last,
    /// Other references.
    Remaining,
}

/// The reference counts of all frames.
pub struct RefCounts {
    map: PhysMap,
    /// Like an upper-level entry.
    root: AtomicU64,
    nodes: AtomicU64,
    shared: AtomicU64,
    /// The lowest-level node that was used last: neighbouring frames follow each other. Nodes stay
    /// where they are, so whatever this holds is true.
    recent: AtomicU64,
}

/// A lowest-level node and the 2 MiB block of frames that it counts, in one word.
///
/// ```text
///  63 62            37 36  35                          0
/// +--+----------------+---+-----------------------------+
/// |0 | block          | 1 | frame number of the node    |
/// +--+----------------+---+-----------------------------+
/// ```
mod recent {
    use super::{Frame, index_shift};
    use crate::mm::phys::PhysAddr;

    const VALID: u64 = 1 << 36;

    const fn tag(frame: Frame) -> u64 {
        (frame.number() >> index_shift(1)) << 37 | VALID
    }

    pub(super) const fn pack(frame: Frame, node: Frame) -> u64 {
        tag(frame) | node.number()
    }

    /// The node, if it is the one that counts `frame`.
    pub(super) const fn node(word: u64, frame: Frame) -> Option<Frame> {
        if word & !(VALID - 1) == tag(frame) {
            Some(Frame::containing(PhysAddr((word & (VALID - 1)) << 12)))
        } else {
            None
        }
    }
}

impl RefCounts {
    /// Every frame has one reference.
    #[must_use]
    pub const fn new(map: PhysMap) -> Self {
        Self {
            map,
            root: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            recent: AtomicU64::new(0),
        }
    }

    /// Makes the nodes that counting `frame` needs. Nodes made before a failure are kept.
    pub fn ensure(&self, frame: Frame, frames: &FrameAllocator) -> Result<(), OutOfMemory> {
        if self.recent(frame).is_some() {
            return Ok(());
        }
        let mut entry = &self.root;
        for level in (0..4).rev() {
            let node = match self.node(entry) {
                Some(node) => node,
                None => self.make_node(entry, frames)?,
            };
            entry = &node[index(frame, level)];
        }
        Ok(())
    }

    /// Counts one more reference.
    ///
    /// # Panics
    ///
    /// If [`ensure`](Self::ensure) was not called for the frame.
    pub fn increment(&self, frame: Frame) {
        let leaf = self.leaf(frame).expect("count node not prepared");
        let before = update(leaf, |count| (count < PINNED).then_some(count + 1));
        if before == 1 {
            self.shared.fetch_add(1, Relaxed);
        }
    }

    /// Counts one reference less.
    ///
    /// Use [`Mm::release`](super::Mm::release), which insists on a flush.
    pub(super) fn decrement(&self, frame: Frame) -> Dropped {
        let Some(leaf) = self.leaf(frame) else {
            return Dropped::Last;
        };
        match update(leaf, |count| {
            (1 < count && count < PINNED).then_some(count - 1)
        }) {
            1 => Dropped::Last,
            2 => {
                self.shared.fetch_sub(1, Relaxed);
                Dropped::Remaining
            }
            _ => Dropped::Remaining,
        }
    }

    /// How many references there are. One, read under the lock of the space that holds the
    /// reference, stays one until that space gives it away.
    #[must_use]
    pub fn get(&self, frame: Frame) -> u64 {
        self.leaf(frame).map_or(1, |leaf| count(leaf.load(Acquire)))
    }

    /// How many frames the tree uses.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.nodes.load(Relaxed)
    }

    /// How many frames have more than one reference.
    #[must_use]
    pub fn shared(&self) -> u64 {
        self.shared.load(Relaxed)
    }

    #[inline]
    fn leaf(&self, frame: Frame) -> Option<&AtomicU64> {
        self.recent(frame).or_else(|| self.walk(frame))
    }

    /// The entry of a frame whose node was used last.
    #[inline]
    fn recent(&self, frame: Frame) -> Option<&AtomicU64> {
        let node = recent::node(self.recent.load(Acquire), frame)?;
        Some(&self.map.table(node)[index(frame, 0)])
    }

    fn walk(&self, frame: Frame) -> Option<&AtomicU64> {
        let mut entry = &self.root;
        for level in (1..4).rev() {
            entry = &self.node(entry)?[index(frame, level)];
        }
        let leaf = self.node(entry)?;
        let node = Frame::of_entry(entry.load(Acquire));
        self.recent.store(recent::pack(frame, node), Release);
        Some(&leaf[index(frame, 0)])
    }

    fn node(&self, entry: &AtomicU64) -> Option<&Table> {
        let entry = entry.load(Acquire);
        (entry & PRESENT != 0).then(|| self.map.table(Frame::of_entry(entry)))
    }

    /// Hangs a node under `entry`, unless another CPU was faster: then uses that one.
    fn make_node(&self, entry: &AtomicU64, frames: &FrameAllocator) -> Result<&Table, OutOfMemory> {
        let made = frames.alloc_zeroed().ok_or(OutOfMemory)?;
        match entry.compare_exchange(0, made.addr().0 | PRESENT, AcqRel, Acquire) {
            Ok(_) => {
                self.nodes.fetch_add(1, Relaxed);
                Ok(self.map.table(made))
            }
            Err(other) => {
                frames.free(made);
                Ok(self.map.table(Frame::of_entry(other)))
            }
        }
    }
}

/// Changes a count unless `change` says to leave it, and returns what it was.
///
/// Release, so that what was done with the frame before the reference went is seen by whoever finds
/// the count at one (acquire) and writes to it.
fn update(leaf: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> u64 {
    let changed = leaf.fetch_update(AcqRel, Acquire, |entry| {
        change(count(entry)).map(leaf_entry)
    });
    match changed {
        Ok(before) | Err(before) => count(before),
    }
}

const fn count(entry: u64) -> u64 {
    if entry & PRESENT == 0 {
        1
    } else {
        (entry >> COUNT_SHIFT) & PINNED
    }
}

/// The leaf entry for a count; one reference is the absent entry.
const fn leaf_entry(count: u64) -> u64 {
    if count == 1 {
        0
    } else {
        count << COUNT_SHIFT | PRESENT
    }
}

const fn index(frame: Frame, level: u32) -> usize {
    (frame.number() >> index_shift(level)) as usize % 512
}

/// Bits of a frame number below those that index a node of this level.
const fn index_shift(level: u32) -> u32 {
    9 * level
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{PhysAddr, sim::SimMemory};

    fn frame(addr: u64) -> Frame {
        Frame::containing(PhysAddr(addr))
    }

    fn set(counts: &RefCounts, frame: Frame, count: u64) {
        counts
            .leaf(frame)
            .unwrap()
            .store(leaf_entry(count), Relaxed);
    }

    #[test]
    fn absent_means_one() {
        let sim = SimMemory::new(8);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        let page = frame(0x7000);
        assert_eq!((counts.get(page), counts.nodes()), (1, 0));
        assert_eq!(counts.decrement(page), Dropped::Last);
        counts.ensure(page, frames).unwrap();
        counts.ensure(frame(0x1f_f000), frames).unwrap();
        assert_eq!((counts.get(page), counts.nodes()), (1, 4));
        assert_eq!(frames.free_count() + counts.nodes(), frames.total_count());
        counts.increment(page);
        assert_eq!((counts.get(page), counts.shared()), (2, 1));
        counts.increment(page);
        assert_eq!((counts.get(page), counts.shared()), (3, 1));
        assert_eq!(counts.decrement(page), Dropped::Remaining);
        assert_eq!(counts.decrement(page), Dropped::Remaining);
        assert_eq!((counts.get(page), counts.shared()), (1, 0));
        assert_eq!(counts.leaf(page).unwrap().load(Relaxed), 0);
        assert_eq!(counts.decrement(page), Dropped::Last);
        assert_eq!(counts.get(frame(0x1f_f000)), 1);
    }

    #[test]
    fn addresses_up_to_47_bits() {
        let sim = SimMemory::new(32);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        let addresses = [0x1000, 4 << 30, 1 << 40, 100 << 40, (1 << 47) - 0x1000];
        for (n, addr) in addresses.into_iter().enumerate() {
            counts.ensure(frame(addr), frames).unwrap();
            (0..=n).for_each(|_| counts.increment(frame(addr)));
        }
        for (n, addr) in addresses.into_iter().enumerate() {
            assert_eq!(counts.get(frame(addr)), n as u64 + 2);
        }
        assert_eq!(counts.shared(), 5);
    }

    #[test]
    fn lesson_9_a_hundred_thousand_sharers() {
        let sharers = if cfg!(miri) { 50 } else { 100_000 };
        let sim = SimMemory::new(8);
        let counts = &sim.mm().counts;
        let page = frame(0x5000);
        counts.ensure(page, &sim.mm().frames).unwrap();
        for n in 1..sharers {
            assert_eq!(counts.get(page), n);
            counts.increment(page);
        }
        for _ in 1..sharers {
            assert_eq!(counts.decrement(page), Dropped::Remaining);
        }
        assert_eq!(counts.decrement(page), Dropped::Last);
    }

    #[test]
    fn lesson_9_counts_saturate_and_pin() {
        let sim = SimMemory::new(8);
        let counts = &sim.mm().counts;
        let page = frame(0x5000);
        counts.ensure(page, &sim.mm().frames).unwrap();
        set(counts, page, PINNED - 2);
        assert_eq!(counts.decrement(page), Dropped::Remaining);
        counts.increment(page);
        counts.increment(page);
        assert_eq!(counts.get(page), PINNED - 1);
        counts.increment(page);
        assert_eq!(counts.get(page), PINNED);
        counts.increment(page);
        for _ in 0..3 {
            assert_eq!(counts.decrement(page), Dropped::Remaining);
            assert_eq!(counts.get(page), PINNED);
        }
    }

    #[test]
    fn ensure_without_memory_changes_no_count() {
        let sim = SimMemory::new(3);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        assert_eq!(counts.ensure(frame(0x1000), frames), Err(OutOfMemory));
        assert_eq!(frames.free_count() + counts.nodes(), frames.total_count());
        assert_eq!((counts.get(frame(0x1000)), counts.shared()), (1, 0));
    }

    #[test]
    fn many_cpus_count_the_same_frame() {
        let nr_times = if cfg!(miri) { 50 } else { 10_000 };
        let sim = SimMemory::new(32);
        let mm = sim.mm();
        let page = frame(0x5000);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    mm.ensure_counted(page).unwrap();
                    for _ in 0..nr_times {
                        mm.counts.increment(page);
                        assert_eq!(mm.counts.decrement(page), Dropped::Remaining);
                    }
                    mm.counts.increment(page);
                });
            }
        });
        assert_eq!((mm.counts.get(page), mm.counts.shared()), (4, 1));
        let free = mm.frames.free_count();
        assert_eq!(free + mm.counts.nodes(), mm.frames.total_count());
        let last = || {
            let dropped = mm.counts.decrement(page);
            usize::from(dropped == Dropped::Last)
        };
        let nr_last: usize = std::thread::scope(|scope| {
            let threads: [_; 4] = core::array::from_fn(|_| scope.spawn(last));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!((nr_last, mm.counts.shared()), (1, 0));
    }
}
