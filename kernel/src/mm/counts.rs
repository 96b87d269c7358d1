//! How many page-table entries name each frame.
//!
//! The counts live in a *shadow page table*: a radix tree with the shape of a four-level page
//! table, indexed by the physical address. Entries of the upper levels *are* page-table entries; an
//! entry of the lowest level holds, where a page table would hold the frame address, how many
//! references there are *beyond the first*:
//!
//! ```text
//!  63    52 51                                   12 11         0
//! +--------+---------------------------------------+------------+
//! |   0    |           extra references            |     0      |
//! +--------+---------------------------------------+------------+
//! ```
//!
//! On bare metal the hardware walks it. Hung into the kernel's half of the address space one level
//! below the root, the lowest nodes are pages, side by side in the order of their frames: an array in
//! the [count window](super::layout::COUNT_WINDOW), in which a count is found by its frame's number.
//! The TLB remembers the walk. On the host the same tree is walked here.
//!
//! So zero means **exactly one reference**, and counting is one atomic addition. The nodes are
//! made when memory is handed to the kernel ([`RefCounts::cover`]): 8 bytes a frame, kept for ever.
//! After that counting never fails.
//!
//! A frame with more than 2^39 references is pinned: it is never freed again, which is a leak and
//! not a use after free. Whoever counts up and sees that sets the count to the middle of the pinned
//! half, so that it stays there whatever the others do in the meantime.

mod entry;

