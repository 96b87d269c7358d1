//! One timer a thread, in the list of the CPU on which it was set, sorted by deadline.

use super::{Id, Kernel, Thread, Timer};

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
        self.cpus.here_mut().reschedule = true;
        let mut next = self.cpus.here().timers.first();
        while let Some(other) = next {
            if self
                .deadline(other)
                .is_none_or(|deadline| deadline > timer.deadline_ns)
            {
                break;
            }
            next = self.cpus.here().timers.after(&self.threads, other);
        }
        let here = self.cpus.number();
        let timers = &mut self.cpus[here].timers;
        timers.insert_before(&mut self.threads, id, next);
        if let Some(thread) = self.threads.get_mut(id) {
            thread.timer = Some(timer);
            thread.timer_cpu = here as u8;
        }
    }

    /// Takes out one timer of this CPU whose deadline has come.
    pub fn take_expired_timer(&mut self, now_ns: u64) -> Option<Timer> {
        let first = self.cpus.here().timers.first()?;
        let timer = self
            .threads
            .get(first)?
            .timer
            .filter(|timer| timer.deadline_ns <= now_ns)?;
        self.set_timer(first, None);
        Some(timer)
    }

    /// The earliest deadline on this CPU.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadline(self.cpus.here().timers.first()?)
    }

    fn deadline(&self, id: Id<Thread>) -> Option<u64> {
        Some(self.threads.get(id)?.timer?.deadline_ns)
    }
}
