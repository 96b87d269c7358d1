//! Values by number, in memory that is asked for: a number is used again when its value was removed.

use alloc::vec::Vec;

use libipc::services::Refusal;

/// Values by number.
///
/// Only [`insert`](Slab::insert) takes memory, and says so if there is none: the crates that do the same end the program.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Option<T>>,
    /// Numbers without a value. There is room for all.
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Adds a value; returns its number.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn insert(&mut self, value: T) -> Result<usize, Refusal> {
        if let Some(number) = self.free.pop() {
            self.slots[number] = Some(value);
            return Ok(number);
        }
        let number = self.slots.len();
        reserve(&mut self.slots, 1)?;
        // All numbers may become free.
        reserve(&mut self.free, number + 1)?;
        self.slots.push(Some(value));
        Ok(number)
    }

    /// Takes a value out.
    pub fn remove(&mut self, number: usize) -> Option<T> {
        let value = self.slots.get_mut(number)?.take()?;
        self.free.push(number);
        Some(value)
    }

    /// The value with a number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&T> {
        self.slots.get(number)?.as_ref()
    }

    /// The value with a number, to be changed.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// All values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }
}

/// Makes room for so many more.
///
/// # Errors
/// `NoMemory`.
pub fn reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<(), Refusal> {
    vec.try_reserve(more).map_err(|_| Refusal::NoMemory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut slab = Slab::default();
        let numbers = ["a", "b", "c"].map(|value| slab.insert(value).unwrap());
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(slab.remove(1), Some("b"));
        assert_eq!((slab.remove(1), slab.get(1)), (None, None));
        assert_eq!(slab.insert("d"), Ok(1));
        assert_eq!((slab.get(1), slab.get(3)), (Some(&"d"), None));
    }
}
