//! Too few frames, at every stage: with none free, with one, with two, until there are enough. Up to then
//! nothing may have changed, and nobody may be hurt.

use libipc::abi::{Access, Error, FaultKind, FaultVerdict, FoundEntry, ThreadState, USER_END};
use libipc::object::{SpaceInfo, yield_now};
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Endpoint, Message, Perm, Received, Rights, ShareMode, Space};
use user_apps::scenario::fault::Report;
use user_apps::scenario::frames::counters;
use user_apps::scenario::hog::Hog;
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{join, thread_with};
use user_apps::scenario::twin::{Gift, Twin, system};

use super::{OTHER, TABLE, THIRD, bytes, check, filled, write_all};

/// Pages that one table is not enough for.
const NR_PAGES: u64 = 1024;

/// What an entry of the root covers.
const ROOT_ENTRY: u64 = 1 << 39;

fn share(to: &Space, from: &Space, addr: u64, len: u64) -> Result<(), Error> {
    to.share(from, addr, addr, len, ShareMode::CopyOnWrite, None)
}

/// All that an operation which fails must leave as it was.
type State = (SpaceInfo, SpaceInfo, u64);

fn state(other: &Space) -> State {
    let info = |space: &Space| space.info().expect("info");
    (info(&Space::own()), info(other), counters().free)
}

/// Tries an operation with 0, 1, 2, ... free frames. As long as it fails it must fail for want of
/// memory, and leave everything as it was. Returns with how many it succeeded, and what it returned.
#[track_caller]
fn with_ever_more_frames<T>(
    hog: &mut Hog,
    other: &Space,
    mut operation: impl FnMut() -> Result<T, Error>,
) -> (u64, T) {
    for nr_frames in 0..4 * NR_PAGES {
        hog.leave(nr_frames);
        let before = state(other);
        assert_eq!(before.2, nr_frames);
        match operation() {
            Ok(result) => return (nr_frames, result),
            Err(error) => assert_eq!(error, Error::NoMemory, "with {nr_frames} frames"),
        }
        assert_eq!(state(other), before, "a failure with {nr_frames} frames");
    }
    panic!("it never succeeds");
}

/// A space that does not run, with [`NR_PAGES`] pages of its own.
fn quiet_space() -> Space {
    let space = system().create_space(None).expect("space");
    let memory = filled(SCRATCH, NR_PAGES, 30);
    share(&space, &Space::own(), SCRATCH, TABLE * 2).expect("share");
    drop(memory);
    space
}

/// What a space has, looked at in one's own.
#[track_caller]
fn check_in(space: &Space, addr: u64, nr_pages: u64, seed: u64) {
    let own = Space::own();
    let mode = ShareMode::CopyOnWrite;
    own.share(space, addr, THIRD, nr_pages * PAGE, mode, None)
        .expect("share");
    check(THIRD, nr_pages, seed);
    own.unmap(THIRD, nr_pages * PAGE).expect("unmap");
}

/// A space that gets all of another one, and its first thread; and a part that begins and ends in the
/// middle of tables.
pub(crate) fn lesson_12_a_fork_fails_at_every_stage_without_a_trace() {
    let system = system();
    let parent = quiet_space();
    let mut hog = Hog::new();
    let (nr_frames, (child, thread)) = with_ever_more_frames(&mut hog, &parent, || {
        let child = system.create_space(None)?;
        share(&child, &parent, 0, USER_END)?;
        let thread = child.create_thread(None, 1)?;
        Ok((child, thread))
    });
    assert!(nr_frames > 0, "a space without a frame");
    let part = late_space(&mut hog);
    let (nr_frames, ()) = with_ever_more_frames(&mut hog, &parent, || {
        share(&part, &parent, SCRATCH + PAGE, 2 * TABLE - 2 * PAGE)
    });
    // A table of each upper level, and two of the lowest.
    assert_eq!(nr_frames, 4);
    drop(hog);
    check_in(&child, SCRATCH, NR_PAGES, 30);
    check_in(&part, SCRATCH + PAGE, NR_PAGES - 2, 31);
    check_in(&parent, SCRATCH, NR_PAGES, 30);
    drop(thread);
}

