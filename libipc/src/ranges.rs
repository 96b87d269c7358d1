//! Which addresses are free: a fixed table of free ranges, for the memory that programs map.
//!
//! Addresses are used again as early as possible (first fit), so that a program that maps and
//! unmaps in a loop keeps touching the same page tables.

use abi::PAGE_SIZE;

/// Most pieces that the free addresses can be in. Beyond that the smallest piece is forgotten:
/// addresses are lost, never given out twice.
const MAX_PIECES: usize = 64;

/// Free address ranges, sorted, never adjacent.
#[derive(Debug)]
pub struct Ranges {
    pieces: [(u64, u64); MAX_PIECES],
    count: usize,
}

impl Ranges {
    /// All of `start..end` is free.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        let mut pieces = [(0, 0); MAX_PIECES];
        pieces[0] = (start, end);
        Ranges { pieces, count: 1 }
    }

    /// Takes `len` bytes, aligned to `align` (a power of two). Both are multiples of the page size.
    pub fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        debug_assert!(len > 0 && align.is_power_of_two() && align >= PAGE_SIZE as u64);
        let fits = |&(start, end): &(u64, u64)| {
            let at = start.checked_next_multiple_of(align)?;
            (at.checked_add(len)? <= end).then_some(at)
        };
        let (index, at) = self.pieces[..self.count]
            .iter()
            .enumerate()
            .find_map(|(i, p)| Some((i, fits(p)?)))?;
        let (start, end) = self.pieces[index];
        self.remove(index);
        self.give(start, at - start);
        self.give(at + len, end - at - len);
        Some(at)
    }

    /// Gives `len` bytes at `start` back; 0 bytes are nothing.
    pub fn give(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        let mut piece = (start, start + len);
        let mut index = self.pieces[..self.count].partition_point(|p| p.0 < piece.0);
        if index < self.count && self.pieces[index].0 == piece.1 {
            piece.1 = self.pieces[index].1;
            self.remove(index);
        }
        if index > 0 && self.pieces[index - 1].1 == piece.0 {
            index -= 1;
            piece.0 = self.pieces[index].0;
            self.remove(index);
        }
        self.insert(index, piece);
    }

    fn remove(&mut self, index: usize) {
        self.pieces.copy_within(index + 1..self.count, index);
        self.count -= 1;
    }

    fn insert(&mut self, index: usize, piece: (u64, u64)) {
        let mut index = index;
        if self.count == MAX_PIECES {
            let size = |&i: &usize| self.pieces[i].1 - self.pieces[i].0;
            let smallest = (0..MAX_PIECES).min_by_key(size).unwrap_or(0);
            if size(&smallest) >= piece.1 - piece.0 {
                return;
            }
            self.remove(smallest);
            if smallest < index {
                index -= 1;
            }
        }
        self.pieces.copy_within(index..self.count, index + 1);
        self.pieces[index] = piece;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    #[test]
    fn addresses_are_used_again() {
        let mut ranges = Ranges::new(0x1_0000, 0x10_0000);
        let first = ranges.take(PAGE, PAGE).unwrap();
        let second = ranges.take(4 * PAGE, PAGE).unwrap();
        assert_eq!((first, second), (0x1_0000, 0x1_1000));
        ranges.give(first, PAGE);
        assert_eq!(ranges.take(2 * PAGE, PAGE), Some(0x1_5000));
        assert_eq!(ranges.take(PAGE, PAGE), Some(first));
    }

    #[test]
    fn neighbours_join() {
        let mut ranges = Ranges::new(0, 16 * PAGE);
        let taken: Vec<u64> = (0..16).map(|_| ranges.take(PAGE, PAGE).unwrap()).collect();
        assert_eq!(ranges.take(PAGE, PAGE), None);
        for &at in taken
            .iter()
            .step_by(2)
            .chain(taken.iter().skip(1).step_by(2))
        {
            ranges.give(at, PAGE);
        }
        assert_eq!(ranges.count, 1);
        assert_eq!(ranges.take(16 * PAGE, PAGE), Some(0));
    }

    #[test]
    fn alignment_leaves_what_lies_before() {
        let mut ranges = Ranges::new(PAGE, 1 << 30);
        assert_eq!(ranges.take(PAGE, 1 << 21), Some(1 << 21));
        assert_eq!(ranges.take(PAGE, PAGE), Some(PAGE));
    }

    #[test]
    fn a_full_table_forgets_but_never_gives_twice() {
        let mut ranges = Ranges::new(0, 1000 * PAGE);
        let taken: Vec<u64> = (0..400).map(|_| ranges.take(PAGE, PAGE).unwrap()).collect();
        for &at in taken.iter().step_by(2) {
            ranges.give(at, PAGE);
        }
        let mut seen: Vec<u64> = taken.iter().skip(1).step_by(2).copied().collect();
        while let Some(at) = ranges.take(PAGE, PAGE) {
            assert!(!seen.contains(&at));
            seen.push(at);
        }
    }
}
