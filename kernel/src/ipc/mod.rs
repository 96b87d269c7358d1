//! Messages: send, receive, reply.
//!
//! ```text
//!             send                      recv                       reply
//!  Runnable --------> Sending --------------------> AwaitingReply --------> Runnable
//!     |    (nobody receives)                             ^
//!     +--------------------------------------------------+
//!                   send (somebody receives)
//! ```
//!
//! A message is copied once, from sender to receiver, at the moment when both are there. What can
//! fail in that is either the sender's fault or the receiver's (`deliver::Fault`); the other side is
//! left as if the call had not been made.

mod deliver;
mod fast;
mod fast_events;
mod fault;
mod passage;

use cowslip_abi::{Error, FaultVerdict, RecvFlags, Tag};

use crate::object::{Endpoint, Id, Kernel, Outgoing, State, Thread};
use deliver::Fault;

/// How far a call came. See [`Long`](crate::object::Long).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// It is done.
    Done(T),
    /// It takes another step: the thread, which can run, makes the call again.
    More,
}

impl Kernel {
    /// Sends a message and waits for the reply, which arrives in the caller's registers.
    pub fn send(
        &mut self,
        caller: Id<Thread>,
        to: Id<Endpoint>,
        badge: u64,
        message: Outgoing,
    ) -> Result<Progress<()>, Error> {
        let sending = State::Sending {
            endpoint: to,
            badge,
            message,
        };
        self.set_state(caller, sending);
        let result = self.offer(caller, to);
        if !matches!(result, Ok(Progress::Done(()))) {
            self.set_state(caller, State::Runnable);
        }
        result
    }

    /// Brings a thread in state `Sending` together with a receiver, or queues it.
    pub(crate) fn offer(
        &mut self,
        sender: Id<Thread>,
        to: Id<Endpoint>,
    ) -> Result<Progress<()>, Error> {
        loop {
            let bound = self.partner(sender);
            if bound.is_none() {
                self.begin_again(sender);
            }
            let endpoint = self.endpoints.get_mut(to).ok_or(Error::Died)?;
            let next = bound.or_else(|| endpoint.receivers.pop(&mut self.threads));
            let Some(receiver) = next else {
                self.push_sender(to, sender);
                return Ok(Progress::Done(()));
            };
            match self.deliver(sender, receiver, sender) {
                Ok(Progress::Done(())) => {
                    self.unbind(sender);
                    self.make_runnable_next(receiver);
                    return Ok(Progress::Done(()));
                }
                Ok(Progress::More) => {
                    self.bind(receiver, sender);
                    return Ok(Progress::More);
                }
                Err(Fault::OfReceiver(error)) => {
                    self.unbind(sender);
                    self.fail(receiver, error);
                }
                // Who is bound is let go when the call ends.
                Err(Fault::OfSender(error)) if bound.is_some() => return Err(error),
                Err(Fault::OfSender(error)) => {
                    let endpoint = self.endpoints.get_mut(to).ok_or(Error::Died)?;
                    endpoint.receivers.push_front(&mut self.threads, receiver);
                    return Err(error);
                }
            }
        }
    }

    /// Takes the next event of an endpoint, or waits for it; it arrives in the caller's registers.
    pub fn receive(
        &mut self,
        caller: Id<Thread>,
        from: Id<Endpoint>,
        flags: RecvFlags,
    ) -> Result<Progress<()>, Error> {
        self.set_state(caller, State::Receiving { endpoint: from });
        self.serve(caller, from);
        let waits = self.accept(caller, from, flags);
        if !matches!(waits, Ok(Progress::Done(true))) {
            self.set_state(caller, State::Runnable);
        }
        waits.map(|progress| match progress {
            Progress::Done(_) => Progress::Done(()),
            Progress::More => Progress::More,
        })
    }

    /// Brings a thread in state `Receiving` together with an event, or queues it. Returns whether it
    /// waits.
    fn accept(
        &mut self,
        receiver: Id<Thread>,
        from: Id<Endpoint>,
        flags: RecvFlags,
    ) -> Result<Progress<bool>, Error> {
        loop {
            let bound = self.partner(receiver);
            if bound.is_none() {
                self.begin_again(receiver);
            }
            let endpoint = self.endpoints.get_mut(from).ok_or(Error::Died)?;
            if bound.is_none() && endpoint.bits() != 0 {
                self.take_bits(from, receiver);
                return Ok(Progress::Done(false));
            }
            self.defer_answer(receiver);
            let Some(sender) = bound.or_else(|| self.pop_sender(from)) else {
                if flags.contains(RecvFlags::NONBLOCK) {
                    return Err(Error::WouldBlock);
                }
                let endpoint = self.endpoints.get_mut(from).ok_or(Error::Died)?;
                endpoint.receivers.push_back(&mut self.threads, receiver);
                return Ok(Progress::Done(true));
            };
            match self.deliver(sender, receiver, receiver) {
                Ok(Progress::Done(())) => {
                    self.unbind(receiver);
                    return Ok(Progress::Done(false));
                }
                Ok(Progress::More) => {
                    self.bind(sender, receiver);
                    return Ok(Progress::More);
                }
                Err(Fault::OfSender(error)) => {
                    self.unbind(receiver);
                    self.fail(sender, error);
                }
                // Who is bound is let go when the call ends.
                Err(Fault::OfReceiver(error)) if bound.is_some() => return Err(error),
                Err(Fault::OfReceiver(error)) => {
                    self.push_sender_back(from, sender);
                    return Err(error);
                }
            }
        }
    }

    /// Answers the thread that a token names. Returns the tag for the caller.
    pub fn reply(
        &mut self,
        caller: Id<Thread>,
        token: u64,
        message: Outgoing,
    ) -> Result<Progress<Tag>, Error> {
        let sender = self.awaiting(caller, token).ok_or(Error::StaleToken)?;
        let faulted = self
            .threads
            .get(sender)
            .is_some_and(|thread| thread.fault().is_some());
        if faulted {
            let verdict =
                FaultVerdict::from_label(message.tag.label()).ok_or(Error::BadArgument)?;
            self.settle_debt(sender);
            self.give_verdict(sender, verdict);
            return Ok(Progress::Done(Tag::default()));
        }
        match self.deliver_reply(caller, sender, message) {
            Err(Fault::OfSender(error)) => Err(error),
            Err(Fault::OfReceiver(error)) => {
                self.settle_debt(sender);
                self.fail(sender, error);
                Ok(Progress::Done(Tag::default()))
            }
            Ok(Progress::More) => Ok(Progress::More),
            Ok(Progress::Done(truncated)) => {
                self.settle_debt(sender);
                self.make_runnable_next(sender);
                let tag = Tag::default().with_truncation(false, truncated);
                Ok(Progress::Done(tag))
            }
        }
    }

    /// The thread that waits for the reply to this token from the caller's space.
    fn awaiting(&self, caller: Id<Thread>, token: u64) -> Option<Id<Thread>> {
        let space = self.threads.get(caller)?.space;
        let id = self.threads.id_at_place(token)?;
        (self.space_asked(id, token)? == space).then_some(id)
    }

    fn set_state(&mut self, id: Id<Thread>, state: State) {
        if let Some(thread) = self.threads.get_mut(id) {
            thread.state = state;
        }
    }
}
