//! Kernel objects: spaces, threads, endpoints, and the handles that name them.
//!
//! All objects are in [`Kernel`], behind one lock. A system call has them to itself, and the borrow checker sees to
//! the rest; but the calls that matter most share them with other CPUs and [claim](Here) those that they need. Frames, reference counts and statistics are in
//! [`Mm`], which has locks and atomics of its own.

#[cfg(any(not(target_os = "none"), debug_assertions))]
mod audit;
mod cpus;
mod creation;
mod deadlines;
mod death;
mod guarded;
mod handle;
mod here;
mod loans;
mod long;
mod pool;
mod queue;
mod ranked;
mod receivers;
mod registers;
mod route;
mod run_queue;
mod thread;
mod timers;
mod token;
mod waits;

pub use cpus::{Affinity, Cpu, Cpus, Turn};
pub use creation::Creator;
pub use guarded::Guarded;
pub use handle::{HandleEntry, HandleTable, MAX_HANDLES_PER_SPACE, Object, PortRange};
pub use here::{Here, Seat};
pub(crate) use loans::LINKS;
pub use long::{Long, Phase, Work};
pub use pool::{Berth, BerthClaim, Claim, Claims, Hint, Id, Pin, Pinned, Pool, PoolError};
pub use queue::{MEMBER, Queue, WAIT};
pub use ranked::Ranked;
pub use receivers::Receivers;
pub use registers::Registers;
pub(crate) use route::{Place, SpaceRoute};
pub use route::{Route, Way};
pub use run_queue::RunQueue;
pub use thread::{Fault, MAX_PRIORITY, Outgoing, Special, Start, State, Supervisor, Thread, Timer};

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cowslip_abi::{Error, Handle, Rights};

use crate::mm::Mm;
use crate::platform::Platform;
use crate::sync::{MAX_CPUS, Ordered, Rank};
use crate::trace;
use crate::vm::PageTable;
use queue::{SERVER, UNSETTLED};
use token::PastTokens;

/// The interrupt lines that can be bound.
pub const MAX_LINES: usize = 64;

const MAX_CHUNKS: usize = 2048;

/// The pool of threads.
pub type Threads = Pool<Thread, MAX_CHUNKS, MAX_CPUS>;
/// The pool of spaces.
pub type Spaces = Pool<Space, MAX_CHUNKS>;
/// The pool of endpoints.
pub type Endpoints = Pool<Endpoint, MAX_CHUNKS>;

/// An address space with its authority.
pub struct Space {
    /// What is mapped.
    pub table: PageTable,
    /// The rest. Where there is one thread in the space, its CPU may look at the handles whenever it shares the kernel; and
    /// where there are more, all of theirs may, as then handles do not come and go.
    authority: Guarded<Authority>,
}

/// What a space may name, and who is in it.
pub struct Authority {
    /// What it may name.
    pub handles: HandleTable,
    /// Its threads.
    pub threads: Queue<MEMBER>,
    /// Threads that wait for a reply from this space, and whose messages were received by threads that have ended.
    pub(crate) orphans: Queue<WAIT>,
    /// Threads in the list.
    pub nr_threads: u32,
    /// Threads that have been started and have not ended.
    pub nr_started: u32,
    /// Handles that name this space, in any table.
    pub nr_handles: u32,
    /// The space that created this one, and with which it dies.
    pub owner: Option<Id<Space>>,
    /// The spaces that this one created: the last of them, which leads to the others.
    children: Option<Id<Space>>,
    /// The neighbours among the owner's children, the one created before this one first.
    siblings: [Option<Id<Space>>; 2],
    /// Whom to tell when it dies, and the bits to raise.
    pub death: Option<(Id<Endpoint>, u64)>,
    /// It is about to be torn down; the next such space.
    doomed: Option<Option<Id<Space>>>,
}

