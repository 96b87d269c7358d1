//! What waits for the clock: timers, and threads that give up waiting. Both are with the CPU on which they were set.

use super::deadlines::{TIMER, WAIT_END};
use super::{Id, Kernel, State, Thread, Timer};

/// How much that is due is done at a time. The rest follows at once, as the next deadline has come then.
const STEP: usize = 64;

impl Kernel {
    /// Sets the thread's timer, in place of the one it had; `None` only cancels.
    pub fn set_timer(&mut self, id: Id<Thread>, timer: Option<Timer>) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        if thread.timer.take().is_some() {
            let cpu = usize::from(thread.timer_cpu);
            let timers = &mut self.cpus[cpu].timers;
            let was_first = timers.first() == Some(id);
            timers.remove(&mut self.threads, id);
            // Another CPU finds out when its timer runs out.
            self.cpus.here_mut().reschedule |= was_first;
        }
        let Some(timer) = timer else { return };
        let here = self.cpus.number();
        if let Some(thread) = self.threads.get_mut(id) {
            thread.timer = Some(timer);
            thread.timer_cpu = here as u8;
            self.cpus[here].timers.insert(&mut self.threads, id);
        }
        self.cpus.here_mut().reschedule = true;
    }

    /// Lets the thread whose call this is give up at a time, if it waits.
    pub(crate) fn wait_until(&mut self, id: Id<Thread>, deadline_ns: u64) {
        let here = self.cpus.number();
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        if matches!(thread.state, State::Runnable) {
            return;
        }
        thread.set_wait_end(deadline_ns, here as u8);
        self.cpus[here].wait_ends.insert(&mut self.threads, id);
        self.cpus.here_mut().reschedule = true;
    }

    /// A thread that would give up at some time does not: it waits no more.
    pub(super) fn forget_wait_end(&mut self, id: Id<Thread>) {
        let Some(cpu) = self.threads.get_mut(id).and_then(Thread::take_wait_end) else {
            return;
        };
        let wait_ends = &mut self.cpus[usize::from(cpu)].wait_ends;
        wait_ends.remove(&mut self.threads, id);
    }

    /// Does what is due on this CPU, or some of it.
    pub fn expire(&mut self, now_ns: u64) {
        for _ in 0..STEP {
            if let Some(timer) = self.take_expired_timer(now_ns) {
                self.raise(timer.endpoint, timer.bits);
            } else if let Some(id) = self.expired_wait(now_ns) {
                self.give_up(id);
            } else {
                return;
            }
        }
    }

    fn take_expired_timer(&mut self, now_ns: u64) -> Option<Timer> {
        let first = self.cpus.here().timers.first()?;
        let timer = self.threads.get(first)?.timer;
        let timer = timer.filter(|timer| timer.deadline_ns <= now_ns)?;
        self.set_timer(first, None);
        Some(timer)
    }

    fn expired_wait(&self, now_ns: u64) -> Option<Id<Thread>> {
        let first = self.cpus.here().wait_ends.first()?;
        let deadline_ns = self.threads.get(first)?.deadline_ns(WAIT_END);
        (deadline_ns <= now_ns).then_some(first)
    }

    /// The earliest deadline on this CPU.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let cpu = self.cpus.here();
        let timer = self.deadline(cpu.timers.first(), TIMER);
        let wait_end = self.deadline(cpu.wait_ends.first(), WAIT_END);
        [timer, wait_end].into_iter().flatten().min()
    }

    fn deadline(&self, id: Option<Id<Thread>>, kind: usize) -> Option<u64> {
        Some(self.threads.get(id?)?.deadline_ns(kind))
    }
}
