//! The fast path of notifications, by the same rules as that of [messages](super::fast).
//!
//! Ordinary means: nobody who takes part is [special](crate::object::Thread::special), and
//!
//! | notify | receive |
//! | --- | --- |
//! | nobody receives, or one thread does that does not have the CPU by right | no sender and no other receiver waits at the endpoint |
//! | | bits are raised; or the time slice goes on, and one other thread has the highest priority |

use cowslip_abi::{MessageKind, Tag};

use crate::object::{Kernel, Registers, State, Thread};
use crate::vm::ByteRange;

impl Kernel {
    /// Raises the bits that the running thread's call names, and returns the thread, which goes on;
    /// its `rax` is to be 0.
    #[inline(always)]
    pub fn fast_notify(&mut self) -> Option<&Thread> {
        self.find_way_to_notify()?;
        let caller = self.threads.pinned()?;
        let (_, endpoint) = self.endpoints.hinted_mut(caller.notifies_by.endpoint)?;
        let bits = caller.notifies_by.badge;
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
        receive_bits(
            &mut receiver.regs,
            core::mem::take(&mut endpoint.bits) | bits,
        );
        receiver.state = State::Runnable;
        self.run_queue.push_back(&mut self.threads, id);
        self.threads.pinned()
    }

    /// Receives for the running thread, whose frame has all but the words, and returns the thread
    /// that runs now: it or another one, with all its results in its registers.
    #[inline(always)]
    pub fn fast_recv(&mut self, now_ticks: impl Fn() -> u64) -> Option<&Thread> {
        self.find_way_to_receive()?;
        let caller = self.threads.pinned_mut()?;
        let (id, endpoint) = self.endpoints.hinted_mut(caller.receives_by.endpoint)?;
        let regs = &mut caller.regs;
        if regs.rsi != 0 || !ByteRange::is_good(regs.r9, regs.r10) {
            return None;
        }
        if endpoint.bits != 0 {
            receive_bits(regs, core::mem::take(&mut endpoint.bits));
            return self.threads.pinned();
        }
        let next = self.run_queue.first()?;
        if !endpoint.is_quiet() || self.turn.expired {
            return None;
        }
        let mut pair = self.threads.pair(next)?;
        let caller_id = pair.pinned_id();
        let (caller, next_thread) = pair.both();
        let is_special = !(caller.special | next_thread.special).is_empty();
        if is_special || !self.run_queue.pop_only(next_thread) {
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

/// The results of a receive that found bits.
pub(crate) fn receive_bits(regs: &mut Registers, bits: u64) {
    regs.set_message(Tag::default().with_kind(MessageKind::Notification), 0);
    (regs.rdi, regs.r8) = (0, 0);
    regs.set_words([bits, 0, 0, 0]);
}
