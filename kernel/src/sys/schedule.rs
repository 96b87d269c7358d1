//! Which thread runs next on the CPU that acts, and until when.

use crate::object::{Id, Kernel, State, Thread};

/// How long a thread runs before others of its priority get their turn, in nanoseconds.
const SLICE_NS: u64 = 10_000_000;

/// What the CPU does after the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The thread to resume; `None`: wait for an interrupt.
    pub thread: Option<Id<Thread>>,
    /// When the kernel wants the next timer interrupt, in nanoseconds since boot.
    pub timer: Option<u64>,
}

/// Chooses the thread to run: the highest priority, and within it the one that runs already until
/// its time slice ends. A CPU that would be idle takes a thread that waits for another one.
///
/// Unless [`reschedule`](crate::object::Cpu::reschedule) is set, the answer is the one before.
pub fn next(kernel: &mut Kernel) -> Next {
    kernel.reap();
    let chosen = kernel.choose();
    if chosen != kernel.current() {
        kernel.leave_cpu();
        kernel.begin_turn(chosen);
    }
    kernel.set_idle(chosen.is_none());
    kernel.offer_work();
    let slice_end = kernel.slice_end(chosen.is_some());
    let timer = match (slice_end, kernel.next_deadline()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    kernel.cpus.here_mut().reschedule = false;
    Next {
        thread: chosen,
        timer,
    }
}

/// The timer interrupt: does what is due and ends the time slice if it is over.
pub fn tick(kernel: &mut Kernel) {
    let now = kernel.platform.now_ns();
    kernel.expire(now);
    let cpu = kernel.cpus.here_mut();
    cpu.reschedule = true;
    if (1..=now).contains(&cpu.turn.slice_end_ns) {
        cpu.turn.expired = true;
    }
}

impl Kernel {
    /// Gives the CPU to another thread if the running one cannot go on.
    #[inline]
    pub(super) fn switch_if_blocked(&mut self) {
        match self.threads.pinned() {
            Some(thread) if matches!(thread.state, State::Runnable) => self.offer_work(),
            Some(_) => self.switch(),
            None => self.cpus.here_mut().reschedule = true,
        }
    }

    /// Gives the CPU to the next thread, and leaves the timer as it is, unless there is more to be
    /// decided: then [`next`] will.
    fn switch(&mut self) {
        self.leave_cpu();
        let cpu = self.cpus.here_mut();
        if !cpu.turn.expired
            && let Some(next) = cpu.run_queue.pop(&mut self.threads)
        {
            self.begin_turn(Some(next));
        } else {
            cpu.reschedule = true;
        }
    }

    /// When the time slice ends, which begins when the CPU stops being idle.
    fn slice_end(&mut self, busy: bool) -> Option<u64> {
        let turn = &mut self.cpus.here_mut().turn;
        if !busy {
            turn.slice_end_ns = 0;
            return None;
        }
        if turn.slice_end_ns == 0 {
            turn.slice_end_ns = self.platform.now_ns() + SLICE_NS;
        }
        Some(turn.slice_end_ns)
    }

    fn choose(&mut self) -> Option<Id<Thread>> {
        let priority = self.threads.pinned().map(|thread| thread.priority);
        let running = self.current().zip(priority);
        let cpu = self.cpus.here_mut();
        let expired = core::mem::take(&mut cpu.turn.expired);
        if expired {
            cpu.turn.slice_end_ns = 0;
        }
        let Some((id, priority)) = running else {
            let next = cpu.run_queue.pop(&mut self.threads);
            return next.or_else(|| self.take_over());
        };
        match cpu.run_queue.highest() {
            Some(highest) if highest > priority => self.preempt(id),
            Some(highest) if highest == priority && expired => {
                self.wait_anew(id);
                let cpu = self.cpus.here_mut();
                cpu.run_queue.push_back(&mut self.threads, id);
                cpu.run_queue.pop(&mut self.threads)
            }
            _ if self.may_stay(id) => Some(id),
            _ => self.preempt(id),
        }
    }

    fn begin_turn(&mut self, next: Option<Id<Thread>>) {
        self.cpus.nr_turns += 1;
        self.set_current(next);
        if let Some(thread) = self.threads.pinned_mut() {
            thread.start_clock(self.platform.now_ticks());
        }
    }
}
