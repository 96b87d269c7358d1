//! Generated services between processes: connections, handles, pages, time, several threads, ends.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod by_hand;
mod examples;
mod pool;

use core::convert::Infallible;
use core::sync::atomic::{AtomicU8, Ordering};

use libipc::server::{self, Answer, Timer};
use libipc::service::{ConnectError, Error, Moved, Reply};
use libipc::services::Error as NamesError;
use libipc::time::{Duration, Instant};
use libipc::{
    Endpoint, ErrorCode, Message, PAGE_SIZE, PageBuffer, Received, Rights, Shared, Space, names,
    process,
};
use user_apps::scenario::frames::counters;
use user_apps::scenario::peer::{child, status_of, until};
use user_apps::scenario::server::connected;

use by_hand::a_server_can_be_written_by_hand;
use examples::*;
use pool::*;

user_apps::scenarios![
    a_service_is_found_by_its_name_and_ends_when_it_is_done,
    another_version_is_refused_when_connecting,
    a_name_that_nobody_has_is_told,
    handles_go_there_and_back_and_none_is_left,
    lent_pages_stay_and_moved_pages_go,
    a_buffer_moves_to_the_server_and_back,
    memory_that_is_shared_is_seen_by_both,
    shared_memory_that_is_not_there_is_refused,
    an_answer_may_wait_for_the_time,
    a_call_gives_up_at_its_deadline_and_the_server_goes_on,
    who_waits_for_a_server_that_dies_is_told_and_finds_the_next_by_name,
    a_pool_serves_several_requests_at_a_time,
    a_pool_of_one_or_none,
    a_server_can_be_written_by_hand,
    the_smallest_server_adds,
    a_store_lends_its_pages_to_many_readers,
    a_pipe_copies_no_page,
    a_cache_fetches_once_and_lends_to_many,
];

const NAME: &str = "sample";

/// No answer takes as long.
const HOUR: Duration = Duration::from_secs(3_600);

/// Bytes of a request.
const MAX_BYTES: usize = 4 * PAGE_SIZE;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
enum Trouble {
    Deaf,
    Missing,
    TooLong,
}

/// Something of everything.
#[libipc::service(version = 2, max_bytes = MAX_BYTES)]
trait Sample {
    /// Adds to a number that the server keeps; returns it.
    fn add(&mut self, number: u64) -> u64;
    /// The sum of lent bytes.
    fn sum(&self, bytes: &[u8]) -> u64;
    /// The sum of bytes that are given away.
    fn swallow(&self, pages: Moved<'_>) -> u64;
    /// Adds 1 to each byte of a buffer.
    fn add_to_all(&mut self, pages: PageBuffer) -> PageBuffer;
    /// Adds 1 to each byte of shared memory.
    fn add_in_place(&self, memory: &Shared) -> Result<(), Trouble>;
    /// Notifies an endpoint that is lent.
    fn ring(&self, bell: &Endpoint) -> Result<(), Trouble>;
    /// Takes an endpoint.
    fn keep(&mut self, bell: Endpoint);
    /// Gives it back.
    fn give_back(&mut self) -> Result<Endpoint, Trouble>;
    /// How many handles the server has.
    fn nr_handles(&self) -> u64;
    /// Answers after so many nanoseconds, with the number.
    fn after(&mut self, ns: u64, reply: Reply<u64, Infallible>) -> Option<Answer<'_>>;
    /// Ends the server.
    fn stop(&mut self, reply: Reply<(), Infallible>) -> Option<Answer<'_>>;
}

struct State {
    number: u64,
    bell: Option<Endpoint>,
    timer: Timer,
    sleeper: Option<Reply<u64, Infallible>>,
    is_done: bool,
}

impl Sample for State {
    fn add(&mut self, number: u64) -> u64 {
        self.number += number;
        self.number
    }

    fn sum(&self, bytes: &[u8]) -> u64 {
        sum(bytes)
    }

    fn swallow(&self, pages: Moved<'_>) -> u64 {
        sum(&pages)
    }

    fn add_to_all(&mut self, mut pages: PageBuffer) -> PageBuffer {
        pages.iter_mut().for_each(|byte| *byte += 1);
        pages
    }

    fn add_in_place(&self, memory: &Shared) -> Result<(), Trouble> {
        let bytes = memory.map(MAX_BYTES).map_err(|_| Trouble::TooLong)?;
        bytes.iter().for_each(|byte| {
            byte.fetch_add(1, Ordering::Relaxed);
        });
        Ok(())
    }

    fn ring(&self, bell: &Endpoint) -> Result<(), Trouble> {
        bell.notify().map_err(|_| Trouble::Deaf)
    }

    fn keep(&mut self, bell: Endpoint) {
        self.bell = Some(bell);
    }

    fn give_back(&mut self) -> Result<Endpoint, Trouble> {
        self.bell.take().ok_or(Trouble::Missing)
    }

    fn nr_handles(&self) -> u64 {
        Space::own().info().map_or(0, |info| info.handles)
    }

