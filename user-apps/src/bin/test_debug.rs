//! Seeing what happens: who is blocked on whom, who waits in a circle, what lies where, and what a fault's report makes of a
//! hostile stack.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use libipc::abi::{Perm, RangeKind, ShareMode};
use libipc::course;
use libipc::object::Range;
use libipc::services::procd::{FIRST_SERVER, INIT_PID, ProcdClient, Reason};
use libipc::services::{Error, Refusal};
use libipc::time::{Duration, sleep};
use libipc::{PAGE_SIZE, PageBuffer, Space, getpid, process, start};
use user_apps::memmap::{Map, Sums};
use user_apps::ps::{Process, Snapshot};
use user_apps::scenario::assert_err;
use user_apps::scenario::memory::{SCRATCH, poke};
use user_apps::scenario::peer::{child, expect_status, status_of, thread, until};
use user_apps::stacks;

user_apps::scenarios![
    what_a_process_is_blocked_on_is_told_in_each_state,
    threads_are_told_one_by_one,
    the_standard_servers_are_listed_too,
    a_cycle_of_two_processes_is_named_and_stays_killable,
    a_cycle_of_three_processes_is_named_and_stays_killable,
    who_gives_up_some_time_is_in_no_cycle,
    a_forked_process_is_drawn_with_its_sharers,
    what_memmap_draws_adds_up_to_what_ps_says,
    a_terabyte_and_aliased_tables_hold_nobody_up,
    nobody_looks_into_strangers,
    a_backtrace_ends_where_the_program_begins,
    hostile_stacks_are_reported_and_end,
];

/// A process and its only thread, when that is blocked.
fn blocked_on(pid: u64) -> String {
    let all = Snapshot::take().expect("ps");
    let process = find(&all, pid);
    match &process.threads[..] {
        [thread] => all.blocked_on(thread, 80),
        threads => alloc::format!("{} threads", threads.len()),
    }
}

fn find(all: &Snapshot, pid: u64) -> &Process {
    let found = all
        .processes
        .iter()
        .find(|process| process.entry.pid == pid);
    found.expect("the process is listed")
}

/// Waits until a process is blocked on this.
#[track_caller]
fn until_blocked_on(pid: u64, what: &str) {
    let mut seen = String::new();
    until("what a process is blocked on", || {
        seen = blocked_on(pid);
        seen == what
    });
}

/// This process, as others are told of it.
fn own_name() -> String {
    alloc::format!("test_debug {}", getpid())
}

/// Ends a child that waits.
fn end(pid: u64) {
    process::kill(pid).expect("kill");
    assert_eq!(status_of(pid), Reason::Killed.status());
}

/// A child that waits for a message.
fn receiver() -> u64 {
    let pid = child(|| course::recv(&mut []).map_or(1, |_| 0));
    until_blocked_on(pid, "a message");
    pid
}

fn what_a_process_is_blocked_on_is_told_in_each_state() {
    end(receiver());

    let sleeper = child(|| sleep(Duration::from_secs(10_000)).map_or(1, |()| 0));
    until_blocked_on(sleeper, "timer");
    end(sleeper);

    let parent = getpid();
    let client = child(move || course::send(parent, b"question", &mut []).map_or(1, |_| 0));
    until_blocked_on(client, &own_name());
    let letter = course::recv(&mut [0; 8]).expect("recv");
    until_blocked_on(client, &alloc::format!("reply from {}", own_name()));
    letter.reply(&[]).expect("reply");
    assert_eq!(status_of(client), 0);

    let waits = child(|| {
        let pid = child(|| course::recv(&mut []).map_or(1, |_| 0));
        process::wait(pid).map_or(1, |_| 0)
    });
    until_blocked_on(waits, "reply from procd");
    let all = Snapshot::take().expect("ps");
    let mut processes = all.processes.iter().map(|process| process.entry);
    let waited_for = processes
        .find(|entry| entry.ppid == waits)
        .expect("a child's child");
    process::kill(waited_for.pid).expect("kill");
    assert_eq!(status_of(waits), 0);
}

