//! Threads that can run and do not, by priority: a queue for each CPU.

use core::iter;

use super::cpus::{Affinity, numbers};
use super::queue::{Queue, WAIT};
use super::{Id, MAX_PRIORITY, Thread, Threads};

/// One list for each priority, and a bit for each list that is not empty.
#[derive(Debug)]
pub struct RunQueue {
    lists: [Queue<WAIT>; MAX_PRIORITY as usize + 1],
    occupied: u32,
    /// The highest priority of all in the lists; 0 if there is nobody.
    highest: u8,
    /// The CPU's number, which its threads have too.
    cpu: u8,
}

impl RunQueue {
    /// Nobody wants to run on this CPU.
    #[must_use]
    pub const fn new(cpu: u8) -> Self {
        Self {
            lists: [Queue::new(); MAX_PRIORITY as usize + 1],
            occupied: 0,
            highest: 0,
            cpu,
        }
    }

    /// The CPU's number.
    #[must_use]
    pub fn cpu(&self) -> u8 {
        self.cpu
    }

    /// The highest priority at which a thread waits.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        (self.occupied != 0).then_some(self.highest)
    }

    /// Whether a thread above this priority waits.
    #[must_use]
    #[inline]
    pub fn any_above(&self, priority: u8) -> bool {
        self.highest > priority
    }

    /// Adds a thread behind the others of its priority.
    pub fn push_back(&mut self, threads: &mut Threads, id: Id<Thread>) {
        let Some(thread) = threads.get_mut(id) else {
            return;
        };
        thread.cpu = self.cpu;
        let priority = thread.priority as usize;
        self.lists[priority].push_back(threads, id);
        self.set_occupied(self.occupied | 1 << priority);
    }

    /// Adds a thread before the others of its priority.
    pub fn push_front(&mut self, threads: &mut Threads, id: Id<Thread>) {
        let Some(thread) = threads.get_mut(id) else {
            return;
        };
        thread.cpu = self.cpu;
        let priority = thread.priority as usize;
        self.lists[priority].push_front(threads, id);
        self.set_occupied(self.occupied | 1 << priority);
    }

    /// The first thread of the highest priority.
    #[must_use]
    pub fn first(&self) -> Option<Id<Thread>> {
        self.lists[self.highest as usize].first()
    }

    /// The first thread of a priority.
    pub(super) fn first_of(&self, priority: u8) -> Option<Id<Thread>> {
        self.lists[priority as usize].first()
    }

    /// Takes the first thread of the highest priority.
    pub fn pop(&mut self, threads: &mut Threads) -> Option<Id<Thread>> {
        let first = self.first()?;
        if !self.pop_only(threads.get_mut(first)?) {
            self.lists[self.highest as usize].remove(threads, first);
        }
        Some(first)
    }

    /// Takes out the thread that [`first`](Self::first) has named, if no other has its priority.
    #[inline(always)]
    pub(crate) fn pop_only(&mut self, first: &mut Thread) -> bool {
        let was_only = self.lists[self.highest as usize].pop_only(first);
        if was_only {
            self.set_occupied(self.occupied & !(1 << self.highest));
        }
        was_only
    }

    /// Adds a thread, if no other in the queue has its priority. Returns whether it did.
    #[inline(always)]
    pub(crate) fn push_only(&mut self, thread: &mut Thread, id: Id<Thread>) -> bool {
        let priority = thread.priority as usize;
        let list = &mut self.lists[priority];
        if !list.is_empty() {
            return false;
        }
        list.push_only(thread, id);
        thread.cpu = self.cpu;
        self.set_occupied(self.occupied | 1 << priority);
        true
    }

    /// Takes the first thread of the highest priority that may run on another CPU, if it is near the
    /// front of its list.
    pub(super) fn pop_for(&mut self, threads: &mut Threads, cpu: usize) -> Option<Id<Thread>> {
        let id = self.first_for(threads, 1 << cpu)?;
        self.remove(threads, id);
        Some(id)
    }

    /// The first thread of the highest priority that may run on one of these CPUs, if it is near the front of its list.
    pub(super) fn first_for(&self, threads: &Threads, cpus: Affinity) -> Option<Id<Thread>> {
        /// How many threads of each priority are looked at.
        const FRONT: usize = 4;
        numbers(self.occupied.into()).find_map(|priority| {
            let list = &self.lists[priority];
            let waiting = iter::successors(list.first(), |&id| list.after(threads, id));
            waiting.take(FRONT).find(|&id| {
                let thread = threads.get(id);
                thread.is_some_and(|thread| thread.affinity & cpus != 0)
            })
        })
    }

    /// Takes out a thread that is in the queue, at the priority it has.
    pub fn remove(&mut self, threads: &mut Threads, id: Id<Thread>) {
        let Some(thread) = threads.get(id) else {
            return;
        };
        let priority = thread.priority as usize;
        self.lists[priority].remove(threads, id);
        if self.lists[priority].is_empty() {
            self.set_occupied(self.occupied & !(1 << priority));
        }
    }

    fn set_occupied(&mut self, occupied: u32) {
        self.occupied = occupied;
        self.highest = occupied.checked_ilog2().unwrap_or(0) as u8;
    }
}
