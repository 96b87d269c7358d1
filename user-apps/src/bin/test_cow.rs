//! Copy-on-write: nobody sees what another wrote after they parted, whoever writes, and however.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Error, ThreadState};
use libipc::{Endpoint, Message, PageBuffer, Perm, Received, Rights, ShareMode, Space, start};
use user_apps::scenario::assert_err;
use user_apps::scenario::fault::provoke;
use user_apps::scenario::frames::{available, counters};
use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, fill, map, mismatch, peek, poke};
use user_apps::scenario::peer::{child, expect_status, status_of};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, system};

user_apps::scenarios![
    a_childs_writes_stay_with_the_child,
    a_parents_writes_stay_with_the_parent,
    grandchildren_see_their_own_ancestors,
    families_write_in_every_order,
    messages_break_sharing_as_writes_do,
    a_message_in_flight_keeps_its_contents,
    a_received_page_outlives_its_sender,
    a_sent_page_outlives_its_receiver,
    the_last_owner_takes_pages_back_without_copying,
    read_only_stays_read_only,
    protect_never_exceeds_the_ceiling,
    share_copy_on_write_separates_both_sides,
    share_shared_joins_both_sides,
    share_move_empties_the_source,
    shared_memory_stays_shared_after_fork,
    shared_memory_gives_snapshots,
    untouched_pages_are_shared_as_zeros,
    an_error_in_the_middle_of_a_share_changes_nothing,
    running_out_in_the_middle_of_a_share_changes_nothing,
];

/// Where ranges appear a second time.
const OTHER: u64 = SCRATCH + (1 << 32);
const THIRD: u64 = OTHER + (1 << 32);
/// Several page tables' worth, with a page more than fits whole ones.
const NR_PAGES: u64 = 1025;

fn filled(nr_pages: u64, seed: u64) -> Mapped {
    let memory = map(SCRATCH, nr_pages);
    for page in 0..nr_pages {
        poke(SCRATCH + page * PAGE, seed + page);
    }
    memory
}

#[track_caller]
fn check(at: u64, nr_pages: u64, seed: u64) {
    for page in 0..nr_pages {
        assert_eq!(peek(at + page * PAGE), seed + page, "page {page}");
    }
}

fn write_all(at: u64, nr_pages: u64, seed: u64) {
    for page in 0..nr_pages {
        poke(at + page * PAGE, seed + page);
    }
}

fn a_childs_writes_stay_with_the_child() {
    let _memory = filled(NR_PAGES, 7);
    expect_status(0, || {
        check(SCRATCH, NR_PAGES, 7);
        write_all(SCRATCH, NR_PAGES, 1000);
        check(SCRATCH, NR_PAGES, 1000);
        0
    });
    check(SCRATCH, NR_PAGES, 7);
}

fn a_parents_writes_stay_with_the_parent() {
    let _memory = filled(NR_PAGES, 7);
    let inbox = Endpoint::borrow(start::inbox());
    let parent = libipc::getpid();
    let pid = child(move || {
        let _ = libipc::course::send(parent, &[], &mut []);
        check(SCRATCH, NR_PAGES, 7);
        0
    });
    let Ok(Received::Message(incoming)) = inbox.recv(&mut []) else {
        panic!("no message")
    };
    write_all(SCRATCH, NR_PAGES, 2000);
    incoming.token.reply(Message::new(0), &[]).expect("reply");
    assert_eq!(status_of(pid), 0);
    check(SCRATCH, NR_PAGES, 2000);
}

fn grandchildren_see_their_own_ancestors() {
    let _memory = filled(8, 1);
    expect_status(0, || {
        poke(SCRATCH, 100);
        expect_status(0, || {
            poke(SCRATCH + PAGE, 200);
            expect_status(0, || {
                assert_eq!(peek(SCRATCH), 100);
                assert_eq!(peek(SCRATCH + PAGE), 200);
                assert_eq!(peek(SCRATCH + 2 * PAGE), 3);
                poke(SCRATCH + 2 * PAGE, 300);
                0
            });
            assert_eq!(peek(SCRATCH + 2 * PAGE), 3);
            0
        });
        assert_eq!(peek(SCRATCH + PAGE), 2);
        0
    });
    check(SCRATCH, 8, 1);
}

