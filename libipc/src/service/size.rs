//! How much of a message several arguments take together: known when a service is compiled.

use abi::{MAX_HANDLES, WORDS};

use super::MAX_VALUES;

/// So many words, or handles, together.
#[must_use]
pub const fn sum(parts: &[usize]) -> usize {
    let (mut sum, mut i) = (0, 0);
    while i < parts.len() {
        sum += parts[i];
        i += 1;
    }
    sum
}

/// The room that values take at most, if one of these has some.
#[must_use]
pub const fn room(has_values: &[bool]) -> usize {
    let mut i = 0;
    while i < has_values.len() {
        if has_values[i] {
            return MAX_VALUES;
        }
        i += 1;
    }
    0
}

/// Whether a message has room for so many words and handles.
#[must_use]
pub const fn fits(nr_words: usize, nr_handles: usize) -> bool {
    let nr_free = if nr_handles == 0 { WORDS } else { WORDS - 2 };
    nr_words <= nr_free && nr_handles <= MAX_HANDLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_take_two_words() {
        assert!(fits(4, 0) && !fits(5, 0));
        assert!(fits(2, 1) && fits(0, 4));
        assert!(!fits(3, 1) && !fits(0, 5));
    }

    #[test]
    fn parts_add_up() {
        assert_eq!((sum(&[]), sum(&[1, 0, 2])), (0, 3));
        assert_eq!(
            (room(&[]), room(&[false]), room(&[false, true])),
            (0, 0, MAX_VALUES)
        );
    }
}
