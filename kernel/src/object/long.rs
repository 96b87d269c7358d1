//! Calls that take more than one step.
//!
//! The kernel does not wait inside itself, and it lets others have the CPU after a bounded number of
//! instructions. A call that needs more notes how far it is, and leaves the thread's registers as they
//! were. Whenever the thread has the CPU, the kernel makes the call again for it, and user code runs only
//! when it is done. So a thread in the middle of a call is an ordinary runnable thread, and may be
//! preempted or killed like any other; and no program can leave a call lying half done.
//!
//! A message that takes more than one step is first checked to its end, and the frames that it takes
//! are set aside, so that what can fail has failed before the first byte moves. Then it is copied, a
//! part in each step. Meanwhile the thread on the other side of a rendezvous is *bound*: it waits for
//! this message, in no queue.

use cowslip_abi::Error;

use super::loans::LINKS;
use super::{Id, Kernel, Special, State, Thread};
use crate::mm::{Mm, OutOfMemory, PerClass};
use crate::vm::{Beginning, SpaceStats};

/// How far a thread is with a call that takes more than one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Long {
    /// The thread on the other side, which is bound to this one.
    pub partner: Option<Id<Thread>>,
    /// The reply of a call that replies and receives has been passed.
    pub has_replied: bool,
    /// What happens to the bytes that the call is about.
    pub phase: Phase,
    /// With how many bytes.
    pub done: u64,
    /// How many frames what was checked takes; in the last phase, how many are set aside for the rest.
    pub nr_frames: PerClass,
    /// What the destination will be charged for what was checked.
    pub charge: u64,
    /// What a space was found to consist of so far.
    pub stats: SpaceStats,
}

/// What a call does with memory, a part in each step if it is too much for one.
pub trait Work {
    /// Why it fails.
    type Error: From<OutOfMemory>;

    /// How many bytes there are.
    fn nr_bytes(&self) -> u64;

    /// Does all of it, or nothing if that is too much for one step. Returns whether it is done.
    fn at_once(&self) -> Result<bool, Self::Error>;

    /// What one step is enough for, behind the bytes that are done. Checks it, and counts the frames.
    fn check(&self, done: u64) -> Result<Beginning, Self::Error>;

    /// Checks whether the destination may be charged so many frames more for all of it.
    fn check_charge(&self, _charge: u64) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Does what one step is enough for, behind the bytes that are done. What it needs of the frames that
    /// are set aside goes back first. Returns how many bytes.
    fn perform(&self, done: u64, aside: &mut PerClass) -> Result<u64, Self::Error>;
}

impl Long {
    /// Takes a step. Returns whether all is done.
    ///
    /// # Errors
    ///
    /// Nothing has been done if it was the first step, or the whole was not found good yet. Later
    /// there are errors only if somebody has changed the memory that it is about meanwhile.
    pub fn step<W: Work>(&mut self, mm: &Mm, work: &W) -> Result<bool, W::Error> {
        match self.phase {
            Phase::Begin => {
                let is_done = work.at_once()?;
                if !is_done {
                    self.phase = Phase::Check;
                }
                return Ok(is_done);
            }
            Phase::Check => {
                let part = work.check(self.done)?;
                self.done += part.len;
                self.nr_frames += part.nr_frames;
                self.charge += part.charge;
                if self.nr_frames.total() > mm.frames.total_count() {
                    return Err(OutOfMemory.into());
                }
                if self.done == work.nr_bytes() {
                    work.check_charge(self.charge)?;
                    mm.frames.set_aside(self.nr_frames)?;
                    (self.phase, self.done) = (Phase::Perform, 0);
                }
            }
            Phase::Perform => {
                self.done += work.perform(self.done, &mut self.nr_frames)?;
                return Ok(self.done == work.nr_bytes());
            }
        }
        Ok(false)
    }
}

/// What happens to the bytes that a call is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing yet.
    #[default]
    Begin,
    /// They are looked at.
    Check,
    /// It is done with them.
    Perform,
}

impl Kernel {
    /// How far a thread is.
    pub(crate) fn long(&self, id: Id<Thread>) -> Long {
        let long = self.threads.get(id).and_then(Thread::long);
        long.copied().unwrap_or_default()
    }

    /// Notes how far a thread is with a message or with memory, if there is something to note.
    pub(crate) fn set_long(&mut self, id: Id<Thread>, long: Long) {
        let is_known = self.threads.get(id).and_then(Thread::long).is_some();
        if is_known || long.phase != Phase::Begin {
            self.note_long(id, long);
        }
    }

    /// Notes how far a thread is.
    pub(crate) fn note_long(&mut self, id: Id<Thread>, long: Long) {
        if let Some(thread) = self.threads.get_mut(id) {
            *thread.long_mut() = long;
        }
    }

