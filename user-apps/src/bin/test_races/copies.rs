//! Copy-on-write, broken by several CPUs at once.

use core::slice;
use core::sync::atomic::Ordering::SeqCst;

use libipc::abi::ShareMode;
use libipc::{Endpoint, Handle, Incoming, Message, PageBuffer, Received, Rights, Space};
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{child, status_of, thread, until};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, system};

use super::*;

/// Pages that are written, side by side.
const PAGES: u64 = 4;
/// Threads that write them.
const WRITERS: u64 = 3;

/// A writer's word in a page.
const fn slot(writer: u64, page: u64) -> u64 {
    SCRATCH + page * PAGE + writer * 64
}

/// Counts up in its words, page after page, and looks whether they are as it left them.
fn count_up(writer: u64) {
    for count in 1.. {
        for page in 0..PAGES {
            let at = slot(writer, page);
            assert_eq!(peek(at), count - 1, "a store of writer {writer} is lost");
            poke(at, count);
            assert_eq!(peek(at), count, "writer {writer} sees a stale byte");
        }
    }
}

/// Looks whether a writer's words ever go back.
fn look_on(writer: u64) {
    let mut last = [0; PAGES as usize];
    loop {
        for (page, last) in last.iter_mut().enumerate() {
            let seen = peek(slot(writer, page as u64));
            assert!(seen >= *last, "{seen} after {last}");
            *last = seen;
        }
    }
}

/// Whether a writer's words at an address are what they were between two of its stores.
fn is_a_moment(base: u64, writer: u64) -> bool {
    let at = |page| peek(base - SCRATCH + slot(writer, page));
    // Those at the front may be one ahead.
    (1..PAGES).all(|page| at(page) <= at(page - 1)) && at(0) - at(PAGES - 1) <= 1
}

pub(crate) fn writes_survive_the_forks_of_another_thread() {
    let _memory = map(SCRATCH, 512);
    let writers = [0, 1, 2].map(|writer| thread(move || count_up(writer)));
    let readers = [0, 1].map(|writer| thread(move || look_on(writer)));
    until("all write", || {
        (0..WRITERS).all(|writer| peek(slot(writer, 0)) > 0)
    });
    for _ in rounds(2000) {
        let pid = child(|| {
            let is_a_moment = (0..WRITERS).all(|writer| is_a_moment(SCRATCH, writer));
            let first = words(SCRATCH);
            linger(&mut Rng::new(first[0][0]), 5000);
            let is_well = is_a_moment && words(SCRATCH) == first;
            for page in 0..PAGES {
                poke(slot(0, page), u64::MAX);
            }
            i32::from(!is_well)
        });
        assert_eq!(status_of(pid), 0, "the child has what never was");
    }
    drop((writers, readers));
}

/// A table, or a page of it, is shared again and again while others write to it.
pub(crate) fn a_copy_does_not_change_while_the_original_is_written() {
    let _memory = map(SCRATCH, 512);
    let writers = [0, 1, 2].map(|writer| thread(move || count_up(writer)));
    let own = Space::own();
    let mut rng = Rng::new(1);
    for _ in rounds(20_000) {
        let len = if rng.one_in(2) { TABLE } else { PAGES * PAGE };
        let mode = ShareMode::CopyOnWrite;
        own.share(&own, SCRATCH, OTHER, len, mode, None)
            .expect("share");
        let first = words(OTHER);
        linger(&mut rng, 200);
        assert_eq!(words(OTHER), first, "the copy changes");
        assert!((0..WRITERS).all(|writer| is_a_moment(OTHER, writer)));
        if rng.one_in(2) {
            poke(OTHER, 7);
        }
        assert_eq!(
            words(OTHER)[1..],
            first[1..],
            "a write changes its neighbours"
        );
        own.unmap(OTHER, len).expect("unmap");
    }
    drop(writers);
}

/// All writers' words at an address.
fn words(base: u64) -> [[u64; PAGES as usize]; WRITERS as usize] {
    [0, 1, 2].map(|writer| [0, 1, 2, 3].map(|page| peek(base - SCRATCH + slot(writer, page))))
}

/// Two spaces that have a table, and the pages below it, in common write to them at the same moment.
pub(crate) fn two_processes_break_the_same_table_at_once() {
    const ROUNDS: u64 = 5000;
    let _memory = map(SCRATCH, 512);
    let board = PageBuffer::new(PAGE as usize).expect("page");
    board.make_shared().expect("shared memory");
    let [go, done, last] = [0, 64, 128].map(|at| board.addr() + at);
    let system = system();
    let twin = Twin::start(&system, &[], move |_| {
        // What was shared with it at its start.
        Space::own().unmap(SCRATCH, TABLE).expect("unmap");
        word(done).store(1, SeqCst);
        for round in 1.. {
            meet("a round", || {
                word(go).load(SeqCst) == round || word(last).load(SeqCst) != 0
            });
            if word(last).load(SeqCst) != 0 {
                break;
            }
            write_all(2, round);
            Space::own().unmap(SCRATCH, TABLE).expect("unmap");
            word(done).store(round + 1, SeqCst);
        }
    });
    meet("the twin's start", || word(done).load(SeqCst) == 1);
    let own = Space::own();
    for round in rounds(ROUNDS) {
        for page in 0..PAGES {
            poke(SCRATCH + page * PAGE + 8, round);
        }
        let mode = ShareMode::CopyOnWrite;
        twin.space
            .share(&own, SCRATCH, SCRATCH, TABLE, mode, None)
            .expect("share");
        word(go).store(round, SeqCst);
        write_all(1, round);
        meet("the twin's round", || word(done).load(SeqCst) == round + 1);
        check_all(1, round);
    }
    word(last).store(1, SeqCst);
    twin.join();
}

