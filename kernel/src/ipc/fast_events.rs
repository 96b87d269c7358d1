//! The fast path of notifications, by the same rules as that of [messages](super::fast).
//!
//! Ordinary means:
//!
//! | notify | receive |
//! | --- | --- |
//! | nobody receives; or the first receiver has no higher priority than the caller, | bits are raised; or no sender and no other receiver waits at the endpoint, |
//! | none of those that wait for the CPU has its priority, it may run here and has no deadline, and no CPU is idle | the time slice goes on, the last message received was answered, one thread alone has the highest priority, and neither is [special](Thread::special) |

use core::ops::Deref;

use crate::object::{Here, Id, Spaces, Special, State, Thread, Way};
use crate::trace;
use crate::vm::ByteRange;

impl<S: Deref<Target = Spaces>> Here<'_, S> {
    /// Raises the bits that the running thread's call names, and returns the thread, which goes on;
    /// its `rax` is to be 0.
    #[inline(always)]
    pub fn fast_notify(&mut self) -> Option<&Thread> {
        if !self.knows_way(Way::Notify) {
            return None;
        }
        let caller = self.running.get()?;
        let way = caller.route(Way::Notify);
        let (to, endpoint) = self.endpoints.hinted(way.endpoint)?;
        let mut first = self.threads.claim_berth(endpoint.receivers.first())?;
        let Some(id) = first.id() else {
            if !endpoint.receivers.has_no_others() {
                return None;
            }
            endpoint.raise(way.badge);
            trace::notify(to.number(), way.badge);
            return self.running.get();
        };
        let receiver = first.get_mut()?;
        let may_run = !receiver.special.contains(Special::DEADLINE) && self.cpu.may_run(receiver);
        if receiver.priority > caller.priority || !may_run || *self.idle != 0 {
            return None;
        }
        if !self.cpu.run_queue.push_only(receiver, id) {
            return None;
        }
        let bits = endpoint.take_bits() | way.badge;
        receiver.regs.set_notification(bits);
        receiver.state = State::Runnable;
        trace::notify(to.number(), way.badge);
        trace::notified(id.number(), bits);
        // It waits in this CPU's queue, where nobody else looks for it.
        drop(first.take());
        self.running.get()
    }

    /// Receives for the running thread, whose frame has all but the words, and returns the thread
    /// that runs now: it or another one, with all its results in its registers.
    #[inline(always)]
    pub fn fast_recv(&mut self, now_ticks: impl Fn() -> u64) -> Option<&Thread> {
        if !self.knows_way(Way::Receive) {
            return None;
        }
        let caller = self.running.get_mut()?;
        let (id, endpoint) = self.endpoints.hinted(caller.route(Way::Receive).endpoint)?;
        let mut first = self.threads.claim_berth(endpoint.receivers.first())?;
        let regs = &mut caller.regs;
        if regs.rsi != 0 || !ByteRange::is_good(regs.r9, regs.r10) {
            return None;
        }
        if endpoint.bits() != 0 {
            regs.set_notification(endpoint.take_bits());
            let [bits, ..] = regs.words();
            trace::notified(Id::word(self.running.id()), bits);
            return self.running.get();
        }
        let next = self.cpu.run_queue.first()?;
        let others = endpoint.others() | caller.answering;
        if first.id().is_some() || others != 0 || self.cpu.turn.expired {
            return None;
        }
        let mut next = self.threads.claim(next)?;
        let special = (caller.special | next.special) - Special::BOUND;
        if !special.is_empty() || !self.cpu.run_queue.pop_only(&mut next) {
            return None;
        }
        caller.state = State::Receiving { endpoint: id };
        let now_ticks = now_ticks();
        caller.stop_clock(now_ticks);
        next.start_clock(now_ticks);
        first.put(self.running.replace(next)?);
        self.running.get()
    }
}
