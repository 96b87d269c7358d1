//! What a process of the soak does: an action after another, beside threads that write to its memory.
//!
//! Each action panics when something is not as it must be. Threads that are killed do nothing that takes a lock of
//! the program: whoever holds one then would hold it for ever.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::abi::{Error, FaultVerdict, Handle, ShareMode};
use libipc::thread::{PRIORITY, Supervisor, spawn};
use libipc::{
    Endpoint, Message, PageBuffer, Perm, Received, Rights, Space, Thread, process, start,
};
use user_apps::scenario::cpus;
use user_apps::scenario::memory::{PAGE, SCRATCH, fill, map, mismatch, peek, poke};
use user_apps::scenario::peer::{child, join, status_of, thread, thread_with, until};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, system};

use super::{now, rest};

/// What a lowest-level table covers.
const TABLE: u64 = 512 * PAGE;
/// Pages that are written all the time, and the threads that do.
const PAGES: u64 = 3;
const WRITERS: u64 = 2;
/// Where they appear again; where a page comes and goes; where much memory does.
const COPY: u64 = SCRATCH + (1 << 40);
const PLACE: u64 = SCRATCH + 2 * (1 << 40);
const EXPANSE: u64 = SCRATCH + 3 * (1 << 40);
/// Longest delay, in turns: about as long as what is raced.
const DELAY: u64 = 20_000;

const ACTIONS: &[fn(&mut Rng)] = &[
    fork,
    copy,
    take_a_page_away,
    talk_to_a_twin,
    kill_a_thread,
    wait_for_a_timer,
    map_and_unmap,
];

/// Acts at random until told to stop.
pub(super) fn act(rng: &mut Rng, mut goes_on: impl FnMut() -> bool) {
    let _memory = map(SCRATCH, 512);
    let all_cpus = (1 << cpus::count()) - 1;
    // At an equal priority they take turns from everybody; at a lower one they take what is left.
    let priority = rng.pick(&[PRIORITY, PRIORITY - 1, PRIORITY - 1]);
    let supervisor = Supervisor::Process;
    let writers = [0, 1].map(|writer| thread_with(priority, supervisor, move || count_up(writer)));
    while goes_on() {
        // The next threads and this one's own next steps are there.
        let own = Thread::borrow(start::thread());
        let moved = writers[rng.below(WRITERS) as usize].thread();
        cpus::bind(moved, 1 + rng.below(all_cpus)).expect("CPUs");
        cpus::bind(&own, 1 + rng.below(all_cpus)).expect("CPUs");
        rng.pick(ACTIONS)(rng);
    }
}

fn linger(rng: &mut Rng) {
    for _ in 0..rng.below(DELAY) {
        spin_loop();
    }
}

const fn slot(writer: u64, page: u64) -> u64 {
    SCRATCH + page * PAGE + 64 * writer
}

/// Counts up, page after page.
fn count_up(writer: u64) {
    for count in 1.. {
        for page in 0..PAGES {
            let at = slot(writer, page);
            assert_eq!(peek(at), count - 1, "a store of writer {writer} is lost");
            poke(at, count);
        }
    }
}

/// What a writer's words are at a copy.
fn words(base: u64) -> [[u64; PAGES as usize]; WRITERS as usize] {
    [0, 1].map(|writer| [0, 1, 2].map(|page| peek(slot(writer, page) - SCRATCH + base)))
}

/// Whether a copy is what there was at one moment.
fn is_a_moment(base: u64) -> bool {
    words(base)
        .iter()
        .all(|[first, middle, last]| first >= middle && middle >= last && first - last <= 1)
}

/// A child has what there was, writes to it, and ends, is killed, or is left alone.
fn fork(rng: &mut Rng) {
    let pid = child(|| {
        assert!(is_a_moment(SCRATCH), "{:?}", words(SCRATCH));
        for page in 0..PAGES {
            poke(slot(0, page), u64::MAX);
        }
        0
    });
    linger(rng);
    if rng.one_in(3) {
        // It may have ended.
        let _ = process::kill(pid);
        process::wait(pid).expect("a child");
    } else {
        assert_eq!(status_of(pid), 0);
    }
}

/// Pages, or their table, are copied while they are written.
fn copy(rng: &mut Rng) {
    let own = Space::own();
    for _ in 0..rng.below(50) {
        let len = rng.pick(&[TABLE, PAGES * PAGE]);
        let mode = ShareMode::CopyOnWrite;
        own.share(&own, SCRATCH, COPY, len, mode, None)
            .expect("share");
        let before = words(COPY);
        linger(rng);
        assert_eq!(words(COPY), before, "a copy changes");
        assert!(is_a_moment(COPY), "{before:?}");
        own.unmap(COPY, len).expect("unmap");
    }
}