use core::{
    ops::Range,
    sync::atomic::{
        self, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

pub use self::entry::{Count, Dropped, PINNED, Sample};
use super::{
    Flushed, OutOfMemory,
    frames::FrameAllocator,
    phys::{FRAME_SIZE, Frame, PhysAddr, PhysMap, Table},
};

/// Levels of the tree: the counts, and three of tables that lead to them.
const LEVELS: u32 = 4;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const GLOBAL: u64 = 1 << 8;
/// What an entry that names a node has beside the address: the kernel's page-table entry for data,
/// in which the hardware has nothing to note. The entry of the root adds that no code is here.
const NODE: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY | GLOBAL;

/// Bytes that a lowest-level node counts.
pub const BLOCK_SIZE: u64 = 512 * FRAME_SIZE;

/// The reference counts of all frames.
pub struct RefCounts {
    map: PhysMap,
    /// The entry that names the highest node; 0 before there is one.
    top: AtomicU64,
    nodes: AtomicU64,
    shared: AtomicU64,
}

impl RefCounts {
    /// Every frame has one reference.
    #[must_use]
    pub const fn new(map: PhysMap) -> Self {
        Self {
            map,
            top: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
            shared: AtomicU64::new(0),
        }
    }

    /// Makes the nodes for the frames of `range` (addresses). Nodes made before a failure are kept.
    pub fn cover(&self, range: Range<u64>, frames: &FrameAllocator) -> Result<(), OutOfMemory> {
        let mut block = range.start & !(BLOCK_SIZE - 1);
        while block < range.end {
            self.ensure(Frame::containing(PhysAddr(block)), frames)?;
            block += BLOCK_SIZE;
        }
        Ok(())
    }

    /// Boot is the only time when the tree grows, on one CPU.
    fn ensure(&self, frame: Frame, frames: &FrameAllocator) -> Result<(), OutOfMemory> {
        let mut entry = &self.top;
        for level in (0..LEVELS).rev() {
            let node = match self.node(entry) {
                Some(node) => node,
                None => {
                    let made = frames.alloc_zeroed().ok_or(OutOfMemory)?;
                    self.nodes.fetch_add(1, Relaxed);
                    entry.store(made.addr().0 | NODE, Release);
                    self.map.table(made)
                }
            };
            entry = &node[index(frame, level)];
        }
        Ok(())
    }

    /// The highest node, a table of the level below the root; `None` before anything is
    /// [covered](Self::cover). It stays where it is.
    #[must_use]
    pub fn top(&self) -> Option<Frame> {
        let top = self.top.load(Acquire);
        (top & PRESENT != 0).then(|| Frame::of_entry(top))
    }

    /// Counts one more reference.
    ///
    /// # Panics
    ///
    /// If the frame is not [covered](Self::cover).
    pub fn increment(&self, frame: Frame) {
        self.add_shared(self.of(frame).increment().into());
    }

    #[cfg(test)]
    fn decrement(&self, frame: Frame) -> Dropped {
        let dropped = self.of(frame).decrement();
        if dropped == Dropped::Second {
            self.subtract_shared(1);
        }
        dropped
    }

    /// How many references there are.
    ///
    /// # Panics
    ///
    /// If the frame is not [covered](Self::cover).
    #[must_use]
    pub fn get(&self, frame: Frame) -> u64 {
        self.of(frame).get()
    }

    /// Whether there is one reference; see [`Count::is_one`].
    ///
    /// # Panics
    ///
    /// If the frame is not [covered](Self::cover).
    #[inline]
    #[must_use]
    pub fn is_one(&self, frame: Frame) -> bool {
        self.of(frame).is_one()
    }

    /// The count of a frame.
    ///
    /// # Panics
    ///
    /// If the frame is not [covered](Self::cover).
    #[inline]
    #[must_use]
    pub fn of(&self, frame: Frame) -> Count<'_> {
        self.in_window(frame).unwrap_or_else(|| {
            let node = self.walk(frame).expect("a frame without a count");
            Count(&node[index(frame, 0)])
        })
    }

    /// The node that has the counts of the 512 frames around this one; `None` only if these are not
    /// [covered](Self::cover).
    #[inline]
    #[must_use]
    pub fn block(&self, frame: Frame) -> Option<&Table> {
        self.check(frame);
        self.map.count_block(frame).or_else(|| self.walk(frame))
    }

    /// The count where the hardware finds it, if it does.
    #[inline]
    fn in_window(&self, frame: Frame) -> Option<Count<'_>> {
        self.check(frame);
        self.map.count(frame).map(Count)
    }

    /// A count that is not in the window would be a page fault, which debug builds say more clearly.
    #[inline]
    fn check(&self, frame: Frame) {
        debug_assert!(
            self.map.count(frame).is_none() || self.walk(frame).is_some(),
            "{frame:?} has no count"
        );
    }

    /// The node that has the frame's count, found as the hardware finds it.
    fn walk(&self, frame: Frame) -> Option<&Table> {
        let mut node = self.node(&self.top)?;
        for level in (1..LEVELS).rev() {
            node = self.node(&node[index(frame, level)])?;
        }
        Some(node)
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

    /// So many frames got their second reference.
    #[inline]
    pub fn add_shared(&self, nr_frames: u64) {
        if nr_frames > 0 {
            self.shared.fetch_add(nr_frames, Relaxed);
        }
    }

    /// So many frames lost their last but one reference.
    #[inline]
    pub fn subtract_shared(&self, nr_frames: u64) {
        if nr_frames > 0 {
            self.shared.fetch_sub(nr_frames, Relaxed);
        }
    }

    #[inline]
    fn node(&self, entry: &AtomicU64) -> Option<&Table> {
        let entry = entry.load(Acquire);
        (entry & PRESENT != 0).then(|| self.map.table(Frame::of_entry(entry)))
    }
}

/// Counts that are near each other: remembers the node of the last frame, where there is no window.
///
/// Nodes stay where they are, so whatever it remembers is true.
pub struct CountCursor<'m> {
    counts: &'m RefCounts,
    block: u64,
    node: Option<&'m Table>,
}

impl<'m> CountCursor<'m> {
    /// A cursor that has seen nothing.
    #[must_use]
    pub const fn new(counts: &'m RefCounts) -> Self {
        Self {
            counts,
            block: 0,
            node: None,
        }
    }

