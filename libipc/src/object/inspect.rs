//! Looking into spaces: their threads, whom these wait for, what lies where.
//!
//! Every call takes a bounded number of steps. The numbers of threads, spaces and endpoints are good for being compared.

use abi::{Error, InfoTopic, PAGE_SIZE, Perm, RangeKind, ThreadState, USER_END, Waits};

use super::{Endpoint, Space, SpaceInfo, info_at};

/// A thread of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub number: u64,
    /// What it does.
    pub state: ThreadState,
    /// Nanoseconds that it ran.
    pub run_ns: u64,
    /// The priority that it runs at.
    pub priority: u64,
    /// What it waits for.
    pub waits: Waits,
    /// The endpoint where it received last, or 0.
    pub serves: u64,
}

/// An endpoint, and who receives there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its number; 0 if it is dead.
    pub endpoint: u64,
    /// The thread that received there last, or 0.
    pub thread: u64,
    /// That thread's space, or 0.
    pub space: u64,
}

/// Addresses that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// What is there.
    pub kind: RangeKind,
    /// What programs may do with it.
    pub perm: Perm,
    /// The most references that one of its pages has, or a table on the way there.
    pub sharers: u64,
    /// How many bytes the largest table covers that others name too, or 0.
    pub shared_table: u64,
}

impl Range {
    /// The range that these fields are, one after the other.
    pub(crate) fn from_words([start, end, kind, perm, sharers, shared_table]: [u64; 6]) -> Self {
        Range {
            start,
            end,
            kind: RangeKind::from_word(kind),
            perm: Perm::from_bits_truncate(perm),
            sharers,
            shared_table,
        }
    }

    /// Its length in pages.
    #[must_use]
    pub const fn nr_pages(&self) -> u64 {
        (self.end - self.start) / PAGE_SIZE as u64
    }

    /// Makes one range of this and the one that begins at its end, if they are alike. Returns whether they were.
    pub fn join(&mut self, next: &Self) -> bool {
        let alike = |range: &Self| (range.kind, range.perm, range.shared_table);
        let joins = self.end == next.start && alike(self) == alike(next);
        if joins {
            self.end = next.end;
            self.sharers = self.sharers.max(next.sharers);
        }
        joins
    }
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its instruction pointer.
    pub ip: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// Its frame pointer.
    pub bp: u64,
}

impl Space {
    /// The thread of the space that was created next after the one with this number, or the first, for 0.
    ///
    /// # Errors
    /// Those of the call `info`: `Died` if that thread has ended.
    pub fn member_after(&self, number: u64) -> Result<Option<Member>, Error> {
        let (first, last) = info_at(self.handle(), InfoTopic::Member, number)?;
        let [number, state, run_ns, priority, endpoint, thread] = first;
        let [space, serves, until_ns, _] = last;
        let waits = Waits {
            endpoint,
            thread,
            space,
            until_ns,
        };
        Ok((number != 0).then_some(Member {
            number,
            state: ThreadState::from_word(state),
            run_ns,
            priority,
            waits,
            serves,
        }))
    }

    /// What begins at a page, up to an end that need not be where it changes; `None` from the end of user memory on, and if the
    /// space is dead.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn range_at(&self, start: u64) -> Result<Option<Range>, Error> {
        if start == USER_END {
            return Ok(None);
        }
        let ([end, kind, perm, sharers, shared_table, _], _) =
            info_at(self.handle(), InfoTopic::Range, start)?;
        let words = [start, end, kind, perm, sharers, shared_table];
        Ok((end != 0).then(|| Range::from_words(words)))
    }

    /// Counts pages and tables from an address on, which is 0 or where this has ended before. Returns where it ends; `None` if
    /// the space is dead.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn count_some(&self, from: u64, counted: &mut SpaceInfo) -> Result<Option<u64>, Error> {
        let ([end, private, shared_cow, shared_memory, untouched, tables], _) =
            info_at(self.handle(), InfoTopic::Pages, from)?;
        counted.private += private;
        counted.shared_cow += shared_cow;
        counted.shared_memory += shared_memory;
        counted.untouched += untouched;
        counted.table_frames += tables;
        Ok((end != 0).then_some(end))
    }

    /// Where a thread of the space is that does not run.
    ///
    /// # Errors
    /// Those of the call `info`: `Died` if the space has no thread with this number.
    pub fn place_of(&self, thread: u64) -> Result<Place, Error> {
        let ([ip, sp, bp, ..], _) = info_at(self.handle(), InfoTopic::Registers, thread)?;
        Ok(Place { ip, sp, bp })
    }
}

impl Endpoint {
    /// Which endpoint it is, and who receives there.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn identity(&self) -> Result<Identity, Error> {
        let ([endpoint, thread, space, ..], _) = info_at(self.handle(), InfoTopic::Endpoint, 0)?;
        Ok(Identity {
            endpoint,
            thread,
            space,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_if_they_are_alike() {
        let range = |start, end, kind, sharers| Range {
            start,
            end,
            kind,
            perm: Perm::RW,
            sharers,
            shared_table: 0,
        };
        let mut joined = range(0, 4096, RangeKind::CopyOnWrite, 2);
        assert!(joined.join(&range(4096, 12288, RangeKind::CopyOnWrite, 5)));
        assert_eq!(
            (joined.end, joined.sharers, joined.nr_pages()),
            (12288, 5, 3)
        );
        assert!(!joined.join(&range(12288, 16384, RangeKind::Private, 1)));
        assert!(!joined.join(&range(16384, 20480, RangeKind::CopyOnWrite, 2)));
        assert_eq!(joined.end, 12288);
    }
}
