//! Very many who share a page, or a program.

use alloc::vec::Vec;

use libipc::{Endpoint, Message, Perm, Received, Rights, ShareMode, Space, System, course, getpid};
use user_apps::scenario::frames::available;
use user_apps::scenario::memory::{PAGE, SCRATCH, peek, poke};
use user_apps::scenario::peer::{child, status_of};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, system};

use super::{OTHER, TABLE, filled};

fn share(to: &Space, from: &Space, source: u64, target: u64, len: u64) {
    to.share(from, source, target, len, ShareMode::CopyOnWrite, None)
        .expect("share");
}

/// Spaces that each have the page at [`SCRATCH`] so many times, from [`OTHER`] on. It is a page
/// each time, never a table: the range is less than one covers.
fn sharers(system: &System, nr_spaces: usize, nr_each: u64) -> Vec<Space> {
    assert!(nr_each * PAGE < TABLE);
    let own = Space::own();
    let mut spaces: Vec<Space> = Vec::with_capacity(nr_spaces);
    for _ in 0..nr_spaces {
        let space = system.create_space(None).expect("space");
        match spaces.first() {
            Some(first) => share(&space, first, OTHER, OTHER, nr_each * PAGE),
            None => {
                for page in 0..nr_each {
                    share(&space, &own, SCRATCH, OTHER + page * PAGE, PAGE);
                }
            }
        }
        assert_eq!(space.info().expect("info").shared_cow, nr_each);
        spaces.push(space);
    }
    spaces
}

/// Whether a write to the page takes a frame: whether anybody else has it.
fn write_copies(at: u64, value: u64) -> bool {
    let before = available();
    poke(at, value);
    match before - available() {
        0 => false,
        1 => true,
        other => panic!("a write took {other} frames"),
    }
}

/// What the page is for a space, seen through a mapping of one's own.
fn seen(space: &Space, at: u64) -> u64 {
    const WINDOW: u64 = SCRATCH + PAGE;
    let own = Space::own();
    share(&own, space, at, WINDOW, PAGE);
    let value = peek(WINDOW);
    own.unmap(WINDOW, PAGE).expect("unmap");
    value
}

/// Takes the sharers away in any order, and looks how the count comes down: while one is left, it
/// has a page that others have too; with none, the page is taken back.
#[track_caller]
fn leave_one_by_one(mut spaces: Vec<Space>, nr_each: u64) {
    let mut rng = Rng::new(9);
    assert!(write_copies(SCRATCH, 8), "all others have it");
    while spaces.len() > 1 {
        let space = spaces.swap_remove(rng.below(spaces.len() as u64) as usize);
        if spaces.len().is_multiple_of(64) {
            assert_eq!(seen(&space, OTHER + rng.below(nr_each) * PAGE), 7);
        }
        space.kill().expect("kill");
    }
    // The page that this process had written is its own; it has the sharers' again.
    let last = spaces.pop().expect("one is left");
    let own = Space::own();
    own.unmap(SCRATCH, PAGE).expect("unmap");
    own.share(&last, OTHER, SCRATCH, PAGE, ShareMode::Move, None)
        .expect("share");
    for page in 2..nr_each {
        last.unmap(OTHER + page * PAGE, PAGE).expect("unmap");
    }
    let nr_left = last.info().expect("info").shared_cow;
    assert_eq!(nr_left, 1, "the page after the one that was moved");
    assert_eq!(seen(&last, OTHER + PAGE), 7);
    last.unmap(OTHER + PAGE, PAGE).expect("unmap");
    assert_eq!(peek(SCRATCH), 7);
    assert!(!write_copies(SCRATCH, 9), "nobody else has it");
}

/// The neighbour keeps the table when the page goes.
fn with_a_page(body: impl FnOnce(&System)) {
    let _page = filled(SCRATCH, 1, 7);
    let _neighbour = filled(SCRATCH + 2 * PAGE, 1, 1);
    let _ = available();
    body(&system());
}

pub(crate) fn lesson_9_three_hundred_spaces_share_a_page() {
    with_a_page(|system| {
        let spaces = sharers(system, 300, 2);
        assert_eq!(seen(&spaces[299], OTHER + PAGE), 7);
        leave_one_by_one(spaces, 2);
    });
}

/// Eight hundred spaces with 128 mappings each.
pub(crate) fn lesson_9_a_page_is_mapped_a_hundred_thousand_times() {
    with_a_page(|system| {
        let spaces = sharers(system, 800, 128);
        leave_one_by_one(spaces, 128);
    });
}

/// Each program takes its tables, its stack, and what the kernel keeps of it, however long the text
/// is that all of them read: here 1,024 pages, and their own program.
pub(crate) fn a_thousand_programs_share_their_text() {
    // As many as one process has handles for.
    const NR_HOSTS: usize = 2;
    const NR_EACH: usize = 500;
    const MOST_FRAMES: u64 = 16;
    let text = filled(OTHER, NR_PAGES, 5);
    let own = Space::own();
    own.protect(OTHER, NR_PAGES * PAGE, Perm::R)
        .expect("protect");
    let parent = getpid();
    let before = available();
    let hosts: [u64; NR_HOSTS] = core::array::from_fn(|_| {
        child(|| {
            let (_endpoint, readers) = readers(NR_EACH);
            course::send(parent, &[], &mut []).expect("send");
            readers.into_iter().for_each(Twin::kill);
            0
        })
    });
    let letters: [_; NR_HOSTS] = core::array::from_fn(|_| course::recv(&mut []).expect("recv"));
    let taken = before - available();
    let nr_programs = (NR_HOSTS * NR_EACH) as u64;
    assert!(
        taken <= nr_programs * MOST_FRAMES,
        "{taken} frames for {nr_programs} programs"
    );
    for letter in letters {
        letter.reply(&[]).expect("reply");
    }
    for host in hosts {
        assert_eq!(status_of(host), 0);
    }
    drop(text);
}

/// Pages of the text.
const NR_PAGES: u64 = 1024;

/// Programs that have read all of the text and stay, as they wait for an answer at the endpoint.
fn readers(nr_programs: usize) -> (Endpoint, Vec<Twin>) {
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    let system = system();
    let expected = (0..NR_PAGES).map(|page| 5 + page).sum::<u64>();
    let mut programs = Vec::with_capacity(nr_programs);
    for _ in 0..nr_programs {
        programs.push(Twin::start(&system, &[gift], |[to, ..]| {
            let sum = (0..NR_PAGES).map(|page| peek(OTHER + page * PAGE)).sum();
            let message = Message::new(0).with_words([sum]);
            // Nobody answers.
            let _ = Endpoint::borrow(to).call(message);
        }));
        let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
            panic!("no message")
        };
        assert_eq!(incoming.message.words[0], expected);
    }
    (endpoint, programs)
}
