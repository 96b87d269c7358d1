//! Threads in the order of their priority, first come first served among equals.
//!
//! ```text
//!   priority    9      9      9      4      2      2
//!             first -> . -> last   first   first -> last
//!               |            ^      | ^      |       ^
//!               +------------+      +-+      +-------+      `rank_end`
//! ```
//!
//! The first thread of each priority knows the last, so a place is found by going from rank to rank:
//! never more than there are priorities, however many threads wait.

use super::queue::{Queue, WAIT};
use super::{Id, Thread, Threads};

/// Threads that wait for the same, the highest priority first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ranked {
    list: Queue<WAIT>,
}

impl Ranked {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Queue::new() }
    }

    /// The thread that came first of those with the highest priority.
    #[must_use]
    #[inline]
    pub fn first(&self) -> Option<Id<Thread>> {
        self.list.first()
    }

    /// The highest priority of all; 0 if there is nobody.
    #[must_use]
    pub fn highest(&self, threads: &Threads) -> u8 {
        let first = self.first().and_then(|id| threads.get(id));
        first.map_or(0, |thread| thread.priority)
    }

    /// Adds a thread behind the others of its priority.
    pub fn push_back(&mut self, threads: &mut Threads, id: Id<Thread>) {
        self.insert(threads, id, false);
    }

    /// Puts the thread back that was taken out last, before the others of its priority.
    pub fn push_front(&mut self, threads: &mut Threads, id: Id<Thread>) {
        self.insert(threads, id, true);
    }

    /// Takes the first thread out.
    pub fn pop(&mut self, threads: &mut Threads) -> Option<Id<Thread>> {
        let first = self.first()?;
        self.remove(threads, first);
        Some(first)
    }

    /// Takes out a thread that is in here, with the priority that it had when it came.
    pub fn remove(&mut self, threads: &mut Threads, id: Id<Thread>) {
        let Some(priority) = threads.get(id).map(|thread| thread.priority) else {
            return;
        };
        let leader = self.leader(threads, priority);
        let end = leader.and_then(|leader| self.rank_end(threads, leader));
        let (leader, end) = if leader == Some(id) {
            let is_only = end == Some(id);
            (self.list.after(threads, id).filter(|_| !is_only), end)
        } else if end == Some(id) {
            (leader, self.list.before(threads, id))
        } else {
            (leader, end)
        };
        if let Some(leader) = leader.and_then(|leader| threads.get_mut(leader)) {
            leader.rank_end = end;
        }
        self.list.remove(threads, id);
    }

    /// Gives a thread that is in here another priority. If that is higher it goes behind the others that have it, and if
    /// it is lower before them.
    pub fn rank(&mut self, threads: &mut Threads, id: Id<Thread>, priority: u8) {
        self.remove(threads, id);
        let Some(thread) = threads.get_mut(id) else {
            return;
        };
        let is_lowered = priority < core::mem::replace(&mut thread.priority, priority);
        self.insert(threads, id, is_lowered);
    }

    /// All of them, as a plain list.
    #[must_use]
    pub(super) fn into_queue(self) -> Queue<WAIT> {
        self.list
    }

    fn insert(&mut self, threads: &mut Threads, id: Id<Thread>, at_front: bool) {
        let Some(priority) = threads.get(id).map(|thread| thread.priority) else {
            return;
        };
        let below = self.first_not_above(threads, priority);
        let leader = below.filter(|below| priority_of(threads, *below) == Some(priority));
        let end = leader.and_then(|leader| self.rank_end(threads, leader));
        let next = match end {
            Some(end) if !at_front => self.list.after(threads, end),
            _ => below,
        };
        self.list.insert_before(threads, id, next);
        let (leader, end) = match (leader, end) {
            (Some(leader), Some(_)) if !at_front => (leader, id),
            (Some(_), Some(end)) => (id, end),
            _ => (id, id),
        };
        if let Some(leader) = threads.get_mut(leader) {
            leader.rank_end = Some(end);
        }
    }

    /// The first thread of a priority.
    fn leader(&self, threads: &Threads, priority: u8) -> Option<Id<Thread>> {
        let found = self.first_not_above(threads, priority)?;
        (priority_of(threads, found) == Some(priority)).then_some(found)
    }

    /// The first thread whose priority is this one or lower.
    fn first_not_above(&self, threads: &Threads, priority: u8) -> Option<Id<Thread>> {
        let mut next = self.first();
        while let Some(leader) = next
            && priority_of(threads, leader)? > priority
        {
            next = self.list.after(threads, self.rank_end(threads, leader)?);
        }
        next
    }

    /// The last thread that has the priority of one that is the first.
    fn rank_end(&self, threads: &Threads, leader: Id<Thread>) -> Option<Id<Thread>> {
        threads.get(leader)?.rank_end
    }
}

fn priority_of(threads: &Threads, id: Id<Thread>) -> Option<u8> {
    Some(threads.get(id)?.priority)
}