    fn after(&mut self, ns: u64, reply: Reply<u64, Infallible>) -> Option<Answer<'_>> {
        self.timer.after(ns).expect("timer");
        self.sleeper = Some(reply);
        None
    }

    fn stop(&mut self, reply: Reply<(), Infallible>) -> Option<Answer<'_>> {
        let _ = reply.send(Ok(()));
        self.is_done = true;
        None
    }

    fn notification(&mut self, bits: u64) {
        assert_eq!(bits, TIME);
        if let Some(sleeper) = self.sleeper.take() {
            let _ = sleeper.send(Ok(self.number));
        }
    }

    fn is_done(&self) -> bool {
        self.is_done
    }
}

/// The bit of the timer.
const TIME: u64 = 1 << 5;

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().copied().map(u64::from).sum()
}

fn serve() -> Result<(), NamesError> {
    let endpoint = Endpoint::create()?;
    let state = State {
        number: 0,
        bell: None,
        timer: Timer::new(&endpoint, TIME)?,
        sleeper: None,
        is_done: false,
    };
    names::register(NAME, &endpoint)?;
    Ok(server::serve_on(&endpoint, &mut SampleServer::new(state))?)
}

/// Starts a server in a process of its own.
fn start() -> (u64, SampleClient) {
    let pid = child(|| i32::from(serve().is_err()));
    (pid, connect())
}

/// A connection, once there is one.
fn connect() -> SampleClient {
    connected(|| SampleClient::connect(NAME))
}

fn stop(pid: u64, client: &SampleClient) {
    assert_eq!(client.stop(), Ok(()));
    assert_eq!(status_of(pid), 0, "the server's loop has ended");
}

fn a_service_is_found_by_its_name_and_ends_when_it_is_done() {
    let (pid, client) = start();
    assert_eq!(client.add(3), Ok(3));
    assert_eq!(connect().add(4), Ok(7));
    stop(pid, &client);
    assert_eq!(client.add(1), Err(Error::Kernel(libipc::Error::Died)));
}

/// The next version, which nobody serves.
mod next {
    #[allow(dead_code, reason = "nobody serves it")]
    #[libipc::service(version = 3)]
    pub(super) trait Sample {
        /// Adds to a number that the server keeps; returns it.
        fn add(&mut self, number: u64) -> u64;
    }
}

fn another_version_is_refused_when_connecting() {
    let (pid, client) = start();
    let other = next::SampleClient::connect(NAME);
    assert_eq!(
        other.map(|_| ()),
        Err(ConnectError::Other {
            client: next::SampleClient::PROTOCOL,
            server: SampleClient::PROTOCOL,
        })
    );
    // Who does not ask is not misunderstood either.
    let unasked = next::SampleClient::new(names::lookup(NAME).expect("lookup"));
    assert!(matches!(unasked.add(1), Err(Error::Mismatch(_))));
    assert_eq!(client.add(0), Ok(0));
    stop(pid, &client);
}

fn a_name_that_nobody_has_is_told() {
    let connected = SampleClient::connect("nobody");
    assert_eq!(connected.map(|_| ()), Err(ConnectError::NoServer));
}

fn handles_go_there_and_back_and_none_is_left() {
    let (pid, client) = start();
    let endpoint = Endpoint::create().expect("endpoint");
    let own = || Space::own().info().expect("info").handles;
    let bell = || {
        let rights = Rights::NOTIFY | Rights::COPY;
        endpoint.copy(rights, 4).expect("copy")
    };
    let before = (own(), client.nr_handles().expect("call"));
    for _ in 0..50 {
        let lent = bell();
        assert_eq!(client.ring(&lent), Ok(()));
        assert!(matches!(
            endpoint.recv(&mut []),
            Ok(Received::Notification(4))
        ));
        // It is still this side's, and then the other's.
        assert_eq!(lent.notify(), Ok(()));
        client.keep(lent).expect("call");
        assert_eq!(own(), before.0);
        let back = client.give_back().expect("call");
        assert_eq!(back.notify(), Ok(()));
        let missing = client.give_back().map(|_| ());
        assert_eq!(missing, Err(Error::Refused(Trouble::Missing)));
        let deaf = endpoint.copy(Rights::COPY, 0).expect("copy");
        assert_eq!(client.ring(&deaf), Err(Error::Refused(Trouble::Deaf)));
        assert!(endpoint.recv(&mut []).is_ok());
    }
    assert_eq!((own(), client.nr_handles().expect("call")), before);
    stop(pid, &client);
}

