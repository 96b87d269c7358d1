//! Who waits for whom, and which of them for ever.
//!
//! A thread that waits for an answer goes on as soon as *one* of those does that may give it: any thread of the space that owes it, or
//! of a space that receives where its message is queued. So it is *stuck* if all of them are, and there are some. Who
//! runs, sleeps, receives, or gives up at some time is not stuck, and neither is who waits for somebody unknown: what is called stuck is
//! for certain.
//!
//! ```text
//!   a --reply--> b --queued at--> endpoint <--serves-- c --reply--> a      all three are stuck
//!                                          <--serves-- d (receives)        with d nobody is
//! ```
//!
//! Following from each that is stuck the one that it waits for comes to a cycle, which is what there is to say.

use alloc::vec;
use alloc::vec::Vec;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing that takes another thread: it runs, sleeps, receives, or gives up some time.
    Nothing,
    /// For an answer that a space owes it; the thread that has its message, or 0 if that is gone.
    Reply {
        /// That thread.
        thread: u64,
        /// Its space.
        space: u64,
    },
    /// For somebody who receives at an endpoint.
    Queue {
        /// The endpoint.
        endpoint: u64,
    },
}

/// A thread. All of it are numbers as the kernel tells them, of which 0 is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its number.
    pub thread: u64,
    /// Its space.
    pub space: u64,
    /// Where it received last.
    pub serves: u64,
    /// What it waits for.
    pub wait: Wait,
}

/// Threads, and which space receives at which endpoint though none of its threads has done so yet.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The threads.
    pub threads: Vec<Waiter>,
    /// Pairs of an endpoint and a space.
    pub owners: Vec<(u64, u64)>,
}

impl Graph {
    /// Whether one of these threads may end the wait of the other: the places of both.
    fn may_end(&self, wait: Wait, place: usize) -> bool {
        let space = self.threads[place].space;
        match wait {
            Wait::Nothing => false,
            Wait::Reply { space: owes, .. } => space == owes && owes != 0,
            Wait::Queue { endpoint } => {
                let serves = |thread: &Waiter| thread.space == space && thread.serves == endpoint;
                endpoint != 0
                    && (self.owners.contains(&(endpoint, space)) || self.threads.iter().any(serves))
            }
        }
    }

    /// The places of those that may end a wait.
    fn whom(&self, wait: Wait) -> impl Iterator<Item = usize> {
        (0..self.threads.len()).filter(move |&place| self.may_end(wait, place))
    }

    /// Which threads are stuck, in their order.
    #[must_use]
    pub fn stuck(&self) -> Vec<bool> {
        let whom: Vec<Vec<usize>> = self
            .threads
            .iter()
            .map(|thread| self.whom(thread.wait).collect())
            .collect();
        // All that wait for somebody, less those of whom one may go on, and so on.
        let mut stuck: Vec<bool> = whom.iter().map(|whom| !whom.is_empty()).collect();
        while let Some(free) = (0..stuck.len())
            .find(|&place| stuck[place] && whom[place].iter().any(|&other| !stuck[other]))
        {
            stuck[free] = false;
        }
        stuck
    }

    /// The place of the thread that one waits for: that has its message or serves where it is queued, rather than
    /// another one of the same space.
    fn next(&self, place: usize) -> Option<usize> {
        let wait = self.threads[place].wait;
        let is_meant = |&other: &usize| match wait {
            Wait::Nothing => false,
            Wait::Reply { thread, .. } => self.threads[other].thread == thread,
            Wait::Queue { endpoint } => self.threads[other].serves == endpoint,
        };
        self.whom(wait)
            .find(is_meant)
            .or_else(|| self.whom(wait).next())
    }

    /// The cycles of threads that are stuck: places, each of the thread that waits for the one behind it, and the last for the first.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<usize>> {
        let stuck = self.stuck();
        let mut cycles = Vec::new();
        // On which way each was seen, numbered from 1.
        let mut seen = vec![0; stuck.len()];
        for way in 1..=stuck.len() {
            let (first, mut path) = (way - 1, Vec::new());
            let mut place = Some(first).filter(|&first| stuck[first]);
            while let Some(here) = place
                && seen[here] == 0
            {
                seen[here] = way;
                path.push(here);
                place = self.next(here);
            }
            if let Some(here) = place
                && seen[here] == way
            {
                let begin = path.iter().position(|&other| other == here).unwrap_or(0);
                cycles.push(path.split_off(begin));
            }
        }
        cycles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A thread of the space with its number.
    fn thread(number: u64, serves: u64, wait: Wait) -> Waiter {
        Waiter {
            thread: number,
            space: number,
            serves,
            wait,
        }
    }

    fn reply(from: u64) -> Wait {
        Wait::Reply {
            thread: from,
            space: from,
        }
    }

    fn graph(threads: &[Waiter]) -> Graph {
        Graph {
            threads: threads.to_vec(),
            owners: Vec::new(),
        }
    }

