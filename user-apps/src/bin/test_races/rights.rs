//! Memory that is taken back while other CPUs use it, and forks while others write and map.

use core::sync::atomic::Ordering::SeqCst;

use libipc::abi::{FaultVerdict, ShareMode};
use libipc::thread::{PRIORITY, Running, Supervisor};
use libipc::{Endpoint, Fault, Perm, Received, Space};
use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{child, status_of, thread, thread_with, until};
use user_apps::scenario::rng::Rng;

use super::*;

/// The page that is taken back, and where it stays mapped.
const PLACE: u64 = SCRATCH;
const ALIAS: u64 = OTHER;
/// Where another page is mapped when the place is empty.
const ELSEWHERE: u64 = SCRATCH + TABLE;

/// Threads that use the page, and a word for each in a page of its own.
const USERS: u64 = 3;
const BOARD: u64 = OTHER + TABLE;
/// Odd while the page may not be used.
const EPOCH: u64 = BOARD + 2048;

const fn turns(user: u64) -> u64 {
    BOARD + 64 * user
}

/// Uses the page for ever; an access that begins and ends in the same odd epoch got through. One that
/// faults ends in a later epoch.
fn use_page(user: u64, access: fn(u64)) -> ! {
    loop {
        let before = word(EPOCH).load(SeqCst);
        access(PLACE + 64 * user);
        let after = word(EPOCH).load(SeqCst);
        assert!(
            before.is_multiple_of(2) || before != after,
            "an access got through in epoch {before}"
        );
        word(turns(user)).fetch_add(1, SeqCst);
    }
}

/// The users of a page, who report their faults.
struct Users {
    faults: Endpoint,
    _threads: [Running; USERS as usize],
    _memory: Mapped,
}

impl Users {
    fn start(access: [fn(u64); USERS as usize]) -> Users {
        let memory = map(BOARD, 1);
        poke(EPOCH, 0);
        let faults = Endpoint::create().expect("endpoint");
        let mut user = 0;
        let threads = access.map(|access| {
            let number = user;
            user += 1;
            let supervisor = Supervisor::Endpoint(&faults);
            thread_with(PRIORITY, supervisor, move || use_page(number, access))
        });
        Users {
            faults,
            _threads: threads,
            _memory: memory,
        }
    }

    /// Waits until each has used the page once more.
    fn await_turns(&self) {
        let before = [0, 1, 2].map(|user| peek(turns(user)));
        until("the users", || {
            (0..USERS).all(|user| peek(turns(user)) > before[user as usize])
        });
    }

    /// The next so many faults.
    fn faults(&self, nr: usize) -> [Option<Fault>; USERS as usize] {
        let mut faults = [const { None }; USERS as usize];
        for fault in &mut faults[..nr] {
            match self.faults.recv(&mut []) {
                Ok(Received::Fault(report)) => *fault = Some(report),
                other => panic!("no fault, but {other:?}"),
            }
        }
        faults
    }
}

fn read(at: u64) {
    let _ = peek(at);
}

fn write(at: u64) {
    poke(at, 1);
}

fn add(at: u64) {
    word(at).fetch_add(1, SeqCst);
}

/// Lets the threads that faulted go on.
fn go_on(faults: [Option<Fault>; USERS as usize]) {
    word(EPOCH).fetch_add(1, SeqCst);
    for fault in faults.into_iter().flatten() {
        fault.decide(FaultVerdict::Resume).expect("verdict");
    }
}

pub(crate) fn after_an_unmap_no_access_gets_through() {
    let own = Space::own();
    own.map(PLACE, PAGE, Perm::RW).expect("map");
    let users = Users::start([read, write, add]);
    for _ in rounds(5000) {
        users.await_turns();
        own.unmap(PLACE, PAGE).expect("unmap");
        word(EPOCH).fetch_add(1, SeqCst);
        // Perhaps the same frame: nobody may find it by the old address.
        let memory = map(ELSEWHERE, 1);
        poke(ELSEWHERE + PAGE - 8, 1);
        let faults = users.faults(USERS as usize);
        let is_zero = |user| peek(ELSEWHERE + 64 * user) == 0;
        assert!((0..USERS).all(is_zero), "a store went to a frame of others");
        own.map(PLACE, PAGE, Perm::RW).expect("map");
        go_on(faults);
        drop(memory);
    }
    drop(users);
    own.unmap(PLACE, PAGE).expect("unmap");
}

pub(crate) fn after_a_protect_no_store_gets_through() {
    let own = Space::own();
    let _alias = map(ALIAS, 1);
    let mode = ShareMode::Shared;
    own.share(&own, ALIAS, PLACE, PAGE, mode, Some(Perm::RW))
        .expect("share");
    let users = Users::start([write, add, add]);
    for _ in rounds(5000) {
        users.await_turns();
        own.protect(PLACE, PAGE, Perm::R).expect("protect");
        word(EPOCH).fetch_add(1, SeqCst);
        let words = || [0, 1, 2].map(|user| peek(ALIAS + 64 * user));
        let before = words();
        let faults = users.faults(USERS as usize);
        assert_eq!(words(), before, "a store got through");
        own.protect(PLACE, PAGE, Perm::RW).expect("protect");
        go_on(faults);
    }
    drop(users);
    own.unmap(PLACE, PAGE).expect("unmap");
}

/// Pages that a thread maps, writes and unmaps in turn, and how many it has mapped and unmapped.
const RING: u64 = 8;
const MAPPED: u64 = BOARD + 1024;
const UNMAPPED: u64 = BOARD + 1088;

const fn ring(at: u64) -> u64 {
    SCRATCH + at % RING * TABLE
}

/// Maps a page in a table of its own, writes its number, tells of it, and takes the oldest away.
fn map_on() {
    let own = Space::own();
    for number in 1.. {
        own.map(ring(number), PAGE, Perm::RW).expect("map");
        poke(ring(number), number);
        word(MAPPED).store(number, SeqCst);
        if number >= RING / 2 {
            let oldest = number - RING / 2 + 1;
            word(UNMAPPED).store(oldest, SeqCst);
            own.unmap(ring(oldest), PAGE).expect("unmap");
        }
    }
}

/// What was told of when the fork happened is there, with its number.
pub(crate) fn a_fork_among_threads_that_map_copies_a_state_that_was() {
    let _memory = [OTHER, OTHER + PAGE + TABLE, BOARD].map(|at| map(at, 1));
    let mapper = thread(map_on);
    let writer = thread(|| {
        for count in 1.. {
            // Two pages: the first is never behind, and at most one ahead.
            poke(OTHER, count);
            poke(OTHER + TABLE + PAGE, count);
        }
    });
    let mut rng = Rng::new(3);
    until("pages", || peek(MAPPED) > RING && peek(OTHER) > 0);
    for _ in rounds(2000) {
        linger(&mut rng, 1000);
        let pid = child(|| {
            let (mapped, unmapped) = (peek(MAPPED), peek(UNMAPPED));
            let is_well = (unmapped + 1..=mapped).all(|number| peek(ring(number)) == number);
            let ahead = peek(OTHER) - peek(OTHER + TABLE + PAGE);
            i32::from(!is_well) | i32::from(ahead > 1) << 1
        });
        assert_eq!(status_of(pid), 0, "the child has what never was");
    }
    drop((mapper, writer));
    let own = Space::own();
    own.unmap(SCRATCH, RING * TABLE).expect("unmap");
}
