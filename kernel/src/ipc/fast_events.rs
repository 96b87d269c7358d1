//! The fast path of notifications, by the same rules as that of [messages](super::fast).
//!
//! Ordinary means:
//!
//! | notify | receive |
//! | --- | --- |
//! | nobody receives, or the first receiver has no higher priority than the caller | bits are raised; or no sender and no other receiver waits at the endpoint, |
//! | | the time slice goes on, one thread alone has the highest priority, and neither is [special](Thread::special) |

use crate::object::{Kernel, State, Thread, Way};
use crate::vm::ByteRange;

impl Kernel {
    /// Raises the bits that the running thread's call names, and returns the thread, which goes on;
    /// its `rax` is to be 0.
    #[inline(always)]
    pub fn fast_notify(&mut self) -> Option<&Thread> {
        self.find_way(Way::Notify)?;
        let caller = self.threads.pinned()?;
        let (_, endpoint) = self
            .endpoints
            .hinted_mut(caller.route(Way::Notify).endpoint)?;
        let bits = caller.route(Way::Notify).badge;
        if endpoint.receivers.is_empty() {
            endpoint.bits |= bits;
            return self.threads.pinned();
        }
        let id = endpoint.receivers.first()?;
        let priority = caller.priority;
        let receiver = self.threads.get_mut(id)?;
        if receiver.priority > priority {
            return None;
        }
        endpoint.receivers.take_first();
        let bits = core::mem::take(&mut endpoint.bits) | bits;
        receiver.regs.set_notification(bits);
        receiver.state = State::Runnable;
        self.cpus
            .here_mut()
            .run_queue
            .push_back(&mut self.threads, id);
        self.threads.pinned()
    }

    /// Receives for the running thread, whose frame has all but the words, and returns the thread
    /// that runs now: it or another one, with all its results in its registers.
    #[inline(always)]
    pub fn fast_recv(&mut self, now_ticks: impl Fn() -> u64) -> Option<&Thread> {
        self.find_way(Way::Receive)?;
        let caller = self.threads.pinned_mut()?;
        let (id, endpoint) = self
            .endpoints
            .hinted_mut(caller.route(Way::Receive).endpoint)?;
        let regs = &mut caller.regs;
        if regs.rsi != 0 || !ByteRange::is_good(regs.r9, regs.r10) {
            return None;
        }
        if endpoint.bits != 0 {
            regs.set_notification(core::mem::take(&mut endpoint.bits));
            return self.threads.pinned();
        }
        let next = self.cpus.here().run_queue.first()?;
        if !endpoint.is_quiet() || self.cpus.here_mut().turn.expired {
            return None;
        }
        let mut pair = self.threads.pair(next)?;
        let caller_id = pair.pinned_id();
        let (caller, next_thread) = pair.both();
        let is_special = !(caller.special | next_thread.special).is_empty();
        if is_special || !self.cpus.here_mut().run_queue.pop_only(next_thread) {
            return None;
        }
        endpoint.receivers.set_only(caller_id);
        caller.state = State::Receiving { endpoint: id };
        let now_ticks = now_ticks();
        caller.stop_clock(now_ticks);
        next_thread.start_clock(now_ticks);
        Some(pair.pin_other())
    }
}