fn threads_are_told_one_by_one() {
    let pid = child(|| {
        let _second = thread(|| {
            let _ = sleep(Duration::from_secs(10_000));
        });
        course::recv(&mut []).map_or(1, |_| 0)
    });
    let mut words = Vec::new();
    until("both threads wait", || {
        let all = Snapshot::take().expect("ps");
        let threads = &find(&all, pid).threads;
        assert!(threads.is_sorted_by_key(|thread| thread.number));
        words = threads
            .iter()
            .map(|thread| all.blocked_on(thread, 80))
            .collect();
        words == ["a message", "timer"]
    });
    end(pid);
}

fn the_standard_servers_are_listed_too() {
    let all = Snapshot::take().expect("ps");
    assert_eq!(find(&all, INIT_PID).entry.name(), "init");
    assert_eq!(find(&all, INIT_PID).threads.len(), 2);
    let servers = all
        .processes
        .iter()
        .filter(|process| process.entry.is_server());
    let names: Vec<_> = servers.clone().map(|server| server.entry.name()).collect();
    assert_eq!(names, ["memstat", "names", "console", "files", "procd"]);
    for server in servers {
        assert!(server.memory.private > 0 && !server.threads.is_empty());
    }
    assert!(all.deadlocks().is_empty(), "{:?}", all.deadlocks());
}

/// Children that each ask the next one, and the last the first, when they have been told which; `last` is how that one asks.
fn ring(count: usize, last: fn(u64) -> i32) -> Vec<u64> {
    let parent = getpid();
    let asks = move |ask: fn(u64) -> i32| {
        // Who asks before this one has been told whom to ask waits as well.
        let mut questions = Vec::new();
        loop {
            let mut next = [0; 8];
            let letter = course::recv(&mut next).expect("recv");
            if letter.from == parent {
                letter.reply(&[]).expect("reply");
                return ask(u64::from_le_bytes(next));
            }
            questions.push(letter);
        }
    };
    let pids: Vec<u64> = (1..=count)
        .map(|number| child(|| asks(if number == count { last } else { ask })))
        .collect();
    for (i, &pid) in pids.iter().enumerate() {
        let next = pids[(i + 1) % count];
        course::send(pid, &next.to_le_bytes(), &mut []).expect("send");
    }
    pids
}

fn ask(pid: u64) -> i32 {
    course::send(pid, b"question", &mut []).map_or(1, |_| 0)
}

/// The deadlocks that have to do with these.
fn deadlocks_among(pids: &[u64]) -> Vec<String> {
    let names = |line: &String| {
        pids.iter()
            .any(|pid| line.contains(&alloc::format!(" {pid}")))
    };
    let deadlocks = Snapshot::take().expect("ps").deadlocks();
    deadlocks.into_iter().filter(names).collect()
}

fn a_ring_is_named(count: usize) {
    let pids = ring(count, ask);
    let mut named = Vec::new();
    until("the cycle is named", || {
        named = deadlocks_among(&pids);
        !named.is_empty()
    });
    let name = |pid: &u64| alloc::format!("test_debug {pid}");
    let names: Vec<_> = pids.iter().chain(pids.first()).map(name).collect();
    assert_eq!(named, [alloc::format!("deadlock: {}", names.join(" -> "))]);

    // One that dies sets the others free, one after the other.
    end(pids[0]);
    assert!(deadlocks_among(&pids).is_empty());
    for &pid in &pids[1..] {
        assert_eq!(status_of(pid), 1, "whom it asked has died");
    }
}

fn a_cycle_of_two_processes_is_named_and_stays_killable() {
    a_ring_is_named(2);
}

fn a_cycle_of_three_processes_is_named_and_stays_killable() {
    a_ring_is_named(3);
}

fn who_gives_up_some_time_is_in_no_cycle() {
    fn ask_for_a_while(pid: u64) -> i32 {
        let procd = ProcdClient::borrow(start::procd());
        let given = procd.endpoint(pid).expect("endpoint");
        let endpoint = libipc::Endpoint::from_raw(given.into());
        let end = libipc::time::Instant::now().expect("clock") + Duration::from_secs(10_000);
        let message = libipc::Message::new(0);
        endpoint
            .send_until(end, message, &[], &mut [])
            .map_or(1, |_| 0)
    }
    let pids = ring(2, ask_for_a_while);
    for (&pid, &other) in pids.iter().zip(pids.iter().rev()) {
        until("both wait for the other", || {
            blocked_on(pid).ends_with(&alloc::format!("test_debug {other}"))
        });
    }
    assert!(deadlocks_among(&pids).is_empty());
    pids.into_iter().for_each(|pid| {
        let _ = process::kill(pid);
        status_of(pid);
    });
}

