//! The threads that wait for what arrives at an endpoint.

use super::queue::{Queue, WAIT};
use super::{Id, Thread, Threads};

/// Receivers, first come first served.
///
/// Nearly always there is one, which comes and goes with every message, so the first has a place
/// of its own and is in no list. The place may be empty though others wait, but not if a thread
/// that came after them could take it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receivers {
    first: Option<Id<Thread>>,
    others: Queue<WAIT>,
}

impl Receivers {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: None,
            others: Queue::new(),
        }
    }

    /// Whether nobody waits.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    /// The thread that came first, unless it is in the list.
    #[inline]
    pub(crate) fn first(&self) -> Option<Id<Thread>> {
        self.first
    }

    /// 0 if nobody waits.
    #[inline(always)]
    pub(super) fn word(&self) -> u64 {
        Id::word(self.first) | Id::word(self.others.first())
    }

    /// Takes out the thread that [`first`](Self::first) returned.
    #[inline]
    pub(crate) fn take_first(&mut self) {
        self.first = None;
    }

    /// Adds a thread where nobody waits.
    #[inline]
    pub(crate) fn set_only(&mut self, thread: Id<Thread>) {
        debug_assert!(self.is_empty());
        self.first = Some(thread);
    }

    /// Adds a thread behind all others.
    pub fn push_back(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        if self.is_empty() {
            self.first = Some(thread);
        } else {
            self.others.push_back(threads, thread);
        }
    }

    /// Puts the thread back that was taken out last.
    pub fn push_front(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        if let Some(second) = self.first.replace(thread) {
            self.others.push_front(threads, second);
        }
    }

    /// Takes out the thread that came first.
    pub fn pop(&mut self, threads: &mut Threads) -> Option<Id<Thread>> {
        self.first.take().or_else(|| self.others.pop(threads))
    }

    /// All of them, as a list.
    pub(super) fn into_queue(self, threads: &mut Threads) -> Queue<WAIT> {
        let mut queue = self.others;
        if let Some(first) = self.first {
            queue.push_front(threads, first);
        }
        queue
    }

    /// Takes out a thread that waits here.
    pub fn remove(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        if self.first == Some(thread) {
            self.first = None;
        } else {
            self.others.remove(threads, thread);
        }
    }
}
