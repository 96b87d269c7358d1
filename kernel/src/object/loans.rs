//! Priorities that are lent.
//!
//! Whoever waits for a thread lends it its priority, and so on along the chain of those that wait for each other. A
//! thread runs at the highest of
//!
//! | priority | as long as |
//! | --- | --- |
//! | its own | |
//! | of each thread whose message it has received | nobody has answered it |
//! | of the first that is queued at the endpoint that it serves | it is queued there |
//! | of the thread that is bound to it, in the middle of a long message | it is bound |
//!
//! It *serves* the endpoint at which it received last, busy or not, until it receives at another one. Where more
//! than eight do that, those eight borrow that came last.
//!
//! ```text
//!   client --queued--> endpoint <--serves-- server --owes an answer to--> earlier client
//!                                             |
//!                                             +--queued--> endpoint <--serves-- another server
//! ```
//!
//! What may change a thread's priority puts it on the list of the *unsettled*. [`Kernel::reap`] takes one after the other
//! from there, works out its priority from those next to it, moves it to the place in its queue that it has by that, and
//! lists those whom it lends to. So the depth of a chain costs no stack, and the time with the lock held is bounded.
//!
//! **Cycles.** Threads that wait for each other in a ring could hand a rise round for ever. So a rise goes along so many
//! links and no further; a fall, which can but undo a rise, goes as far as it comes. A ring may keep a priority that was lent
//! to it, but all of its threads wait, and it is worked out again when the ring is broken.
//!
//! **Messages** need nothing of this: a server that waits owes nobody its last answer, so [who hands it a
//! message](Thread::hand_over) notes that in one word, and who answers that finds in another one, the
//! [floor](Thread::floor), what is left.

use super::queue::{Link, SERVER, UNSETTLED};
use super::{Endpoint, Id, Kernel, Ranked, RunQueue, Space, State, Thread, Threads, Way};

/// How many of those that serve an endpoint borrow from who is queued there.
const NR_BORROWERS: usize = 8;

/// How many links of a chain a rise goes along.
pub(crate) const LINKS: u8 = 64;