    /// The count of a frame.
    ///
    /// # Panics
    ///
    /// If the frame is not [covered](RefCounts::cover).
    #[inline]
    pub fn of(&mut self, frame: Frame) -> Count<'m> {
        if let Some(count) = self.counts.in_window(frame) {
            return count;
        }
        let offset = frame.addr().0.wrapping_sub(self.block);
        match self.node {
            Some(node) if offset < BLOCK_SIZE => Count(&node[(offset / FRAME_SIZE) as usize]),
            _ => self.elsewhere(frame),
        }
    }

    #[inline(never)]
    fn elsewhere(&mut self, frame: Frame) -> Count<'m> {
        Count(&self.block(frame)[index(frame, 0)])
    }

    /// The node that has the frame's count.
    ///
    /// # Panics
    ///
    /// If the frame is not [covered](RefCounts::cover).
    pub fn block(&mut self, frame: Frame) -> &'m Table {
        let node = self.counts.block(frame).expect("a frame without a count");
        self.node = Some(node);
        self.block = frame.addr().0 & !(BLOCK_SIZE - 1);
        node
    }
}

#[inline]
const fn index(frame: Frame, level: u32) -> usize {
    (frame.number() >> (9 * level)) as usize % 512
}

#[cfg(test)]
mod tests {
    use super::entry::{DEEP_IN_PIN, EXTRA, PIN};
    use super::*;
    use crate::mm::{layout::COUNT_WINDOW, phys::PHYS_BITS, sim::SimMemory};

    fn frame(addr: u64) -> Frame {
        Frame::containing(PhysAddr(addr))
    }

    fn place(counts: &RefCounts, frame: Frame) -> &AtomicU64 {
        counts.of(frame).0
    }

    #[test]
    fn zero_means_one() {
        let sim = SimMemory::at(0, 8);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        let page = frame(0x7000);
        assert!((counts.top(), counts.nodes(), counts.block(page).is_none()) == (None, 0, true));
        counts.cover(0x1000..0x1f_f000, frames).unwrap();
        assert_eq!((counts.get(page), counts.nodes()), (1, LEVELS.into()));
        assert_eq!(frames.free_count() + counts.nodes(), frames.total_count());
        counts.increment(page);
        assert_eq!((counts.get(page), counts.shared()), (2, 1));
        counts.increment(page);
        assert_eq!((counts.get(page), counts.shared()), (3, 1));
        assert_eq!(counts.decrement(page), Dropped::Remaining);
        assert_eq!(counts.decrement(page), Dropped::Second);
        assert_eq!((counts.get(page), counts.shared()), (1, 0));
        assert_eq!(place(counts, page).load(Relaxed), 0);
        assert_eq!(counts.decrement(page), Dropped::Last);
        assert_eq!(counts.get(frame(0x1f_f000)), 1);
    }

    #[test]
    #[should_panic(expected = "a frame without a count")]
    fn a_frame_that_is_not_covered() {
        let sim = SimMemory::new(8);
        let _ = sim.mm().counts.of(frame(BLOCK_SIZE));
    }

    /// What the hardware finds at an address of the count window, whose root entry is `top`.
    fn translate(map: &PhysMap, top: Frame, addr: u64) -> &AtomicU64 {
        let node = [30, 21, 12].into_iter().fold(top, |node, shift| {
            let entry = map.table(node)[(addr >> shift) as usize % 512].load(Relaxed);
            assert_eq!(
                entry & 0xfff,
                NODE,
                "present, writable, the kernel's, no large page"
            );
            assert_eq!(entry >> PHYS_BITS, 0);
            Frame::of_entry(entry)
        });
        &map.table(node)[(addr % FRAME_SIZE / 8) as usize]
    }

