//! Page-aligned memory of one's own: what messages that move pages are made of.

use core::ops::{Deref, DerefMut};

use abi::{Error, PAGE_SIZE, RangeKind};

use crate::object::Space;

/// Demand-zero memory in a mapping of its own, given back when it is dropped.
///
/// Pages cost a frame only once they are touched. In a forked child the buffer is the child's,
/// copy-on-write, at the same address.
#[derive(Debug)]
pub struct PageBuffer {
    addr: u64,
    /// Bytes in the mapping, a multiple of the page size.
    mapped: usize,
    len: usize,
}

impl PageBuffer {
    /// A buffer of `len` bytes, all zero. Large ones start where a page table (2 MiB) or a page
    /// directory (1 GiB) starts, so that they take no more tables than they need.
    ///
    /// # Errors
    /// Those of the call `map`; `NoMemory` also when no addresses are left.
    pub fn new(len: usize) -> Result<Self, Error> {
        let mapped = len
            .max(1)
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or(Error::TooLong)?;
        let addr = memory::map(mapped)?;
        Ok(PageBuffer { addr, mapped, len })
    }

    /// A copy of these bytes. If they begin at a page it is copy-on-write, and takes no frame but for page tables: until one side
    /// writes to a page, both have it.
    ///
    /// # Errors
    /// Those of the calls `map` and `share`; `NoMemory` also when no addresses are left.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        let (from, len) = (bytes.as_ptr().addr(), bytes.len());
        let is_on_pages = from.is_multiple_of(PAGE_SIZE) && cfg!(target_os = "none");
        if len == 0 || !is_on_pages {
            let mut copy = PageBuffer::new(len)?;
            copy.copy_from_slice(bytes);
            return Ok(copy);
        }
        // What else is on the last page comes along, and is never seen: it lies behind the buffer's end.
        let mapped = len.next_multiple_of(PAGE_SIZE);
        let addr = memory::copy_pages(from as u64, mapped)?;
        Ok(PageBuffer { addr, mapped, len })
    }

    /// What a space has at a page, copy-on-write: as it is now, whatever becomes of it there. `None` if there is no frame, so that
    /// reading never takes one.
    ///
    /// # Errors
    /// Those of the calls `info` and `share`; `NoMemory` also when no addresses are left.
    pub fn page_of(space: &Space, page: u64) -> Result<Option<Self>, Error> {
        let has_frame = |space: &Space, page| -> Result<bool, Error> {
            let kind = space.range_at(page)?.map(|range| range.kind);
            Ok(!matches!(
                kind,
                None | Some(RangeKind::Empty | RangeKind::Untouched)
            ))
        };
        if !has_frame(space, page)? {
            return Ok(None);
        }
        let copy = PageBuffer {
            addr: memory::copy_page_of(space, page)?,
            mapped: PAGE_SIZE,
            len: PAGE_SIZE,
        };
        // Others may have changed what is there meanwhile. Nobody changes the copy.
        Ok(has_frame(&Space::own(), copy.addr)?.then_some(copy))
    }

    /// Shortens it; a length that is not below its own changes nothing. What its last page has behind that stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        let kept = self.len.max(1).next_multiple_of(PAGE_SIZE);
        if kept < self.mapped {
            self.mapped = memory::shorten(self.addr, self.mapped, kept);
        }
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// The length of its mapping: that of the buffer, rounded up to whole pages.
    #[must_use]
    pub fn mapped_len(&self) -> usize {
        self.mapped
    }

    /// Makes its pages shared memory, which is never copy-on-write: what is shared from them afterwards is a
    /// copy that the kernel makes, so that writing to them never takes a frame.
    ///
    /// # Errors
    /// Those of the call `share`; `NoMemory` also when no addresses are left.
    pub fn make_shared(&self) -> Result<(), Error> {
        memory::make_shared(self.addr, self.mapped)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is this buffer's alone, readable, and lives as long as it does.
        unsafe { core::slice::from_raw_parts(self.addr as *const u8, self.len) }
    }

    /// The bytes, for writing.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this buffer's alone, writable, and lives as long as it does.
        unsafe { core::slice::from_raw_parts_mut(self.addr as *mut u8, self.len) }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        memory::unmap(self.addr, self.mapped);
    }
}

#[cfg(target_os = "none")]
pub(crate) mod memory {
    use abi::{Error, PAGE_SIZE, Perm, ShareMode};
    use spin::mutex::SpinMutex;

    use crate::object::Space;
    use crate::ranges::Ranges;
    use crate::rt::YieldRelax;

    const PAGE: u64 = PAGE_SIZE as u64;
    const TABLE: u64 = 1 << 21;
    const DIRECTORY: u64 = 1 << 30;

    /// Where buffers and the heap end.
    const END: u64 = 0x3000_0000_0000;

    /// The free addresses, from the end of the program on: what is small lies below the same page table as the
    /// program and its stack. Set up on first use.
    static RANGES: SpinMutex<Option<Ranges>, YieldRelax> = SpinMutex::new(None);

    unsafe extern "C" {
        /// The end of the program, from the linker.
        #[link_name = "_end"]
        static PROGRAM_END: u8;
    }

    fn with_ranges<T>(f: impl FnOnce(&mut Ranges) -> T) -> T {
        f(RANGES.lock().get_or_insert_with(|| {
            let end = &raw const PROGRAM_END as u64;
            Ranges::new(end.next_multiple_of(PAGE), END)
        }))
    }