/// The range of a map that has an address.
fn range_at(map: &Map, addr: u64) -> Range {
    let has = |range: &&Range| (range.start..range.end).contains(&addr);
    *map.ranges.iter().find(has).expect("something is mapped")
}

fn a_forked_process_is_drawn_with_its_sharers() {
    const LEN: usize = 4 << 20;
    let mut memory = PageBuffer::new(LEN).expect("memory");
    for page in memory.chunks_mut(PAGE_SIZE) {
        page[0] = 1;
    }
    let at = memory.addr();
    let before = range_at(&Map::of(getpid()).expect("memmap"), at);
    assert_eq!((before.kind, before.sharers), (RangeKind::Private, 1));

    let pid = child(move || {
        poke(at + PAGE_SIZE as u64, 2);
        course::recv(&mut []).map_or(1, |_| 0)
    });
    until_blocked_on(pid, "a message");
    let map = Map::of(pid).expect("memmap");
    // The second half of it lies below a table that nobody has written to.
    let whole = range_at(&map, at + (LEN as u64 - 1));
    assert_eq!((whole.kind, whole.perm), (RangeKind::CopyOnWrite, Perm::RW));
    assert!(
        whole.sharers >= 2 && whole.shared_table >= 2 << 20,
        "{whole:?}"
    );
    // In the first half a page was written.
    let written = range_at(&map, at + PAGE_SIZE as u64);
    assert_eq!((written.kind, written.nr_pages()), (RangeKind::Private, 1));
    let beside = range_at(&map, at);
    assert_eq!(beside.kind, RangeKind::CopyOnWrite);
    assert!(beside.sharers >= 2, "{beside:?}");
    end(pid);
    drop(memory);
}

fn what_memmap_draws_adds_up_to_what_ps_says() {
    let object = libipc::Shared::new(3 * PAGE_SIZE).expect("shared memory");
    let _mapping = object.map(3 * PAGE_SIZE).expect("mapping");
    let pid = receiver();
    // What this process writes to meanwhile is the child's alone afterwards.
    let mut drawn = Sums::default();
    until("the sums agree", || {
        drawn = Map::of(pid).expect("memmap").sums();
        let all = Snapshot::take().expect("ps");
        let told = find(&all, pid).memory;
        assert_eq!(told.next, None);
        let told = Sums {
            private: told.private,
            cow: told.shared_cow,
            shared: told.shared_memory,
            untouched: told.untouched,
        };
        drawn == told
    });
    assert!(
        drawn.private > 0 && drawn.cow > 0 && drawn.untouched > 0,
        "{drawn:?}"
    );
    assert_eq!(drawn.shared, 3);
    end(pid);
}

fn a_terabyte_and_aliased_tables_hold_nobody_up() {
    const TERABYTE: u64 = 1 << 40;
    let own = Space::own();
    own.map(SCRATCH, TERABYTE, Perm::RW).expect("map");
    let map = Map::of(getpid()).expect("memmap");
    assert_eq!(map.stopped_at, None);
    assert_eq!(
        range_at(&map, SCRATCH).nr_pages(),
        TERABYTE / PAGE_SIZE as u64
    );
    own.unmap(SCRATCH, TERABYTE).expect("unmap");

    // One page table, at all addresses of a terabyte: a few frames.
    own.map(SCRATCH, 2 << 20, Perm::RW).expect("map");
    // SAFETY: it has just been mapped.
    unsafe { (SCRATCH as *mut u8).write_volatile(1) };
    let mut len = 2 << 20;
    while len < TERABYTE {
        let mode = ShareMode::CopyOnWrite;
        own.share(&own, SCRATCH, SCRATCH + len, len, mode, None)
            .expect("share");
        len *= 2;
    }
    let all = Snapshot::take().expect("ps");
    assert!(
        find(&all, getpid()).memory.next.is_some(),
        "it was counted to the end"
    );
    assert!(alloc::format!("{all}").contains('+'));
    own.unmap(SCRATCH, len).expect("unmap");
}