    /// Whether a thread has begun with the bytes of a message and could not end at once.
    pub(crate) fn is_long(&self, id: Id<Thread>) -> bool {
        self.long(id).phase != Phase::Begin
    }

    /// The thread that is bound to this one, if it is there still.
    pub(crate) fn partner(&self, id: Id<Thread>) -> Option<Id<Thread>> {
        let partner = self.threads.get(id)?.long()?.partner?;
        let bound_to = self.threads.get(partner)?.bound_to;
        (bound_to == Some(id)).then_some(partner)
    }

    /// Lets a thread, which is in no queue, wait for a message from or to this one that takes more than
    /// one step. It lends its priority, so that nobody in between can keep it waiting.
    pub(crate) fn bind(&mut self, partner: Id<Thread>, to: Id<Thread>) {
        let Some(bound) = self.threads.get_mut(partner) else {
            return;
        };
        bound.bound_to = Some(to);
        let priority = bound.priority;
        if let Some(thread) = self.threads.get_mut(to) {
            thread.long_mut().partner = Some(partner);
        }
        self.loan_changed(to, priority, LINKS);
    }

    /// Lets the running thread make its call again, as soon as nobody else has a better claim to the CPU.
    pub(crate) fn make_again(&mut self, id: Id<Thread>) {
        if let Some(thread) = self.threads.get_mut(id) {
            thread.long_mut();
        }
        self.cpus.here_mut().reschedule = true;
    }

    /// Whether the running thread is in the middle of a call. If none runs here any more, perhaps.
    pub(crate) fn may_have_begun(&self) -> bool {
        let running = self.threads.pinned();
        running.is_none_or(|thread| thread.special.contains(Special::LONG))
    }

    /// Ends a call, whether it is finished or not: what was set aside goes back, and so does who is
    /// bound to the thread.
    pub(crate) fn end_long(&mut self, id: Id<Thread>) {
        let partner = self.partner(id);
        let Some(long) = self.threads.get_mut(id).and_then(Thread::take_long) else {
            return;
        };
        if long.phase == Phase::Perform {
            self.mm.frames.give_back(long.nr_frames);
        }
        if let Some(partner) = partner {
            self.release(partner);
            self.unsettle(id, LINKS);
        }
    }

    /// Begins with another message.
    pub(crate) fn begin_again(&mut self, id: Id<Thread>) {
        let has_replied = self.long(id).has_replied;
        self.end_long(id);
        if has_replied {
            self.note_reply(id);
        }
    }

    /// Notes that a call that replies and receives has replied.
    pub(crate) fn note_reply(&mut self, id: Id<Thread>) {
        if let Some(thread) = self.threads.get_mut(id) {
            thread.long_mut().has_replied = true;
        }
    }

    /// A message is passed: nobody is bound to the thread any more.
    pub(crate) fn unbind(&mut self, id: Id<Thread>) {
        if let Some(partner) = self.partner(id)
            && let Some(partner) = self.threads.get_mut(partner)
        {
            partner.bound_to = None;
            self.unsettle(id, LINKS);
        }
    }

    /// Lets a bound thread wait for another message, as if nothing had happened.
    fn release(&mut self, id: Id<Thread>) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        thread.bound_to = None;
        match thread.state {
            // Its message may be wanted by now, so it makes its call again.
            State::Sending { .. } => self.repeat_call(id),
            State::Receiving { endpoint: at } => {
                let Some(endpoint) = self.endpoints.get_mut(at) else {
                    return self.fail(id, Error::Died);
                };
                endpoint.receivers.push_front(&mut self.threads, id);
                if endpoint.bits() != 0 {
                    self.raise(at, 0);
                } else if let Some(sender) = self.pop_sender(at) {
                    self.restart_sender(sender);
                }
            }
            _ => {}
        }
    }

    /// Lets a sender that was taken out of its queue find the receiver that is there now.
    fn restart_sender(&mut self, id: Id<Thread>) {
        if self
            .threads
            .get(id)
            .is_some_and(|thread| thread.fault().is_none())
        {
            return self.repeat_call(id);
        }
        // The report of a fault is no call.
        if let Some(State::Sending { endpoint, .. }) =
            self.threads.get(id).map(|thread| thread.state)
            && self.offer(id, endpoint).is_err()
        {
            self.fail(id, Error::Died);
        }
    }

    /// Lets a thread that waits, in no queue, make its call again.
    fn repeat_call(&mut self, id: Id<Thread>) {
        if let Some(thread) = self.threads.get_mut(id) {
            thread.long_mut();
            self.make_runnable(id);
        }
    }
}
