//! What the process server lists: records of words, as they travel.

use abi::ThreadState;
use serde::{Deserialize, Serialize};

use crate::object::{Member, Range, Waits};
use crate::service::Value;

/// The most bytes of a list.
pub const LIST_LEN: usize = 1152;

/// A record of `N` words.
pub trait Record<const N: usize>: Sized {
    /// Bytes on the way.
    const LEN: usize = 8 * N;
    /// The most of them in one list.
    const LISTED: usize = LIST_LEN / (8 * N);

    /// The words on the way.
    fn to_words(&self) -> [u64; N];

    /// Back from the words.
    fn from_words(words: [u64; N]) -> Self;

    /// Appends the record to a list that has room for it.
    ///
    /// # Panics
    /// When the list is full.
    fn put(&self, list: &mut [u8], number: usize) {
        let bytes = &mut list[number * Self::LEN..][..Self::LEN];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.to_words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// As many records as a list can have.
pub(super) fn records<R: Record<N>, const N: usize, const LISTED: usize>(
    list: &[u8; LIST_LEN],
) -> [R; LISTED] {
    let (words, _) = list.as_chunks::<8>();
    core::array::from_fn(|number| {
        R::from_words(core::array::from_fn(|i| {
            u64::from_le_bytes(words[number * N + i])
        }))
    })
}

/// The first number in the process list that stands for a standard server, in the order in which init starts them.
pub const FIRST_SERVER: u64 = 1 << 63;

/// A line of the process list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The process; a standard server from [`FIRST_SERVER`] on.
    pub pid: u64,
    /// Its parent.
    pub ppid: u64,
    /// 0 while it runs, 1 when it ended and nobody waited for it.
    pub ended: u64,
    /// The commit of its space, in frames; 0 if it has ended.
    pub commit: u64,
    /// The number of its space, 0 if it has ended.
    pub space: u64,
    /// The number of its endpoint, 0 if nobody has asked for it yet.
    pub inbox: u64,
    /// Its name.
    pub name: Name,
}

/// The name of a process: the end of its program's path, filled up with zero bytes.
pub type Name = [u8; 24];

/// A name as text.
#[must_use]
pub fn name_text(name: &Name) -> &str {
    let name = name.split(|&byte| byte == 0).next();
    core::str::from_utf8(name.unwrap_or_default()).unwrap_or("?")
}

impl Entry {
    /// Bytes on the way.
    pub const LEN: usize = <Self as Record<9>>::LEN;
    /// Entries in one reply.
    pub const LISTED: usize = <Self as Record<9>>::LISTED;

    /// The name as text.
    #[must_use]
    pub fn name(&self) -> &str {
        name_text(&self.name)
    }

    /// Whether it is a standard server, or init, and no process that somebody has started.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        self.pid >= FIRST_SERVER
    }
}

impl Record<9> for Entry {
    fn to_words(&self) -> [u64; 9] {
        let (name, _) = self.name.as_chunks::<8>();
        let [a, b, c] = core::array::from_fn(|i| u64::from_le_bytes(name[i]));
        [
            self.pid,
            self.ppid,
            self.ended,
            self.commit,
            self.space,
            self.inbox,
            a,
            b,
            c,
        ]
    }

    fn from_words([pid, ppid, ended, commit, space, inbox, a, b, c]: [u64; 9]) -> Self {
        let mut name = [0; 24];
        for (place, word) in name.chunks_exact_mut(8).zip([a, b, c]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Entry {
            pid,
            ppid,
            ended,
            commit,
            space,
            inbox,
            name,
        }
    }
}

/// A thread in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadEntry(pub Member);

impl ThreadEntry {
    /// Bytes on the way.
    pub const LEN: usize = <Self as Record<9>>::LEN;
    /// Threads in one reply.
    pub const LISTED: usize = <Self as Record<9>>::LISTED;
}

impl Record<9> for ThreadEntry {
    fn to_words(&self) -> [u64; 9] {
        let Member {
            number,
            state,
            run_ns,
            priority,
            waits,
            serves,
        } = self.0;
        let Waits {
            endpoint,
            thread,
            space,
            until_ns,
        } = waits;
        let state = state as u64;
        [
            number, state, run_ns, priority, endpoint, thread, space, until_ns, serves,
        ]
    }

    fn from_words(words: [u64; 9]) -> Self {
        let [
            number,
            state,
            run_ns,
            priority,
            endpoint,
            thread,
            space,
            until_ns,
            serves,
        ] = words;
        ThreadEntry(Member {
            number,
            state: ThreadState::from_word(state),
            run_ns,
            priority,
            waits: Waits {
                endpoint,
                thread,
                space,
                until_ns,
            },
            serves,
        })
    }
}

/// A range of addresses in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEntry(pub Range);

impl RangeEntry {
    /// Bytes on the way.
    pub const LEN: usize = <Self as Record<6>>::LEN;
    /// Ranges in one reply.
    pub const LISTED: usize = <Self as Record<6>>::LISTED;
}

impl Record<6> for RangeEntry {
    fn to_words(&self) -> [u64; 6] {
        let Range {
            start,
            end,
            kind,
            perm,
            sharers,
            shared_table,
        } = self.0;
        let (kind, perm) = (kind as u64, perm.bits());
        [start, end, kind, perm, sharers, shared_table]
    }

    fn from_words(words: [u64; 6]) -> Self {
        RangeEntry(Range::from_words(words))
    }
}

/// Pages of a process that were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
    /// Pages that only this space can reach.
    pub private: u64,
    /// Copy-on-write pages that others can reach too.
    pub shared_cow: u64,
    /// Pages of shared memory.
    pub shared_memory: u64,
    /// Demand-zero pages that were not touched.
    pub untouched: u64,
    /// Frames of page tables.
    pub tables: u64,
}

impl Value for Counted {}

#[cfg(test)]
mod tests {
    use abi::{Perm, RangeKind};

    use super::*;

    /// There and back in the second place of a list.
    fn returned<R: Record<N> + Copy, const N: usize>(record: R) -> R {
        let mut list = [0xff; LIST_LEN];
        record.put(&mut list, 1);
        let [_, second]: [R; 2] = records(&list);
        second
    }

    #[test]
    fn records_survive_the_way() {
        let mut name = [0; 24];
        name[..5].copy_from_slice(b"hello");
        let entry = Entry {
            pid: 1 << 40,
            ppid: 7,
            ended: 1,
            commit: 12,
            space: 3 << 24,
            inbox: 5,
            name,
        };
        assert_eq!(returned(entry), entry);
        assert_eq!(entry.name(), "hello");
        let waits = Waits {
            endpoint: 1,
            thread: 2,
            space: 3,
            until_ns: 4,
        };
        let thread = ThreadEntry(Member {
            number: 5,
            state: ThreadState::Sleeping,
            run_ns: 6,
            priority: 7,
            waits,
            serves: 8,
        });
        assert_eq!(returned(thread), thread);
        let range = RangeEntry(Range {
            start: 0x1000,
            end: 0x3000,
            kind: RangeKind::Shared,
            perm: Perm::RX,
            sharers: 9,
            shared_table: 1 << 21,
        });
        assert_eq!(returned(range), range);
    }

    #[test]
    fn a_name_without_an_end_is_all_of_it() {
        let entry = Entry {
            name: [b'x'; 24],
            ..Entry::from_words([0; 9])
        };
        assert_eq!(entry.name().len(), 24);
        assert_eq!(Entry::from_words([u64::MAX; 9]).name(), "?");
    }
}