fn nobody_looks_into_strangers() {
    let procd = ProcdClient::borrow(start::procd());
    for stranger in [start::ppid(), INIT_PID, FIRST_SERVER, FIRST_SERVER + 4] {
        let denied = Error::Refused(Refusal::Denied);
        assert_err(Map::of(stranger).map(|_| ()), denied);
        assert_err(procd.stack(stranger, 1, &mut [0; 192]), denied);
    }
    let not_found = Error::Refused(Refusal::NotFound);
    for nobody in [0, u64::MAX, FIRST_SERVER + 5, 1 << 40] {
        assert_err(Map::of(nobody).map(|_| ()), not_found);
        assert_err(procd.threads(nobody, 0, &mut [0; 64]), not_found);
        assert_err(procd.memory(nobody, 0), not_found);
    }
    assert_err(procd.threads(getpid(), 1, &mut [0; 64]), not_found);
    assert_err(procd.stack(getpid(), 1, &mut [0; 192]), not_found);
    let bad = Error::Refused(Refusal::BadRequest);
    for place in [1, u64::MAX, 1 << 63] {
        assert_err(procd.memory(getpid(), place), bad);
        assert_err(procd.ranges(getpid(), place, &mut [0; 64]), bad);
    }
    // A child may not look into its parent, and the parent may into the child's child.
    let parent = getpid();
    expect_status(0, move || {
        let denied = matches!(Map::of(parent), Err(Error::Refused(Refusal::Denied)));
        i32::from(!denied)
    });
}

fn a_backtrace_ends_where_the_program_begins() {
    let pid = receiver();
    let stacks = stacks::of(pid).expect("backtrace");
    let [frames] = &stacks[..] else {
        panic!("{} threads", stacks.len());
    };
    // Through the fork, the case and the main function at least, and not to the most that there may be.
    assert!(
        (4..libipc::backtrace::MAX_FRAMES).contains(&frames.len()),
        "{frames:?}"
    );
    for (number, frame) in frames.iter().enumerate() {
        let begin = alloc::format!("  #{number} test_debug 0x");
        assert!(frame.starts_with(&begin), "{frame}");
    }
    end(pid);
}

fn hostile_stacks_are_reported_and_end() {
    let own = Space::own();
    let len = 4 * PAGE_SIZE as u64;
    own.map(SCRATCH, len, Perm::RW).expect("map");
    // On the first page: itself; and at its end a frame that leads to the second, which nobody has touched.
    let words = [
        (SCRATCH, SCRATCH),
        (SCRATCH + 8, 5),
        (SCRATCH + 0xff0, SCRATCH + 0x1000),
        (SCRATCH + 0xff8, 6),
    ];
    for (at, word) in words {
        // SAFETY: the page has just been mapped.
        unsafe { (at as *mut u64).write_volatile(word) };
    }
    let end = libipc::abi::USER_END;
    let stacks = [
        SCRATCH,
        SCRATCH + 0xff0,
        SCRATCH + 0xff8,
        SCRATCH + 0x1000,
        SCRATCH + 0x3ff8,
        SCRATCH + len,
        SCRATCH + 1,
        8,
        end - 16,
        end - 8,
        end,
        1 << 63,
        u64::MAX,
        0x8000_0000_0000,
    ];
    for bp in stacks {
        expect_status(Reason::BadAccess.status(), || fault_with(bp));
    }
    own.unmap(SCRATCH, len).expect("unmap");
}

/// Faults with this frame pointer.
fn fault_with(bp: u64) -> i32 {
    // SAFETY: none: the access faults, and nothing follows it.
    #[cfg(target_os = "none")]
    unsafe {
        core::arch::asm!("mov rbp, {bp}", "mov al, [0]", "ud2", bp = in(reg) bp, options(noreturn));
    }
    #[cfg(not(target_os = "none"))]
    (bp as i32)
}
