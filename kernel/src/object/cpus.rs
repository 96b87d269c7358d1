//! What the scheduler knows of each CPU.
//!
//! The thread that runs on a CPU is [pinned](super::Pool) there. Whoever has the kernel acts on one CPU, *here*. Others may be given threads and told to look
//! ([`Platform::kick`]), and while one of them waits for the kernel its thread may be taken from it
//! ([`Platform::halt`]).
//!
//! [`Platform::kick`]: crate::platform::Platform::kick
//! [`Platform::halt`]: crate::platform::Platform::halt

use core::ops::{Index, IndexMut};

use super::deadlines::{Deadlines, TIMER, WAIT_END};
use super::{Id, Kernel, RunQueue, Thread};
use crate::sync::MAX_CPUS;

/// The CPUs that a thread may run on, a bit each.
pub type Affinity = u64;

/// The running thread's share of the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// When others of the same priority get their turn, in nanoseconds since boot; 0: not known
    /// yet.
    pub slice_end_ns: u64,
    /// The slice has ended.
    pub expired: bool,
}

/// One CPU. What it has is at least a cache line away from what another one has.
#[derive(Debug)]
#[repr(align(128))]
pub struct Cpu {
    /// Something has happened that may change who runs next, or when the timer is wanted.
    pub reschedule: bool,
    /// When the running thread's time slice ends.
    pub turn: Turn,
    /// Threads that can run and do not.
    pub run_queue: RunQueue,
    /// Threads whose timer was set there.
    pub timers: Deadlines<TIMER>,
    /// Threads that began to wait there, and give up at some time.
    pub(super) wait_ends: Deadlines<WAIT_END>,
}

impl Cpu {
    const fn new(number: u8) -> Self {
        Self {
            reschedule: true,
            turn: Turn {
                slice_end_ns: 0,
                expired: false,
            },
            run_queue: RunQueue::new(number),
            timers: Deadlines::new(),
            wait_ends: Deadlines::new(),
        }
    }
}

impl Cpu {
    /// Whether no deadline was set there.
    fn waits_for_no_clock(&self) -> bool {
        self.timers.is_empty() && self.wait_ends.is_empty()
    }

    /// Whether a thread may run here.
    #[inline(always)]
    pub(crate) fn may_run(&self, thread: &Thread) -> bool {
        thread.affinity >> self.run_queue.cpu() & 1 != 0
    }
}

/// All CPUs.
#[derive(Debug)]
pub struct Cpus {
    all: [Cpu; MAX_CPUS],
    here: usize,
    /// How many bytes into `all` that one is: which saves a multiplication.
    here_offset: usize,
    /// How many turns have begun, but for those that a message or a notification hands over.
    pub(crate) nr_turns: u64,
    /// Those that run threads.
    pub(super) online: Affinity,
    /// Those of them that have no thread to run, and were not told to look.
    pub(super) idle: Affinity,
}

impl Cpus {
    /// The first one, which acts, and others that are not there yet.
    pub(super) const fn new() -> Self {
        let mut all = [const { Cpu::new(0) }; MAX_CPUS];
        let mut number = 1;
        while number < MAX_CPUS {
            all[number] = Cpu::new(number as u8);
            number += 1;
        }
        Self {
            all,
            here: 0,
            here_offset: 0,
            nr_turns: 0,
            online: 1,
            idle: 0,
        }
    }

    /// The number of the CPU that acts.
    #[must_use]
    #[inline(always)]
    pub fn number(&self) -> usize {
        self.here
    }

    /// The CPU that acts.
    #[must_use]
    #[inline(always)]
    pub fn here(&self) -> &Cpu {
        // SAFETY: that is where the CPU is.
        unsafe { &*self.all.as_ptr().byte_add(self.here_offset) }
    }

    /// The CPU that acts.
    #[inline(always)]
    pub fn here_mut(&mut self) -> &mut Cpu {
        // SAFETY: as above.
        unsafe { &mut *self.all.as_mut_ptr().byte_add(self.here_offset) }
    }

    /// Lets another CPU act.
    fn set_here(&mut self, number: usize) {
        self.here = number % MAX_CPUS;
        self.here_offset = self.here * size_of::<Cpu>();
    }

    /// The numbers of the CPUs that run threads.
    pub fn online(&self) -> impl Iterator<Item = usize> + use<> {
        numbers(self.online)
    }

