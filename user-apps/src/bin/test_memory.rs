//! A process's own memory: demand-zero pages, rights, faults and who decides about them, and what
//! happens when there is no more.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Access, Error, FaultKind, FaultVerdict, FoundEntry};
use libipc::services::procd::Reason;
use libipc::services::{self, Refusal};
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Endpoint, PageBuffer, Perm, Received, ShareMode, Space, process};
use user_apps::scenario::assert_err;
use user_apps::scenario::fault::{Report, provoke};
use user_apps::scenario::frames::{Frames, assert_exact, available, counters};
use user_apps::scenario::memory::{
    PAGE, SCRATCH, give_all_back, map, map_code, peek, poke, take_all,
};
use user_apps::scenario::peer::{child, join, status_of, thread_with, until};
use user_apps::scenario::twin::system;

user_apps::scenarios![
    mapping_costs_nothing_until_touched,
    fresh_memory_is_zero_whoever_had_it,
    unmapping_gives_everything_back,
    holes_in_the_middle_stay_holes,
    a_gigabyte_is_mapped_and_protected_at_once,
    a_terabyte_is_mapped_at_once,
    rights_are_what_was_asked_for,
    lesson_21_reports_say_what_was_tried_and_found,
    a_pager_maps_what_is_missing,
    a_pager_may_refuse,
    resuming_without_a_remedy_faults_again,
    memory_of_other_spaces_is_mapped_from_outside,
    a_process_that_takes_all_memory_is_killed,
    running_out_inside_calls_is_an_error,
    programs_start_again_when_there_is_memory,
    running_out_hurts_nobody_else,
];

fn mapping_costs_nothing_until_touched() {
    let before = available();
    let memory = map(SCRATCH, 512);
    assert!(
        before - available() <= 4,
        "mapping 512 pages took {} frames",
        before - available()
    );
    let taken = available();
    let zeroed = counters().zeroed;
    for page in 0..100 {
        assert_eq!(peek(SCRATCH + page * PAGE), 0);
    }
    // The pages, and the table that they are in.
    assert_eq!(taken - available(), 101);
    assert!(counters().zeroed - zeroed >= 100);
    drop(memory);
    Frames::expect(before).expect("everything came back");
}

fn fresh_memory_is_zero_whoever_had_it() {
    for round in 0..20 {
        let pid = child(|| {
            let mut dirty = PageBuffer::new(300 * PAGE as usize).expect("buffer");
            dirty.fill(0xdb);
            0
        });
        assert_eq!(status_of(pid), 0);
        let fresh = PageBuffer::new(300 * PAGE as usize).expect("buffer");
        for at in (0..fresh.len() as u64).step_by(8) {
            assert_eq!(peek(fresh.addr() + at), 0, "round {round}, offset {at:#x}");
        }
    }
}

fn unmapping_gives_everything_back() {
    assert_exact(|| {
        let memory = map(SCRATCH, 2000);
        for page in (0..2000).step_by(3) {
            poke(SCRATCH + page * PAGE, page);
        }
        drop(memory);
        // Far apart: a table each.
        for at in 0..20_u64 {
            let far = map(SCRATCH + (at << 39), 1);
            poke(far.addr(), 1);
        }
    });
}

fn holes_in_the_middle_stay_holes() {
    let own = Space::own();
    let memory = map(SCRATCH, 9);
    for page in 0..9 {
        poke(SCRATCH + page * PAGE, page);
    }
    own.unmap(SCRATCH + 3 * PAGE, 3 * PAGE).expect("unmap");
    for page in [0, 1, 2, 6, 7, 8] {
        assert_eq!(peek(SCRATCH + page * PAGE), page);
    }
    let report = provoke(|| {
        let _ = peek(SCRATCH + 4 * PAGE);
    });
    assert_eq!(report.found, FoundEntry::Empty);
    assert_err(own.map(SCRATCH, 9 * PAGE, Perm::RW), Error::Occupied);
    own.map(SCRATCH + 3 * PAGE, 3 * PAGE, Perm::RW)
        .expect("map");
    assert_eq!(peek(SCRATCH + 4 * PAGE), 0, "old contents");
    drop(memory);
}

