//! The free frames.
//!
//! A frame that was freed holds the link to the next free one in its first word, so freeing and
//! allocating are constant time and need no memory. Frames that were never used are handed out by
//! bumping a pointer through the usable ranges, so booting does not touch all of memory. The count
//! of free frames is exact.
//!
//! A [`Reserve`] is a number of frames set aside: an operation takes what it may need before it
//! changes anything, and gives back what is left.

use core::sync::atomic::Ordering::Relaxed;

use spin::Mutex;

use super::{
    OutOfMemory,
    phys::{FRAME_SIZE, Frame, PhysAddr, PhysMap},
};

/// How many separate usable ranges are remembered; a firmware memory map has a few dozen.
pub const MAX_RANGES: usize = 64;

/// Hands out frames and takes them back.
pub struct FrameAllocator {
    map: PhysMap,
    pool: Mutex<Pool>,
}

impl FrameAllocator {
    /// An allocator with no frames.
    #[must_use]
    pub const fn new(map: PhysMap) -> Self {
        let untouched = [Range { next: 0, end: 0 }; MAX_RANGES];
        Self {
            map,
            pool: Mutex::new(Pool {
                list: 0,
                untouched,
                nr_ranges: 0,
                free: 0,
                total: 0,
            }),
        }
    }

    /// Adds the whole frames in `start..end` (bytes) to the free ones, untouched for the moment.
    ///
    /// Frame 0 is never added: address 0 ends the list. The range must be memory that nothing uses
    /// and that was not added before. If the table of ranges is full, the range goes to the list
    /// frame by frame.
    pub fn add_range(&self, start: PhysAddr, end: PhysAddr) {
        let Some((start, end)) = whole_frames(start, end) else {
            return;
        };
        let mut pool = self.pool.lock();
        let nr_frames = (end - start) / FRAME_SIZE;
        pool.total += nr_frames;
        pool.free += nr_frames;
        if !pool.add_untouched(start, end) {
            for addr in (start..end).step_by(FRAME_SIZE as usize) {
                pool.push(&self.map, Frame::containing(PhysAddr(addr)));
            }
        }
    }

    /// Adds the whole frames in `start..end` (bytes) to the total as frames that are in use, such
    /// as those of boot modules. Each may be passed to [`free`](Self::free) once.
    pub fn adopt_range(&self, start: PhysAddr, end: PhysAddr) {
        if let Some((start, end)) = whole_frames(start, end) {
            self.pool.lock().total += (end - start) / FRAME_SIZE;
        }
    }

    /// A free frame. Its contents are undefined.
    #[must_use]
    pub fn alloc(&self) -> Option<Frame> {
        let mut pool = self.pool.lock();
        pool.free = pool.free.checked_sub(1)?;
        Some(pool.pop(&self.map))
    }

    /// A free frame filled with zeros.
    #[must_use]
    pub fn alloc_zeroed(&self) -> Option<Frame> {
        let frame = self.alloc()?;
        self.map.zero(frame);
        Some(frame)
    }

    /// Takes back a frame that nothing names any more.
    pub fn free(&self, frame: Frame) {
        let mut pool = self.pool.lock();
        debug_assert!(pool.free < pool.total, "{frame:?} freed twice");
        pool.free += 1;
        pool.push(&self.map, frame);
    }

    /// Sets `nr_frames` frames aside. All or nothing.
    pub fn reserve(&self, nr_frames: usize) -> Result<Reserve<'_>, OutOfMemory> {
        let mut reserve = Reserve {
            allocator: self,
            head: 0,
            len: 0,
        };
        if nr_frames == 0 {
            return Ok(reserve);
        }
        let mut pool = self.pool.lock();
        pool.free = pool.free.checked_sub(nr_frames as u64).ok_or(OutOfMemory)?;
        for _ in 0..nr_frames {
            let frame = pool.pop(&self.map);
            link(&self.map, frame, reserve.head);
            reserve.head = frame.addr().0;
        }
        reserve.len = nr_frames;
        Ok(reserve)
    }

    /// How many frames are free.
    #[must_use]
    pub fn free_count(&self) -> u64 {
        self.pool.lock().free
    }

    /// How many frames there are, free or not.
    #[must_use]
    pub fn total_count(&self) -> u64 {
        self.pool.lock().total
    }
}

/// Frames set aside for one operation, chained through their first words.
///
/// Dropping it gives back what was not taken.
#[must_use]
pub struct Reserve<'a> {
    allocator: &'a FrameAllocator,
    /// Physical address of the first frame; 0 ends the chain.
    head: u64,
    len: usize,
}

impl Reserve<'_> {
    /// One of the frames. Its contents are undefined.
    ///
    /// # Panics
    ///
    /// If none is left: the plan that sized the reserve was wrong.
    pub fn take(&mut self) -> Frame {
        assert!(self.head != 0, "more frames taken than reserved");
        let frame = Frame::of_entry(self.head);
        self.head = linked(&self.allocator.map, frame);
        self.len -= 1;
        frame
    }

    /// One of the frames, filled with zeros.
    ///
    /// # Panics
    ///
    /// If none is left: the plan that sized the reserve was wrong.
    pub fn take_zeroed(&mut self) -> Frame {
        let frame = self.take();
        self.allocator.map.zero(frame);
        frame
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frames that are left.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        let mut next = self.head;
        core::iter::from_fn(move || {
            let frame = (next != 0).then(|| Frame::of_entry(next))?;
            next = linked(&self.allocator.map, frame);
            Some(frame)
        })
    }

    /// Gives back what is left; the same as dropping it.
    pub fn release(self) {}
}

