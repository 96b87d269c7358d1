//! The end of threads, spaces and endpoints.
//!
//! Whoever waits for something dead is woken with [`Error::Died`]; whatever the dead held goes back.
//! Death spreads (a space takes its children and its handles along, a handle may be an endpoint's
//! last), so spaces to be torn down are put on a list, those who wait at an endpoint that is gone on
//! another one, and [`Kernel::reap`] works both off: no recursion, whatever a program has built, and so
//! much at a time. On the way it settles the [priorities](super::loans) that change.

use cowslip_abi::{Error, Rights};

use crate::trace;
use crate::vm::{self, PageTable};

use super::loans::LINKS;
use super::{Endpoint, HandleEntry, Id, Kernel, Object, Space, State, Thread};

/// How much of what dies is undone before others have a turn: threads, handles and children removed,
/// threads looked at or told.
const STEP: usize = 64;

impl Kernel {
    /// Ends a thread, whatever it is doing. The space dies with its last started thread.
    pub fn kill_thread(&mut self, id: Id<Thread>) {
        self.remove_thread(id);
        self.reap();
    }

    /// Ends a space and all that is in it.
    pub fn kill_space(&mut self, id: Id<Space>) {
        self.doom(id);
        self.reap();
    }

    /// Takes back a space that nobody has heard of yet.
    pub fn discard_space(&mut self, id: Id<Space>) {
        if let Some(space) = self.spaces.get_mut(id) {
            space.death = None;
        }
        self.kill_space(id);
    }