/// Parent, child and grandchild write the same page in each of the six orders; who has written sees
/// its own value, who has not sees the first one. They take turns by a word of shared memory.
fn families_write_in_every_order() {
    let turn = SCRATCH + (1 << 24);
    let _turn = map(turn, 1);
    poke(turn, 0);
    let own = Space::own();
    own.share(
        &own,
        turn,
        turn + PAGE,
        PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let _memory = filled(3, 50);
        poke(turn, 0);
        let act = move |who: u64| {
            let mut own_value = 50;
            for (step, writer) in order.into_iter().enumerate() {
                user_apps::scenario::peer::until("turn", || peek(turn) >= 10 * step as u64);
                assert_eq!(peek(SCRATCH), own_value);
                if writer == who {
                    own_value = 1000 + who;
                    poke(SCRATCH, own_value);
                    poke(turn, 10 * (step as u64 + 1));
                }
            }
            user_apps::scenario::peer::until("end", || peek(turn) >= 30);
            assert_eq!(peek(SCRATCH), own_value);
            check(SCRATCH + PAGE, 2, 51);
        };
        let pid = child(move || {
            let pid = child(move || {
                act(2);
                0
            });
            act(1);
            status_of(pid)
        });
        act(0);
        assert_eq!(status_of(pid), 0);
    }
    own.unmap(turn + PAGE, PAGE).expect("unmap");
}

/// Lesson of Dirty COW (Linux 19be0eaffa3a): the kernel's own writes, here a message received into
/// pages shared with a child, must not reach the child.
fn messages_break_sharing_as_writes_do() {
    for (offset, len) in [
        (0, PAGE),
        (0, 3 * PAGE),
        (100, 50),
        (100, 2 * PAGE),
        (PAGE - 1, 2),
    ] {
        let memory = filled(4, 9);
        let system = system();
        let endpoint = Endpoint::create().expect("endpoint");
        let ready = Endpoint::create().expect("endpoint");
        let gifts = [
            Gift(endpoint.handle(), Rights::SEND, 0),
            Gift(ready.handle(), Rights::RECV, 0),
        ];
        // The twin shares the buffer, sends to it, and then must not have seen it change.
        let twin = Twin::start(&system, &gifts, move |[endpoint, ..]| {
            let mut source = PageBuffer::new(4 * PAGE as usize).expect("buffer");
            fill(&mut source, 77);
            let data = &source[offset as usize..][..len as usize];
            Endpoint::borrow(endpoint)
                .send(Message::new(0), data, &mut [])
                .expect("send");
            check(SCRATCH, 4, 9);
        });
        let buffer = &mut memory.bytes()[offset as usize..][..len as usize];
        let Ok(Received::Message(incoming)) = endpoint.recv(buffer) else {
            panic!("no message")
        };
        let sent = &memory.bytes()[offset as usize..][..len as usize];
        let expected =
            |at: usize| user_apps::scenario::memory::pattern_byte(77, at + offset as usize);
        assert!(
            sent.iter()
                .enumerate()
                .all(|(at, &byte)| byte == expected(at))
        );
        incoming.token.reply(Message::new(0), &[]).expect("reply");
        twin.join();
    }
}

/// CVE-2020-29374: a message in flight is a reference. The sender's other thread writes the pages
/// while the message lies in the queue or has just arrived; what is received is what was there at
/// the moment of delivery, and does not change afterwards.
fn a_message_in_flight_keeps_its_contents() {
    let _source = filled(64, 1);
    let target = PageBuffer::new(64 * PAGE as usize).expect("buffer");
    let at = target.addr();
    let len = 64 * PAGE;
    let system = system();
    let endpoint = Endpoint::create().expect("endpoint");
    let twin = Twin::start(
        &system,
        &[Gift(endpoint.handle(), Rights::SEND, 0)],
        move |[to, ..]| {
            let sender = user_apps::scenario::peer::thread(move || {
                // SAFETY: the pages stay mapped; that their contents change meanwhile is the point.
                let data =
                    unsafe { core::slice::from_raw_parts(SCRATCH as *const u8, len as usize) };
                Endpoint::borrow(to)
                    .send(Message::new(1), data, &mut [])
                    .expect("send");
            });
            user_apps::scenario::peer::until_state(sender.thread(), ThreadState::AwaitingReply);
            write_all(SCRATCH, 64, 9000);
            Endpoint::borrow(to).call(Message::new(2)).expect("send");
            user_apps::scenario::peer::join(sender);
        },
    );
    let mut target = target;
    let Ok(Received::Message(first)) = endpoint.recv(&mut target) else {
        panic!("no message")
    };
    assert_eq!((first.message.label(), first.len as u64), (1, len));
    // The second message says that the sender has written.
    let Ok(Received::Message(second)) = endpoint.recv(&mut []) else {
        panic!("no message")
    };
    assert_eq!(second.message.label(), 2);
    check(at, 64, 1);
    write_all(at, 64, 5);
    second.token.reply(Message::new(0), &[]).expect("reply");
    first.token.reply(Message::new(0), &[]).expect("reply");
    twin.join();
    check(at, 64, 5);
}

