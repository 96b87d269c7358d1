//! What spaces are charged: budgets, memory that is promised (eager), and memory that may not be there
//! when it is touched (lazy).
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, Ordering};

use libipc::abi::{Error, FaultKind, FaultVerdict, USER_END};
use libipc::services::procd::Reason;
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Commit, Endpoint, Perm, Received, Rights, ShareMode, Space, process};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::{assert_exact, counters};
use user_apps::scenario::memory::{PAGE, SCRATCH, give_all_back, map, peek, poke, take_all};
use user_apps::scenario::peer::{child, join, status_of, thread_with, until};
use user_apps::scenario::twin::{Gift, Twin, system};

user_apps::scenarios![
    commit_counts_pages_and_tables_whoever_touches_them,
    nobody_exceeds_a_budget_nor_raises_its_own,
    children_have_the_budget_of_their_parent,
    a_space_like_another_one_has_its_class_and_its_budget,
    a_strict_map_that_does_not_fit_fails_at_once,
    a_strict_program_writes_all_that_it_mapped_while_nobody_else_finds_a_frame,
    a_strict_fork_that_does_not_fit_changes_nothing,
    pages_are_copied_between_classes,
    strict_programs_are_refused_and_not_killed,
    the_supervisor_frees_memory_and_resumes,
];

/// Frames that are free and not promised.
fn spare() -> u64 {
    let memory = counters();
    memory.free - memory.promised
}

fn strict_space() -> Space {
    let space = system().create_space(None).expect("space");
    space.set_class(Commit::Strict).expect("class");
    space
}

fn commit_of(space: &Space) -> u64 {
    space.charge().expect("charge").commit
}

fn commit_counts_pages_and_tables_whoever_touches_them() {
    let own = Space::own();
    let before = commit_of(&own);
    // Two pages in two tables each of all levels but the root.
    let at = SCRATCH + (1 << 39) - PAGE;
    let memory = map(at, 2);
    assert_eq!(commit_of(&own), before + 2 + 2 * 3);
    poke(at, 1);
    assert_eq!(status_of(child(move || peek(at) as i32 - 1)), 0);
    poke(at, 2);
    own.protect(at, 2 * PAGE, Perm::R).expect("protect");
    assert_eq!(commit_of(&own), before + 2 + 2 * 3);
    drop(memory);
    assert_eq!(commit_of(&own), before);
    // A gigabyte that nobody touches: 512 tables of pages, and the two above.
    own.map(SCRATCH, 1 << 30, Perm::RW).expect("map");
    assert_eq!(commit_of(&own), before + (1 << 18) + 512 + 2);
    own.unmap(SCRATCH, 1 << 30).expect("unmap");
    assert_eq!(commit_of(&own), before);
}

fn nobody_exceeds_a_budget_nor_raises_its_own() {
    let space = system().create_space(None).expect("space");
    space.set_budget(Some(14)).expect("budget");
    space.map(SCRATCH, 10 * PAGE, Perm::RW).expect("map");
    assert_eq!(commit_of(&space), 14);
    assert_err(space.map(0, PAGE, Perm::RW), Error::OverBudget);
    let mode = ShareMode::CopyOnWrite;
    let memory = map(SCRATCH, 1);
    let shared = space.share(&Space::own(), SCRATCH, 0, PAGE, mode, Some(Perm::R));
    assert_err(shared, Error::OverBudget);
    space.set_budget(Some(18)).expect("budget");
    let shared = space.share(&Space::own(), SCRATCH, 0, PAGE, mode, Some(Perm::R));
    shared.expect("share");
    drop(memory);

    let own = Space::own();
    let budget = commit_of(&own) + 10;
    own.set_budget(Some(budget)).expect("budget");
    own.set_budget(Some(budget)).expect("the same budget");
    assert_err(own.set_budget(Some(budget + 1)), Error::Denied);
    assert_err(own.set_budget(None), Error::Denied);
    assert_err(own.map(SCRATCH, 11 * PAGE, Perm::RW), Error::OverBudget);
    assert_eq!(own.charge().expect("charge").budget, Some(budget));
}

