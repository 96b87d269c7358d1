//! Requests from CPU to CPU, with answers.
//!
//! ```text
//!   asking CPU                                   each CPU that is asked
//!   write the request, and who is to answer
//!   set my bit in everybody's `pending`  ----->  take all bits of `pending`
//!   interrupt them                               do what each asking CPU wants
//!   wait until nobody is left          <-----    clear my bit in its `unanswered`
//! ```
//!
//! A CPU asks for one thing at a time, but many may ask at once.

use core::cell::UnsafeCell;

use super::{
    MAX_CPUS,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// A box for each CPU.
pub struct Mailboxes<R> {
    boxes: [Mailbox<R>; MAX_CPUS],
}

/// What one CPU wants of others, and which others want something of it.
#[repr(align(128))]
struct Mailbox<R> {
    /// The CPUs that ask this one, a bit each.
    pending: AtomicU64,
    /// What this CPU asks.
    request: UnsafeCell<Option<R>>,
    /// Who has not answered yet, a bit each.
    unanswered: AtomicU64,
}

// SAFETY: a request is written by its CPU only, while nobody is asked to read it.
unsafe impl<R: Send + Sync> Sync for Mailboxes<R> {}

impl<R> Mailbox<R> {
    const fn new() -> Self {
        Self {
            pending: AtomicU64::new(0),
            request: UnsafeCell::new(None),
            unanswered: AtomicU64::new(0),
        }
    }
}

impl<R> Mailboxes<R> {
    /// Empty boxes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            boxes: [const { Mailbox::new() }; MAX_CPUS],
        }
    }

    /// Asks `others` (a bit each, never `me`) for something, and returns when all of them have done it.
    /// `notify` lets one of them [answer](Self::answer) soon; `answer` answers for `me` meanwhile.
    pub fn ask(
        &self,
        me: usize,
        others: u64,
        request: R,
        notify: impl Fn(usize),
        answer: impl Fn(),
    ) {
        let own = &self.boxes[me];
        debug_assert!(others >> me & 1 == 0, "a CPU asks itself");
        debug_assert_eq!(own.unanswered.load(Relaxed), 0, "two requests at once");
        // SAFETY: nobody reads the request while nobody has to answer it.
        unsafe { *own.request.get() = Some(request) };
        own.unanswered.store(others, Relaxed);
        for cpu in (0..MAX_CPUS).filter(|cpu| others >> cpu & 1 != 0) {
            self.boxes[cpu].pending.fetch_or(1 << me, Release);
            notify(cpu);
        }
        while own.unanswered.load(Acquire) != 0 {
            answer();
        }
    }

    /// Whether somebody asks.
    #[must_use]
    #[inline]
    pub fn is_asked(&self, me: usize) -> bool {
        self.boxes[me].pending.load(Relaxed) != 0
    }

    /// Does what others have asked, and tells them.
    pub fn answer(&self, me: usize, act: impl Fn(&R)) {
        let mut pending = self.boxes[me].pending.swap(0, Acquire);
        while let Some(cpu) = pending.checked_ilog2() {
            pending &= !(1 << cpu);
            let asking = &self.boxes[cpu as usize];
            // SAFETY: it was written before the bit was set, and is not written before all have answered.
            if let Some(request) = unsafe { &*asking.request.get() } {
                act(request);
            }
            asking.unanswered.fetch_and(!(1 << me), Release);
        }
    }
}

impl<R> Default for Mailboxes<R> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicUsize, thread};

    /// Each of several CPUs asks all others for many things at once, without any interrupts.
    #[test]
    fn what_was_asked_is_done_when_asking_returns() {
        const CPUS: usize = 4;
        const ROUNDS: usize = 500;
        let mailboxes = Mailboxes::<(usize, usize)>::new();
        let seen: [[AtomicUsize; CPUS]; CPUS] = Default::default();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for me in 0..CPUS {
                let (mailboxes, seen, done) = (&mailboxes, &seen, &done);
                scope.spawn(move || {
                    let answer = || {
                        mailboxes.answer(me, |&(from, round)| {
                            seen[me][from].store(round, Relaxed);
                        });
                        thread::yield_now();
                    };
                    let others = ((1 << CPUS) - 1) & !(1 << me);
                    for round in 1..=ROUNDS {
                        mailboxes.ask(me, others, (me, round), |_| (), answer);
                        for (cpu, seen) in seen.iter().enumerate() {
                            assert!(cpu == me || seen[me].load(Relaxed) == round);
                        }
                    }
                    done.fetch_add(1, Relaxed);
                    while done.load(Relaxed) < CPUS {
                        answer();
                    }
                });
            }
        });
    }
}