/// A twin that fills 16 pages with `seed`, sends them and waits for the answer.
fn sender(endpoint: &Endpoint, seed: u64) -> Twin {
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    Twin::start(&system(), &[gift], move |[to, ..]| {
        let mut data = PageBuffer::new(16 * PAGE as usize).expect("buffer");
        fill(&mut data, seed);
        let _ = Endpoint::borrow(to).send(Message::new(0), &data, &mut []);
    })
}

fn a_received_page_outlives_its_sender() {
    let endpoint = Endpoint::create().expect("endpoint");
    let mut buffer = PageBuffer::new(16 * PAGE as usize).expect("buffer");
    let twin = sender(&endpoint, 3);
    let received = endpoint.recv(&mut buffer).expect("recv");
    twin.kill();
    assert_eq!(mismatch(&buffer, 3), None);
    fill(&mut buffer, 4);
    assert_eq!(mismatch(&buffer, 4), None);
    let Received::Message(incoming) = received else {
        panic!("no message")
    };
    assert_err(
        incoming.token.reply(Message::new(0), &[]),
        Error::StaleToken,
    );
}

fn a_sent_page_outlives_its_receiver() {
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let mut buffer = PageBuffer::new(16 * PAGE as usize).expect("buffer");
        let received = Endpoint::borrow(from).recv(&mut buffer);
        assert_eq!(mismatch(&buffer, 8), None);
        buffer.fill(0xee);
        // Ends without an answer.
        drop(received);
    });
    let mut data = PageBuffer::new(16 * PAGE as usize).expect("buffer");
    fill(&mut data, 8);
    assert_err(endpoint.send(Message::new(0), &data, &mut []), Error::Died);
    twin.join();
    assert_eq!(mismatch(&data, 8), None);
    data.fill(1);
}

/// Pages whose other owners are gone are written in place; pages that still have one are copied.
fn the_last_owner_takes_pages_back_without_copying() {
    const COUNT: u64 = 200;
    let memory = filled(COUNT, 1);
    expect_status(0, || 0);
    let before = counters();
    write_all(SCRATCH, COUNT, 2);
    let after = counters();
    // The few beyond are the stack's.
    assert!(
        after.broken - before.broken < 10,
        "{} copies",
        after.broken - before.broken
    );
    assert!(after.reclaimed - before.reclaimed <= COUNT + 10);

    expect_status(0, || {
        let before = counters();
        write_all(SCRATCH, COUNT, 3);
        let after = counters();
        assert!(
            after.broken - before.broken >= COUNT,
            "a page with two owners was not copied"
        );
        0
    });
    drop(memory);
}

fn read_only_stays_read_only() {
    let _memory = filled(2, 1);
    let own = Space::own();
    own.protect(SCRATCH, PAGE, Perm::R).expect("protect");
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::CopyOnWrite,
        Some(Perm::R),
    )
    .expect("share");
    expect_status(0, || {
        for at in [SCRATCH, OTHER, OTHER + PAGE] {
            let report = provoke(move || poke(at, 0));
            assert_eq!(
                (report.address, report.found),
                (at, libipc::abi::FoundEntry::ReadOnly)
            );
        }
        poke(SCRATCH + PAGE, 5);
        0
    });
    for at in [SCRATCH, OTHER, OTHER + PAGE] {
        assert_eq!(provoke(move || poke(at, 0)).address, at);
    }
    check(SCRATCH, 2, 1);
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

fn protect_never_exceeds_the_ceiling() {
    let own = Space::own();
    let _memory = filled(1, 1);
    let share = |at, perm| {
        own.share(&own, SCRATCH, at, PAGE, ShareMode::CopyOnWrite, Some(perm))
            .expect("share");
    };
    share(OTHER, Perm::R);
    share(OTHER + PAGE, Perm::RX);
    share(OTHER + 2 * PAGE, Perm::RW);
    let check_ceilings = || {
        for (at, denied) in [
            (OTHER, Perm::RW),
            (OTHER, Perm::RX),
            (OTHER + PAGE, Perm::RW),
            (OTHER + 2 * PAGE, Perm::RX),
        ] {
            assert_err(Space::own().protect(at, PAGE, denied), Error::Denied);
        }
        // Down and up again.
        Space::own()
            .protect(OTHER + 2 * PAGE, PAGE, Perm::R)
            .expect("protect");
        assert_eq!(
            provoke(|| poke(OTHER + 2 * PAGE, 0)).address,
            OTHER + 2 * PAGE
        );
        Space::own()
            .protect(OTHER + 2 * PAGE, PAGE, Perm::RW)
            .expect("protect");
        poke(OTHER + 2 * PAGE, 3);
    };
    check_ceilings();
    expect_status(0, || {
        check_ceilings();
        0
    });
    assert_eq!(peek(SCRATCH), 1);
    own.unmap(OTHER, 3 * PAGE).expect("unmap");
}