    /// The CPUs that run threads.
    #[must_use]
    pub fn online_set(&self) -> Affinity {
        self.online
    }
}

/// The numbers in a set of CPUs.
pub(super) fn numbers(mut cpus: Affinity) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let number = cpus.checked_ilog2()? as usize;
        cpus &= !(1 << number);
        Some(number)
    })
}

impl Index<usize> for Cpus {
    type Output = Cpu;

    #[inline(always)]
    fn index(&self, number: usize) -> &Cpu {
        &self.all[number % MAX_CPUS]
    }
}

impl IndexMut<usize> for Cpus {
    #[inline(always)]
    fn index_mut(&mut self, number: usize) -> &mut Cpu {
        &mut self.all[number % MAX_CPUS]
    }
}

impl Kernel {
    /// Lets another CPU act from now on.
    #[inline(always)]
    pub fn enter(&mut self, number: usize) {
        if self.cpus.here != number {
            self.change_cpu(number);
        }
    }

    #[inline(never)]
    fn change_cpu(&mut self, number: usize) {
        self.cpus.set_here(number);
        self.threads.enter(number);
    }

    /// A CPU runs threads from now on.
    pub fn bring_online(&mut self, number: usize) {
        self.cpus.online |= 1 << number;
    }

    /// Waits until no other CPU works [apart](crate::sync::Apart) from the kernel. Whether one did. Before whoever has the kernel alone uses
    /// page tables, or counts frames.
    #[inline]
    pub(crate) fn settle_memory(&self) -> bool {
        let is_only_one = self.cpus.online.is_power_of_two();
        !is_only_one && self.platform.settle()
    }

    /// The thread that runs on a CPU.
    pub(super) fn running_on(&self, number: usize) -> Option<&Thread> {
        self.threads.get(self.threads.pinned_on(number)?)
    }

    /// The CPU that a thread runs on.
    pub(crate) fn cpu_of(&self, id: Id<Thread>) -> Option<usize> {
        self.cpus
            .online()
            .find(|&cpu| self.threads.pinned_on(cpu) == Some(id))
    }

    /// Takes the CPU from a thread that may be running, wherever that is. Its registers are complete
    /// then. Returns whether it was.
    pub(super) fn stop_running(&mut self, id: Id<Thread>) -> bool {
        let Some(cpu) = self.cpu_of(id) else {
            return false;
        };
        if cpu == self.cpus.here {
            self.leave_cpu();
        } else {
            self.platform.halt(cpu);
            let now_ticks = self.platform.now_ticks();
            if let Some(thread) = self.threads.get_mut(id) {
                thread.stop_clock(now_ticks);
            }
            self.threads.unpin_on(cpu);
        }
        self.cpus[cpu].reschedule = true;
        true
    }

    /// A thread of this priority can run on a CPU now.
    pub(super) fn preempt_for(&mut self, number: usize, priority: u8) {
        let running = self.running_on(number);
        if running.is_none_or(|running| running.priority < priority) {
            self.look_again(number);
        }
    }

    /// Takes the CPU from the running thread and accounts for its turn.
    pub(crate) fn leave_cpu(&mut self) {
        if let Some(thread) = self.threads.pinned_mut() {
            thread.stop_clock(self.platform.now_ticks());
        }
        self.set_current(None);
    }

    /// Whether a thread may run here.
    pub(crate) fn may_stay(&self, id: Id<Thread>) -> bool {
        let thread = self.threads.get(id);
        thread.is_some_and(|thread| thread.affinity >> self.cpus.here & 1 != 0)
    }

    /// Lets the running thread wait, on a CPU that it may run on, before the others of its priority.
    /// Returns who runs here.
    pub(crate) fn preempt(&mut self, id: Id<Thread>) -> Option<Id<Thread>> {
        self.leave_cpu();
        let next = self.cpus.here_mut().run_queue.pop(&mut self.threads);
        let next = next.or_else(|| self.take_over());
        // Its place depends on who runs here instead.
        self.set_current(next);
        if let Some(thread) = self.threads.get_mut(id) {
            thread.cpu = self.cpus.here as u8;
        }
        if let Some(thread) = self.threads.get(id) {
            let cpu = self.place(thread);
            self.enqueue(id, cpu, RunQueue::push_front);
        }
        self.set_current(None);
        next
    }

    /// Notes whether the CPU that acts has a thread to run.
    pub(crate) fn set_idle(&mut self, is_idle: bool) {
        let here = 1 << self.cpus.here;
        if is_idle {
            self.cpus.idle |= here;
        } else {
            self.cpus.idle &= !here;
        }
    }

