//! The direct map: physical memory as the kernel reaches it.
//!
//! This is the one place where a frame becomes memory. On bare metal physical address `p` lies at
//! [`DIRECT_MAP`](super::layout::DIRECT_MAP)` + p` (`phys/bare.rs`); on the host in a piece of memory
//! that stands for the machine's (`phys/hosted.rs`).
//!
//! Page tables are read as arrays of atomics, because the hardware and other CPUs read (and, for
//! the accessed and dirty bits, write) them at any time; the bytes of user frames are only ever
//! touched by raw copies, never by references, because user code may write them at any time.

#[cfg(target_os = "none")]
mod bare;
#[cfg(not(target_os = "none"))]
mod hosted;

use core::{
    fmt, ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use cowslip_abi::PAGE_SIZE;

#[cfg(target_os = "none")]
use bare as place;
#[cfg(not(target_os = "none"))]
use hosted as place;
use place::Place;

/// Bytes in a frame, as an address difference.
pub const FRAME_SIZE: u64 = PAGE_SIZE as u64;

/// Physical addresses have at most this many bits.
pub const PHYS_BITS: u32 = 47;

/// How many bits of an address select the entry of a page table.
pub const INDEX_BITS: u32 = if cfg!(feature = "tiny-tables") {
    1
} else if cfg!(feature = "small-tables") {
    2
} else {
    9
};

/// How many entries of a page table are used; the hardware knows 512.
pub const NR_ENTRIES: usize = 1 << INDEX_BITS;

/// The entries of a page table, or of a node of the reference counts.
pub type Table = [AtomicU64; 512];

/// A physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p:{:#x}", self.0)
    }
}

/// A 4 KiB frame of physical memory, named by the address of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Frame(u64);

impl Frame {
    /// The frame that contains `addr`.
    ///
    /// # Panics
    ///
    /// If no direct map reaches so far: on bare metal 112 TiB, on the host [`PHYS_BITS`] bits.
    #[must_use]
    pub const fn containing(addr: PhysAddr) -> Self {
        assert!(addr.0 < place::END, "physical address out of range");
        Self(addr.0 & !(FRAME_SIZE - 1))
    }

    /// The frame whose address is in the address bits (12 to 46) of a page-table entry, or of another
    /// word to which the address of a frame was written.
    #[must_use]
    pub const fn of_entry(entry: u64) -> Self {
        Self(entry & ((1 << PHYS_BITS) - 1) & !(FRAME_SIZE - 1))
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0)
    }

    /// The number of frames below this one.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 / FRAME_SIZE
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame:{:#x}", self.0)
    }
}

/// The direct map of physical memory.
#[derive(Clone, Copy, Debug)]
pub struct PhysMap(Place);

// SAFETY: the map is an address range that every CPU sees alike; its methods give out atomics or
// make raw copies, and hold no state.
unsafe impl Send for PhysMap {}
// SAFETY: as above.
unsafe impl Sync for PhysMap {}

impl PhysMap {
    /// The machine's direct map.
    ///
    /// # Safety
    ///
    /// While the map or a copy of it is used, every frame that is passed to a method must be mapped,
    /// readable and writable, in the direct map of the [`layout`](super::layout), and be reached in no
    /// other way than through this map, by hardware page walks, or by user code; and the counts of
    /// every frame that is passed to [`Self::count`] must be in the count window.
    #[cfg(target_os = "none")]
    #[must_use]
    pub const unsafe fn direct() -> Self {
        Self(Place)
    }

    /// The map with physical address 0 at `base`, for addresses below `limit` (bytes).
    ///
    /// # Safety
    ///
    /// While the map or a copy of it is used, every frame below `limit` that is passed to a method
    /// must be readable and writable at its place, and reached in no other way than through this
    /// map.
    #[cfg(not(target_os = "none"))]
    #[must_use]
    pub const unsafe fn new(base: *mut u8, limit: u64) -> Self {
        Self(Place::new(base, limit))
    }