    fn take(len: u64) -> Result<u64, Error> {
        let align = match len {
            DIRECTORY.. => DIRECTORY,
            TABLE.. => TABLE,
            _ => PAGE,
        };
        with_ranges(|ranges| ranges.take(len, align)).ok_or(Error::NoMemory)
    }

    fn give(addr: u64, len: u64) {
        with_ranges(|ranges| ranges.give(addr, len));
    }

    /// Maps fresh memory; `len` is a multiple of the page size.
    pub(crate) fn map(len: usize) -> Result<u64, Error> {
        let len = len as u64;
        let addr = take(len)?;
        let mapped = Space::own().map(addr, len, Perm::RW);
        mapped.inspect_err(|_| give(addr, len)).map(|()| addr)
    }

    pub(crate) fn unmap(addr: u64, len: usize) {
        // Addresses that could not be unmapped are not free.
        if Space::own().unmap(addr, len as u64).is_ok() {
            give(addr, len as u64);
        }
    }

    /// Maps pages of the program's own a second time, copy-on-write.
    pub(super) fn copy_pages(from: u64, len: usize) -> Result<u64, Error> {
        map_from(&Space::own(), from, len as u64, ShareMode::CopyOnWrite)
    }

    /// Maps a page of another space, copy-on-write.
    pub(super) fn copy_page_of(space: &Space, page: u64) -> Result<u64, Error> {
        map_from(space, page, PAGE, ShareMode::CopyOnWrite)
    }

    /// Maps what a space has at `from`, writable.
    fn map_from(space: &Space, from: u64, len: u64, mode: ShareMode) -> Result<u64, Error> {
        let to = take(len)?;
        let shared = Space::own().share(space, from, to, len, mode, Some(Perm::RW));
        shared.inspect_err(|_| give(to, len)).map(|()| to)
    }

    /// Maps shared memory of an object.
    pub(crate) fn map_shared(object: &Space, from: u64, len: usize) -> Result<u64, Error> {
        map_from(object, from, len as u64, ShareMode::Shared)
    }

    /// Gives the end of a mapping back; returns how long it is then.
    pub(super) fn shorten(addr: u64, len: usize, kept: usize) -> usize {
        let (end, nr_gone) = (addr + kept as u64, (len - kept) as u64);
        match Space::own().unmap(end, nr_gone) {
            Ok(()) => {
                give(end, nr_gone);
                kept
            }
            Err(_) => len,
        }
    }

    /// Maps the pages a second time as shared memory, which they then are in both places.
    pub(crate) fn make_shared(addr: u64, len: usize) -> Result<(), Error> {
        let own = Space::own();
        let alias = take(len as u64)?;
        let mode = ShareMode::Shared;
        let shared = own.share(&own, addr, alias, len as u64, mode, Some(Perm::RW));
        unmap(alias, len);
        shared
    }
}

#[cfg(not(target_os = "none"))]
pub(crate) mod memory {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    use abi::{Error, PAGE_SIZE};

    use crate::object::Space;

    pub(super) fn make_shared(_: u64, _: usize) -> Result<(), Error> {
        Ok(())
    }

    /// There are no pages to share: callers copy bytes.
    pub(super) fn copy_pages(_: u64, _: usize) -> Result<u64, Error> {
        Err(Error::UnknownCall)
    }

    /// There is no other space.
    pub(super) fn copy_page_of(_: &Space, _: u64) -> Result<u64, Error> {
        Err(Error::UnknownCall)
    }

    /// There is no object either: memory of its own.
    pub(crate) fn map_shared(_: &Space, _: u64, len: usize) -> Result<u64, Error> {
        map(len)
    }

    /// An allocation has one length.
    pub(super) fn shorten(_: u64, len: usize, _: usize) -> usize {
        len
    }

    fn layout(len: usize) -> Result<Layout, Error> {
        Layout::from_size_align(len, PAGE_SIZE).map_err(|_| Error::TooLong)
    }

    pub(super) fn map(len: usize) -> Result<u64, Error> {
        // SAFETY: the length is at least a page.
        let memory = unsafe { alloc_zeroed(layout(len)?) };
        if memory.is_null() {
            Err(Error::NoMemory)
        } else {
            Ok(memory as u64)
        }
    }

    pub(crate) fn unmap(addr: u64, len: usize) {
        if let Ok(layout) = layout(len) {
            // SAFETY: `map` allocated it with the same layout.
            unsafe { dealloc(addr as *mut u8, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_whole_zero_pages() {
        let mut buffer = PageBuffer::new(5000).unwrap();
        assert_eq!(buffer.addr() % PAGE_SIZE as u64, 0);
        assert_eq!((buffer.len(), buffer.mapped_len()), (5000, 8192));
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer[4999] = 1;
    }

    #[test]
    fn a_copy_is_another_buffer() {
        let mut buffer = PageBuffer::new(5000).unwrap();
        buffer[4999] = 1;
        let mut copy = PageBuffer::copy_of(&buffer).unwrap();
        assert_eq!(copy[..], buffer[..]);
        buffer[4999] = 2;
        copy.truncate(6000);
        assert_eq!((copy.len(), copy[4999]), (5000, 1));
        copy.truncate(3);
        assert_eq!(copy.len(), 3);
        assert!(PageBuffer::copy_of(&[]).unwrap().is_empty());
    }
}