    #[test]
    fn the_window_is_an_array_of_counts() {
        let sim = SimMemory::at(0, 32);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        for addr in [0, 0x7000, 5 << 21, 3 << 30, 7 << 39, (1 << 47) - 0x1000] {
            counts.cover(addr..addr + 1, frames).unwrap();
            let count = COUNT_WINDOW + 8 * frame(addr).number();
            let found = translate(&sim.mm().map, counts.top().unwrap(), count);
            assert!(core::ptr::eq(found, place(counts, frame(addr))));
        }
    }

    #[test]
    fn addresses_up_to_47_bits() {
        let sim = SimMemory::at(0, 32);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        let addresses = [0x1000, 4 << 30, 1 << 40, 100 << 40, (1 << 47) - 0x1000];
        let mut cursor = CountCursor::new(counts);
        for (n, addr) in addresses.into_iter().enumerate() {
            counts.cover(addr..addr + 1, frames).unwrap();
            (0..=n).for_each(|_| counts.increment(frame(addr)));
        }
        for (n, addr) in addresses.into_iter().enumerate() {
            assert_eq!(counts.get(frame(addr)), n as u64 + 2);
            assert_eq!(cursor.of(frame(addr)).get(), n as u64 + 2);
            assert!(cursor.of(frame(addr ^ 0x2000)).is_one());
        }
        assert_eq!(counts.shared(), 5);
    }

    #[test]
    fn lesson_9_a_hundred_thousand_sharers() {
        let sharers = if cfg!(miri) { 50 } else { 100_000 };
        let sim = SimMemory::new(8);
        let counts = &sim.mm().counts;
        let page = frame(0x5000);
        for n in 1..sharers {
            assert_eq!(counts.get(page), n);
            counts.increment(page);
        }
        for _ in 1..sharers {
            assert_ne!(counts.decrement(page), Dropped::Last);
        }
        assert_eq!(counts.decrement(page), Dropped::Last);
    }

    #[test]
    fn lesson_9_counts_saturate_and_pin() {
        let sim = SimMemory::new(8);
        let counts = &sim.mm().counts;
        let page = frame(0x5000);
        place(counts, page).store(PIN - 2 * EXTRA, Relaxed);
        assert_eq!(counts.decrement(page), Dropped::Remaining);
        (0..4).for_each(|_| counts.increment(page));
        assert_eq!(counts.get(page), PINNED);
        for _ in 0..3 {
            assert_eq!(counts.decrement(page), Dropped::Remaining);
            assert_eq!(counts.get(page), PINNED);
        }
        place(counts, page).store(PIN + 7 * EXTRA, Relaxed);
        for _ in 0..3 {
            counts.increment(page);
            assert_eq!(place(counts, page).load(Relaxed), DEEP_IN_PIN);
            assert_eq!(counts.get(page), PINNED);
        }
    }

    #[test]
    fn cover_without_memory_keeps_what_it_has_made() {
        let sim = SimMemory::at(0, 6);
        let (counts, frames) = (&sim.mm().counts, &sim.mm().frames);
        assert_eq!(counts.cover(0x1000..1 << 30, frames), Err(OutOfMemory));
        assert_eq!(frames.free_count() + counts.nodes(), frames.total_count());
        counts.cover(0x1000..0x2000, frames).unwrap();
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
                    for _ in 0..nr_times {
                        mm.counts.increment(page);
                        assert_ne!(mm.counts.decrement(page), Dropped::Last);
                    }
                    mm.counts.increment(page);
                });
            }
        });
        assert_eq!((mm.counts.get(page), mm.counts.shared()), (4, 1));
        let last = || {
            let dropped = mm.counts.decrement(page);
            usize::from(dropped == Dropped::Last)
        };
        let nr_last: usize = std::thread::scope(|scope| {
            let threads: [_; 4] = core::array::from_fn(|_| scope.spawn(last));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!((nr_last, mm.counts.shared()), (1, 0));
        assert_eq!(mm.counts.get(page), 1);
    }
}
