//! Faults as messages.
//!
//! A thread that cannot go on sends its report to its supervisor as if it had called `send`, and
//! waits for the verdict as for a reply. Its registers stay as they were, so resuming it repeats
//! the instruction.

use core::ops::Deref;

use cowslip_abi::{FaultVerdict, MessageKind, Tag};

use crate::object::{
    Fault, Here, Id, Kernel, Outgoing, Registers, Spaces, Special, State, Supervisor, Thread,
};
use crate::trace;
use crate::vm::ByteRange;

impl Fault {
    /// The tag of the fault message.
    pub(super) fn tag(self) -> Tag {
        Tag::new(self.kind as u32).with_kind(MessageKind::Fault)
    }

    /// The words of the fault message.
    pub(super) fn words(self, regs: &Registers) -> [u64; 4] {
        let what = self.access as u64 | (self.found as u64) << 8;
        [self.address, regs.rip, what, regs.rsp]
    }
}

/// The tag under which a verdict goes down in a trace.
pub(super) const fn tag_of(verdict: FaultVerdict) -> Tag {
    Tag::new(verdict as u32).with_kind(MessageKind::Fault)
}

impl<S: Deref<Target = Spaces>> Here<'_, S> {
    /// Reports a fault of the running thread to its supervisor, if that waits for one, however long that takes: then it runs.
    /// Otherwise nothing has happened. Returns what is special about the two.
    #[inline(always)]
    pub fn fast_fault(&mut self, fault: Fault, now_ticks: impl Fn() -> u64) -> Option<Special> {
        let thread = self.running.get_mut()?;
        let Supervisor {
            endpoint: to,
            badge,
        } = thread.supervisor?;
        let endpoint = self.endpoints.get(to)?;
        let mut first = self.threads.claim_berth(endpoint.receivers.first())?;
        let server = first.id()?;
        let receiver = first.get_mut()?;
        let special = thread.special | receiver.special;
        if special.contains(Special::DEADLINE) {
            return None;
        }
        thread.set_fault(Some(fault));
        let token = thread.hand_over(server, receiver, now_ticks());
        receiver.regs.set_message(fault.tag(), 0);
        (receiver.regs.rdi, receiver.regs.r8) = (badge, token);
        receiver.regs.set_words(fault.words(&thread.regs));
        let from = Id::word(self.running.id());
        trace::message(from, server.number(), to.number(), fault.tag().0, 0);
        drop(self.running.replace(first.take()?));
        Some(special)
    }
}

impl Kernel {
    /// Reports a fault of a running thread to its supervisor; without one the thread ends.
    pub fn report_fault(&mut self, id: Id<Thread>, fault: Fault) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        let Some(supervisor) = thread.supervisor else {
            return self.kill_thread(id);
        };
        thread.set_fault(Some(fault));
        thread.state = State::Sending {
            endpoint: supervisor.endpoint,
            badge: supervisor.badge,
            message: Outgoing {
                tag: fault.tag(),
                data: ByteRange::default(),
            },
        };
        if self.offer(id, supervisor.endpoint).is_err() {
            if let Some(thread) = self.threads.get_mut(id) {
                thread.state = State::Stopped; // in no queue
            }
            self.kill_thread(id);
        }
    }

    /// Does with a faulted thread, which is in no list, what its supervisor wants.
    pub(super) fn give_verdict(&mut self, id: Id<Thread>, verdict: FaultVerdict) {
        trace::reply(Id::word(self.current()), id.number(), tag_of(verdict).0, 0);
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        match verdict {
            FaultVerdict::Resume => {
                thread.set_fault(None);
                self.make_runnable_next(id);
            }
            FaultVerdict::Kill => {
                thread.state = State::Stopped;
                self.kill_thread(id);
            }
        }
    }
}