/// Where messages, faults and notifications arrive.
#[derive(Debug)]
pub struct Endpoint {
    /// Threads with a message, the highest priority first.
    pub senders: Ranked,
    /// Threads that wait for one.
    pub receivers: Receivers,
    /// Threads that have received here last, whatever they do, the one that came last first.
    servers: Queue<SERVER>,
    /// Notification bits raised and not yet received. CPUs that share the endpoint use them in turns.
    bits: AtomicU64,
    /// Handles with the right to receive; the endpoint dies with the last one.
    pub nr_receive_handles: u32,
}

/// Whom an interrupt line notifies.
#[derive(Clone, Copy, Debug)]
pub struct InterruptBinding {
    /// The endpoint.
    pub endpoint: Id<Endpoint>,
    /// The bits that the line raises.
    pub bits: u64,
}

/// Everything that system calls act on.
pub struct Kernel {
    /// Physical memory.
    pub mm: &'static Mm,
    /// The machine.
    pub platform: &'static dyn Platform,
    /// All spaces.
    pub spaces: Spaces,
    /// All threads.
    pub threads: Threads,
    /// All endpoints.
    pub endpoints: Endpoints,
    /// Who runs where, and who wants to.
    pub cpus: Cpus,
    /// Bound interrupt lines.
    pub interrupts: [Option<InterruptBinding>; MAX_LINES],
    /// Who has this is the [`Creator`].
    creation: Ordered<()>,
    past_tokens: PastTokens,
    kernel_half: [u64; 256],
    doomed: Option<Id<Space>>,
    /// Threads that wait at endpoints that are dead, and have not been told yet.
    stranded: Queue<WAIT>,
    /// Threads whose priority is to be looked at.
    unsettled: Queue<UNSETTLED>,
    /// Whether there are any of these, or of the stranded or the doomed.
    is_unfinished: bool,
    reaping: bool,
}

impl Space {
    /// An empty space.
    fn new(table: PageTable, owner: Option<Id<Space>>, death: Option<(Id<Endpoint>, u64)>) -> Self {
        let authority = Authority {
            handles: HandleTable::new(),
            threads: Queue::new(),
            orphans: Queue::new(),
            nr_threads: 0,
            nr_started: 0,
            nr_handles: 0,
            owner,
            children: None,
            siblings: [None; 2],
            death,
            doomed: None,
        };
        Self {
            table,
            authority: Guarded::new(authority),
        }
    }
}

#[cfg(test)]
impl Authority {
    /// Its owner, the last that it has created, and its neighbours among those of its owner.
    pub(crate) fn family(&self) -> [Option<Id<Space>>; 4] {
        let [before, behind] = self.siblings;
        [self.owner, self.children, before, behind]
    }
}

impl Deref for Space {
    type Target = Authority;

    #[inline(always)]
    fn deref(&self) -> &Authority {
        &self.authority
    }
}

impl DerefMut for Space {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Authority {
        &mut self.authority
    }
}

impl Endpoint {
    /// 0 if no bits are raised, and nobody waits here but for the first receiver.
    #[inline(always)]
    pub(crate) fn others(&self) -> u64 {
        self.bits() | Id::word(self.senders.first()) | self.receivers.word_of_others()
    }

    /// The bits that are raised. Like raising and taking them, this is for who has claimed the place of the first receiver.
    #[inline(always)]
    pub(crate) fn bits(&self) -> u64 {
        self.bits.load(Relaxed)
    }

    /// Raises bits.
    #[inline(always)]
    pub(crate) fn raise(&self, bits: u64) {
        self.bits.store(self.bits() | bits, Relaxed);
    }

    /// Takes all bits that are raised.
    #[inline(always)]
    pub(crate) fn take_bits(&self) -> u64 {
        let bits = self.bits();
        self.bits.store(0, Relaxed);
        bits
    }
}