fn share_copy_on_write_separates_both_sides() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let _memory = filled(NR_PAGES, 1);
    let len = NR_PAGES * PAGE;
    space
        .share(&own, SCRATCH, SCRATCH, len, ShareMode::CopyOnWrite, None)
        .expect("share");
    write_all(SCRATCH, NR_PAGES, 500);
    own.share(
        &space,
        SCRATCH,
        OTHER,
        len,
        ShareMode::CopyOnWrite,
        Some(Perm::RW),
    )
    .expect("share");
    check(OTHER, NR_PAGES, 1);
    write_all(OTHER, NR_PAGES, 900);
    own.share(&space, SCRATCH, THIRD, len, ShareMode::CopyOnWrite, None)
        .expect("share");
    check(THIRD, NR_PAGES, 1);
    check(SCRATCH, NR_PAGES, 500);
    own.unmap(OTHER, len).expect("unmap");
    own.unmap(THIRD, len).expect("unmap");
}

fn share_shared_joins_both_sides() {
    let _memory = filled(4, 1);
    let gifts = [Gift(start::space(), Rights::READ | Rights::MAP, 0)];
    let ready = map(SCRATCH + (1 << 24), 1);
    poke(ready.addr(), 0);
    let twin = Twin::start(&system(), &gifts, move |[parent, ..]| {
        let own = Space::own();
        let parent = Space::borrow(parent);
        own.share(
            &parent,
            SCRATCH,
            OTHER,
            4 * PAGE,
            ShareMode::Shared,
            Some(Perm::RW),
        )
        .expect("share");
        poke(OTHER + 8, 111);
        user_apps::scenario::peer::until("the other's write", || peek(OTHER + PAGE + 8) == 222);
        poke(OTHER + 2 * PAGE + 8, 333);
        // Its own copy from before is not shared.
        assert_eq!(peek(SCRATCH + 8), 0);
    });
    user_apps::scenario::peer::until("the other's write", || peek(SCRATCH + 8) == 111);
    poke(SCRATCH + PAGE + 8, 222);
    user_apps::scenario::peer::until("the other's write", || peek(SCRATCH + 2 * PAGE + 8) == 333);
    twin.join();
    check(SCRATCH, 4, 1);
    poke(SCRATCH, 5);
}

fn share_move_empties_the_source() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let memory = filled(NR_PAGES, 1);
    let len = NR_PAGES * PAGE;
    let before = counters();
    space
        .share(&own, SCRATCH, OTHER, len, ShareMode::Move, Some(Perm::R))
        .expect("share");
    assert_err(own.protect(SCRATCH, PAGE, Perm::R), Error::NotMapped);
    assert_eq!(
        provoke(|| poke(SCRATCH, 1)).found,
        libipc::abi::FoundEntry::Empty
    );
    own.share(&space, OTHER, SCRATCH, len, ShareMode::Move, Some(Perm::RW))
        .expect("share");
    check(SCRATCH, NR_PAGES, 1);
    write_all(SCRATCH, NR_PAGES, 2);
    let after = counters();
    assert!(after.broken - before.broken < 20, "a move made copies");
    assert_eq!(space.info().expect("info").private, 0);
    drop(memory);
}

