//! Messages of whole tables: passed on, sent twice, and left behind by senders that go.

use alloc::vec::Vec;

use libipc::abi::Error;
use libipc::{
    Endpoint, Incoming, Message, Perm, Received, Rights, ShareMode, Space, course, getpid,
};
use libipc::{process, start};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::available;
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{child, expect_status, status_of};
use user_apps::scenario::twin::{Gift, Twin, system};

use super::{DIRECTORY, OTHER, TABLE, THIRD, bytes, check, filled, write_all};

/// Pages of a message: a table's.
const NR_PAGES: u64 = 512;

#[track_caller]
fn receive(endpoint: &Endpoint, at: u64, len: u64) -> Incoming {
    match endpoint.recv(bytes(at, len)) {
        Ok(Received::Message(incoming)) => {
            assert_eq!(incoming.len as u64, len);
            incoming
        }
        other => panic!("no message, but {other:?}"),
    }
}

#[track_caller]
fn send(to: &Endpoint, at: u64, len: u64) {
    to.send(Message::new(0), bytes(at, len), &mut [])
        .expect("send");
}

fn answer(incoming: Incoming) {
    incoming.token.reply(Message::new(0), &[]).expect("reply");
}

fn endpoint() -> Endpoint {
    Endpoint::create().expect("endpoint")
}

/// Each of a hundred programs writes to one page of what it got, passes the table on, and afterwards has
/// what it had. The last one passes it back to the first sender.
pub(crate) fn a_received_table_is_passed_on_a_hundred_times() {
    const LENGTH: u64 = 100;
    let system = system();
    let endpoints: Vec<Endpoint> = (0..=LENGTH).map(|_| endpoint()).collect();
    let mut programs = Vec::new();
    for nth in 0..LENGTH {
        let gifts = [
            Gift(endpoints[nth as usize].handle(), Rights::RECV, 0),
            Gift(endpoints[nth as usize + 1].handle(), Rights::SEND, 0),
        ];
        programs.push(Twin::start(&system, &gifts, move |[from, to, ..]| {
            let _buffer = map(OTHER, NR_PAGES);
            let incoming = receive(&Endpoint::borrow(from), OTHER, TABLE);
            poke(OTHER + nth * PAGE, 1000 + nth);
            send(&Endpoint::borrow(to), OTHER, TABLE);
            // All after it have written.
            for page in 0..NR_PAGES {
                let expected = if page <= nth { 1000 + page } else { page };
                assert_eq!(peek(OTHER + page * PAGE), expected, "page {page} of {nth}");
            }
            answer(incoming);
        }));
    }
    let memory = filled(SCRATCH, NR_PAGES, 0);
    let gift = Gift(endpoints[0].handle(), Rights::SEND, 0);
    let first = Twin::start(&system, &[gift], |[to, ..]| {
        send(&Endpoint::borrow(to), SCRATCH, TABLE);
        check(SCRATCH, NR_PAGES, 0);
    });
    let buffer = map(THIRD, NR_PAGES);
    let last = receive(&endpoints[LENGTH as usize], THIRD, TABLE);
    for page in 0..NR_PAGES {
        let expected = if page < LENGTH { 1000 + page } else { page };
        assert_eq!(peek(THIRD + page * PAGE), expected, "page {page}");
    }
    write_all(THIRD, NR_PAGES, 5000);
    answer(last);
    programs.into_iter().for_each(Twin::join);
    first.join();
    check(memory.addr(), NR_PAGES, 0);
    check(buffer.addr(), NR_PAGES, 5000);
}

/// What a sender does when its call has returned.
type Next = fn();

/// The sender is a process, so that it can become another program.
pub(crate) fn a_message_outlives_its_sender_whatever_that_does_next() {
    let unmap: Next = || Space::own().unmap(SCRATCH, TABLE).expect("unmap");
    let write: Next = || write_all(SCRATCH, NR_PAGES, 9000);
    let exec: Next = || {
        let _ = process::exec("/bin/quit", &[]);
        process::exit(1);
    };
    let end: Next = || process::exit(0);
    for (nth, next) in (1..).zip([unmap, write, exec, end]) {
        let buffer = filled(OTHER, NR_PAGES, 7000);
        let parent = getpid();
        let sender = child(|| {
            let _memory = filled(SCRATCH, NR_PAGES, nth * 1000);
            course::send(parent, bytes(SCRATCH, TABLE), &mut []).expect("send");
            next();
            0
        });
        let incoming = receive(&Endpoint::borrow(start::inbox()), OTHER, TABLE);
        answer(incoming);
        check(OTHER, NR_PAGES, nth * 1000);
        assert_eq!(status_of(sender), 0);
        check(OTHER, NR_PAGES, nth * 1000);
        write_all(OTHER, NR_PAGES, 1);
        drop(buffer);
    }
}