impl Kernel {
    /// A kernel without any objects. It is large, and therefore made where it stays.
    #[must_use]
    pub const fn new(mm: &'static Mm, platform: &'static dyn Platform) -> Self {
        Self {
            mm,
            platform,
            spaces: Pool::new(),
            threads: Pool::new(),
            endpoints: Pool::new(),
            cpus: Cpus::new(),
            interrupts: [None; MAX_LINES],
            creation: Ordered::new(Rank::Creation, ()),
            past_tokens: PastTokens::new(),
            kernel_half: [0; 256],
            doomed: None,
            stranded: Queue::new(),
            unsettled: Queue::new(),
            is_unfinished: false,
            reaping: false,
        }
    }

    /// Sets the upper half of every page-table root; before there are spaces.
    pub fn set_kernel_half(&mut self, kernel_half: &[u64; 256]) {
        self.kernel_half = *kernel_half;
    }

    /// The thread that runs on the CPU that acts.
    #[must_use]
    #[inline]
    pub fn current(&self) -> Option<Id<Thread>> {
        self.threads.pinned_id()
    }

    /// Lets this thread be the one that runs on the CPU that acts.
    pub fn set_current(&mut self, thread: Option<Id<Thread>>) {
        self.threads.pin(thread);
    }

    /// Creates an empty space that dies with `owner` and then raises `death`'s bits.
    ///
    /// It also dies when the last handle to it goes away before a thread was started in it.
    pub fn create_space(
        &mut self,
        owner: Option<Id<Space>>,
        death: Option<(Id<Endpoint>, u64)>,
    ) -> Result<Id<Space>, Error> {
        let table = PageTable::new(self.mm, &self.kernel_half).map_err(|_| Error::NoMemory)?;
        let space = Space::new(table, owner, death);
        match self.spaces.insert(self.mm, space) {
            Ok(id) => {
                self.join_owner(id);
                trace::space_created(id.number(), Id::word(owner));
                Ok(id)
            }
            Err((error, space)) => {
                space.table.destroy(self.mm);
                Err(error.into())
            }
        }
    }

    /// Creates a stopped thread.
    pub fn create_thread(
        &mut self,
        space: Id<Space>,
        supervisor: Option<Supervisor>,
        priority: u8,
    ) -> Result<Id<Thread>, Error> {
        let home = self.spaces.get_mut(space);
        // What is being torn down has lost its threads, or will, and gets no others.
        let home = home.filter(|home| home.doomed.is_none());
        let home = home.ok_or(Error::Died)?;
        let thread = Thread::new(
            space,
            home.table.root(),
            supervisor,
            priority.min(MAX_PRIORITY),
        );
        let id = self
            .threads
            .insert(self.mm, thread)
            .map_err(|(error, _)| error)?;
        if let Some(thread) = self.threads.get_mut(id) {
            thread.token = self.past_tokens.first(id);
        }
        home.threads.push_back(&mut self.threads, id);
        home.nr_threads += 1;
        let badge = supervisor.map_or(0, |supervisor| supervisor.badge);
        trace::thread_created(id.number(), space.number(), badge);
        Ok(id)
    }

    /// Starts a stopped thread.
    #[inline]
    pub fn start_thread(&mut self, id: Id<Thread>, start: &Start) -> Result<(), Error> {
        let thread = self.threads.get_mut(id).ok_or(Error::Died)?;
        if !matches!(thread.state, State::Stopped) {
            return Err(Error::BadState);
        }
        thread.set_start(start);
        let space = thread.space;
        if let Some(space) = self.spaces.get_mut(space) {
            space.nr_started += 1;
        }
        self.make_runnable(id);
        Ok(())
    }

    /// Creates an endpoint that nobody can name yet.
    pub fn create_endpoint(&mut self) -> Result<Id<Endpoint>, Error> {
        let endpoint = Endpoint {
            senders: Ranked::new(),
            receivers: Receivers::new(),
            servers: Queue::new(),
            bits: AtomicU64::new(0),
            nr_receive_handles: 0,
        };
        self.endpoints
            .insert(self.mm, endpoint)
            .map_err(|(error, _)| error.into())
    }