    #[test]
    fn two_that_wait_for_each_other_are_a_cycle() {
        let queue = Wait::Queue { endpoint: 10 };
        let both = graph(&[thread(1, 10, reply(2)), thread(2, 20, queue)]);
        assert_eq!(both.cycles(), [[0, 1]]);
        let alone = graph(&[thread(1, 0, reply(1))]);
        assert_eq!(alone.cycles(), [[0]]);
    }

    #[test]
    fn who_waits_behind_a_cycle_is_stuck_and_not_in_it() {
        let three = graph(&[
            thread(1, 0, reply(2)),
            thread(2, 0, reply(3)),
            thread(3, 0, reply(2)),
        ]);
        assert_eq!(three.stuck(), [true; 3]);
        assert_eq!(three.cycles(), [[1, 2]]);
    }

    #[test]
    fn one_server_thread_that_receives_frees_all() {
        let queue = Wait::Queue { endpoint: 10 };
        let mut threads = vec![thread(1, 10, reply(2)), thread(2, 0, queue)];
        assert_eq!(graph(&threads).cycles().len(), 1);
        let second = Waiter {
            thread: 3,
            ..thread(1, 10, Wait::Nothing)
        };
        threads.push(second);
        assert_eq!(graph(&threads).stuck(), [false; 3]);
        // Until it waits for one of them as well.
        threads[2].wait = reply(2);
        assert_eq!(graph(&threads).stuck(), [true; 3]);
    }

    #[test]
    fn who_waits_for_somebody_unknown_is_not_stuck() {
        let nowhere = Wait::Queue { endpoint: 7 };
        let unknown = graph(&[
            thread(1, 0, reply(9)),
            thread(2, 0, nowhere),
            thread(3, 0, reply(1)),
        ]);
        assert_eq!(unknown.stuck(), [false; 3]);
        assert!(unknown.cycles().is_empty());
    }

    #[test]
    fn an_endpoint_is_its_owners_before_anybody_has_received_there() {
        let queue = |endpoint| Wait::Queue { endpoint };
        let mut both = graph(&[thread(1, 0, queue(20)), thread(2, 0, queue(10))]);
        assert_eq!(both.stuck(), [false; 2]);
        both.owners = vec![(10, 1), (20, 2)];
        assert_eq!(both.cycles(), [[0, 1]]);
    }

    /// Up to eight threads in up to four spaces, and what they wait for.
    fn graphs() -> impl Strategy<Value = Graph> {
        let wait = prop_oneof![
            1 => Just(Wait::Nothing),
            4 => (0..9u64, 0..5u64).prop_map(|(thread, space)| Wait::Reply { thread, space }),
            4 => (0..4u64).prop_map(|endpoint| Wait::Queue { endpoint }),
        ];
        let threads = prop::collection::vec((1..5u64, 0..4u64, wait), 0..8);
        let owners = prop::collection::vec((1..4u64, 1..5u64), 0..2);
        (threads, owners).prop_map(|(threads, owners)| {
            let numbered = threads.into_iter().zip(1..);
            let threads = numbered.map(|((space, serves, wait), thread)| Waiter {
                thread,
                space,
                serves,
                wait,
            });
            Graph {
                threads: threads.collect(),
                owners,
            }
        })
    }

    /// The places of those that may end each thread's wait.
    fn edges(graph: &Graph) -> Vec<Vec<usize>> {
        let waits = graph.threads.iter().map(|thread| thread.wait);
        waits.map(|wait| graph.whom(wait).collect()).collect()
    }

    proptest! {
        /// A set of threads that wait for each other alone can never go on; the stuck ones are all of these together.
        #[test]
        fn those_are_stuck_who_wait_for_such_alone(graph in graphs()) {
            let edges = edges(&graph);
            let mut expected = vec![false; edges.len()];
            for set in 0u32..1 << edges.len() {
                let has = |place: usize| set >> place & 1 == 1;
                let is_closed = (0..edges.len()).filter(|&place| has(place)).all(|place| {
                    !edges[place].is_empty() && edges[place].iter().all(|&other| has(other))
                });
                if is_closed {
                    (0..edges.len()).for_each(|place| expected[place] |= has(place));
                }
            }
            prop_assert_eq!(graph.stuck(), expected);
        }

        #[test]
        fn cycles_are_cycles_of_the_stuck_and_there_is_one_if_anybody_is(graph in graphs()) {
            let (edges, stuck, cycles) = (edges(&graph), graph.stuck(), graph.cycles());
            prop_assert_eq!(cycles.is_empty(), !stuck.contains(&true));
            let mut named = std::collections::BTreeSet::new();
            for cycle in cycles {
                for (i, &place) in cycle.iter().enumerate() {
                    let next = cycle[(i + 1) % cycle.len()];
                    prop_assert!(stuck[place] && edges[place].contains(&next));
                    prop_assert!(named.insert(place), "named twice");
                }
            }
        }
    }
}