    /// The address at which the kernel reaches `addr`: for registers and structures that are not
    /// frames of the allocator, such as ACPI tables.
    #[must_use]
    pub fn pointer(&self, addr: PhysAddr) -> *mut u8 {
        self.0.pointer(addr)
    }

    /// A frame as 512 entries.
    #[inline]
    #[must_use]
    pub fn table(&self, frame: Frame) -> &Table {
        let pointer = self.0.frame(frame).cast::<Table>();
        // SAFETY: the frame is mapped (`new`) and page-aligned; entries are atomics, which any
        // number of writers may share.
        unsafe { &*pointer }
    }

    /// The reference count of a frame, if there is a window in which the hardware finds it.
    #[inline]
    #[must_use]
    pub(super) fn count(&self, frame: Frame) -> Option<&AtomicU64> {
        // SAFETY: the count is in the window (`new`), and aligned; it is only ever used as an atomic.
        self.0.count(frame).map(|count| unsafe { &*count })
    }

    /// The counts of the 512 frames around a frame, if there is such a window.
    #[inline]
    #[must_use]
    pub(super) fn count_block(&self, frame: Frame) -> Option<&Table> {
        // SAFETY: as in `count`. A page of the window is a whole node.
        self.0.count_block(frame).map(|block| unsafe { &*block })
    }

    /// Fills a frame with zeros.
    #[inline]
    pub fn zero(&self, frame: Frame) {
        let pointer = self.0.frame(frame);
        // SAFETY: the frame is mapped, one page long, and no `&[u8]` to it exists anywhere.
        unsafe { place::clear(pointer, PAGE_SIZE) }
    }

    /// Makes all entries of a table the same.
    pub fn fill(&self, table: Frame, entry: u64) {
        for place in self.table(table) {
            place.store(entry, Relaxed);
        }
    }

    /// Makes a table with these entries in the upper half, and empty ones in the lower.
    pub fn fill_upper_half(&self, table: Frame, entries: &[u64; 256]) {
        let lower = self.0.frame(table);
        let upper = lower.wrapping_add(PAGE_SIZE / 2).cast::<[u64; 256]>();
        // SAFETY: the frame is mapped, one page long, and no table that anybody uses yet; it cannot be
        // where the entries are.
        unsafe {
            place::clear(lower, PAGE_SIZE / 2);
            place::copy(entries.as_ptr().cast(), upper.cast(), size_of_val(entries));
        }
    }

    /// Copies a whole frame.
    #[inline]
    pub fn copy_frame(&self, from: Frame, to: Frame) {
        debug_assert_ne!(from, to);
        let (from, to) = (self.0.frame(from), self.0.frame(to));
        // SAFETY: both frames are mapped, one page long, and different.
        unsafe { place::copy(from, to, PAGE_SIZE) }
    }

    /// Copies `len` bytes between frames, or within one as if through a buffer.
    ///
    /// # Panics
    ///
    /// If a range leaves its frame.
    #[inline]
    pub fn copy_bytes(
        &self,
        from: Frame,
        from_offset: usize,
        to: Frame,
        to_offset: usize,
        len: usize,
    ) {
        let source = self.byte_pointer(from, from_offset, len);
        let target = self.byte_pointer(to, to_offset, len);
        if from == to {
            // SAFETY: both ranges lie in a mapped frame; `ptr::copy` allows overlap.
            unsafe { ptr::copy(source, target, len) }
        } else {
            // SAFETY: the ranges lie in mapped frames, which are different.
            unsafe { place::copy(source, target, len) }
        }
    }

    /// Fills `len` bytes of a frame with zeros.
    ///
    /// # Panics
    ///
    /// If the range leaves the frame.
    #[inline]
    pub fn zero_bytes(&self, frame: Frame, offset: usize, len: usize) {
        let pointer = self.byte_pointer(frame, offset, len);
        // SAFETY: the range lies in a mapped frame.
        unsafe { place::clear(pointer, len) }
    }