fn children_have_the_budget_of_their_parent() {
    let parent = child(|| {
        let own = Space::own();
        let budget = commit_of(&own) + 200;
        own.set_budget(Some(budget)).expect("budget");
        status_of(child(move || {
            let own = Space::own();
            assert_eq!(own.charge().expect("charge").budget, Some(budget));
            assert_err(own.map(SCRATCH, 300 * PAGE, Perm::RW), Error::OverBudget);
            0
        }))
    });
    assert_eq!(status_of(parent), 0);
}

fn a_space_like_another_one_has_its_class_and_its_budget() {
    let terms = |space: &Space| {
        let charge = space.charge().expect("charge");
        (charge.class, charge.budget, charge.commit)
    };
    assert_exact(|| {
        let strict = strict_space();
        strict.set_budget(Some(7)).expect("budget");
        let like = system().create_space_like(&strict, None).expect("space");
        assert_eq!(terms(&like), (Commit::Strict, Some(7), 1));
        // Three pages are promised to it, beside three tables that are there; another page is beyond its budget.
        let promised = counters().promised;
        like.map(SCRATCH, 3 * PAGE, Perm::RW).expect("map");
        assert_eq!(counters().promised, promised + 3);
        let more = like.map(SCRATCH + 3 * PAGE, PAGE, Perm::RW);
        assert_err(more, Error::OverBudget);
        // Of another one's class, it may share its pages.
        let mode = ShareMode::CopyOnWrite;
        let shared = strict.share(&like, SCRATCH, SCRATCH, PAGE, mode, None);
        shared.expect("share");
        let lazy = system().create_space_like(&Space::own(), None);
        let lazy = lazy.expect("space");
        assert_eq!(terms(&lazy), (Commit::Overcommit, None, 1));
    });
}

fn a_strict_map_that_does_not_fit_fails_at_once() {
    assert_exact(|| {
        let strict = strict_space();
        let too_much = (spare() + 1) * PAGE;
        assert_err(strict.map(SCRATCH, too_much, Perm::RW), Error::NoMemory);
        assert_eq!(commit_of(&strict), 1);
        let promised = counters().promised;
        strict
            .map(SCRATCH, too_much / 2 / PAGE * PAGE, Perm::RW)
            .expect("half of it");
        let has = strict.info().expect("info").table_frames;
        assert_eq!(counters().promised - promised, commit_of(&strict) - has);
        // The lazy way there is no question yet.
        let lazy = system().create_space(None).expect("space");
        lazy.map(SCRATCH, too_much, Perm::RW).expect("map");
        assert_err(lazy.set_class(Commit::Strict), Error::BadState);
    });
}

fn a_strict_program_writes_all_that_it_mapped_while_nobody_else_finds_a_frame() {
    const AT: u64 = SCRATCH + (1 << 43);
    assert_exact(|| {
        let go = Endpoint::create().expect("endpoint");
        let notifier = go.copy(Rights::NOTIFY, 1).expect("copy");
        let nr_pages = spare() / 3;
        let gift = Gift(go.handle(), Rights::RECV, 0);
        let twin = Twin::start_in(Commit::Strict, &system(), &[gift], move |[go, ..]| {
            let go = Endpoint::from_raw(go);
            assert!(matches!(go.recv(&mut []), Ok(Received::Notification(1))));
            for page in 0..nr_pages {
                poke(AT + page * PAGE, page);
            }
            assert!((0..nr_pages).all(|page| peek(AT + page * PAGE) == page));
        });
        twin.space.map(AT, nr_pages * PAGE, Perm::RW).expect("map");
        let own = Space::own();
        let taken = take_all(&own);
        assert!(
            taken > 1000 && spare() < 4,
            "{taken} pages, {} left",
            spare()
        );
        notifier.notify().expect("notify");
        twin.join();
        give_all_back(&own, taken);
    });
}