pub(crate) fn a_sender_killed_before_the_reply_leaves_its_message() {
    let system = system();
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    for is_own_table in [true, false] {
        let buffer = filled(OTHER, NR_PAGES, 7000);
        let keeper = system.create_space(None).expect("space");
        let sender = Twin::start(&system, &[gift], move |[to, ..]| {
            let _memory = filled(SCRATCH, NR_PAGES, 3000);
            if !is_own_table {
                let _ = Endpoint::borrow(to).call(Message::new(1));
            }
            let _ = Endpoint::borrow(to).send(Message::new(0), bytes(SCRATCH, TABLE), &mut []);
        });
        if !is_own_table {
            // Somebody else has the table too by the time that it is sent.
            let Ok(Received::Message(ready)) = endpoint.recv(&mut []) else {
                panic!("no message")
            };
            let mode = ShareMode::CopyOnWrite;
            keeper
                .share(&sender.space, SCRATCH, SCRATCH, TABLE, mode, None)
                .expect("share");
            answer(ready);
        }
        let incoming = receive(&endpoint, OTHER, TABLE);
        sender.kill();
        check(OTHER, NR_PAGES, 3000);
        assert_err(
            incoming.token.reply(Message::new(0), &[]),
            Error::StaleToken,
        );
        write_all(OTHER, NR_PAGES, 1);
        if !is_own_table {
            let own = Space::own();
            let mode = ShareMode::Move;
            own.share(&keeper, SCRATCH, THIRD, TABLE, mode, None)
                .expect("share");
            check(THIRD, NR_PAGES, 3000);
            own.unmap(THIRD, TABLE).expect("unmap");
        }
        drop(buffer);
    }
}

pub(crate) fn a_table_received_twice_is_written_in_either_place() {
    const PLACES: [u64; 2] = [OTHER, OTHER + 3 * TABLE];
    let system = system();
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    for [first, second] in [PLACES, [PLACES[1], PLACES[0]]] {
        let buffers = PLACES.map(|at| filled(at, NR_PAGES, 7000));
        let sender = Twin::start(&system, &[gift], |[to, ..]| {
            let _memory = filled(SCRATCH, NR_PAGES, 100);
            for _ in 0..2 {
                send(&Endpoint::borrow(to), SCRATCH, TABLE);
            }
            check(SCRATCH, NR_PAGES, 100);
            write_all(SCRATCH, NR_PAGES, 200);
            let _ = Endpoint::borrow(to).call(Message::new(1));
            check(SCRATCH, NR_PAGES, 200);
        });
        answer(receive(&endpoint, PLACES[0], TABLE));
        let second_message = receive(&endpoint, PLACES[1], TABLE);
        // While the sender waits, and has the table too.
        poke(first + 5 * PAGE, 1);
        assert_eq!(peek(second + 5 * PAGE), 105);
        answer(second_message);
        let written = receive(&endpoint, SCRATCH, 0);
        poke(second + 5 * PAGE, 2);
        poke(second + 6 * PAGE, 3);
        assert_eq!((peek(first + 5 * PAGE), peek(first + 6 * PAGE)), (1, 106));
        write_all(first, NR_PAGES, 8000);
        assert_eq!((peek(second + 5 * PAGE), peek(second + 6 * PAGE)), (2, 3));
        poke(second + 5 * PAGE, 105);
        poke(second + 6 * PAGE, 106);
        check(second, NR_PAGES, 100);
        check(first, NR_PAGES, 8000);
        answer(written);
        sender.join();
        drop(buffers);
    }
}