/// Odd while the page may not be used.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// A page is unmapped, or made read-only, under two threads that write to it.
fn take_a_page_away(rng: &mut Rng) {
    let own = Space::own();
    let faults = Endpoint::create().expect("endpoint");
    EPOCH.store(0, SeqCst);
    let memory = map(PLACE, 1);
    let supervisor = Supervisor::Endpoint(&faults);
    let users = [0, 8].map(|at| {
        thread_with(PRIORITY, supervisor, move || {
            loop {
                let before = EPOCH.load(SeqCst);
                poke(PLACE + at, 1);
                let is_allowed = before.is_multiple_of(2) || before != EPOCH.load(SeqCst);
                assert!(is_allowed, "a store got through");
            }
        })
    });
    for _ in 0..rng.below(20) {
        linger(rng);
        let is_unmapped = rng.one_in(2);
        let taken = match is_unmapped {
            true => own.unmap(PLACE, PAGE),
            false => own.protect(PLACE, PAGE, Perm::R),
        };
        taken.expect("a page");
        EPOCH.fetch_add(1, SeqCst);
        let reports = [(); 2].map(|()| match faults.recv(&mut []) {
            Ok(Received::Fault(fault)) => fault,
            other => panic!("no fault, but {other:?}"),
        });
        let given = match is_unmapped {
            true => own.map(PLACE, PAGE, Perm::RW),
            false => own.protect(PLACE, PAGE, Perm::RW),
        };
        given.expect("a page");
        EPOCH.fetch_add(1, SeqCst);
        for fault in reports {
            fault.decide(FaultVerdict::Resume).expect("verdict");
        }
    }
    drop((users, memory));
}

/// Pages go to another space and come back, until that is killed under two clients.
fn talk_to_a_twin(rng: &mut Rng) {
    let endpoint = Endpoint::create().expect("endpoint");
    let to = endpoint.copy(Rights::SEND, 0).expect("copy");
    let gifts = [Gift(endpoint.handle(), Rights::RECV, 0)];
    let twin = Twin::start(&system(), &gifts, |[from, ..]| echo(from));
    // The twin has the last right to receive.
    drop(endpoint);
    let len = (PAGE * (1 + rng.below(4)) - rng.below(2)) as usize;
    let mut data = PageBuffer::new(len).expect("pages");
    let mut reply = PageBuffer::new(len).expect("pages");
    for seed in 0..rng.below(30) {
        fill(&mut data, seed);
        to.send(Message::new(1), &data, &mut reply).expect("send");
        assert_eq!(mismatch(&reply, seed), None, "other bytes come back");
    }
    let handle = to.handle();
    let clients = [(); 2].map(|()| {
        thread(move || {
            let to = Endpoint::borrow(handle);
            let error = loop {
                if let Err(error) = to.call(Message::new(1)) {
                    break error;
                }
            };
            assert_eq!(error, Error::Died);
        })
    });
    linger(rng);
    twin.kill();
    clients.into_iter().for_each(join);
}

/// Sends back what has come.
fn echo(from: Handle) {
    let endpoint = Endpoint::borrow(from);
    let mut buffer = PageBuffer::new(4 * PAGE as usize).expect("pages");
    loop {
        match endpoint.recv(&mut buffer) {
            Ok(Received::Message(incoming)) => {
                let bytes = &buffer[..incoming.len];
                incoming.token.reply(Message::new(0), bytes).expect("reply");
            }
            other => panic!("no message, but {other:?}"),
        }
    }
}

/// Threads are killed at any moment of their short lives.
fn kill_a_thread(rng: &mut Rng) {
    let end_soon = |seed| linger(&mut Rng::new(seed));
    for _ in 0..rng.below(20) {
        let stack = PageBuffer::new(PAGE as usize).expect("stack");
        let victim = spawn(end_soon, rng.word(), stack, Supervisor::Process).expect("thread");
        linger(rng);
        let killed = victim.thread().kill();
        assert!(matches!(killed, Ok(()) | Err(Error::Died)), "{killed:?}");
        until("the end of a thread", || victim.is_finished());
    }
}

/// A time passes, never less than asked for.
fn wait_for_a_timer(rng: &mut Rng) {
    for _ in 0..rng.below(10) {
        let (before, ns) = (now(), rng.below(500_000));
        rest(ns);
        assert!(now() - before >= ns, "too early");
    }
}

/// Memory of many tables is mapped, touched here and there, and taken away in pieces.
fn map_and_unmap(rng: &mut Rng) {
    let own = Space::own();
    let nr_pages = 1 + rng.below(4096);
    let memory = map(EXPANSE, nr_pages);
    for _ in 0..rng.below(64) {
        let at = EXPANSE + PAGE * rng.below(nr_pages);
        let found = peek(at);
        assert!(found == 0 || found == at, "{found:#x} at {at:#x}");
        poke(at, at);
    }
    for _ in 0..rng.below(8) {
        let first = rng.below(nr_pages);
        let len = PAGE * (1 + rng.below(nr_pages - first));
        own.unmap(EXPANSE + PAGE * first, len).expect("unmap");
    }
    drop(memory);
}
