//! The bytes of a file.

use libipc::PAGE_SIZE;
use libipc::services::Refusal;
use libipc::services::files::MAX_FILE;

use super::memory::{Memory, Size, Slot};

/// As much zeros as a page has.
static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// The bytes of a file: pages from the beginning of a slot on.
///
/// What lies behind the last byte in its page is anything: it becomes zeros when the file grows over it.
#[derive(Debug, Default)]
pub struct Stored {
    /// None for an empty file.
    slot: Option<Slot>,
    len: usize,
    /// How far pages are mapped, in bytes: to the end of the last byte's page, or, where pages of a write that failed could
    /// not be unmapped, beyond it. Those are zeros.
    mapped: usize,
}

/// So many bytes in whole pages, in bytes.
const fn in_pages(len: usize) -> usize {
    len.next_multiple_of(PAGE_SIZE)
}

impl Stored {
    /// In bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `offset` on, up to `count`, for a reply.
    #[must_use]
    pub fn bytes(&self, offset: u64, count: usize) -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len);
        let end = start + count.min(self.len - start);
        match &self.slot {
            Some(slot) => slot.bytes(start, end),
            None => &[],
        }
    }

    /// How long it would be with so many bytes written at `offset`.
    ///
    /// # Errors
    /// `NoSpace` when that is more than a file may be.
    pub fn len_with(&self, offset: u64, count: usize) -> Result<usize, Refusal> {
        if count == 0 {
            return Ok(self.len);
        }
        let end = offset.checked_add(count as u64).ok_or(Refusal::NoSpace)?;
        if end > MAX_FILE {
            return Err(Refusal::NoSpace);
        }
        Ok(self.len.max(end as usize))
    }

    /// Writes bytes. What lies between the end and `offset` becomes zeros.
    ///
    /// # Errors
    /// `NoSpace`, `NoMemory`: then nothing has changed.
    pub fn write(&mut self, offset: u64, bytes: &[u8], memory: &mut Memory) -> Result<(), Refusal> {
        if bytes.is_empty() {
            return Ok(());
        }
        let old_len = self.len;
        let len = self.len_with(offset, bytes.len())?;
        // Below `MAX_FILE`, as `len_with` has seen.
        let at = offset as usize;
        if at > old_len {
            self.set_len(at, memory)?;
        }
        let written = self
            .make_room(len, memory)
            .and_then(|slot| memory.write(slot, at, bytes));
        match written {
            Ok(()) => self.len = len,
            Err(_) => {
                self.len = old_len;
                self.cut_again(memory);
            }
        }
        written
    }

    /// Cuts it off, or makes it longer by zeros.
    ///
    /// # Errors
    /// `NoSpace`, `NoMemory`: then nothing has changed.
    pub fn set_len(&mut self, len: usize, memory: &mut Memory) -> Result<(), Refusal> {
        if len as u64 > MAX_FILE {
            return Err(Refusal::NoSpace);
        }
        if len == 0 {
            self.clear(memory);
        } else if len <= self.len {
            self.cut(len, memory)?;
        } else {
            self.grow(len, memory)?;
        }
        self.len = len;
        Ok(())
    }

    /// Gives all memory back.
    pub fn clear(&mut self, memory: &mut Memory) {
        if let Some(slot) = self.slot.take() {
            memory.give(slot);
        }
        (self.len, self.mapped) = (0, 0);
    }

    /// Unmaps the pages behind `len`.
    fn cut(&mut self, len: usize, memory: &mut Memory) -> Result<(), Refusal> {
        if let Some(slot) = &self.slot {
            memory.unmap(slot, in_pages(len), self.mapped)?;
            self.mapped = in_pages(len);
        }
        Ok(())
    }

    /// Unmaps the pages of a write that failed. If that fails too they stay for the next one.
    fn cut_again(&mut self, memory: &mut Memory) {
        let _ = self.cut(self.len, memory);
    }

    fn grow(&mut self, len: usize, memory: &mut Memory) -> Result<(), Refusal> {
        let old_len = self.len;
        let end = in_pages(old_len).min(len);
        let slot = self.make_room(len, memory)?;
        memory
            .write(slot, old_len, &ZEROS[..end - old_len])
            .inspect_err(|_| self.cut_again(memory))
    }

    /// Maps pages for `len` bytes, which are not fewer than there are, in a slot with room for them.
    fn make_room(&mut self, len: usize, memory: &mut Memory) -> Result<&Slot, Refusal> {
        let size = Size::for_len(len).ok_or(Refusal::NoSpace)?;
        let mapped = self.mapped;
        let end = in_pages(len).max(mapped);
        let larger = match &self.slot {
            Some(slot) if slot.size() >= size => None,
            _ => Some(memory.take(size)?),
        };
        let target = larger.as_ref().or(self.slot.as_ref());
        let Some(target) = target else {
            return Err(Refusal::Broken);
        };
        let mut made = memory.map(target, mapped, end);
        if let (Ok(()), Some(old), Some(new)) = (made, &self.slot, &larger) {
            made = memory.relocate(old, new, mapped);
        }
        match (made, larger) {
            (Ok(()), Some(larger)) => {
                if let Some(old) = self.slot.replace(larger) {
                    memory.give(old);
                }
            }
            (Ok(()), None) => {}
            (Err(refusal), larger) => {
                if let Some(larger) = larger {
                    memory.give(larger);
                }
                return Err(refusal);
            }
        }
        self.mapped = end;
        self.slot.as_ref().ok_or(Refusal::Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Machine, Mover};
    use super::*;

    fn memory() -> Memory {
        Memory::new(Machine::new(Mover::start().unwrap()))
    }

    /// A file with these bytes.
    fn stored(bytes: &[u8], memory: &mut Memory) -> Stored {
        let mut stored = Stored::default();
        stored.write(0, bytes, memory).unwrap();
        stored
    }

    #[test]
    fn a_gap_reads_as_zeros() {
        let mut memory = memory();
        let mut stored = stored(b"0123456789", &mut memory);
        // What was cut off is not seen again.
        stored.set_len(4, &mut memory).unwrap();
        stored.write(6, b"ab", &mut memory).unwrap();
        assert_eq!(stored.bytes(0, 100), b"0123\0\0ab");
        stored.set_len(4, &mut memory).unwrap();
        stored.set_len(10, &mut memory).unwrap();
        assert_eq!(stored.bytes(0, 100), b"0123\0\0\0\0\0\0");
        stored.write(9000, b"x", &mut memory).unwrap();
        assert_eq!(stored.len(), 9001);
        assert!(stored.bytes(4, 8996).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn growing_into_a_larger_slot_keeps_the_bytes() {
        let mut memory = memory();
        let mut stored = stored(b"begin", &mut memory);
        for len in [Size::Small.in_bytes() + 1, Size::Medium.in_bytes() + 1] {
            stored.write(len as u64, b"end", &mut memory).unwrap();
            assert_eq!(stored.bytes(0, 5), b"begin");
            assert_eq!(stored.bytes(len as u64, 9), b"end");
        }
    }

    #[test]
    fn reads_beyond_the_end_are_short() {
        let mut memory = memory();
        let stored = stored(b"abc", &mut memory);
        assert_eq!(stored.bytes(1, usize::MAX), b"bc");
        assert_eq!(stored.bytes(3, 1), b"");
        assert_eq!(stored.bytes(u64::MAX, 1), b"");
    }

    #[test]
    fn a_file_has_at_most_a_gibibyte() {
        let mut memory = memory();
        let mut stored = stored(b"abc", &mut memory);
        for offset in [MAX_FILE, u64::MAX] {
            assert_eq!(
                stored.write(offset, b"x", &mut memory),
                Err(Refusal::NoSpace)
            );
        }
        assert_eq!(
            stored.set_len(MAX_FILE as usize + 1, &mut memory),
            Err(Refusal::NoSpace)
        );
        assert_eq!(stored.bytes(0, 9), b"abc");
    }

    #[test]
    fn a_write_that_finds_no_memory_changes_nothing() {
        let long = vec![7; Size::Small.in_bytes() + 1];
        for (offset, bytes) in [(1, &b"xyz"[..]), (5000, b"x"), (0, &long), (70_000, b"x")] {
            let mut nr_calls = 0;
            loop {
                let mut memory = memory();
                let mut stored = stored(b"abc", &mut memory);
                memory.fail_after(nr_calls);
                let outcome = stored.write(offset, bytes, &mut memory);
                memory.fail_after(usize::MAX);
                if outcome.is_ok() {
                    break;
                }
                assert_eq!(outcome, Err(Refusal::NoMemory));
                assert_eq!(stored.bytes(0, usize::MAX), b"abc");
                stored.set_len(8, &mut memory).unwrap();
                assert_eq!(stored.bytes(0, usize::MAX), b"abc\0\0\0\0\0");
                nr_calls += 1;
            }
            assert!(nr_calls > 0);
        }
    }
}
