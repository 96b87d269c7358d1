//! Memory at chosen addresses, patterns to fill it with, and guard bytes around buffers.

use libipc::abi::{Error, PAGE_SIZE};
use libipc::{Perm, ShareMode, Space};

use super::rng::Rng;

/// A page, as addresses count.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// Addresses that neither programs nor libipc use: from here on for 16 TiB.
pub const SCRATCH: u64 = 0x4000_0000_0000;

/// Where the other half of what is [taken](take_all) lies.
const TAKEN: u64 = SCRATCH + (1 << 40);

/// What lies around buffers.
pub const GUARD: u8 = 0xa5;

/// Takes frames until there are none, in calls that say so; returns how many pages. They
/// lie at [`SCRATCH`] and again far above.
#[must_use]
pub fn take_all(own: &Space) -> u64 {
    let (from, to) = (SCRATCH, TAKEN);
    let mut nr_pages = 0;
    for len in [256, 16, 1] {
        loop {
            let [from, to] = [from, to].map(|start| start + nr_pages * PAGE);
            let mode = ShareMode::Shared;
            let taken = own
                .map(from, len * PAGE, Perm::RW)
                .and_then(|()| own.share(own, from, to, len * PAGE, mode, Some(Perm::RW)));
            if taken.is_err() {
                let _ = own.unmap(from, len * PAGE);
                break;
            }
            nr_pages += len;
        }
    }
    nr_pages
}

/// Undoes [`take_all`].
///
/// # Panics
/// When that fails.
pub fn give_all_back(own: &Space, nr_pages: u64) {
    for start in [SCRATCH, TAKEN] {
        own.unmap(start, nr_pages * PAGE).expect("unmap");
    }
}

/// Maps pages at an address of the case's own choice, for reading and writing.
///
/// # Panics
/// When the call fails.
#[track_caller]
pub fn map(addr: u64, nr_pages: u64) -> Mapped {
    Space::own()
        .map(addr, nr_pages * PAGE, Perm::RW)
        .expect("map");
    Mapped {
        addr,
        len: (nr_pages * PAGE) as usize,
    }
}

/// Pages of this process at a fixed address; dropping it unmaps them.
#[derive(Debug)]
pub struct Mapped {
    addr: u64,
    len: usize,
}

impl Mapped {
    /// Its address.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes. They must still be mapped for reading and writing.
    #[allow(
        clippy::mut_from_ref,
        reason = "cases look at memory that others change"
    )]
    #[must_use]
    pub fn bytes(&self) -> &mut [u8] {
        // SAFETY: the pages are this value's alone; a case that unmaps or protects them in between
        // is about the fault that follows.
        unsafe { core::slice::from_raw_parts_mut(self.addr as *mut u8, self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = Space::own().unmap(self.addr, self.len as u64);
    }
}

/// Reads a word as the memory has it at this moment.
#[must_use]
pub fn peek(addr: u64) -> u64 {
    // SAFETY: cases pass addresses of their own memory; where they do not, a fault is the point.
    unsafe { core::ptr::read_volatile(addr as *const u64) }
}

/// Writes a word.
pub fn poke(addr: u64, value: u64) {
    // SAFETY: as for `peek`.
    unsafe { core::ptr::write_volatile(addr as *mut u64, value) }
}

/// The byte at a position of a pattern.
#[must_use]
pub const fn pattern_byte(seed: u64, at: usize) -> u8 {
    // Neighbouring pages differ, and so do neighbouring bytes.
    (seed as usize)
        .wrapping_add(at.wrapping_mul(31))
        .wrapping_add(at >> 8) as u8
}

/// Fills bytes with a pattern.
pub fn fill(bytes: &mut [u8], seed: u64) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = pattern_byte(seed, at);
    }
}

/// The first position that does not have its byte of the pattern.
#[must_use]
pub fn mismatch(bytes: &[u8], seed: u64) -> Option<usize> {
    bytes
        .iter()
        .enumerate()
        .position(|(at, &byte)| byte != pattern_byte(seed, at))
}

/// The part of a larger buffer that is in use; what lies around it are guard bytes.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where it starts.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl Window {
    /// A window of `len` bytes within `room`, with a margin before and after it.
    pub fn random(rng: &mut Rng, len: usize, room: usize) -> Self {
        let last = room - len - MARGIN;
        let start = MARGIN + rng.below((last - MARGIN + 1) as u64) as usize;
        // Whole pages are what the kernel remaps: aligned starts must be common.
        let aligned = start & !(PAGE_SIZE - 1);
        let start = if rng.one_in(2) && aligned >= MARGIN {
            aligned
        } else {
            start
        };
        Window { start, len }
    }

    /// The bytes.
    pub fn of(self, buffer: &mut [u8]) -> &mut [u8] {
        &mut buffer[self.start..self.start + self.len]
    }

    /// Sets the margins.
    pub fn set_guards(self, buffer: &mut [u8]) {
        buffer[self.start - MARGIN..self.start].fill(GUARD);
        let end = self.start + self.len;
        buffer[end..end + MARGIN].fill(GUARD);
    }

    /// Fails the case unless the margins, and all from `len` bytes on, are as they were set.
    #[track_caller]
    pub fn check_guards(self, buffer: &[u8]) {
        let end = self.start + self.len;
        for (from, to) in [(self.start - MARGIN, self.start), (end, end + MARGIN)] {
            if let Some(at) = buffer[from..to].iter().position(|&byte| byte != GUARD) {
                panic!("guard byte {} of {self:?} was overwritten", from + at);
            }
        }
    }
}

/// Guard bytes before and after a window: a page, so that both neighbours of a remapped page count.
pub const MARGIN: usize = PAGE_SIZE;

/// A page of code at `addr`, readable and executable, without write access.
///
/// # Errors
/// Those of the calls `map` and `share`.
pub fn map_code(addr: u64, offset: usize, code: &[u8]) -> Result<(), Error> {
    let mut page = libipc::PageBuffer::new(PAGE_SIZE)?;
    page[offset..offset + code.len()].copy_from_slice(code);
    let own = Space::own();
    own.share(
        &own,
        page.addr(),
        addr,
        PAGE,
        libipc::ShareMode::Move,
        Some(Perm::RX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_differ_by_seed_and_page() {
        let mut bytes = [0; 8192];
        fill(&mut bytes, 3);
        assert_eq!(mismatch(&bytes, 3), None);
        assert_eq!(mismatch(&bytes, 4), Some(0));
        assert_ne!(bytes[..4096], bytes[4096..]);
        bytes[5000] ^= 1;
        assert_eq!(mismatch(&bytes, 3), Some(5000));
    }

    #[test]
    fn windows_keep_their_margins() {
        let mut rng = Rng::new(1);
        let mut buffer = [0; 6 * 4096];
        for len in [0, 1, 4096, 5000, 3 * 4096] {
            for _ in 0..100 {
                let window = Window::random(&mut rng, len, buffer.len());
                window.set_guards(&mut buffer);
                window.of(&mut buffer).fill(1);
                window.check_guards(&buffer);
            }
        }
    }
}
