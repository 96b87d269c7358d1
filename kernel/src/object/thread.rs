//! Threads: saved registers and what they wait for.

use cowslip_abi::{Access, FaultKind, FoundEntry, Tag, ThreadState};

use super::deadlines::{HEAPS, Node, TIMER};
use super::queue::{KINDS, Link, WAIT};
use super::route::{SpaceRoute, WAYS};
use super::token::Token;
use super::{Affinity, Endpoint, Id, Long, Ranked, Registers, Route, Space};
use crate::mm::Frame;
use crate::vm::ByteRange;

/// The highest priority.
pub const MAX_PRIORITY: u8 = 31;

/// A message that its sender has been allowed to send, or a reply.
///
/// The words are not here: they stay in the sender's registers until the message is delivered.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// Label, handle count, and whether the handles move.
    pub tag: Tag,
    /// Bytes that go along.
    pub data: ByteRange,
}

/// What a thread does.
///
/// The buffer for what it waits for is in its registers, see [`Registers::buffer`].
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// Created and not started.
    Stopped,
    /// Runs, or waits in a run queue.
    Runnable,
    /// Waits in an endpoint's queue of senders.
    Sending {
        /// Where it waits.
        endpoint: Id<Endpoint>,
        /// The badge that the receiver will see.
        badge: u64,
        /// What it sends; a faulted thread sends its report instead.
        message: Outgoing,
    },
    /// Waits in an endpoint's queue of receivers.
    Receiving {
        /// Where it waits.
        endpoint: Id<Endpoint>,
    },
    /// Its message was received; waits for the reply, which any thread of the server's space may give.
    AwaitingReply {
        /// The thread that has received it.
        server: Id<Thread>,
    },
    /// Waits for the clock.
    Sleeping,
}

/// Why a thread cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of obstacle.
    pub kind: FaultKind,
    /// The address touched, or the exception vector.
    pub address: u64,
    /// What the thread tried.
    pub access: Access,
    /// What the page table holds there.
    pub found: FoundEntry,
}

/// What a thread begins with.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Address of its first instruction.
    pub ip: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// What is in the registers of a function's first arguments.
    pub args: [u64; 3],
    /// Base address of its `fs` segment.
    pub fs_base: u64,
}

/// Who learns of a thread's faults.
#[derive(Clone, Copy, Debug)]
pub struct Supervisor {
    /// Where fault messages arrive.
    pub endpoint: Id<Endpoint>,
    /// The badge that they carry.
    pub badge: u64,
}

/// A set timer.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    /// Nanoseconds since boot.
    pub deadline_ns: u64,
    /// Whom it notifies.
    pub endpoint: Id<Endpoint>,
    /// The bits that it raises.
    pub bits: u64,
}

bitflags::bitflags! {
    /// Why there is more to a switch to or from a thread, or to a reply to it, than its
    /// general-purpose registers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Special: u64 {
        /// It has used vector registers.
        const FPU = 1 << 0;
        /// It has a base address for the `fs` segment.
        const FS_BASE = 1 << 1;
        /// It waits with a fault.
        const FAULT = 1 << 2;
        /// It waits for the reply to a request that was longer than the receiver's buffer.
        const TRUNCATED = 1 << 3;
        /// It is in the middle of a call that takes more than one step.
        const LONG = 1 << 4;
        /// It may not run on every CPU.
        const BOUND = 1 << 5;
        /// It gives up waiting at some time.
        const DEADLINE = 1 << 6;
    }
}