fn a_gigabyte_is_mapped_and_protected_at_once() {
    const GIB: u64 = 1 << 30;
    let own = Space::own();
    own.map(SCRATCH, GIB, Perm::RW).expect("map");
    for at in [0, GIB / 2, GIB - PAGE] {
        poke(SCRATCH + at, at + 1);
    }
    own.protect(SCRATCH, GIB, Perm::R).expect("protect");
    assert_eq!(
        provoke(|| poke(SCRATCH + GIB / 2, 0)).found,
        FoundEntry::ReadOnly
    );
    assert_eq!(
        provoke(|| poke(SCRATCH + PAGE, 0)).found,
        FoundEntry::ReadOnly
    );
    own.protect(SCRATCH, GIB, Perm::RW).expect("protect");
    for at in [0, GIB / 2, GIB - PAGE] {
        assert_eq!(peek(SCRATCH + at), at + 1);
    }
    poke(SCRATCH + PAGE, 1);
    own.unmap(SCRATCH, GIB).expect("unmap");
}

/// From the middle of a 2 MiB piece to the middle of another one: pieces of every size.
fn a_terabyte_is_mapped_at_once() {
    const TIB: u64 = 1 << 40;
    const START: u64 = SCRATCH + (1 << 20);
    let own = Space::own();
    let before = available();
    own.map(START, TIB, Perm::RW).expect("map");
    let taken = before - available();
    assert!(taken <= 6, "a terabyte took {taken} frames");
    assert_err(own.map(START + TIB - PAGE, PAGE, Perm::RW), Error::Occupied);
    for at in [START, START + TIB / 2, START + TIB - PAGE] {
        assert_eq!(peek(at), 0);
        poke(at, at);
    }
    for outside in [START - PAGE, START + TIB] {
        let report = provoke(move || poke(outside, 1));
        assert_eq!(report.found, FoundEntry::Empty);
    }
    own.unmap(START, TIB).expect("unmap");
}

fn run(at: u64) {
    // SAFETY: there is code, or the fault that follows is the point.
    let function = unsafe { core::mem::transmute::<*const (), extern "C" fn()>(at as *const ()) };
    function();
}

fn rights_are_what_was_asked_for() {
    let own = Space::own();
    own.map(SCRATCH, PAGE, Perm::R).expect("map");
    own.map(SCRATCH + PAGE, PAGE, Perm::RX).expect("map");
    own.map(SCRATCH + 2 * PAGE, PAGE, Perm::RW).expect("map");
    for page in 0..3 {
        assert_eq!(peek(SCRATCH + page * PAGE), 0);
    }
    assert_eq!(provoke(|| poke(SCRATCH, 1)).access, Access::Write);
    assert_eq!(provoke(|| poke(SCRATCH + PAGE, 1)).access, Access::Write);
    assert_eq!(provoke(|| run(SCRATCH)).access, Access::Execute);
    assert_eq!(provoke(|| run(SCRATCH + 2 * PAGE)).access, Access::Execute);
    own.unmap(SCRATCH, 3 * PAGE).expect("unmap");
    // ret
    map_code(SCRATCH, 0, &[0xc3]).expect("code");
    run(SCRATCH);
    own.unmap(SCRATCH, PAGE).expect("unmap");
}

