//! The threads that wait for what arrives at an endpoint.

use super::queue::{Queue, WAIT};
use super::{Berth, Id, Thread, Threads};

/// Receivers, first come first served.
///
/// Nearly always there is one, which comes and goes with every message, so the first has a place
/// of its own and is in no list. The place may be empty though others wait, but not if a thread
/// that came after them could take it. CPUs that share the endpoint use no more than that place, and whoever has
/// claimed it has the endpoint.
#[derive(Debug, Default)]
pub struct Receivers {
    first: Berth<Thread>,
    others: Queue<WAIT>,
}

impl Receivers {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Berth::new(),
            others: Queue::new(),
        }
    }

    /// Whether nobody waits.
    #[must_use]
    #[inline]
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.others.is_empty()
    }

    /// The place of the thread that came first, unless it is in the list.
    #[inline(always)]
    pub(crate) fn first(&self) -> &Berth<Thread> {
        &self.first
    }

    /// 0 if nobody waits in the list.
    #[inline(always)]
    pub(super) fn word_of_others(&self) -> u64 {
        Id::word(self.others.first())
    }

    /// Whether nobody waits in the list.
    #[inline(always)]
    pub(crate) fn has_no_others(&self) -> bool {
        self.others.is_empty()
    }

    /// Adds a thread behind all others.
    pub fn push_back(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        if self.is_empty() {
            threads.park(&mut self.first, thread);
        } else {
            self.others.push_back(threads, thread);
        }
    }

    /// Puts the thread back that was taken out last.
    pub fn push_front(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        if let Some(second) = threads.unpark(&mut self.first) {
            self.others.push_front(threads, second);
        }
        threads.park(&mut self.first, thread);
    }

    /// Takes out the thread that came first.
    pub fn pop(&mut self, threads: &mut Threads) -> Option<Id<Thread>> {
        threads
            .unpark(&mut self.first)
            .or_else(|| self.others.pop(threads))
    }

    /// All of them, as a list.
    pub(super) fn into_queue(mut self, threads: &mut Threads) -> Queue<WAIT> {
        if let Some(first) = threads.unpark(&mut self.first) {
            self.others.push_front(threads, first);
        }
        self.others
    }

    /// Takes out a thread that waits here.
    pub fn remove(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        if self.first.id() == Some(thread) {
            threads.unpark(&mut self.first);
        } else {
            self.others.remove(threads, thread);
        }
    }
}
