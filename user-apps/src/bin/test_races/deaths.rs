//! Ends that come while the dying run on other CPUs.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libipc::abi::{Call, Error, Handle, ThreadState};
use libipc::raw::message_call;
use libipc::rt::thread_exit;
use libipc::services::procd::Reason;
use libipc::thread::{Running, Supervisor, spawn};
use libipc::{
    Endpoint, Incoming, Message, PageBuffer, Perm, Received, Rights, ShareMode, Space, System,
    Thread, process, start,
};
use user_apps::scenario::cpus;
use user_apps::scenario::memory::PAGE;
use user_apps::scenario::peer::{child, status_of, thread, until, until_state};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, fork_and_wait, system};

use super::*;

/// Longest delay before a kill, in turns: about as long as what it races.
const DELAY: u64 = 20_000;

/// A process forks and waits until it is killed; what it has started ends by itself.
pub(crate) fn a_kill_races_fork_and_exit() {
    let mut rng = Rng::new(5);
    for _ in rounds(2000) {
        let pid = child(|| {
            loop {
                let pid = child(|| 0);
                assert_eq!(status_of(pid), 0);
            }
        });
        linger(&mut rng, DELAY);
        process::kill(pid).expect("a child that does not end by itself");
        assert_eq!(status_of(pid), Reason::Killed.status());
    }
}

/// A program with a server, or a client, is killed in the middle of a message of three pages.
pub(crate) fn a_kill_races_send_and_reply() {
    let mut rng = Rng::new(6);
    let system = system();
    let endpoint = Endpoint::create().expect("endpoint");
    let served = endpoint.handle();
    let server = thread(move || serve(served));
    let gift = [Gift(served, Rights::SEND, 0)];
    for _ in rounds(2000) {
        let client = Twin::start(&system, &gift, |[to, ..]| {
            let data = PageBuffer::new(3 * PAGE as usize).expect("pages");
            let mut reply = PageBuffer::new(3 * PAGE as usize).expect("pages");
            loop {
                let sent = Endpoint::borrow(to).send(Message::new(1), &data, &mut reply);
                sent.expect("the server does not end");
            }
        });
        linger(&mut rng, DELAY);
        client.kill();
    }
    drop(server);
}

/// Answers with what has come, whether or not somebody is left to take it.
fn serve(from: Handle) {
    let endpoint = Endpoint::borrow(from);
    let mut buffer = PageBuffer::new(3 * PAGE as usize).expect("pages");
    loop {
        match endpoint.recv(&mut buffer) {
            Ok(Received::Message(incoming)) => {
                let replied = incoming.token.reply(Message::new(2), &buffer);
                assert!(
                    matches!(replied, Ok(_) | Err(Error::StaleToken)),
                    "{replied:?}"
                );
            }
            other => panic!("no message, but {other:?}"),
        }
    }
}

/// A server is killed that does nothing but answer one short message and receive the next: nearly always
/// it is on its way into the kernel, or waits to be let in.
pub(crate) fn a_kill_races_a_reply_that_receives_the_next() {
    let mut rng = Rng::new(12);
    let system = system();
    for _ in rounds(2000) {
        let endpoint = Endpoint::create().expect("endpoint");
        let [receive, send] = [Rights::RECV | Rights::COPY, Rights::SEND]
            .map(|rights| [Gift(endpoint.handle(), rights, 0)]);
        let server = Twin::start(&system, &receive, |[from, ..]| echo(from));
        let client = Twin::start(&system, &send, |[to, ..]| {
            let ended = loop {
                if let Err(error) = Endpoint::borrow(to).call(Message::new(1)) {
                    break error;
                }
            };
            assert_eq!(ended, Error::Died);
        });
        // The server has the last right to receive.
        drop(endpoint);
        linger(&mut rng, DELAY);
        server.kill();
        client.join();
    }
}