fn a_strict_fork_that_does_not_fit_changes_nothing() {
    assert_exact(|| {
        let parent = strict_space();
        let nr_pages = spare() * 6 / 10;
        parent.map(SCRATCH, nr_pages * PAGE, Perm::RW).expect("map");
        let child = strict_space();
        let mode = ShareMode::CopyOnWrite;
        let fork = || child.share(&parent, 0, 0, USER_END, mode, None);
        let before = (parent.charge(), child.charge(), counters().promised);
        assert_err(fork(), Error::NoMemory);
        let after = (parent.charge(), child.charge(), counters().promised);
        assert_eq!(before, after);
        parent
            .unmap(SCRATCH, nr_pages * PAGE / 2 / PAGE * PAGE)
            .expect("unmap");
        fork().expect("half of it fits twice");
        assert_eq!(commit_of(&child), commit_of(&parent));
    });
}

fn pages_are_copied_between_classes() {
    assert_exact(|| {
        let own = Space::own();
        let memory = map(SCRATCH, 3);
        poke(SCRATCH, 1);
        poke(SCRATCH + PAGE, 2);
        let strict = strict_space();
        let share = |mode| strict.share(&own, SCRATCH, SCRATCH, 3 * PAGE, mode, Some(Perm::RW));
        assert_err(share(ShareMode::Shared), Error::BadState);
        assert_err(share(ShareMode::Move), Error::BadState);
        share(ShareMode::CopyOnWrite).expect("share");
        let info = strict.info().expect("info");
        assert_eq!((info.private, info.shared_cow, info.untouched), (2, 0, 1));
        poke(SCRATCH, 3);
        let to = SCRATCH + (1 << 21);
        let mode = ShareMode::CopyOnWrite;
        own.share(&strict, SCRATCH, to, 2 * PAGE, mode, None)
            .expect("share");
        assert_eq!((peek(to), peek(to + PAGE)), (1, 2));
        own.unmap(to, 2 * PAGE).expect("unmap");
        drop(memory);
    });
}

fn strict_programs_are_refused_and_not_killed() {
    let memhog = |class, mib: u64| {
        let mut text = [0; 20];
        let mib = decimal(mib, &mut text);
        process::spawn_with(class, "/bin/memhog", &[mib]).map(status_of)
    };
    let mib = counters().total * PAGE / (1 << 20);
    assert_exact(|| {
        assert_eq!(memhog(Commit::Strict, 4), Ok(0));
        assert_eq!(memhog(Commit::Strict, mib), Ok(1));
    });
    let status = Reason::OutOfMemory.status();
    assert_eq!(memhog(Commit::Overcommit, mib), Ok(status));
}

/// The number in digits.
fn decimal(mut number: u64, text: &mut [u8; 20]) -> &str {
    let mut start = text.len();
    while start == text.len() || number > 0 {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    core::str::from_utf8(&text[start..]).expect("digits")
}

/// A thread that needs a frame when there is none waits until its supervisor has found one.
fn the_supervisor_frees_memory_and_resumes() {
    static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
    static GO: AtomicBool = AtomicBool::new(false);
    const AT: u64 = SCRATCH + (1 << 43);
    let pid = child(|| {
        let supervisor = Endpoint::create().expect("endpoint");
        let memory = map(AT, 1);
        let worker = thread_with(PRIORITY, Supervisor::Endpoint(&supervisor), || {
            HAS_BEGUN.store(true, Ordering::Relaxed);
            while !GO.load(Ordering::Relaxed) {
                libipc::object::yield_now();
            }
            poke(AT, 7);
        });
        // What it needs to begin, it has then.
        until("the worker", || HAS_BEGUN.load(Ordering::Relaxed));
        let own = Space::own();
        let taken = take_all(&own);
        GO.store(true, Ordering::Relaxed);
        for nr_resumed in 0..2 {
            let Ok(Received::Fault(fault)) = supervisor.recv(&mut []) else {
                return 1;
            };
            if (fault.kind, fault.address) != (Some(FaultKind::OutOfMemory), AT) {
                return 2;
            }
            // The first time without a remedy: it faults again.
            if nr_resumed == 1 {
                give_all_back(&own, taken);
            }
            fault.decide(FaultVerdict::Resume).expect("resume");
        }
        join(worker);
        let is_written = peek(memory.addr()) == 7;
        i32::from(!is_written)
    });
    assert_eq!(status_of(pid), 0);
}
