//! Threads by their deadlines, linked through the threads themselves.
//!
//! However many threads wait for the clock, to add one and to take one out takes a number of steps that is logarithmic in
//! their number: this is a leftist heap (Crane; Knuth, *Sorting and Searching*, 5.2.3). Of a thread's two children the left
//! one has the higher rank, so the way down on the right is short, and two heaps are merged along it.
//!
//! A thread is in at most one heap of each kind.

use core::mem;

use super::{Id, Thread, Threads};

/// Heaps of set timers.
pub(super) const TIMER: usize = 0;
/// Heaps of threads that give up waiting.
pub(super) const WAIT_END: usize = 1;

/// How many kinds of heap there are.
pub(super) const HEAPS: usize = 2;

/// A thread's place in a heap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    parent: Option<Id<Thread>>,
    /// Those below, whose deadlines are not earlier.
    left: Option<Id<Thread>>,
    right: Option<Id<Thread>>,
    /// How many threads there are on the shortest way from here to one that has no right child.
    rank: u8,
}

/// Threads of which the one with the earliest deadline is known.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines<const KIND: usize> {
    root: Option<Id<Thread>>,
}

impl<const KIND: usize> Deadlines<KIND> {
    /// Nobody.
    pub(super) const fn new() -> Self {
        Self { root: None }
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The thread whose deadline is the earliest.
    pub(super) fn first(&self) -> Option<Id<Thread>> {
        self.root
    }

    /// Adds a thread, whose deadline does not change while it is here.
    pub(super) fn insert(&mut self, threads: &mut Threads, id: Id<Thread>) {
        if let Some(node) = node::<KIND>(threads, Some(id)) {
            debug_assert_eq!(node.rank, 0, "it is there already");
            *node = Node {
                rank: 1,
                ..Node::default()
            };
            self.root = merge::<KIND>(threads, self.root, Some(id));
        }
    }

    /// Takes out a thread that is there.
    pub(super) fn remove(&mut self, threads: &mut Threads, id: Id<Thread>) {
        let Some(node_of) = node::<KIND>(threads, Some(id)) else {
            return;
        };
        debug_assert_ne!(node_of.rank, 0, "it is not there");
        let Node {
            parent,
            left,
            right,
            ..
        } = mem::take(node_of);
        for child in [left, right] {
            if let Some(child) = node::<KIND>(threads, child) {
                child.parent = None;
            }
        }
        let rest = merge::<KIND>(threads, left, right);
        if let Some(rest) = node::<KIND>(threads, rest) {
            rest.parent = parent;
        }
        match node::<KIND>(threads, parent) {
            None => self.root = rest,
            Some(parent) if parent.left == Some(id) => parent.left = rest,
            Some(parent) => parent.right = rest,
        }
        let mut changed = parent;
        while let (next, true) = restore::<KIND>(threads, changed) {
            changed = next;
        }
    }
}

fn node<const KIND: usize>(threads: &mut Threads, id: Option<Id<Thread>>) -> Option<&mut Node> {
    Some(&mut threads.get_mut(id?)?.nodes[KIND])
}

fn rank<const KIND: usize>(threads: &mut Threads, id: Option<Id<Thread>>) -> u8 {
    node::<KIND>(threads, id).map_or(0, |node| node.rank)
}

/// One heap of two, whose roots have no parents. Returns its root.
fn merge<const KIND: usize>(
    threads: &mut Threads,
    mut a: Option<Id<Thread>>,
    mut b: Option<Id<Thread>>,
) -> Option<Id<Thread>> {
    let deadline = |threads: &Threads, id| threads.get(id).map(|thread| thread.deadline_ns(KIND));
    // Down on the right: the earlier one stays, and what is to its right is merged with the other one.
    let mut last = None;
    while let (Some(first), Some(second)) = (a, b) {
        let (first, second) = if deadline(threads, second) < deadline(threads, first) {
            (second, first)
        } else {
            (first, second)
        };
        hang::<KIND>(threads, Some(first), last);
        a = node::<KIND>(threads, Some(first)).and_then(|node| node.right);
        (b, last) = (Some(second), Some(first));
    }
    let mut root = a.or(b);
    hang::<KIND>(threads, root, last);
    // And up again.
    while last.is_some() {
        root = last;
        last = restore::<KIND>(threads, last).0;
    }
    root
}

/// Makes a thread the right child of another one, if there are two.
fn hang<const KIND: usize>(
    threads: &mut Threads,
    child: Option<Id<Thread>>,
    parent: Option<Id<Thread>>,
) {
    if let Some(parent) = node::<KIND>(threads, parent) {
        parent.right = child;
    }
    if parent.is_some()
        && let Some(child) = node::<KIND>(threads, child)
    {
        child.parent = parent;
    }
}

/// Puts the children of a thread in order, of which one has changed. Returns its parent, and whether its own rank has
/// changed.
fn restore<const KIND: usize>(
    threads: &mut Threads,
    id: Option<Id<Thread>>,
) -> (Option<Id<Thread>>, bool) {
    let Some(&mut Node { left, right, .. }) = node::<KIND>(threads, id) else {
        return (None, false);
    };
    let ranks = [left, right].map(|child| rank::<KIND>(threads, child));
    let Some(node) = node::<KIND>(threads, id) else {
        return (None, false);
    };
    if ranks[0] < ranks[1] {
        mem::swap(&mut node.left, &mut node.right);
    }
    let before = mem::replace(&mut node.rank, ranks[0].min(ranks[1]) + 1);
    (node.parent, before != node.rank)
}