/// A thread of execution in a space.
#[derive(Debug)]
pub struct Thread {
    /// Its registers while it does not run.
    pub regs: Registers,
    /// The space it runs in.
    pub space: Id<Space>,
    /// The root of the space's page table.
    pub root: Frame,
    /// What it does.
    pub state: State,
    /// The fault that it waits with, in `Sending` or `AwaitingReply`.
    fault: Option<Fault>,
    /// What keeps it off the fast path.
    pub special: Special,
    /// Who learns of its faults.
    pub supervisor: Option<Supervisor>,
    /// Its own priority.
    pub base_priority: u8,
    /// The priority it runs at: its own, or a higher one that is [lent](super::loans).
    pub priority: u8,
    /// Its own priority, or a higher one of those whose answers it has deferred: what it runs at when it has answered
    /// its last message, unless more is lent to it.
    pub floor: u8,
    /// Base address of the `fs` segment.
    fs_base: u64,
    /// Saved vector registers, once it has used any.
    fpu: Option<Frame>,
    /// Its timer.
    pub timer: Option<Timer>,
    /// Ticks of the time-stamp counter it has run; while it runs, less the counter at the beginning
    /// of its turn.
    run_ticks: u64,
    /// The token of the message that it has received last, if nobody has answered that and it does not wait for
    /// another one; or else 0.
    pub answering: u64,
    /// The other threads whose messages it has received and nobody has answered.
    pub owed: Ranked,
    /// The space that owes it a reply, if it is in a list of those: in its server's, or if that has ended in the
    /// [space's](super::Authority::orphans).
    pub(super) owed_by: Option<Id<Space>>,
    /// Where it has received last.
    pub(super) serves: Option<Id<Endpoint>>,
    /// The last thread of its priority, if it is the first of them in a [ranked](Ranked) list.
    pub(super) rank_end: Option<Id<Thread>>,
    /// How many links further its priority is passed on when it rises, while it is not settled.
    pub(super) nr_links: u8,
    /// What its last request is answered with.
    pub(crate) token: Token,
    /// What its last calls on spaces acted on.
    pub(super) acts_on: [SpaceRoute; 2],
    /// Where its last calls on endpoints went, each [`Way`](super::Way).
    pub(super) routes: [Route; WAYS],
    /// How far it is with a call that takes more than one step.
    long: Option<Long>,
    /// The thread that works on the message that this one waits to pass or to get, in no queue.
    pub(super) bound_to: Option<Id<Thread>>,
    /// Where it may run.
    pub(super) affinity: Affinity,
    /// How many turns had begun, on all CPUs, when it came to the end of a queue for one.
    pub(crate) waits_since: u64,
    /// The CPU in whose queue it is or was last.
    pub(crate) cpu: u8,
    /// The CPU on which its timer was set.
    pub(super) timer_cpu: u8,
    /// The CPU on which it began to wait, if it gives up at some time.
    wait_cpu: u8,
    /// When that is, in nanoseconds since boot.
    wait_end_ns: u64,
    /// Its places in lists.
    pub links: [Link; KINDS],
    /// Its places among those that wait for the clock.
    pub(super) nodes: [Node; HEAPS],
}

impl Thread {
    /// A stopped thread.
    #[must_use]
    pub fn new(
        space: Id<Space>,
        root: Frame,
        supervisor: Option<Supervisor>,
        priority: u8,
    ) -> Self {
        Self {
            regs: Registers::default(),
            space,
            root,
            state: State::Stopped,
            fault: None,
            special: Special::empty(),
            supervisor,
            base_priority: priority,
            priority,
            floor: priority,
            fs_base: 0,
            fpu: None,
            timer: None,
            run_ticks: 0,
            answering: 0,
            owed: Ranked::new(),
            owed_by: None,
            serves: None,
            rank_end: None,
            nr_links: 0,
            token: Token::default(),
            acts_on: [SpaceRoute::NONE; 2],
            routes: [Route::NONE; WAYS],
            long: None,
            bound_to: None,
            affinity: Affinity::MAX,
            waits_since: 0,
            cpu: 0,
            timer_cpu: 0,
            wait_cpu: 0,
            wait_end_ns: 0,
            links: [Link::default(); KINDS],
            nodes: [Node::default(); HEAPS],
        }
    }

    /// The state in the words of the system-call interface.
    #[must_use]
    pub fn abi_state(&self) -> ThreadState {
        match self.state {
            _ if self.fault.is_some() => ThreadState::Faulted,
            State::Stopped => ThreadState::Stopped,
            State::Runnable => ThreadState::Runnable,
            State::Sending { .. } => ThreadState::Sending,
            State::Receiving { .. } => ThreadState::Receiving,
            State::AwaitingReply { .. } => ThreadState::AwaitingReply,
            State::Sleeping => ThreadState::Sleeping,
        }
    }

    /// Says with which registers it begins.
    pub(super) fn set_start(&mut self, start: &Start) {
        let [rdi, rsi, rdx] = start.args;
        self.regs = Registers {
            rip: start.ip,
            rsp: start.sp,
            rdi,
            rsi,
            rdx,
            cs: Registers::USER_CS,
            ss: Registers::USER_SS,
            rflags: Registers::USER_RFLAGS,
            ..Registers::default()
        };
        self.set_fs_base(start.fs_base);
    }

    /// Base address of the `fs` segment.
    #[must_use]
    pub fn fs_base(&self) -> u64 {
        self.fs_base
    }

    /// The fault that the thread waits with.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Where the vector registers are saved, once it has used any.
    #[must_use]
    pub fn fpu(&self) -> Option<Frame> {
        self.fpu
    }