    /// Takes a thread that waits for another CPU and may run here: one of the highest priority at which
    /// any waits.
    pub(crate) fn take_over(&mut self) -> Option<Id<Thread>> {
        let here = self.cpus.here;
        let mut others = self.cpus.online & !(1 << here);
        while let Some(busiest) =
            numbers(others).max_by_key(|&cpu| self.cpus[cpu].run_queue.highest())
        {
            others &= !(1 << busiest);
            let found = self.cpus[busiest]
                .run_queue
                .pop_for(&mut self.threads, here);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Lets an idle CPU take over a thread, if one waits here that may run there.
    #[inline]
    pub(crate) fn offer_work(&mut self) {
        if self.cpus.idle != 0 && self.cpus.here().run_queue.highest().is_some() {
            self.offer_first();
        }
    }

    #[cold]
    #[inline(never)]
    fn offer_first(&mut self) {
        let idle = self.cpus.idle;
        let first = self.cpus.here().run_queue.first_for(&self.threads, idle);
        if let Some(thread) = first.and_then(|first| self.threads.get(first)) {
            self.look_again((thread.affinity & idle).trailing_zeros() as usize);
        }
    }

    /// Whether no CPU has anything to do, and nothing will ever wake a thread.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.cpus.idle == self.cpus.online
            && self
                .cpus
                .online()
                .all(|cpu| self.cpus[cpu].waits_for_no_clock())
            && self.interrupts.iter().all(Option::is_none)
    }

    /// Lets a CPU decide who runs next.
    pub(crate) fn look_again(&mut self, number: usize) {
        let was_told = core::mem::replace(&mut self.cpus[number].reschedule, true);
        self.cpus.idle &= !(1 << number);
        if number != self.cpus.here && !was_told {
            self.platform.kick(number);
        }
    }

    /// Lets a thread that waits for a CPU wait where it may by another set of CPUs. It stays where it is if it may, and if no
    /// other CPU could begin with it sooner. If it has to move it goes before those that wait there if it has waited longer
    /// than the first of them, and else behind: so who is moved about again and again waits no longer than they do, and
    /// gets ahead of nobody who came before.
    pub(crate) fn move_queued(&mut self, id: Id<Thread>) {
        let Some(thread) = self.threads.get(id) else {
            return;
        };
        let (from, to) = (usize::from(thread.cpu), self.place(thread));
        if from == to {
            return;
        }
        let first = self.cpus[to].run_queue.first_of(thread.priority);
        let first = first.and_then(|first| self.threads.get(first));
        let is_older = first.is_some_and(|first| thread.waits_since < first.waits_since);
        self.cpus[from].run_queue.remove(&mut self.threads, id);
        let push = if is_older {
            RunQueue::push_front
        } else {
            RunQueue::push_back
        };
        self.enqueue(id, to, push);
    }

    /// The CPU in whose queue a thread is to wait that works with the one that runs here: here, if it may.
    pub(super) fn place_here(&self, thread: &Thread) -> usize {
        if thread.affinity >> self.cpus.here & 1 != 0 {
            self.cpus.here
        } else {
            self.place(thread)
        }
    }

    /// The CPU in whose queue a thread is to wait: the one it ran on last, if it may run there at once;
    /// otherwise one where it may; or else the first again.
    pub(super) fn place(&self, thread: &Thread) -> usize {
        let allowed = thread.affinity & self.cpus.online;
        let last = usize::from(thread.cpu);
        if allowed == 1 << last {
            return last;
        }
        let idle = self.cpus.idle & allowed;
        if idle >> last & 1 != 0 {
            return last;
        }
        if idle != 0 {
            return idle.trailing_zeros() as usize;
        }
        let runs_lower = |cpu: &usize| {
            let running = self.running_on(*cpu);
            running.is_none_or(|running| running.priority < thread.priority)
                && self.cpus[*cpu].run_queue.highest() < Some(thread.priority)
        };
        let may = |cpu: usize| (allowed >> cpu & 1 != 0).then_some(cpu);
        let first = may(last).filter(runs_lower);
        let first = first.or_else(|| numbers(allowed).find(runs_lower));
        let first = first.or(may(last)).or(may(self.cpus.here));
        first.unwrap_or(allowed.trailing_zeros() as usize)
    }
}