/// An empty space, made while memory is short.
fn late_space(hog: &mut Hog) -> Space {
    hog.leave(64);
    system().create_space(None).expect("space")
}

/// Into a buffer that is another space's too: a whole table; pages of two tables, the last one not
/// whole; all bytes copied.
pub(crate) fn lesson_12_a_message_fails_at_every_stage_without_a_trace() {
    let system = system();
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    for (from, into, len, least) in [
        (0, 0, TABLE, 2),
        (TABLE / 2, TABLE / 2, TABLE + 96, 5),
        (8, 0, 3 * PAGE, 6),
        (8, TABLE - PAGE, 2 * PAGE, 6),
    ] {
        let keeper = system.create_space(None).expect("space");
        let buffer = filled(OTHER, NR_PAGES, 7000);
        share(&keeper, &Space::own(), OTHER, ROOT_ENTRY).expect("share");
        let sender = Twin::start(&system, &[gift], move |[to, ..]| {
            let _memory = filled(SCRATCH, NR_PAGES, 30);
            let to = Endpoint::borrow(to);
            loop {
                match to.send(Message::new(0), bytes(SCRATCH + from, len), &mut []) {
                    Err(Error::NoMemory) => {}
                    sent => break assert_eq!(sent.map(|sent| sent.accepted as u64), Ok(len)),
                }
            }
            check(SCRATCH, NR_PAGES, 30);
        });
        sender.until_state(ThreadState::Sending);
        let mut hog = Hog::new();
        let (nr_frames, received) = with_ever_more_frames(&mut hog, &keeper, || {
            sender.until_state(ThreadState::Sending);
            let received = endpoint.try_recv(bytes(OTHER + into, len));
            if received.is_err() {
                check(OTHER, NR_PAGES, 7000);
            }
            // The sender is told why; to the receiver, nothing has come.
            received.map_err(|error| match error {
                Error::WouldBlock => Error::NoMemory,
                other => other,
            })
        });
        assert!(
            nr_frames >= least,
            "{nr_frames} frames for {from} {into} {len}"
        );
        drop(hog);
        let Received::Message(incoming) = received else {
            panic!("no message")
        };
        for at in (0..len).filter(|at| (from + at).is_multiple_of(PAGE)) {
            let page = (from + at) / PAGE;
            assert_eq!(peek(OTHER + into + at), 30 + page, "at {at}");
        }
        incoming.token.reply(Message::new(0), &[]).expect("reply");
        sender.join();
        check_in(&keeper, OTHER, NR_PAGES, 7000);
        drop(buffer);
    }
}

/// A call on this process's own memory.
type Operation<'a> = dyn Fn() -> Result<(), Error> + 'a;