fn lesson_21_reports_say_what_was_tried_and_found() {
    let own = Space::own();
    let cases = [
        (Perm::R, FoundEntry::ReadOnly),
        (Perm::RW, FoundEntry::ReadWrite),
        (Perm::RX, FoundEntry::ReadExecute),
    ];
    for (perm, found) in cases {
        own.map(SCRATCH, PAGE, perm).expect("map");
        let at = SCRATCH + 24;
        if perm != Perm::RW {
            let report = provoke(move || poke(at, 1));
            let expected = (FaultKind::Page, at, Access::Write, found);
            assert_eq!(
                (report.kind, report.address, report.access, report.found),
                expected
            );
        }
        if perm != Perm::RX {
            let report = provoke(move || run(at));
            let expected = Report {
                kind: FaultKind::Page,
                address: at,
                ip: at,
                access: Access::Execute,
                found,
            };
            assert_eq!(report, expected);
        }
        own.unmap(SCRATCH, PAGE).expect("unmap");
    }
    let report = provoke(|| {
        let _ = peek(SCRATCH + 24);
    });
    let expected = (
        FaultKind::Page,
        SCRATCH + 24,
        Access::Read,
        FoundEntry::Empty,
    );
    assert_eq!(
        (report.kind, report.address, report.access, report.found),
        expected
    );
}

#[track_caller]
fn next_fault(endpoint: &Endpoint) -> libipc::Fault {
    match endpoint.recv(&mut []) {
        Ok(Received::Fault(fault)) => fault,
        other => panic!("no fault, but {other:?}"),
    }
}

/// A pager in user space: each fault maps the page, with a word in it that says which.
fn a_pager_maps_what_is_missing() {
    let pager = Endpoint::create().expect("endpoint");
    let own = Space::own();
    let worker = thread_with(PRIORITY, Supervisor::Endpoint(&pager), || {
        for page in 0..20 {
            assert_eq!(peek(SCRATCH + page * PAGE), 100 + page);
            poke(SCRATCH + page * PAGE, 200 + page);
        }
    });
    for page in 0..20 {
        let fault = next_fault(&pager);
        let at = SCRATCH + page * PAGE;
        assert_eq!((fault.address, fault.found), (at, FoundEntry::Empty));
        let source = PageBuffer::new(PAGE as usize).expect("buffer");
        poke(source.addr(), 100 + page);
        own.share(
            &own,
            source.addr(),
            at,
            PAGE,
            ShareMode::Move,
            Some(Perm::RW),
        )
        .expect("share");
        fault.decide(FaultVerdict::Resume).expect("resume");
    }
    join(worker);
    for page in 0..20 {
        assert_eq!(peek(SCRATCH + page * PAGE), 200 + page);
    }
    own.unmap(SCRATCH, 20 * PAGE).expect("unmap");
}

fn a_pager_may_refuse() {
    let pager = Endpoint::create().expect("endpoint");
    let worker = thread_with(PRIORITY, Supervisor::Endpoint(&pager), || poke(SCRATCH, 1));
    let fault = next_fault(&pager);
    let token = fault.token.into_raw();
    // No verdict has this label; the thread still waits.
    let wrong = libipc::ReplyToken::from_raw(token).reply(libipc::Message::new(2), &[]);
    assert_err(wrong, Error::BadArgument);
    libipc::ReplyToken::from_raw(token)
        .reply(libipc::Message::new(1), &[])
        .expect("kill");
    assert!(worker.is_finished());
}

fn resuming_without_a_remedy_faults_again() {
    let pager = Endpoint::create().expect("endpoint");
    let worker = thread_with(PRIORITY, Supervisor::Endpoint(&pager), || poke(SCRATCH, 1));
    let mut last = None;
    for _ in 0..100 {
        let fault = next_fault(&pager);
        let report = Report::of(&fault);
        assert!(last.is_none_or(|last| last == report));
        last = Some(report);
        fault.decide(FaultVerdict::Resume).expect("resume");
    }
    let memory = map(SCRATCH, 1);
    // Its last fault may be on the way.
    until("end of the thread", || {
        if let Ok(Received::Fault(fault)) = pager.try_recv(&mut []) {
            fault.decide(FaultVerdict::Resume).expect("resume");
        }
        worker.is_finished()
    });
    assert_eq!(peek(memory.addr()), 1);
}