fn lent_pages_stay_and_moved_pages_go() {
    let (pid, client) = start();
    let mut pages = PageBuffer::new(MAX_BYTES).expect("buffer");
    let before = counters();
    for _ in 0..10 {
        pages.fill(3);
        assert_eq!(client.sum(&pages), Ok(3 * MAX_BYTES as u64));
        assert!(pages.iter().all(|&byte| byte == 3));
        // A part that begins elsewhere is copied.
        assert_eq!(client.sum(&pages[1..100]), Ok(3 * 99));
        let moved = Moved::out_of(&mut pages);
        assert_eq!(client.swallow(moved), Ok(3 * MAX_BYTES as u64));
        assert!(pages.iter().all(|&byte| byte == 0));
    }
    let after = counters();
    assert_eq!(after.remapped - before.remapped, 2 * 10 * 4);
    let too_long = PageBuffer::new(MAX_BYTES + 1).expect("buffer");
    assert!(matches!(client.sum(&too_long), Err(Error::Mismatch(_))));
    stop(pid, &client);
}

fn a_buffer_moves_to_the_server_and_back() {
    const NR_ROUNDS: u8 = 10;
    let (pid, client) = start();
    let mut pages = PageBuffer::new(MAX_BYTES).expect("buffer");
    pages.fill(0);
    let before = counters();
    for round in 1..=NR_ROUNDS {
        pages = client.add_to_all(pages).expect("call");
        assert_eq!(pages.len(), MAX_BYTES);
        assert!(pages.iter().all(|&byte| byte == round));
    }
    let after = counters();
    assert_eq!(
        after.remapped - before.remapped,
        2 * u64::from(NR_ROUNDS) * 4
    );
    // A shorter one comes back as short.
    let short = client.add_to_all(PageBuffer::copy_of(b"abc").expect("buffer"));
    assert_eq!(short.expect("call")[..], *b"bcd");
    stop(pid, &client);
}

fn memory_that_is_shared_is_seen_by_both() {
    let (pid, client) = start();
    let memory = Shared::new(2 * PAGE_SIZE + 1).expect("memory");
    let bytes = memory.map(MAX_BYTES).expect("mapping");
    for round in 1..=10 {
        assert_eq!(client.add_in_place(&memory), Ok(()));
        let is_seen = |byte: &AtomicU8| byte.load(Ordering::Relaxed) == round;
        assert!(bytes.len() == 2 * PAGE_SIZE + 1 && bytes.iter().all(is_seen));
    }
    // Who maps says how much that may be.
    let endless = Shared::new(1 << 40).expect("memory");
    let refused = client.add_in_place(&endless);
    assert_eq!(refused, Err(Error::Refused(Trouble::TooLong)));
    // What is mapped stays when nobody has a handle any more.
    drop(memory);
    stop(pid, &client);
    assert_eq!(bytes[PAGE_SIZE].load(Ordering::Relaxed), 10);
}

fn shared_memory_that_is_not_there_is_refused() {
    let (pid, client) = start();
    let empty = process::system().and_then(|system| Ok(system.create_space(None)?));
    let empty = empty.expect("space");
    let rights = [Rights::READ | Rights::MAP | Rights::COPY, Rights::COPY];
    for rights in rights {
        let object = empty.copy(rights, 0).expect("copy");
        let request = Message::new(SampleClient::ADD_IN_PLACE)
            .with_words([PAGE_SIZE as u64])
            .with_handles(&[object.handle()]);
        let reply = client.as_endpoint().call(request).expect("call");
        assert_eq!(Trouble::from_label(reply.label()), Some(Trouble::TooLong));
    }
    stop(pid, &client);
}

fn an_answer_may_wait_for_the_time() {
    let (pid, client) = start();
    let now = || libipc::object::clock().expect("clock").0;
    client.add(8).expect("call");
    let before = now();
    assert_eq!(client.after(2_000_000), Ok(8));
    assert!(now() - before >= 2_000_000);
    stop(pid, &client);
}

fn a_call_gives_up_at_its_deadline_and_the_server_goes_on() {
    let (pid, client) = start();
    let after = |duration| Instant::now().expect("clock") + duration;
    let before = counters();
    for ns in [0, 1_000, 1_000_000] {
        let deadline = after(Duration::from_nanos(ns));
        let late = client.until(deadline).after(u64::MAX / 4);
        assert_eq!(late, Err(Error::Kernel(libipc::Error::TimedOut)));
        assert!(Instant::now().expect("clock") >= deadline);
        // Who waits for the next answer gets that, and not one to who has gone.
        assert_eq!(client.until(after(HOUR)).after(1_000), Ok(0));
    }
    assert_eq!(counters().free, before.free);
    stop(pid, &client);
}

fn who_waits_for_a_server_that_dies_is_told_and_finds_the_next_by_name() {
    let (pid, client) = start();
    let waiting = child(|| {
        let client = connect();
        client.add(100).expect("call");
        let never = client.after(u64::MAX / 4);
        i32::from(never != Err(Error::Kernel(libipc::Error::Died)))
    });
    until("a client of the server", || client.add(0) == Ok(100));
    process::kill(pid).expect("kill");
    assert_eq!(client.add(1), Err(Error::Kernel(libipc::Error::Died)));
    assert_eq!(
        status_of(pid),
        libipc::services::procd::Reason::Killed.status()
    );
    assert_eq!(status_of(waiting), 0);
    let (next, client) = start();
    assert_eq!(client.add(1), Ok(1));
    stop(next, &client);
}