/// A page of a large piece of demand-zero memory, and of tables that others share, becomes
/// something else than its neighbours.
pub(crate) fn lesson_12_a_split_fails_at_every_stage_without_a_trace() {
    const HERE: u64 = OTHER + 5 * PAGE;
    let own = Space::own();
    let keeper = system().create_space(None).expect("space");
    let zero = || own.map(OTHER, ROOT_ENTRY, Perm::RW).expect("map");
    let shared = || {
        own.map(OTHER, ROOT_ENTRY, Perm::RW).expect("map");
        write_all(OTHER, NR_PAGES, 40);
        share(&keeper, &own, OTHER, ROOT_ENTRY).expect("share");
    };
    let unmap = || own.unmap(HERE, PAGE);
    let protect = || own.protect(HERE, PAGE, Perm::R);
    let take = || own.share(&own, HERE, THIRD, PAGE, ShareMode::Move, None);
    let operations: [(&Operation<'_>, u64); 3] = [(&unmap, 3), (&protect, 3), (&take, 6)];
    for prepare in [&zero as &dyn Fn(), &shared] {
        for (operation, nr_tables) in operations {
            prepare();
            let was = peek_kept(&keeper);
            let mut hog = Hog::new();
            let (nr_frames, ()) = with_ever_more_frames(&mut hog, &keeper, operation);
            assert_eq!(nr_frames, nr_tables);
            drop(hog);
            assert_eq!(peek_kept(&keeper), was);
            assert_eq!(peek(HERE + PAGE), was.map_or(0, |was| was + 1));
            own.unmap(OTHER, ROOT_ENTRY).expect("unmap");
            own.unmap(THIRD, PAGE).expect("unmap");
            keeper.unmap(OTHER, ROOT_ENTRY).expect("unmap");
        }
    }
}

/// The word of the page that operations are about, as the keeper has it; nothing if it has none.
fn peek_kept(keeper: &Space) -> Option<u64> {
    let window = THIRD + TABLE;
    let own = Space::own();
    let mode = ShareMode::CopyOnWrite;
    own.share(keeper, OTHER + 5 * PAGE, window, PAGE, mode, Some(Perm::R))
        .ok()?;
    let word = peek(window);
    own.unmap(window, PAGE).expect("unmap");
    Some(word)
}

/// A write takes tables of three levels and a page. While one is missing, each try is a fault message,
/// and nothing has changed; when there is enough, the write is done.
pub(crate) fn lesson_12_a_write_waits_at_every_stage_for_frames() {
    const HERE: u64 = OTHER + 5 * PAGE;
    const GATE: u64 = SCRATCH;
    const NEEDED: u64 = 4;
    let own = Space::own();
    let gate = map(GATE, 1);
    for is_shared in [false, true] {
        let keeper = system().create_space(None).expect("space");
        own.map(OTHER, ROOT_ENTRY, Perm::RW).expect("map");
        if is_shared {
            write_all(OTHER, NR_PAGES, 40);
            share(&keeper, &own, OTHER, ROOT_ENTRY).expect("share");
        }
        poke(GATE, 0);
        let events = Endpoint::create().expect("endpoint");
        let done = events.copy(Rights::NOTIFY, 1).expect("copy");
        let raise = done.handle();
        let writer = thread_with(PRIORITY, Supervisor::Endpoint(&events), move || {
            while peek(GATE) == 0 {
                yield_now();
            }
            poke(HERE, 99);
            Endpoint::borrow(raise).notify().expect("notify");
        });
        // It is there, and has all that it needs to wait.
        for _ in 0..10 {
            yield_now();
        }
        let mut hog = Hog::new();
        hog.leave(0);
        let mut before = state(&keeper);
        poke(GATE, 1);
        let mut nr_faults = 0;
        loop {
            let fault = match events.recv(&mut []).expect("recv") {
                Received::Fault(fault) => fault,
                Received::Notification(1) => break,
                other => panic!("{other:?}"),
            };
            let report = Report::of(&fault);
            assert_eq!(report.kind, FaultKind::OutOfMemory);
            assert_eq!(report.address, HERE);
            assert_eq!(report.access, Access::Write);
            assert_eq!(report.found, FoundEntry::ReadWrite);
            assert_eq!(state(&keeper), before, "after {nr_faults} faults");
            nr_faults += 1;
            hog.leave(nr_faults);
            before = state(&keeper);
            fault.decide(FaultVerdict::Resume).expect("resume");
        }
        assert_eq!(nr_faults, NEEDED);
        drop(hog);
        join(writer);
        assert_eq!(peek(HERE), 99);
        assert_eq!(peek(HERE + PAGE), if is_shared { 46 } else { 0 });
        if is_shared {
            check_in(&keeper, OTHER, NR_PAGES, 40);
        }
        own.unmap(OTHER, ROOT_ENTRY).expect("unmap");
    }
    drop(gate);
}
