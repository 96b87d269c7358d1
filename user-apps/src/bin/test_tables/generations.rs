//! Thousands of generations, each of which ends when the next one is there.

use libipc::services::procd::ProcdClient;
use libipc::{PAGE_SIZE, PageBuffer, Space, getpid, getppid, process, start};
use user_apps::scenario::frames::{Frames, available};
use user_apps::scenario::memory::{PAGE, SCRATCH, peek, poke};
use user_apps::scenario::peer::{child, rest_until, status_of, until};

use super::{check, filled};

const GENERATIONS: u64 = 5000;

/// How many there are in a debug build, where each takes long.
const GENERATIONS_OF_SLOW: u64 = 1000;

/// How often frames and tables are counted, from the first of these on.
const EVERY: u64 = 500;

/// Pages that all generations inherit, in two tables. Before frames are counted for the first time,
/// each has been written.
const START: u64 = SCRATCH + (1 << 20);
const NR_PAGES: u64 = 400;

/// Chains of shadow objects grow with every fork. Here frames and tables of the last generation are as
/// many as those of the first ones. What its faults cost is a row of the benchmarks.
pub(crate) fn lesson_10_five_thousand_generations_take_no_more_than_one() {
    let memory = filled(START, NR_PAGES, 1);
    // Shared by all: the number of the last generation that has come to life.
    let board = PageBuffer::new(PAGE_SIZE).expect("buffer");
    board.make_shared().expect("shared memory");
    let born = board.addr();
    let _ = available();
    let nr_generations = if cfg!(debug_assertions) {
        GENERATIONS_OF_SLOW
    } else {
        GENERATIONS
    };
    let eldest = child(move || {
        descend(born, nr_generations);
        0
    });
    for generation in (EVERY..=nr_generations).step_by(EVERY as usize) {
        rest_until("more generations", || peek(born) >= generation);
    }
    assert_eq!(status_of(eldest), 0);
    // The last one is nobody's child here, and has a little to do.
    until("the end of the last generation", || {
        let list = ProcdClient::borrow(start::procd()).entries(getpid());
        list.expect("list").1 == 0
    });
    check(memory.addr(), NR_PAGES, 1);
}

fn descend(born: u64, nr_generations: u64) {
    let mut first = None;
    for generation in 1..=nr_generations {
        let parent = getpid();
        if process::fork().expect("fork") != 0 {
            until("the child", || peek(born) >= generation);
            process::exit(0);
        }
        poke(START + generation % NR_PAGES * PAGE, generation);
        poke(born, generation);
        until("the parent's end", || getppid() != parent);
        let before = START + (generation - 1) % NR_PAGES * PAGE;
        assert_eq!(peek(before), 1.max(generation - 1), "the parent's page");
        if generation.is_multiple_of(EVERY) {
            let tables = Space::own().info().expect("info").table_frames;
            let &mut (all_tables, frames) = first.get_or_insert_with(|| (tables, settled()));
            assert_eq!(tables, all_tables, "tables of generation {generation}");
            if let Err(now) = Frames::expect(frames) {
                panic!("generation {generation}: {frames} frames at first, {now} now");
            }
        }
    }
}

/// The frames that are available when no parent is on its way out any more.
fn settled() -> u64 {
    let mut frames = available();
    let mut nr_alike = 0;
    until("no change", || {
        let now = available();
        nr_alike = if now == frames { nr_alike + 1 } else { 0 };
        frames = now;
        nr_alike == 20
    });
    frames
}