    /// Sets the base address of the `fs` segment.
    pub fn set_fs_base(&mut self, base: u64) {
        self.fs_base = base;
        self.special.set(Special::FS_BASE, base != 0);
    }

    /// Sets or takes away the fault that the thread waits with.
    pub fn set_fault(&mut self, fault: Option<Fault>) {
        self.fault = fault;
        self.special.set(Special::FAULT, fault.is_some());
    }

    /// Gives the thread a frame for its vector registers.
    pub fn set_fpu(&mut self, frame: Frame) {
        self.fpu = Some(frame);
        self.special.insert(Special::FPU);
    }

    /// Where it may run.
    #[must_use]
    pub fn affinity(&self) -> Affinity {
        self.affinity
    }

    /// Says where it may run.
    pub(crate) fn set_affinity(&mut self, affinity: Affinity) {
        self.affinity = affinity;
        self.special.set(Special::BOUND, affinity != Affinity::MAX);
    }

    /// Says when it gives up waiting, and on which CPU it began.
    pub(super) fn set_wait_end(&mut self, deadline_ns: u64, cpu: u8) {
        (self.wait_end_ns, self.wait_cpu) = (deadline_ns, cpu);
        self.special.insert(Special::DEADLINE);
    }

    /// It does not give up. Returns the CPU on which it began to wait, if it would have.
    pub(super) fn take_wait_end(&mut self) -> Option<u8> {
        let would = self.special.contains(Special::DEADLINE);
        self.special.remove(Special::DEADLINE);
        would.then_some(self.wait_cpu)
    }

    /// What it is sorted by in a heap of this kind.
    pub(super) fn deadline_ns(&self, kind: usize) -> u64 {
        if kind == TIMER {
            self.timer.map_or(u64::MAX, |timer| timer.deadline_ns)
        } else {
            self.wait_end_ns
        }
    }

    /// How far it is with a call that takes more than one step.
    pub(crate) fn long(&self) -> Option<&Long> {
        self.long.as_ref()
    }

    /// The same; the call takes more than one step from now on.
    pub(crate) fn long_mut(&mut self) -> &mut Long {
        self.special.insert(Special::LONG);
        self.long.get_or_insert_default()
    }

    pub(super) fn take_long(&mut self) -> Option<Long> {
        self.special.remove(Special::LONG);
        self.long.take()
    }

    /// Whether it is in a queue, or among those to whom a reply is owed: [`Queue`](super::Queue) of kind `WAIT`.
    pub(super) fn is_queued(&self) -> bool {
        self.links[WAIT].is_linked()
    }

    /// Lends the thread a priority, unless it has a higher one.
    #[inline(always)]
    pub(crate) fn borrow_priority(&mut self, priority: u8) {
        if self.priority < priority {
            self.priority = priority;
        }
    }

    /// Gives the CPU to the receiver of this thread's message, and returns the token for the reply.
    #[inline(always)]
    pub(crate) fn hand_over(
        &mut self,
        server: Id<Thread>,
        receiver: &mut Thread,
        now_ticks: u64,
    ) -> u64 {
        self.state = State::AwaitingReply { server };
        self.stop_clock(now_ticks);
        receiver.start_clock(now_ticks);
        receiver.state = State::Runnable;
        receiver.borrow_priority(self.priority);
        receiver.answering = self.token.advance();
        receiver.answering
    }

    /// Gives the CPU to the client that this thread has answered, and waits at an endpoint.
    #[inline(always)]
    pub(crate) fn wait_after_reply(
        &mut self,
        endpoint: Id<Endpoint>,
        client: &mut Thread,
        now_ticks: u64,
    ) {
        self.state = State::Receiving { endpoint };
        self.priority = self.floor;
        self.answering = 0;
        self.stop_clock(now_ticks);
        client.start_clock(now_ticks);
        client.state = State::Runnable;
    }

    /// The thread's turn begins, at this state of the time-stamp counter.
    #[inline(always)]
    pub(crate) fn start_clock(&mut self, now_ticks: u64) {
        self.run_ticks = self.run_ticks.wrapping_sub(now_ticks);
    }

    /// The thread's turn ends.
    #[inline(always)]
    pub(crate) fn stop_clock(&mut self, now_ticks: u64) {
        self.run_ticks = self.run_ticks.wrapping_add(now_ticks);
    }

    /// How many ticks the thread has run; `now_ticks` is the counter if it runs now.
    pub(crate) fn ticks_run(&self, now_ticks: Option<u64>) -> u64 {
        self.run_ticks.wrapping_add(now_ticks.unwrap_or(0))
    }
}