fn shared_memory_stays_shared_after_fork() {
    let _memory = filled(2, 1);
    let own = Space::own();
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    expect_status(0, || {
        poke(OTHER, 10);
        expect_status(0, || {
            assert_eq!(peek(SCRATCH), 10);
            poke(SCRATCH + PAGE, 20);
            0
        });
        0
    });
    assert_eq!((peek(SCRATCH), peek(OTHER)), (10, 10));
    assert_eq!((peek(SCRATCH + PAGE), peek(OTHER + PAGE)), (20, 20));
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

/// A page is copy-on-write or shared, never both (Redox 113cb5ed): what is copied or sent from
/// shared memory is a snapshot.
fn shared_memory_gives_snapshots() {
    let _memory = filled(2, 1);
    let own = Space::own();
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let copy = OTHER + (1 << 24);
    own.share(
        &own,
        SCRATCH,
        copy,
        2 * PAGE,
        ShareMode::CopyOnWrite,
        Some(Perm::RW),
    )
    .expect("share");
    poke(OTHER, 99);
    assert_eq!((peek(SCRATCH), peek(copy)), (99, 1));
    poke(copy + PAGE, 98);
    assert_eq!((peek(SCRATCH + PAGE), peek(OTHER + PAGE)), (2, 2));
    own.unmap(copy, 2 * PAGE).expect("unmap");
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

fn untouched_pages_are_shared_as_zeros() {
    let own = Space::own();
    let _memory = map(SCRATCH, 64);
    let before = available();
    own.share(
        &own,
        SCRATCH,
        OTHER,
        64 * PAGE,
        ShareMode::CopyOnWrite,
        None,
    )
    .expect("share");
    assert!(before - available() < 8, "untouched pages cost frames");
    poke(SCRATCH, 1);
    poke(OTHER + PAGE, 2);
    assert_eq!((peek(OTHER), peek(SCRATCH + PAGE)), (0, 0));
    own.unmap(OTHER, 64 * PAGE).expect("unmap");
    own.share(
        &own,
        SCRATCH + 2 * PAGE,
        OTHER,
        PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    poke(OTHER, 3);
    assert_eq!(peek(SCRATCH + 2 * PAGE), 3);
    own.unmap(OTHER, PAGE).expect("unmap");
}

/// Reserve, then commit: the last page of a long range is at fault, and the first one is untouched.
fn an_error_in_the_middle_of_a_share_changes_nothing() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let _memory = filled(NR_PAGES, 1);
    let len = NR_PAGES * PAGE;
    let state = || {
        (
            own.info().expect("info"),
            space.info().expect("info"),
            available(),
        )
    };
    let _ = state();
    let before = state();
    for mode in [ShareMode::CopyOnWrite, ShareMode::Shared, ShareMode::Move] {
        assert_err(
            space.share(&own, SCRATCH, SCRATCH, len + PAGE, mode, Some(Perm::RW)),
            Error::NotMapped,
        );
        assert_eq!(state(), before, "{mode:?}");
    }
    space.map(OTHER + len - PAGE, PAGE, Perm::R).expect("map");
    let before = state();
    for mode in [ShareMode::CopyOnWrite, ShareMode::Shared, ShareMode::Move] {
        assert_err(
            space.share(&own, SCRATCH, OTHER, len, mode, None),
            Error::Occupied,
        );
        assert_eq!(state(), before, "{mode:?}");
    }
    check(SCRATCH, NR_PAGES, 1);
}

/// The same with the memory used up: snapshots of shared memory need a frame each.
fn running_out_in_the_middle_of_a_share_changes_nothing() {
    let own = Space::own();
    let _memory = filled(256, 1);
    own.share(
        &own,
        SCRATCH,
        OTHER,
        256 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let mut rng = Rng::new(3);
    let space = system().create_space(None).expect("space");
    let hog = SCRATCH + (1 << 36);
    // Uses up memory to a few dozen frames.
    let mut used = 0;
    while counters().free > 100 {
        own.map(hog + used, 64 * PAGE, Perm::RW).expect("map");
        for page in 0..64 {
            if counters_allow(page) {
                poke(hog + used + page * PAGE, rng.word());
            }
        }
        used += 64 * PAGE;
    }
    let state = || {
        (
            own.info().expect("info"),
            space.info().expect("info"),
            counters().free,
        )
    };
    let _ = state();
    let before = state();
    assert_err(
        space.share(
            &own,
            SCRATCH,
            OTHER,
            256 * PAGE,
            ShareMode::CopyOnWrite,
            Some(Perm::RW),
        ),
        Error::NoMemory,
    );
    assert_eq!(state(), before, "a share that failed changed something");
    own.unmap(hog, used).expect("unmap");
    space
        .share(
            &own,
            SCRATCH,
            OTHER,
            256 * PAGE,
            ShareMode::CopyOnWrite,
            Some(Perm::RW),
        )
        .expect("there is memory again");
    check(SCRATCH, 256, 1);
    own.unmap(OTHER, 256 * PAGE).expect("unmap");
}

/// Looks at the counters only now and then: the loop above stops in time with 64 pages to spare.
fn counters_allow(page: u64) -> bool {
    !page.is_multiple_of(16) || counters().free > 60
}