fn memory_of_other_spaces_is_mapped_from_outside() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    space.map(SCRATCH, 4 * PAGE, Perm::RW).expect("map");
    assert_eq!(space.info().expect("info").untouched, 4);
    own.share(
        &space,
        SCRATCH,
        SCRATCH,
        4 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    poke(SCRATCH, 1);
    assert_eq!(space.info().expect("info").shared_memory, 4);
    space.unmap(SCRATCH, 4 * PAGE).expect("unmap");
    let info = space.info().expect("info");
    assert_eq!(
        (info.private, info.shared_memory, info.untouched),
        (0, 0, 0)
    );
    assert_eq!(peek(SCRATCH), 1);
    own.unmap(SCRATCH, 4 * PAGE).expect("unmap");
}

/// Maps and touches memory until the process is killed for it.
fn devour() -> i32 {
    for step in 0.. {
        let at = SCRATCH + step * (64 << 20);
        if Space::own().map(at, 64 << 20, Perm::RW).is_err() {
            return 1;
        }
        for page in 0..(64 << 20) / PAGE {
            poke(at + page * PAGE, page);
        }
    }
    0
}

fn a_process_that_takes_all_memory_is_killed() {
    assert_exact(|| assert_eq!(status_of(child(devour)), Reason::OutOfMemory.status()));
}

/// Calls that need frames fail with `NoMemory`, and the process goes on.
fn running_out_inside_calls_is_an_error() {
    let system = system();
    let pid = child(move || {
        let mut step = 0;
        // Shared mappings of untouched pages get their frames in the call itself.
        let own = Space::own();
        loop {
            let at = SCRATCH + step * (4 << 20);
            let mapped = own.map(at, 1 << 20, Perm::RW);
            let shared = mapped.and_then(|()| {
                own.share(
                    &own,
                    at,
                    at + (2 << 20),
                    1 << 20,
                    ShareMode::Shared,
                    Some(Perm::RW),
                )
            });
            match shared {
                Ok(()) => step += 1,
                Err(Error::NoMemory) => break,
                Err(_) => return 2,
            }
        }
        assert!(step > 10, "{step} MiB");
        for at in 0..step {
            own.unmap(SCRATCH + at * (4 << 20), 4 << 20).expect("unmap");
        }
        0
    });
    assert_eq!(status_of(pid), 0);
    drop(system);
}

/// The process server may give up what it keeps, and then says so; it never fails itself.
fn programs_start_again_when_there_is_memory() {
    let pid = child(|| {
        let quit = || process::spawn("/bin/quit", &[]).and_then(process::wait);
        let own = Space::own();
        // Whatever is touched once is touched before memory is short.
        quit().expect("spawn");
        for _ in 0..3 {
            let nr_pages = take_all(&own);
            assert!(nr_pages > 1000, "{nr_pages} pages");
            // What the process server gives up may be enough for one.
            match quit() {
                Ok(_) | Err(services::Error::Refused(Refusal::NoMemory)) => {}
                Err(other) => panic!("{other}"),
            }
            give_all_back(&own, nr_pages);
            assert_eq!(quit().map(|ended| ended.status), Ok(0));
        }
        0
    });
    assert_eq!(status_of(pid), 0);
}

/// While one process takes everything, another one goes on with the memory that it has.
fn running_out_hurts_nobody_else() {
    let memory = map(SCRATCH + (1 << 44), 16);
    memory.bytes().fill(3);
    let hog = child(devour);
    let mut rounds: u64 = 0;
    loop {
        rounds += 1;
        assert!(memory.bytes().iter().all(|&byte| byte == 3));
        match libipc::process::try_wait().expect("a child") {
            Some(ended) => {
                assert_eq!(
                    (ended.pid, ended.status),
                    (hog, Reason::OutOfMemory.status())
                );
                break;
            }
            None => libipc::object::yield_now(),
        }
    }
    assert!(rounds > 1);
    memory.bytes().fill(4);
}