impl Kernel {
    /// A thread receives at an endpoint, which it serves from now on.
    pub(crate) fn serve(&mut self, id: Id<Thread>, at: Id<Endpoint>) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        if thread.serves == Some(at) {
            return;
        }
        thread.forget_way(Way::Receive);
        self.stop_serving(id);
        let Some(endpoint) = self.endpoints.get_mut(at) else {
            return;
        };
        endpoint.servers.push_front(&mut self.threads, id);
        if let Some(thread) = self.threads.get_mut(id) {
            thread.serves = Some(at);
        }
        let highest = endpoint.senders.highest(&self.threads);
        self.loan_changed(id, highest, LINKS);
        self.borrower_changed(at, NR_BORROWERS);
    }

    /// A thread serves no endpoint any more.
    fn stop_serving(&mut self, id: Id<Thread>) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        let Some(at) = thread.serves.take() else {
            return;
        };
        let Some(endpoint) = self.endpoints.get_mut(at) else {
            thread.links[SERVER] = Link::default(); // the whole list is gone
            return;
        };
        endpoint.servers.remove(&mut self.threads, id);
        let highest = endpoint.senders.highest(&self.threads);
        self.loan_changed(id, highest, LINKS);
        self.borrower_changed(at, NR_BORROWERS - 1);
    }

    /// Queues a thread at an endpoint.
    pub(crate) fn push_sender(&mut self, at: Id<Endpoint>, sender: Id<Thread>) {
        self.change_senders(at, |endpoint, threads| {
            endpoint.senders.push_back(threads, sender);
        });
    }

    /// Puts the sender back that was taken out last.
    pub(crate) fn push_sender_back(&mut self, at: Id<Endpoint>, sender: Id<Thread>) {
        self.change_senders(at, |endpoint, threads| {
            endpoint.senders.push_front(threads, sender);
        });
    }

    /// Takes out the first sender.
    pub(crate) fn pop_sender(&mut self, at: Id<Endpoint>) -> Option<Id<Thread>> {
        self.change_senders(at, |endpoint, threads| endpoint.senders.pop(threads))?
    }

    /// Takes a thread out that is queued at an endpoint.
    pub(super) fn remove_sender(&mut self, at: Id<Endpoint>, sender: Id<Thread>) {
        self.change_senders(at, |endpoint, threads| {
            endpoint.senders.remove(threads, sender);
        });
    }

    /// Changes who is queued at an endpoint. If that changes the highest priority, whoever serves it is told.
    fn change_senders<R>(
        &mut self,
        at: Id<Endpoint>,
        change: impl FnOnce(&mut Endpoint, &mut Threads) -> R,
    ) -> Option<R> {
        let endpoint = self.endpoints.get_mut(at)?;
        let before = endpoint.senders.highest(&self.threads);
        let result = change(endpoint, &mut self.threads);
        let now = endpoint.senders.highest(&self.threads);
        if now != before {
            self.loans_changed(at, now.max(before), LINKS);
        }
        Some(result)
    }

    /// A thread that is about to wait for another message owes the answer to its last one still.
    pub(crate) fn defer_answer(&mut self, server: Id<Thread>) {
        let Some(thread) = self.threads.get_mut(server) else {
            return;
        };
        let (token, home) = (core::mem::take(&mut thread.answering), thread.space);
        let mut owed = thread.owed;
        let Some(client) = self.client(token) else {
            return;
        };
        owed.push_back(&mut self.threads, client);
        let Some((server, client)) = self.threads.two_mut(server, client) else {
            return;
        };
        client.owed_by = Some(home);
        server.owed = owed;
        server.floor = server.floor.max(client.priority);
    }

    /// A thread that waits for a reply waits no more.
    pub(crate) fn settle_debt(&mut self, client: Id<Thread>) {
        let Some(thread) = self.threads.get_mut(client) else {
            return;
        };
        let State::AwaitingReply { server } = thread.state else {
            return;
        };
        let (home, priority) = (thread.owed_by.take(), thread.priority);
        match (self.threads.get_mut(server), home) {
            (Some(server), None) => server.answering = 0,
            (Some(thread), Some(_)) => {
                let mut owed = thread.owed;
                owed.remove(&mut self.threads, client);
                self.set_owed(server, owed);
            }
            (None, home) => {
                if let Some(home) = home.and_then(|home| self.spaces.get_mut(home)) {
                    home.orphans.remove(&mut self.threads, client);
                }
            }
        }
        self.loan_changed(server, priority, LINKS);
    }

    /// A thread ends. The answers that it owes are its space's to give.
    pub(super) fn end_relations(&mut self, id: Id<Thread>) {
        let Some(thread) = self.threads.get(id) else {
            return;
        };
        let owes = thread.answering != 0 || thread.owed.first().is_some();
        if thread.serves.is_some() {
            self.stop_serving(id);
        }
        if owes {
            self.bequeath(id);
        }
        let thread = self.threads.get(id);
        if thread.is_some_and(|thread| thread.links[UNSETTLED].is_linked()) {
            self.unsettled.remove(&mut self.threads, id);
        }
    }

    fn bequeath(&mut self, server: Id<Thread>) {
        self.defer_answer(server);
        let Some(thread) = self.threads.get_mut(server) else {
            return;
        };
        let owed = core::mem::take(&mut thread.owed);
        if let Some(home) = self.spaces.get_mut(thread.space) {
            home.orphans.append(&mut self.threads, owed.into_queue());
        }
    }

    /// Lets a thread's priority be looked at. If it rises, that goes along so many links.
    pub(crate) fn unsettle(&mut self, id: Id<Thread>, links: u8) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        thread.nr_links = thread.nr_links.max(links);
        if !thread.links[UNSETTLED].is_linked() {
            self.unsettled.push_back(&mut self.threads, id);
            self.is_unfinished = true;
        }
    }

    /// A loan to a thread begins, ends or changes, whose priority is, or was, this one at most.
    pub(crate) fn loan_changed(&mut self, id: Id<Thread>, priority: u8, links: u8) {
        let thread = self.threads.get(id);
        if thread.is_some_and(|thread| thread.base_priority < priority) {
            self.unsettle(id, links);
        }
    }

    /// The same for all that borrow from who is queued at an endpoint.
    fn loans_changed(&mut self, at: Id<Endpoint>, priority: u8, links: u8) {
        for number in 0..NR_BORROWERS {
            let Some(server) = self.server(at, number) else {
                return;
            };
            self.loan_changed(server, priority, links);
        }
    }

    /// The same for one of them, or one that is none any more.
    fn borrower_changed(&mut self, at: Id<Endpoint>, number: usize) {
        if let Some(server) = self.server(at, number)
            && let Some(endpoint) = self.endpoints.get(at)
        {
            let highest = endpoint.senders.highest(&self.threads);
            self.loan_changed(server, highest, LINKS);
        }
    }

    /// Nobody is queued at an endpoint any more, as it ends.
    pub(super) fn end_loans(&mut self, at: Id<Endpoint>) {
        if let Some(endpoint) = self.endpoints.get(at) {
            let highest = endpoint.senders.highest(&self.threads);
            self.loans_changed(at, highest, LINKS);
        }
    }

    /// One of those that serve an endpoint; number 0 came last.
    fn server(&self, at: Id<Endpoint>, number: usize) -> Option<Id<Thread>> {
        let servers = self.endpoints.get(at)?.servers;
        (0..number).try_fold(servers.first()?, |server, _| {
            servers.after(&self.threads, server)
        })
    }

    /// Whether no thread's priority is to be looked at.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Works out a thread's priority, and lets those be looked at that it lends it to.
    pub(super) fn settle(&mut self, id: Id<Thread>) {
        let Some((floor, priority)) = self.due_priority(id) else {
            return;
        };
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        let links = core::mem::take(&mut thread.nr_links);
        thread.floor = floor;
        let before = thread.priority;
        if priority == before {
            return;
        }
        self.change_priority(id, priority);
        let links = if priority < before { LINKS } else { links };
        if links > 1 {
            self.lender_changed(id, priority.max(before), links - 1);
        }
    }

    /// A thread lends another priority, or did: this one at most.
    fn lender_changed(&mut self, id: Id<Thread>, priority: u8, links: u8) {
        let Some(thread) = self.threads.get(id) else {
            return;
        };
        match (thread.bound_to, thread.state) {
            (Some(worker), _) => self.loan_changed(worker, priority, links),
            (None, State::Sending { endpoint, .. }) => {
                self.loans_changed(endpoint, priority, links)
            }
            (None, State::AwaitingReply { server }) => self.loan_changed(server, priority, links),
            _ => {}
        }
    }

    /// What a thread's priority is to be when it has answered its last message, and what it is to be as yet.
    pub(crate) fn due_priority(&self, id: Id<Thread>) -> Option<(u8, u8)> {
        let thread = self.threads.get(id)?;
        let priority_of = |id: Option<Id<Thread>>| {
            let thread = id.and_then(|id| self.threads.get(id));
            thread.map_or(0, |thread| thread.priority)
        };
        let floor = thread.base_priority.max(thread.owed.highest(&self.threads));
        let queued = thread
            .serves
            .filter(|at| (0..NR_BORROWERS).any(|number| self.server(*at, number) == Some(id)));
        let queued = queued.and_then(|at| self.endpoints.get(at)?.senders.first());
        let lenders = [self.client(thread.answering), queued, self.partner(id)];
        let priority = lenders.map(priority_of).into_iter().fold(floor, u8::max);
        Some((floor, priority))
    }

    /// Gives a thread another priority, and the place that it has by that in the queue where it waits.
    fn change_priority(&mut self, id: Id<Thread>, priority: u8) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        let is_lowered = priority < thread.priority;
        match (thread.state, thread.is_queued()) {
            (State::Runnable, true) => return self.change_place(id, priority),
            (State::Sending { endpoint, .. }, true) => {
                if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
                    return endpoint.senders.rank(&mut self.threads, id, priority);
                }
            }
            (State::AwaitingReply { server }, true) => {
                if let Some(mut owed) = self.threads.get(server).map(|server| server.owed) {
                    owed.rank(&mut self.threads, id, priority);
                    return self.set_owed(server, owed);
                }
            }
            _ => {}
        }
        if let Some(thread) = self.threads.get_mut(id) {
            thread.priority = priority;
        }
        if is_lowered && let Some(cpu) = self.cpu_of(id) {
            self.look_again(cpu);
        }
    }

    /// Gives another priority to a thread that waits for a CPU. As in POSIX, it goes behind those that have the
    /// higher one, or before those that have the lower one: nobody loses a turn by a loan that ends.
    fn change_place(&mut self, id: Id<Thread>, priority: u8) {
        let Some(thread) = self.threads.get(id) else {
            return;
        };
        let (cpu, is_raised) = (usize::from(thread.cpu), thread.priority < priority);
        self.cpus[cpu].run_queue.remove(&mut self.threads, id);
        if let Some(thread) = self.threads.get_mut(id) {
            thread.priority = priority;
        }
        if is_raised {
            self.make_runnable(id);
        } else {
            self.enqueue(id, cpu, RunQueue::push_front);
        }
    }

    /// The space that owes the reply to a token, if the thread that it names waits for that.
    pub(crate) fn space_asked(&self, client: Id<Thread>, token: u64) -> Option<Id<Space>> {
        let client = self.threads.get(client)?;
        let State::AwaitingReply { server } = client.state else {
            return None;
        };
        if !client.token.is(token) {
            return None;
        }
        let server = self.threads.get(server).map(|server| server.space);
        server.or(client.owed_by)
    }

    /// The thread that waits for the reply to a token that is kept here.
    fn client(&self, token: u64) -> Option<Id<Thread>> {
        self.threads.id_at_place(token)
    }

    fn set_owed(&mut self, server: Id<Thread>, owed: Ranked) {
        if let Some(thread) = self.threads.get_mut(server) {
            thread.owed = owed;
        }
    }
}