    /// Raises notification bits of an endpoint and wakes a receiver with them.
    pub fn raise(&mut self, id: Id<Endpoint>, bits: u64) {
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            endpoint.raise(bits);
            trace::notify(id.number(), bits);
            if let Some(receiver) = endpoint.receivers.pop(&mut self.threads) {
                self.take_bits(id, receiver);
                self.make_runnable(receiver);
            }
        }
    }

    /// Takes an endpoint's bits and stores them as the result of a thread's receive.
    pub fn take_bits(&mut self, id: Id<Endpoint>, receiver: Id<Thread>) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        let bits = endpoint.take_bits();
        if let Some(thread) = self.threads.get_mut(receiver) {
            thread.regs.set_notification(bits);
            trace::notified(receiver.number(), bits);
        }
    }

    /// Ends a blocked call with an error. A faulted thread has no call to end: it is killed.
    pub fn fail(&mut self, id: Id<Thread>, error: Error) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        if thread.fault().is_some() {
            thread.state = State::Stopped; // in no list any more
            self.remove_thread(id);
        } else {
            thread.regs.rax = error as u64;
            self.make_runnable(id);
        }
    }

    /// Lets a thread that waits do so no longer, as its time is over.
    pub(super) fn give_up(&mut self, id: Id<Thread>) {
        self.leave_queue(id);
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        // Who works on its message finds it gone.
        thread.bound_to = None;
        match thread.state {
            State::Sleeping => self.make_runnable(id),
            _ => self.fail(id, Error::TimedOut),
        }
    }

    /// Undoes what a handle stood for, after it left its table.
    pub(super) fn forget_handle(&mut self, entry: HandleEntry) {
        match entry.object {
            Object::Endpoint(id) if entry.rights.contains(Rights::RECV) => {
                let Some(endpoint) = self.endpoints.get_mut(id) else {
                    return;
                };
                endpoint.nr_receive_handles -= 1;
                if endpoint.nr_receive_handles == 0 {
                    self.kill_endpoint(id);
                }
            }
            Object::Space(id) => {
                let Some(space) = self.spaces.get_mut(id) else {
                    return;
                };
                space.nr_handles -= 1;
                if space.nr_handles == 0 && space.nr_started == 0 {
                    self.doom(id);
                }
            }
            _ => {}
        }
    }

    /// Finds frames for somebody who found none. Returns whether it is worth to try again: some were worked off, or another CPU
    /// may have given some back.
    pub fn make_room(&self) -> bool {
        let has_settled = self.settle_memory();
        vm::make_room(self.mm) || has_settled
    }

    /// Tells those who wait at dead endpoints, and tears down doomed spaces, and goes on with what dies by
    /// that, for a while. Returns whether nothing is left; whoever looks for the next thread to run goes
    /// on with the rest.
    #[inline]
    pub fn reap(&mut self) -> bool {
        !self.is_unfinished || self.reap_some()
    }

    fn reap_some(&mut self) -> bool {
        if core::mem::replace(&mut self.reaping, true) {
            return false; // the loop below goes on with what was added
        }
        let mut left = STEP;
        while left > 0 {
            if let Some(thread) = self.unsettled.pop(&mut self.threads) {
                left -= 1;
                self.settle(thread);
            } else if let Some(thread) = self.stranded.pop(&mut self.threads) {
                left -= 1;
                self.fail(thread, Error::Died);
            } else if let Some(space) = self.doomed {
                self.undo(space, &mut left);
            } else {
                break;
            }
        }
        self.reaping = false;
        let is_dead = self.doomed.is_none() && self.stranded.is_empty();
        self.is_unfinished = !(is_dead && self.unsettled.is_empty());
        !self.is_unfinished
    }

    /// Undoes the first doomed space, as far as what is left goes.
    fn undo(&mut self, id: Id<Space>, left: &mut usize) {
        self.disarm(id, left);
        // Others may have been doomed by that; they go before the rest of this one.
        if *left > 0 && self.doomed == Some(id) {
            *left -= 1;
            self.doomed = self.spaces.get(id).and_then(|space| space.doomed).flatten();
            self.tear_down(id);
        }
    }

    fn doom(&mut self, id: Id<Space>) {
        let next = self.doomed;
        if let Some(space) = self
            .spaces
            .get_mut(id)
            .filter(|space| space.doomed.is_none())
        {
            space.doomed = Some(next);
            self.doomed = Some(id);
            self.is_unfinished = true;
        }
    }

    /// Removes the threads of a space, then its handles, then dooms its children and wakes who waits for
    /// its reply, as long as there is something to do and something left to spend.
    fn disarm(&mut self, id: Id<Space>, left: &mut usize) {
        while *left > 0
            && let Some(thread) = self.spaces.get(id).and_then(|space| space.threads.first())
        {
            *left -= 1;
            self.remove_thread(thread);
        }
        while *left > 0
            && let Some(space) = self.spaces.get_mut(id)
            && let Some(entry) = space.handles.remove_any(self.mm)
        {
            *left -= 1;
            self.forget_handle(entry);
        }
        while *left > 0
            && let Some(child) = self.spaces.get(id).and_then(|space| space.children)
        {
            *left -= 1;
            self.leave_owner(child);
            self.doom(child);
        }
        self.fail_callers(id, left);
    }

    /// Removes a space that has nothing any more, and for which nobody waits.
    fn tear_down(&mut self, id: Id<Space>) {
        self.leave_owner(id);
        let table = self.spaces.get(id).map(|space| &space.table);
        if table.is_some_and(PageTable::is_locked) {
            // Another CPU maps memory there, say, for a thread of another space.
            self.settle_memory();
        }
        let Some(space) = self.spaces.remove(self.mm, id) else {
            return;
        };
        let death = space.death;
        trace::space_ended(id.number());
        self.platform.retire(space.table.root());
        space.table.destroy(self.mm);
        if self.platform.has_others() {
            // Whoever lets go of the kernel works it off; with the next thread there is one who does.
            self.cpus.here_mut().reschedule = true;
        } else {
            vm::reap(self.mm);
        }
        if let Some((endpoint, bits)) = death {
            self.raise(endpoint, bits);
        }
    }

    /// Wakes those who wait for a reply from a space that has no threads any more, as far as what is left
    /// goes. Nobody begins to wait meanwhile.
    fn fail_callers(&mut self, server: Id<Space>, left: &mut usize) {
        while *left > 0
            && let Some(space) = self.spaces.get(server)
            && let Some(client) = space.orphans.first()
        {
            *left -= 1;
            self.settle_debt(client);
            self.fail(client, Error::Died);
        }
    }

    /// Adds a new space to its owner's children.
    pub(super) fn join_owner(&mut self, id: Id<Space>) {
        let owner = self.spaces.get(id).and_then(|space| space.owner);
        let Some(owner) = owner.and_then(|owner| self.spaces.get_mut(owner)) else {
            return;
        };
        let before = owner.children.replace(id);
        if let Some(space) = self.spaces.get_mut(id) {
            space.siblings = [before, None];
        }
        if let Some(before) = before.and_then(|before| self.spaces.get_mut(before)) {
            before.siblings[1] = Some(id);
        }
    }

    /// Takes a space from its owner's children.
    fn leave_owner(&mut self, id: Id<Space>) {
        let Some(space) = self.spaces.get_mut(id) else {
            return;
        };
        let owner = space.owner.take();
        let [before, behind] = core::mem::take(&mut space.siblings);
        if let Some(before) = before.and_then(|before| self.spaces.get_mut(before)) {
            before.siblings[1] = behind;
        }
        if let Some(behind) = behind.and_then(|behind| self.spaces.get_mut(behind)) {
            behind.siblings[0] = before;
        } else if let Some(owner) = owner.and_then(|owner| self.spaces.get_mut(owner)) {
            owner.children = before;
        }
    }

    /// Takes a thread out of everything it is in, and dooms its space if it was the last one.
    fn remove_thread(&mut self, id: Id<Thread>) {
        self.set_timer(id, None);
        self.forget_wait_end(id);
        let was_running = self.stop_running(id);
        self.end_long(id);
        if !was_running {
            self.leave_queue(id);
        }
        let Some(thread) = self.threads.get(id) else {
            return;
        };
        let started = !matches!(thread.state, State::Stopped) || thread.fault().is_some();
        let home = thread.space;
        self.end_relations(id);
        let mut last = false;
        if let Some(space) = self.spaces.get_mut(home) {
            space.threads.remove(&mut self.threads, id);
            space.nr_threads -= 1;
            if started {
                space.nr_started -= 1;
                last = space.nr_started == 0;
            }
        }
        if let Some(thread) = self.threads.remove(self.mm, id) {
            trace::thread_ended(id.number());
            self.past_tokens.note(thread.token);
            if let Some(frame) = thread.fpu() {
                self.mm.frames.free(frame);
            }
        }
        if last {
            self.doom(home);
        }
    }

    fn leave_queue(&mut self, id: Id<Thread>) {
        let Some(thread) = self.threads.get(id) else {
            return;
        };
        let (state, cpu) = (thread.state, usize::from(thread.cpu));
        if let Some(worker) = thread.bound_to {
            return self.unsettle(worker, LINKS);
        }
        let (threads, stranded) = (&mut self.threads, &mut self.stranded);
        match state {
            State::Stopped | State::Sleeping => {}
            State::Runnable => self.cpus[cpu].run_queue.remove(threads, id),
            State::Sending { endpoint, .. } => match self.endpoints.get(endpoint) {
                Some(_) => self.remove_sender(endpoint, id),
                None => stranded.remove(threads, id),
            },
            State::Receiving { endpoint, .. } => match self.endpoints.get_mut(endpoint) {
                Some(endpoint) => endpoint.receivers.remove(threads, id),
                None => stranded.remove(threads, id),
            },
            State::AwaitingReply { .. } => self.settle_debt(id),
        }
    }

    /// Removes an endpoint. As many may wait there as there are threads, so they are told later.
    fn kill_endpoint(&mut self, id: Id<Endpoint>) {
        self.end_loans(id);
        let Some(endpoint) = self.endpoints.remove(self.mm, id) else {
            return;
        };
        let receivers = endpoint.receivers.into_queue(&mut self.threads);
        for waiting in [receivers, endpoint.senders.into_queue()] {
            self.stranded.append(&mut self.threads, waiting);
        }
        self.is_unfinished = true;
    }
}
