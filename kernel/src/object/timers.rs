//! One timer a thread, sorted by deadline.

use super::{Id, Kernel, Thread, Timer};

impl Kernel {
    /// Sets the thread's timer, in place of the one it had; `None` only cancels.
    pub fn set_timer(&mut self, id: Id<Thread>, timer: Option<Timer>) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        if thread.timer.take().is_some() {
            self.timers.remove(&mut self.threads, id);
            self.reschedule = true;
        }
        let Some(timer) = timer else { return };
        self.reschedule = true;
        let mut next = self.timers.first();
        while let Some(other) = next {
            if self
                .deadline(other)
                .is_none_or(|deadline| deadline > timer.deadline_ns)
            {
                break;
            }
            next = self.timers.after(&self.threads, other);
        }
        self.timers.insert_before(&mut self.threads, id, next);
        if let Some(thread) = self.threads.get_mut(id) {
            thread.timer = Some(timer);
        }
    }

    /// Takes out one timer whose deadline has come.
    pub fn take_expired_timer(&mut self, now_ns: u64) -> Option<Timer> {
        let first = self.timers.first()?;
        let timer = self
            .threads
            .get(first)?
            .timer
            .filter(|timer| timer.deadline_ns <= now_ns)?;
        self.set_timer(first, None);
        Some(timer)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadline(self.timers.first()?)
    }

    fn deadline(&self, id: Id<Thread>) -> Option<u64> {
        Some(self.threads.get(id)?.timer?.deadline_ns)
    }
}