    /// Puts a handle into a space's table.
    pub fn install(
        &mut self,
        space: Id<Space>,
        object: Object,
        rights: Rights,
        badge: u64,
    ) -> Result<Handle, Error> {
        let entry = HandleEntry {
            object,
            rights,
            badge,
        };
        let table = &mut self.spaces.get_mut(space).ok_or(Error::Died)?.handles;
        let handle = table.insert(self.mm, entry)?;
        self.count_handle(entry);
        Ok(handle)
    }

    /// Takes a handle out of a space's table.
    pub fn close(&mut self, space: Id<Space>, handle: Handle) -> Result<(), Error> {
        let home = self.spaces.get_mut(space).ok_or(Error::Died)?;
        let entry = home.handles.remove(self.mm, handle)?;
        let is_only_thread = home.nr_threads == 1;
        let first = home.threads.first();
        if let Some(thread) = first.and_then(|id| self.threads.get_mut(id))
            && is_only_thread
        {
            thread.forget(handle, entry.object);
        } else {
            match entry.object {
                Object::Endpoint(_) => self.endpoints.end_epoch(),
                Object::Space(_) => self.spaces.end_epoch(),
                _ => {}
            }
        }
        self.forget_handle(entry);
        self.reap();
        Ok(())
    }

    /// Whether the object of a handle still lives.
    #[must_use]
    pub fn is_alive(&self, object: Object) -> bool {
        match object {
            Object::Endpoint(id) => self.endpoints.get(id).is_some(),
            Object::Space(id) => self.spaces.get(id).is_some(),
            Object::Thread(id) => self.threads.get(id).is_some(),
            Object::System | Object::Interrupt | Object::Ports => true,
        }
    }

    /// Lets a thread run that waits in no list, behind the others of its priority, on whichever CPU it
    /// can begin soonest.
    pub fn make_runnable(&mut self, id: Id<Thread>) {
        if let Some(thread) = self.threads.get(id) {
            let cpu = self.place(thread);
            self.wait_anew(id);
            self.enqueue(id, cpu, RunQueue::push_back);
        }
    }

    /// Notes that a thread begins to wait for its turn.
    pub(crate) fn wait_anew(&mut self, id: Id<Thread>) {
        let nr_turns = self.cpus.nr_turns;
        if let Some(thread) = self.threads.get_mut(id) {
            thread.waits_since = nr_turns;
        }
    }

    /// Lets a thread run before the others of its priority, and on the CPU that acts: the partner in an
    /// exchange of messages.
    pub fn make_runnable_next(&mut self, id: Id<Thread>) {
        if let Some(thread) = self.threads.get(id) {
            let cpu = self.place_here(thread);
            self.enqueue(id, cpu, RunQueue::push_front);
        }
    }

    /// Lets the thread that has just given up the CPU that acts run behind the others of its priority.
    pub fn make_runnable_last(&mut self, id: Id<Thread>) {
        self.wait_anew(id);
        self.enqueue(id, self.cpus.number(), RunQueue::push_back);
    }

    pub(super) fn enqueue(
        &mut self,
        id: Id<Thread>,
        cpu: usize,
        push: impl FnOnce(&mut RunQueue, &mut Threads, Id<Thread>),
    ) {
        if let Some(thread) = self.threads.get_mut(id) {
            thread.state = State::Runnable;
            let (priority, special) = (thread.priority, thread.special);
            if special.contains(Special::DEADLINE) {
                self.forget_wait_end(id);
            }
            push(&mut self.cpus[cpu].run_queue, &mut self.threads, id);
            self.preempt_for(cpu, priority);
        }
    }

    fn count_handle(&mut self, entry: HandleEntry) {
        match entry.object {
            Object::Endpoint(id) if entry.rights.contains(Rights::RECV) => {
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    endpoint.nr_receive_handles += 1;
                }
            }
            Object::Space(id) => {
                if let Some(space) = self.spaces.get_mut(id) {
                    space.nr_handles += 1;
                }
            }
            _ => {}
        }
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Full => Error::TableFull,
            PoolError::NoMemory => Error::NoMemory,
        }
    }
}