/// Answers with the same words, in one call with the next receive.
pub(crate) fn echo(from: Handle) {
    let endpoint = Endpoint::borrow(from);
    let mut received = endpoint.recv(&mut []);
    while let Ok(Received::Message(Incoming { token, message, .. })) = received {
        received = endpoint.reply_recv(token, message, &[], &mut []);
    }
}

/// Clients of a server that is killed all hear of it, and nobody waits for ever.
pub(crate) fn a_kill_of_the_server_reaches_clients_on_every_cpu() {
    static ENDPOINT: AtomicU32 = AtomicU32::new(0);
    static FAILED: AtomicU64 = AtomicU64::new(0);
    static ROUND: AtomicU64 = AtomicU64::new(0);
    const CLIENTS: u64 = 4;
    let mut rng = Rng::new(7);
    let system = system();
    let clients: [_; CLIENTS as usize] = core::array::from_fn(|_| {
        thread(|| {
            let data = PageBuffer::new(2 * PAGE as usize).expect("pages");
            for round in 1.. {
                meet("a round", || ROUND.load(SeqCst) >= round);
                let to = Endpoint::borrow(Handle(ENDPOINT.load(SeqCst)));
                let error = loop {
                    match to.send(Message::new(1), &data, &mut []) {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                assert_eq!(error, Error::Died);
                FAILED.fetch_add(1, SeqCst);
            }
        })
    });
    for round in rounds(1000) {
        let endpoint = Endpoint::create().expect("endpoint");
        let to = endpoint.copy(Rights::SEND, 0).expect("copy");
        let server = Twin::start(
            &system,
            &[Gift(endpoint.handle(), Rights::RECV, 0)],
            |[from, ..]| serve(from),
        );
        // The twin has the last right to receive.
        drop(endpoint);
        ENDPOINT.store(to.handle().0, SeqCst);
        ROUND.store(round, SeqCst);
        linger(&mut rng, DELAY);
        server.kill();
        meet("the clients", || FAILED.load(SeqCst) == round * CLIENTS);
    }
    drop(clients);
}

/// A thread ends by itself while two others kill it.
pub(crate) fn two_kills_race_an_exit() {
    static VICTIM: AtomicU32 = AtomicU32::new(0);
    static ROUND: AtomicU64 = AtomicU64::new(0);
    static KILLED: AtomicU64 = AtomicU64::new(0);
    let killers = [8, 9].map(|seed| {
        thread(move || {
            let mut rng = Rng::new(seed);
            for round in 1.. {
                meet("a round", || ROUND.load(SeqCst) >= round);
                linger(&mut rng, 500);
                let result = Thread::borrow(Handle(VICTIM.load(SeqCst))).kill();
                assert!(matches!(result, Ok(()) | Err(Error::Died)), "{result:?}");
                KILLED.fetch_add(1, SeqCst);
            }
        })
    });
    for round in rounds(5000) {
        let stack = PageBuffer::new(PAGE as usize).expect("stack");
        let victim = spawn(end_soon, round, stack, Supervisor::Process).expect("thread");
        VICTIM.store(victim.thread().handle().0, SeqCst);
        ROUND.store(round, SeqCst);
        meet("the killers", || KILLED.load(SeqCst) == 2 * round);
        assert!(victim.is_finished(), "it was killed");
    }
    drop(killers);
}

/// What a thread does that may be killed at any moment: nothing that holds a lock of the program.
fn end_soon(seed: u64) {
    linger(&mut Rng::new(seed), 500);
}

/// A space ends while two threads share memory with it, map and unmap there.
pub(crate) fn a_kill_races_calls_on_the_memory_of_the_dying() {
    static SPACE: AtomicU32 = AtomicU32::new(0);
    static ROUND: AtomicU64 = AtomicU64::new(0);
    static DIED: AtomicU64 = AtomicU64::new(0);
    const CALLERS: u64 = 2;
    Space::own()
        .map(SCRATCH, 4 * PAGE, Perm::RW)
        .expect("memory");
    (0..4).for_each(|page| word(SCRATCH + page * PAGE).store(page, SeqCst));
    let callers: [Running; CALLERS as usize] = core::array::from_fn(|who| {
        thread(move || {
            for round in 1.. {
                meet("a round", || ROUND.load(SeqCst) >= round);
                let space = Space::borrow(Handle(SPACE.load(SeqCst)));
                let error = loop {
                    if let Err(error) = change_memory(&space, who as u64 * TABLE) {
                        break error;
                    }
                };
                assert_eq!(error, Error::Died);
                DIED.fetch_add(1, SeqCst);
            }
        })
    });
    let (mut rng, system) = (Rng::new(13), system());
    for round in rounds(5000) {
        let space = system.create_space(None).expect("space");
        SPACE.store(space.handle().0, SeqCst);
        ROUND.store(round, SeqCst);
        linger(&mut rng, 5000);
        space.kill().expect("it does not end by itself");
        meet("the callers", || DIED.load(SeqCst) == round * CALLERS);
    }
    drop(callers);
}

/// Shares pages with a space, from this address on, maps another one, and takes all of them away.
fn change_memory(space: &Space, at: u64) -> Result<(), Error> {
    let cow = ShareMode::CopyOnWrite;
    space.share(&Space::own(), SCRATCH, at, 4 * PAGE, cow, None)?;
    space.map(at + 4 * PAGE, PAGE, Perm::RW)?;
    space.unmap(at, 5 * PAGE)
}

/// Eight threads call an endpoint that goes away, at any moment between the first and the last.
pub(crate) fn an_endpoint_destroyed_while_eight_send_fails_each() {
    static ENDPOINT: AtomicU32 = AtomicU32::new(0);
    static ROUND: AtomicU64 = AtomicU64::new(0);
    static DIED: AtomicU64 = AtomicU64::new(0);
    const SENDERS: usize = 8;
    let senders: [Running; SENDERS] = core::array::from_fn(|_| {
        thread(|| {
            for round in 1.. {
                meet("a round", || ROUND.load(SeqCst) >= round);
                let to = Endpoint::borrow(Handle(ENDPOINT.load(SeqCst)));
                let result = to.call(Message::new(0)).map(|reply| reply.label());
                assert_eq!(result, Err(Error::Died));
                DIED.fetch_add(1, SeqCst);
            }
        })
    });
    let mut rng = Rng::new(10);
    for round in rounds(5000) {
        let endpoint = Endpoint::create().expect("endpoint");
        let to = endpoint.copy(Rights::SEND, 0).expect("copy");
        ENDPOINT.store(to.handle().0, SeqCst);
        ROUND.store(round, SeqCst);
        if rng.one_in(4) {
            let one = rng.below(SENDERS as u64) as usize;
            until_state(senders[one].thread(), ThreadState::Sending);
        } else {
            linger(&mut rng, 5000);
        }
        drop(endpoint);
        until("the senders", || {
            DIED.load(SeqCst) == round * SENDERS as u64
        });
    }
    drop(senders);
}

/// A handle is closed and its slot used again, while three threads go on using the old number.
pub(crate) fn a_closed_handle_never_names_another_object() {
    static HANDLE: AtomicU32 = AtomicU32::new(0);
    static CLOSED: AtomicU32 = AtomicU32::new(0);
    static USED: AtomicU64 = AtomicU64::new(0);
    let users = [(); 3].map(|()| {
        thread(|| {
            loop {
                let is_closed = CLOSED.load(SeqCst);
                let handle = HANDLE.load(SeqCst);
                let result = Endpoint::borrow(Handle(handle)).notify();
                match result {
                    Ok(()) => assert_ne!(is_closed, handle, "a closed handle works"),
                    Err(error) => assert_eq!(error, Error::BadHandle),
                }
                USED.fetch_add(1, SeqCst);
            }
        })
    });
    let endpoint = Endpoint::create().expect("endpoint");
    let decoy = Endpoint::create().expect("endpoint");
    let mut rng = Rng::new(11);
    for _ in rounds(20_000) {
        let victim = endpoint.copy(Rights::NOTIFY, 1).expect("copy");
        let handle = victim.handle().0;
        HANDLE.store(handle, SeqCst);
        linger(&mut rng, 1000);
        drop(victim);
        CLOSED.store(handle, SeqCst);
        let other = decoy.copy(Rights::NOTIFY, 2).expect("copy");
        assert_ne!(other.handle().0, handle, "a number is used again");
        linger(&mut rng, 1000);
        drop(other);
    }
    until("uses", || USED.load(SeqCst) > 0);
    let decoyed = decoy.try_recv(&mut []);
    assert!(
        matches!(decoyed, Err(Error::WouldBlock)),
        "another object was named: {decoyed:?}"
    );
    drop(users);
}

/// Programs on all CPUs make spaces and threads, which end by themselves, and are killed in the middle of that. Another one
/// answers senders that there may be at any place of the kernel's tables.
pub(crate) fn a_kill_races_who_makes_spaces_and_threads() {
    const NR_MAKERS: usize = 4;
    let system = system();
    let counters = PageBuffer::new(NR_MAKERS * PAGE as usize).expect("memory");
    counters.make_shared().expect("shared");
    let counters = counters.addr();
    let make = |number: usize| {
        let gift = Gift(system.handle(), Rights::CREATE, 0);
        Twin::start(&system, &[gift], move |[system, ..]| {
            let own = Thread::borrow(start::thread());
            let cpu = number as u64 % cpus::count();
            cpus::bind(&own, 1 << cpu).expect("the CPU is there");
            let counter = counters + number as u64 * PAGE;
            make_and_end(&System::borrow(system), counter).expect("a space with a thread")
        })
    };
    let mut makers = [0, 1, 2, 3].map(|number| Some(make(number)));
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let guesser = Twin::start(&system, &[gift], |[endpoint, ..]| answer_anybody(endpoint));
    let mut rng = Rng::new(13);
    for _ in rounds(2000) {
        linger(&mut rng, DELAY);
        let number = rng.below(NR_MAKERS as u64) as usize;
        makers[number].take().expect("it is there").kill();
        makers[number] = Some(make(number));
    }
    for number in 0..NR_MAKERS {
        let counter = word(counters + number as u64 * PAGE);
        let before = counter.load(SeqCst);
        until("a space more", || counter.load(SeqCst) > before);
    }
    makers.into_iter().flatten().for_each(Twin::kill);
    guesser.kill();
}

/// Makes spaces with a thread each, which adds one to the counter and ends.
fn make_and_end(system: &System, counter: u64) -> Result<(), Error> {
    let end = Endpoint::create()?;
    let stack = PageBuffer::new(PAGE as usize)?;
    loop {
        let before = word(counter).load(SeqCst);
        fork_and_wait(system, &end, &stack, count_and_end, counter)?;
        // One that was killed may have left a child, which has counted, too.
        assert!(word(counter).load(SeqCst) > before, "it has not run");
    }
}

extern "C" fn count_and_end(counter: u64) -> ! {
    word(counter).fetch_add(1, SeqCst);
    thread_exit()
}

/// Answers with tokens that nobody gave it.
fn answer_anybody(endpoint: Handle) {
    /// Where tokens have the place of the sender: chunk and byte offset.
    const NR_PLACES: u64 = 1 << 15;
    let mut rng = Rng::new(17);
    loop {
        let token = 1 << 24 | rng.below(NR_PLACES);
        let args = [token, 0, 0, 0, 0, 0];
        let (code, ..) = message_call(Call::ReplyRecv as u32, endpoint, args, [0; 4]);
        assert_eq!(code, Error::StaleToken as u64);
    }
}
