//! Ranges that user code alleges, and what is checked before anybody believes them.

use core::ops::Range;

use cowslip_abi::{Error, MAX_RANGE, PAGE_SIZE, USER_END};

/// The first address of the kernel's half.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

/// Whole pages of user memory, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    addr: u64,
    len: u64,
}

impl PageRange {
    /// Checks a range of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// In this order: `BadArgument` (empty), `Unaligned`, `Wraps`, `KernelAddress`,
    /// `NonCanonical`, `TooLong`.
    #[inline(always)]
    pub fn from_user(addr: u64, len: u64, max: u64) -> Result<Self, Error> {
        if len == 0 {
            return Err(Error::BadArgument);
        }
        if !addr.is_multiple_of(PAGE_SIZE as u64) || !len.is_multiple_of(PAGE_SIZE as u64) {
            return Err(Error::Unaligned);
        }
        check(addr, len, max)?;
        Ok(Self { addr, len })
    }

    /// The first address.
    #[must_use]
    pub const fn addr(self) -> u64 {
        self.addr
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The addresses.
    #[must_use]
    pub const fn range(self) -> Range<u64> {
        self.addr..self.addr + self.len
    }
}

/// Bytes of user memory of any alignment, perhaps none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    addr: u64,
    len: u64,
}

impl ByteRange {
    /// Checks a range of at most `max` bytes. An empty one is fine wherever it is.
    ///
    /// # Errors
    ///
    /// In this order: `Wraps`, `KernelAddress`, `NonCanonical`, `TooLong`.
    pub fn from_user(addr: u64, len: u64, max: u64) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Self::default());
        }
        check(addr, len, max)?;
        Ok(Self { addr, len })
    }

    /// Whether [`from_user`](Self::from_user) accepts a range of at most [`MAX_RANGE`] bytes.
    #[must_use]
    #[inline(always)]
    pub const fn is_good(addr: u64, len: u64) -> bool {
        len == 0 || (len <= MAX_RANGE && addr <= USER_END - len)
    }

    /// The first address; 0 if empty.
    #[must_use]
    pub const fn addr(self) -> u64 {
        self.addr
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The addresses.
    #[must_use]
    pub const fn range(self) -> Range<u64> {
        self.addr..self.addr + self.len
    }
}

#[inline(always)]
fn check(addr: u64, len: u64, max: u64) -> Result<(), Error> {
    let last = addr.checked_add(len - 1).ok_or(Error::Wraps)?;
    if addr >= KERNEL_HALF {
        Err(Error::KernelAddress)
    } else if last >= USER_END {
        Err(Error::NonCanonical)
    } else if len > max {
        Err(Error::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    #[test]
    fn page_ranges_are_checked_in_order() {
        let check = |addr, len| PageRange::from_user(addr, len, 4 * PAGE).map(PageRange::range);
        assert_eq!(check(PAGE, PAGE), Ok(PAGE..2 * PAGE));
        assert_eq!(check(0, 4 * PAGE), Ok(0..4 * PAGE));
        assert_eq!(check(USER_END - PAGE, PAGE), Ok(USER_END - PAGE..USER_END));
        assert_eq!(check(u64::MAX, 0), Err(Error::BadArgument));
        assert_eq!(check(u64::MAX, PAGE), Err(Error::Unaligned));
        assert_eq!(check(PAGE, 1), Err(Error::Unaligned));
        assert_eq!(check(0u64.wrapping_sub(PAGE), 2 * PAGE), Err(Error::Wraps));
        assert_eq!(
            check(0u64.wrapping_sub(PAGE), PAGE),
            Err(Error::KernelAddress)
        );
        assert_eq!(check(KERNEL_HALF, PAGE), Err(Error::KernelAddress));
        assert_eq!(check(KERNEL_HALF - PAGE, PAGE), Err(Error::NonCanonical));
        assert_eq!(check(USER_END - PAGE, 2 * PAGE), Err(Error::NonCanonical));
        assert_eq!(check(USER_END, PAGE), Err(Error::NonCanonical));
        assert_eq!(check(0, 5 * PAGE), Err(Error::TooLong));
    }

    #[test]
    fn the_short_check_accepts_what_the_long_one_does() {
        let lens = [0, 1, PAGE, MAX_RANGE, MAX_RANGE + 1, u64::MAX];
        let starts = [0, PAGE, USER_END, KERNEL_HALF, u64::MAX];
        for len in lens {
            for start in starts {
                for shift in [0, 1, len, len.wrapping_add(1)] {
                    let addr = start.wrapping_sub(shift);
                    let accepted = ByteRange::from_user(addr, len, MAX_RANGE).is_ok();
                    assert_eq!(
                        ByteRange::is_good(addr, len),
                        accepted,
                        "{len:#x} at {addr:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn byte_ranges_may_be_empty_and_unaligned() {
        let check = |addr, len| ByteRange::from_user(addr, len, 10).map(ByteRange::range);
        assert_eq!(check(u64::MAX, 0), Ok(0..0));
        assert_eq!(check(3, 10), Ok(3..13));
        assert_eq!(check(USER_END - 1, 1), Ok(USER_END - 1..USER_END));
        assert_eq!(check(USER_END - 1, 2), Err(Error::NonCanonical));
        assert_eq!(check(u64::MAX, 2), Err(Error::Wraps));
        assert_eq!(check(u64::MAX, 1), Err(Error::KernelAddress));
        assert_eq!(check(3, 11), Err(Error::TooLong));
    }
}
