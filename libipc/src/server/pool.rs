//! Several threads that serve one endpoint.

use abi::{Error, Rights};

use super::{Answer, Service, serve_on};
use crate::buffer::PageBuffer;
use crate::message::{Fault, Incoming, Received};
use crate::object::Endpoint;
use crate::thread::{self, Running, Supervisor};

/// The bit that wakes the threads of a pool, so that they see that the service is done. The service itself never sees it.
pub const WAKE: u64 = 1 << 63;

/// Bytes of a thread's stack.
const STACK: usize = 64 * 1024;

/// The most threads: each has a bit to say that it has ended.
const MAX_THREADS: usize = 64;

/// What the threads of a pool share. It lives as long as all of them, on the stack of the first.
struct Shared<'a, F> {
    endpoint: &'a Endpoint,
    wake: Endpoint,
    make: &'a F,
}

/// One of the other threads, as it is told of itself.
struct Member<'a, F> {
    shared: &'a Shared<'a, F>,
    /// Notified by its last action.
    ended: Endpoint,
}

/// Serves an endpoint by several threads, the caller's among them, until the service is done. Each has a service of its own,
/// which `make` makes: usually of a reference to what they share.
///
/// The service is done when one thread finds [`is_done`](Service::is_done): that thread wakes the others, and each of them ends
/// after what it is doing. They run at the priority of processes, and their faults are the process's.
///
/// # Errors
/// `BadArgument` for no thread, or more than 64; `NoMemory`, `TableFull` when they cannot be made; else why the endpoint cannot be
/// received on any more.
pub fn serve_by<S: Service, F: Fn() -> S + Sync>(
    nr_threads: usize,
    endpoint: &Endpoint,
    make: F,
) -> Result<(), Error> {
    if !(1..=MAX_THREADS).contains(&nr_threads) {
        return Err(Error::BadArgument);
    }
    let ends = Endpoint::create()?;
    let shared = Shared {
        endpoint,
        wake: endpoint.copy(Rights::NOTIFY, WAKE)?,
        make: &make,
    };
    let mut members = [const { None::<Member<'_, F>> }; MAX_THREADS];
    for (i, member) in members[1..nr_threads].iter_mut().enumerate() {
        let ended = ends.copy(Rights::NOTIFY, 1 << i)?;
        *member = Some(Member {
            shared: &shared,
            ended,
        });
    }
    // Dropped first, which kills them: that is how it ends if not all can be started.
    let mut threads = [const { None::<Running> }; MAX_THREADS];
    let mut running = 0;
    for (i, (thread, member)) in threads.iter_mut().zip(members.iter().flatten()).enumerate() {
        *thread = Some(start(member)?);
        running |= 1 << i;
    }
    let outcome = shared.serve();
    while running != 0 {
        if let Received::Notification(bits) = ends.recv(&mut [])? {
            running &= !bits;
        }
    }
    outcome
}

/// Starts one of the other threads.
fn start<S: Service, F: Fn() -> S + Sync>(member: &Member<'_, F>) -> Result<Running, Error> {
    fn run<S: Service, F: Fn() -> S + Sync>(member: u64) {
        // SAFETY: `serve_by` passes one of its members, and goes on only when this thread has said that it has ended, or is killed.
        let member = unsafe { &*(member as *const Member<'_, F>) };
        let _ = member.shared.serve();
        let _ = member.ended.notify();
    }
    let stack = PageBuffer::new(STACK)?;
    let arg = core::ptr::from_ref(member) as u64;
    thread::spawn(run::<S, F>, arg, stack, Supervisor::Process)
}

impl<S: Service, F: Fn() -> S + Sync> Shared<'_, F> {
    /// Serves with the calling thread, and wakes the next one at the end.
    fn serve(&self) -> Result<(), Error> {
        let outcome = serve_on(self.endpoint, &mut Woken((self.make)()));
        let _ = self.wake.notify();
        outcome
    }
}

/// A service that does not see what wakes a pool.
struct Woken<S>(S);

impl<S: Service> Service for Woken<S> {
    fn takes_handles(&self) -> bool {
        self.0.takes_handles()
    }

    fn max_bytes(&self) -> usize {
        self.0.max_bytes()
    }

    #[inline]
    fn is_done(&self) -> bool {
        self.0.is_done()
    }

    #[inline]
    fn message(&mut self, incoming: Incoming, data: &[u8]) -> Option<Answer<'_>> {
        self.0.message(incoming, data)
    }

    fn notification(&mut self, bits: u64) {
        if bits != WAKE {
            self.0.notification(bits & !WAKE);
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.0.fault(fault);
    }
}