impl Drop for Reserve<'_> {
    fn drop(&mut self) {
        while !self.is_empty() {
            let frame = self.take();
            self.allocator.free(frame);
        }
    }
}

struct Pool {
    /// Physical address of the first frame of the free list; 0 ends it.
    list: u64,
    /// Memory that was never handed out, from `next` to `end`.
    untouched: [Range; MAX_RANGES],
    nr_ranges: usize,
    free: u64,
    total: u64,
}

#[derive(Clone, Copy)]
struct Range {
    next: u64,
    end: u64,
}

impl Pool {
    /// Takes a frame that `free` says is there: from the list, where it may still be in a cache,
    /// or else from the last range.
    fn pop(&mut self, map: &PhysMap) -> Frame {
        if self.list != 0 {
            let frame = Frame::of_entry(self.list);
            self.list = linked(map, frame);
            return frame;
        }
        assert!(self.nr_ranges > 0, "the count of free frames is wrong");
        let range = &mut self.untouched[self.nr_ranges - 1];
        let frame = Frame::containing(PhysAddr(range.next));
        range.next += FRAME_SIZE;
        if range.next == range.end {
            self.nr_ranges -= 1;
        }
        frame
    }

    fn push(&mut self, map: &PhysMap, frame: Frame) {
        link(map, frame, self.list);
        self.list = frame.addr().0;
    }

    /// Remembers `start..end`, joined to a neighbour if there is one; false if there is no room.
    fn add_untouched(&mut self, start: u64, end: u64) -> bool {
        for range in &mut self.untouched[..self.nr_ranges] {
            if range.end == start {
                range.end = end;
                return true;
            }
            if range.next == end {
                range.next = start;
                return true;
            }
        }
        let Some(slot) = self.untouched.get_mut(self.nr_ranges) else {
            return false;
        };
        *slot = Range { next: start, end };
        self.nr_ranges += 1;
        true
    }
}

/// The whole frames within `start..end`, without frame 0; `None` if there are none.
fn whole_frames(start: PhysAddr, end: PhysAddr) -> Option<(u64, u64)> {
    let start = start.0.max(1).next_multiple_of(FRAME_SIZE);
    let end = end.0 & !(FRAME_SIZE - 1);
    (start < end).then_some((start, end))
}

fn link(map: &PhysMap, frame: Frame, next: u64) {
    map.table(frame)[0].store(next, Relaxed);
}

fn linked(map: &PhysMap, frame: Frame) -> u64 {
    map.table(frame)[0].load(Relaxed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::mm::sim::SimMemory;

    #[test]
    fn every_frame_is_handed_out_once_and_comes_back() {
        let sim = SimMemory::new(16);
        let frames = &sim.mm().frames;
        let total = frames.total_count();
        assert_eq!(total, 15, "frame 0 is left out");
        for _ in 0..3 {
            let taken: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
            assert_eq!(taken.len() as u64, total);
            assert_eq!(frames.free_count(), 0);
            taken.into_iter().for_each(|frame| frames.free(frame));
            assert_eq!(frames.free_count(), total);
        }
    }

    #[test]
    fn memory_above_four_gib() {
        let start = 100 << 40;
        let sim = SimMemory::at(start, 4);
        let frame = sim.mm().frames.alloc_zeroed().unwrap();
        assert_eq!(frame.addr(), PhysAddr(start));
        assert_eq!(sim.mm().frames.free_count(), 3);
        sim.mm().frames.free(frame);
        assert_eq!(sim.mm().frames.free_count(), 4);
    }

    #[test]
    fn ragged_ends_and_empty_ranges_are_left_out() {
        assert_eq!(
            whole_frames(PhysAddr(0), PhysAddr(0x2fff)),
            Some((0x1000, 0x2000))
        );
        assert_eq!(whole_frames(PhysAddr(0x1001), PhysAddr(0x2fff)), None);
        assert_eq!(whole_frames(PhysAddr(0x3000), PhysAddr(0x1000)), None);
    }

    #[test]
    fn adjacent_and_too_many_ranges() {
        let sim = SimMemory::empty(4 * MAX_RANGES);
        let frames = &sim.mm().frames;
        let add = |first: u64, nr_frames: u64| {
            frames.add_range(
                PhysAddr(first * FRAME_SIZE),
                PhysAddr((first + nr_frames) * FRAME_SIZE),
            );
        };
        add(10, 2);
        add(12, 3);
        add(8, 2);
        assert_eq!(frames.pool.lock().nr_ranges, 1);
        for n in 0..MAX_RANGES as u64 + 10 {
            add(20 + 2 * n, 1);
        }
        let total = 7 + MAX_RANGES as u64 + 10;
        assert_eq!((frames.free_count(), frames.total_count()), (total, total));
        let taken: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
        assert_eq!(taken.len() as u64, total);
    }

    #[test]
    fn a_reserve_is_all_or_nothing_and_gives_back_the_rest() {
        let sim = SimMemory::new(11);
        let frames = &sim.mm().frames;
        assert!(frames.reserve(11).is_err());
        assert_eq!(frames.free_count(), 10);
        let mut reserve = frames.reserve(10).unwrap();
        assert_eq!(frames.free_count(), 0);
        assert_eq!(reserve.frames().count(), 10);
        let taken = reserve.take_zeroed();
        assert_eq!((reserve.len(), reserve.frames().count()), (9, 9));
        reserve.release();
        assert_eq!(frames.free_count(), 9);
        frames.free(taken);
        assert_eq!(frames.free_count(), 10);
    }
}
