//! Lists of threads, linked through the threads themselves.
//!
//! A thread is in at most one list of each kind: one list says what it waits for (the run queue of
//! its priority, an endpoint's senders or receivers, or those to whom a server owes a reply), and the others that it
//! belongs to its space, which endpoint it serves, and that its priority is to be looked at.
//! Putting it into a second list of a kind is a bug, and debug builds stop there.

use super::{Id, Thread, Threads};

/// Lists of what a thread waits for.
pub const WAIT: usize = 0;
/// Lists of the threads of a space.
pub const MEMBER: usize = 1;
/// Lists of the threads that serve an endpoint.
pub(super) const SERVER: usize = 2;
/// The list of threads whose priority is to be looked at.
pub(super) const UNSETTLED: usize = 3;

/// How many kinds of list there are.
pub(super) const KINDS: usize = 4;

/// A thread's place in a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    next: Option<Id<Thread>>,
    previous: Option<Id<Thread>>,
    linked: bool,
}

/// A doubly linked list of threads of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Queue<const KIND: usize> {
    head: Option<Id<Thread>>,
    tail: Option<Id<Thread>>,
}

impl Link {
    /// Whether the thread is in a list of this kind.
    pub(super) fn is_linked(&self) -> bool {
        self.linked
    }
}

impl<const KIND: usize> Queue<KIND> {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: None,
            tail: None,
        }
    }

    /// Whether nobody is in the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// The first thread.
    #[must_use]
    pub fn first(&self) -> Option<Id<Thread>> {
        self.head
    }

    /// The thread behind `thread`.
    #[must_use]
    pub fn after(&self, threads: &Threads, thread: Id<Thread>) -> Option<Id<Thread>> {
        threads.get(thread)?.links[KIND].next
    }

    /// The thread in front of `thread`.
    #[must_use]
    pub(super) fn before(&self, threads: &Threads, thread: Id<Thread>) -> Option<Id<Thread>> {
        threads.get(thread)?.links[KIND].previous
    }

    /// Appends a thread.
    pub fn push_back(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        self.insert(threads, thread, self.tail, None);
    }

    /// Puts a thread in front of all others.
    pub fn push_front(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        self.insert(threads, thread, None, self.head);
    }

    /// Puts a thread in front of `next`; `None` appends it.
    pub fn insert_before(
        &mut self,
        threads: &mut Threads,
        thread: Id<Thread>,
        next: Option<Id<Thread>>,
    ) {
        let previous = match next {
            Some(next) => self.link(threads, next).and_then(|link| link.previous),
            None => self.tail,
        };
        self.insert(threads, thread, previous, next);
    }

    /// Appends all threads of another list, however many they are.
    pub(super) fn append(&mut self, threads: &mut Threads, other: Self) {
        let Some(first) = other.head else {
            return;
        };
        match self.tail.and_then(|last| self.link(threads, last)) {
            Some(link) => link.next = Some(first),
            None => self.head = Some(first),
        }
        if let Some(link) = self.link(threads, first) {
            link.previous = self.tail;
        }
        self.tail = other.tail;
    }

    /// Takes the first thread out.
    pub fn pop(&mut self, threads: &mut Threads) -> Option<Id<Thread>> {
        let first = self.head?;
        self.remove(threads, first);
        Some(first)
    }

    /// Adds a thread where there is none.
    #[inline(always)]
    pub(super) fn push_only(&mut self, thread: &mut Thread, id: Id<Thread>) {
        let link = &mut thread.links[KIND];
        debug_assert!(self.is_empty() && !link.linked);
        *link = Link {
            next: None,
            previous: None,
            linked: true,
        };
        *self = Self {
            head: Some(id),
            tail: Some(id),
        };
    }

    /// Takes out the first thread, which is given, if it is the only one.
    #[inline(always)]
    pub(super) fn pop_only(&mut self, first: &mut Thread) -> bool {
        let link = &mut first.links[KIND];
        if link.next.is_some() {
            return false;
        }
        debug_assert!(link.linked && self.head == self.tail);
        link.linked = false;
        *self = Self::new();
        true
    }

    /// Takes a thread out that is in this list.
    pub fn remove(&mut self, threads: &mut Threads, thread: Id<Thread>) {
        let Some(link) = self.link(threads, thread) else {
            return;
        };
        debug_assert!(link.linked, "{thread:?} is in no list of kind {KIND}");
        let Link { next, previous, .. } = core::mem::take(link);
        match previous.and_then(|previous| self.link(threads, previous)) {
            Some(link) => link.next = next,
            None => self.head = next,
        }
        match next.and_then(|next| self.link(threads, next)) {
            Some(link) => link.previous = previous,
            None => self.tail = previous,
        }
    }

    fn insert(
        &mut self,
        threads: &mut Threads,
        thread: Id<Thread>,
        previous: Option<Id<Thread>>,
        next: Option<Id<Thread>>,
    ) {
        let Some(link) = self.link(threads, thread) else {
            return;
        };
        debug_assert!(
            !link.linked,
            "{thread:?} is in a list of kind {KIND} already"
        );
        *link = Link {
            next,
            previous,
            linked: true,
        };
        match previous.and_then(|previous| self.link(threads, previous)) {
            Some(link) => link.next = Some(thread),
            None => self.head = Some(thread),
        }
        match next.and_then(|next| self.link(threads, next)) {
            Some(link) => link.previous = Some(thread),
            None => self.tail = Some(thread),
        }
    }

    fn link<'t>(&self, threads: &'t mut Threads, thread: Id<Thread>) -> Option<&'t mut Link> {
        Some(&mut threads.get_mut(thread)?.links[KIND])
    }
}

impl<const KIND: usize> Default for Queue<KIND> {
    fn default() -> Self {
        Self::new()
    }
}