/// The buffer is a child's too. The message goes over as a table, and page by page, and by copying.
pub(crate) fn a_message_into_a_forked_buffer_leaves_the_fork_alone() {
    let system = system();
    let endpoint = endpoint();
    for (from, len) in [
        (0, TABLE),
        (0, TABLE - PAGE),
        (PAGE, TABLE - PAGE),
        (8, 3 * PAGE),
    ] {
        let buffer = filled(OTHER, NR_PAGES, 7000);
        let parent = getpid();
        let twin = child(move || {
            course::send(parent, &[], &mut []).expect("send");
            check(OTHER, NR_PAGES, 7000);
            write_all(OTHER, NR_PAGES, 4000);
            0
        });
        let gift = Gift(endpoint.handle(), Rights::SEND, 0);
        let sender = Twin::start(&system, &[gift], move |[to, ..]| {
            let _memory = filled(SCRATCH, NR_PAGES + 1, 100);
            send(&Endpoint::borrow(to), SCRATCH + from, len);
        });
        answer(receive(&endpoint, OTHER, len));
        let arrived = |at: u64| (from + at).is_multiple_of(PAGE);
        let expected = |at: u64| 100 + (from + at) / PAGE;
        for at in (0..len).step_by(8).filter(|&at| arrived(at)) {
            assert_eq!(peek(OTHER + at), expected(at), "at {at}, {from} {len}");
        }
        for page in len.div_ceil(PAGE)..NR_PAGES {
            assert_eq!(peek(OTHER + page * PAGE), 7000 + page, "behind the message");
        }
        sender.join();
        answer(receive(&Endpoint::borrow(start::inbox()), SCRATCH, 0));
        assert_eq!(status_of(twin), 0);
        drop(buffer);
    }
}

/// Buffers that lie next to each other, as two programs that do the same have them, are congruent
/// too: the table goes over, and the receiver needs none.
pub(crate) fn a_table_goes_to_the_place_next_to_its_own() {
    let system = system();
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    let neighbour = filled(OTHER + 8 * TABLE, 1, 1);
    for (from, into) in [(2, 0), (1, 0), (0, 2), (0, 1)] {
        let (from, into) = (OTHER + from * TABLE, OTHER + into * TABLE);
        let buffer = map(into, NR_PAGES);
        let sender = Twin::start(&system, &[gift], move |[to, ..]| {
            let _memory = filled(from, NR_PAGES, 100);
            let to = Endpoint::borrow(to);
            to.call(Message::new(1)).expect("call");
            send(&to, from, TABLE);
        });
        answer(receive(&endpoint, SCRATCH, 0));
        // From here on the tables above are this side's own, and whatever is written to by who counts.
        poke(neighbour.addr(), into);
        let _ = available();
        let before = available();
        let incoming = receive(&endpoint, into, TABLE);
        assert_eq!(before, available(), "{from:#x} received at {into:#x}");
        check(into, NR_PAGES, 100);
        answer(incoming);
        sender.join();
        drop(buffer);
    }
}

/// Reserved, touched in three places, forked, sent in part, released: each costs what it touches.
pub(crate) fn a_terabyte_is_forked_and_sent_in_part() {
    const TIB: u64 = 1 << 40;
    const MIDDLE: u64 = TIB / 2 + DIRECTORY / 2;
    const PLACES: [u64; 3] = [0, MIDDLE, TIB - PAGE];
    let own = Space::own();
    let system = system();
    let endpoint = endpoint();
    let _ = available();
    let before = available();
    own.map(SCRATCH, TIB, Perm::RW).expect("map");
    assert!(before - available() <= 2);
    for at in PLACES {
        poke(SCRATCH + at, at + 1);
    }
    // Three pages; two tables of the third level, and two below them for each page.
    assert_eq!(before - available(), 3 + 2 + 3 * 2);
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    let touched = |change: u64| {
        for at in PLACES {
            assert_eq!(peek(SCRATCH + at), at + change);
        }
        assert_eq!(peek(SCRATCH + TIB / 4), 0);
    };
    expect_status(0, || {
        touched(1);
        PLACES.into_iter().for_each(|at| poke(SCRATCH + at, at + 2));
        touched(2);
        0
    });
    touched(1);
    // A gigabyte of it, in which one page is not zero.
    let sender = Twin::start(&system, &[gift], move |[to, ..]| {
        let start = SCRATCH + MIDDLE - DIRECTORY / 2;
        send(&Endpoint::borrow(to), start, DIRECTORY);
        touched(1);
    });
    let into = THIRD;
    own.map(into, DIRECTORY, Perm::RW).expect("map");
    let taken = available();
    let incoming = receive(&endpoint, into, DIRECTORY);
    assert_eq!(peek(into + DIRECTORY / 2), MIDDLE + 1);
    assert_eq!(peek(into + DIRECTORY / 2 + PAGE), 0);
    assert!(
        taken - available() <= 8,
        "the message took {}",
        taken - available()
    );
    answer(incoming);
    sender.join();
    own.unmap(SCRATCH, TIB).expect("unmap");
    assert_eq!(peek(into + DIRECTORY / 2), MIDDLE + 1);
    own.unmap(into, DIRECTORY).expect("unmap");
}