    /// Reads bytes of a frame.
    ///
    /// # Panics
    ///
    /// If the range leaves the frame.
    #[inline]
    pub fn read_bytes(&self, frame: Frame, offset: usize, into: &mut [u8]) {
        let pointer = self.byte_pointer(frame, offset, into.len());
        // SAFETY: the range lies in a mapped frame, which no `&mut` slice can be part of.
        unsafe { place::copy(pointer, into.as_mut_ptr(), into.len()) }
    }

    /// Writes bytes of a frame.
    ///
    /// # Panics
    ///
    /// If the range leaves the frame.
    #[inline]
    pub fn write_bytes(&self, frame: Frame, offset: usize, bytes: &[u8]) {
        let pointer = self.byte_pointer(frame, offset, bytes.len());
        // SAFETY: the range lies in a mapped frame, which no slice can be part of.
        unsafe { place::copy(bytes.as_ptr(), pointer, bytes.len()) }
    }

    #[inline]
    fn byte_pointer(&self, frame: Frame, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= PAGE_SIZE && len <= PAGE_SIZE - offset,
            "range leaves its frame"
        );
        self.0.frame(frame).wrapping_add(offset)
    }
}

/// The bits that any of the words has.
#[inline]
#[must_use]
pub fn any_bits(words: &[AtomicU64]) -> u64 {
    let (eights, rest) = words.as_chunks();
    let bits = rest.iter().fold(0, |bits, word| bits | word.load(Relaxed));
    eights.iter().fold(bits, place::or_eight)
}

/// The bits that all words have.
#[inline]
#[must_use]
pub fn common_bits(words: &[AtomicU64]) -> u64 {
    // Many at a time: a quarter of the instructions would be the loop's otherwise.
    let (chunks, rest) = words.as_chunks::<64>();
    let bits = rest
        .iter()
        .fold(u64::MAX, |bits, word| bits & word.load(Relaxed));
    chunks.iter().fold(bits, |bits, chunk| {
        let (eights, _) = chunk.as_chunks();
        eights.iter().fold(bits, place::and_eight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::sim::SimMemory;

    #[test]
    fn bytes_between_frames_and_within_one() {
        let sim = SimMemory::at(0, 4);
        let map = &sim.mm().map;
        let [one, two] = [1, 2].map(|number| Frame::containing(PhysAddr(number * FRAME_SIZE)));
        map.write_bytes(one, 5, b"copy on write");
        map.copy_bytes(one, 5, two, PAGE_SIZE - 13, 13);
        map.copy_bytes(two, PAGE_SIZE - 13, two, PAGE_SIZE - 15, 13);
        map.zero_bytes(two, PAGE_SIZE - 8, 3);
        let mut bytes = [0; 15];
        map.read_bytes(two, PAGE_SIZE - 15, &mut bytes);
        assert_eq!(&bytes, b"copy on\0\0\0itete");
        map.copy_frame(two, one);
        map.zero(two);
        map.read_bytes(one, PAGE_SIZE - 4, &mut bytes[..4]);
        map.read_bytes(two, PAGE_SIZE - 15, &mut bytes[4..]);
        assert_eq!(&bytes, b"tete\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    #[should_panic(expected = "range leaves its frame")]
    fn a_range_that_leaves_its_frame() {
        let sim = SimMemory::at(0, 2);
        let frame = Frame::containing(PhysAddr(FRAME_SIZE));
        sim.mm().map.write_bytes(frame, PAGE_SIZE - 1, b"12");
    }

    #[test]
    #[should_panic(expected = "outside the direct map")]
    fn a_frame_beyond_the_memory() {
        let sim = SimMemory::at(0, 2);
        let beyond = Frame::containing(PhysAddr(2 * FRAME_SIZE));
        sim.mm().map.zero(beyond);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn an_address_of_more_bits() {
        let _ = Frame::containing(PhysAddr(1 << PHYS_BITS));
    }
}