/// A process and three twins, which have every table from the root on in common, all write at the same moment.
pub(crate) fn twins_that_fault_at_once_have_what_they_wrote() {
    const TWINS: u64 = 3;
    let _memory = map(SCRATCH, 512);
    let board = PageBuffer::new(PAGE as usize).expect("page");
    board.make_shared().expect("shared memory");
    let ready = board.addr();
    let system = system();
    for round in rounds(2000) {
        for page in 0..PAGES {
            poke(SCRATCH + page * PAGE + 8, round);
        }
        word(ready).store(0, SeqCst);
        let write = move |who| {
            word(ready).fetch_add(1, SeqCst);
            meet("all others", || word(ready).load(SeqCst) == TWINS + 1);
            write_all(who, round);
        };
        let twins = [1, 2, 3].map(|who| Twin::start(&system, &[], move |_| write(who)));
        write(TWINS + 1);
        twins.into_iter().for_each(Twin::join);
        check_all(TWINS + 1, round);
    }
}

/// Where messages arrive, and where answers are taken from: in a page that others write to.
const LETTER: u64 = SCRATCH + PAGE / 2;
const ANSWER: u64 = LETTER + PAGE / 4;
const LETTER_LEN: usize = 64;

/// A server receives bytes in a page, and answers with them, while its other threads write to that page and share it
/// copy-on-write.
pub(crate) fn bytes_arrive_whole_where_others_fault_and_fork() {
    let _memory = map(SCRATCH, 512);
    let endpoint = Endpoint::create().expect("endpoint");
    let served = endpoint.handle();
    let gift = Gift(served, Rights::SEND, 0);
    let client = Twin::start(&system(), &[gift], |[to, ..]| {
        let mut reply = [0; LETTER_LEN];
        for number in (0..=u8::MAX).cycle() {
            let sent =
                Endpoint::borrow(to).send(Message::new(1), &[number; LETTER_LEN], &mut reply);
            sent.expect("the server does not end");
            assert_eq!(reply, [number; LETTER_LEN], "the answer is another one");
        }
    });
    let server = thread(move || answer(served));
    let writers = [0, 1].map(|writer| thread(move || count_up(writer)));
    let own = Space::own();
    let mut rng = Rng::new(3);
    for _ in rounds(20_000) {
        let mode = ShareMode::CopyOnWrite;
        own.share(&own, SCRATCH, OTHER, TABLE, mode, None)
            .expect("share");
        let first = letter(OTHER);
        assert_eq!(first, [first[0]; LETTER_LEN / 8], "half a letter");
        linger(&mut rng, 200);
        assert_eq!(letter(OTHER), first, "the copy changes");
        own.unmap(OTHER, TABLE).expect("unmap");
    }
    client.kill();
    drop((server, writers));
}

/// Answers each letter with itself.
fn answer(from: Handle) {
    let endpoint = Endpoint::borrow(from);
    // SAFETY: the case has mapped both, and no other thread uses these bytes.
    let (buffer, answer) = unsafe {
        (
            slice::from_raw_parts_mut(LETTER as *mut u8, LETTER_LEN),
            slice::from_raw_parts_mut(ANSWER as *mut u8, LETTER_LEN),
        )
    };
    let mut received = endpoint.recv(buffer);
    while let Ok(Received::Message(Incoming { token, .. })) = received {
        assert_eq!(*buffer, [buffer[0]; LETTER_LEN], "half a letter");
        answer.copy_from_slice(buffer);
        received = endpoint.reply_recv(token, Message::new(2), answer, buffer);
    }
}

/// The words of the letter, at an address.
fn letter(base: u64) -> [u64; LETTER_LEN / 8] {
    core::array::from_fn(|number| peek(base - SCRATCH + LETTER + 8 * number as u64))
}

/// Writes a value of this process into each page; the other has its own.
fn write_all(who: u64, round: u64) {
    for page in 0..PAGES {
        poke(SCRATCH + page * PAGE, who << 32 | round);
    }
    check_all(who, round);
}

#[track_caller]
fn check_all(who: u64, round: u64) {
    for page in 0..PAGES {
        let at = SCRATCH + page * PAGE;
        assert_eq!(
            [peek(at), peek(at + 8)],
            [who << 32 | round, round],
            "page {page} of process {who}"
        );
    }
}
