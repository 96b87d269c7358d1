//! What faults cost after thousands of generations of fork, each with the end of the parent.
//!
//! Where sharing is written down in chains of objects, the chain grows with each generation.
//!
//! ```text
//! parent   forks ───── waits for the child's word ── ends
//! child         writes to a page: copied ── word ───────── writes to another: taken back ── forks ...
//! ```

use libipc::services::Error;
use libipc::{PAGE_SIZE, PageBuffer, getpid, getppid, process};
use user_apps::bench::{Rounds, begin, end, report, rounds_of};
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{status_of, until};

/// How many generations there are.
const GENERATIONS: u64 = 5000;

/// How many at the beginning, and at the end, are measured.
const MEASURED: u64 = 100;

/// Those at the very beginning, which are not: servers touch what they never did.
const WARM_UP: u64 = 10;

/// What the first page was at the beginning.
const UNWRITTEN: u64 = 0;

pub(crate) fn run() -> Result<(), Error> {
    let names = ["generation_fault/first", "generation_fault/last"];
    let asked_for = names.map(|name| rounds_of(name, Rounds::MANY).is_some());
    if asked_for == [false; 2] {
        return Ok(());
    }
    let memory = map(SCRATCH, 2);
    poke(memory.addr(), UNWRITTEN);
    poke(memory.addr() + PAGE, UNWRITTEN);
    let board = Board::new()?;
    let eldest = process::fork()?;
    if eldest == 0 {
        descend(&board);
        process::exit(0);
    }
    until("the last generation", || board.generation() == GENERATIONS);
    assert_eq!(status_of(eldest), 0);
    assert_eq!(peek(memory.addr()), UNWRITTEN, "a descendant's write");
    let mut samples = board.samples();
    let (first, last) = samples.split_at_mut(MEASURED as usize);
    for (nth, samples) in [&mut *first, &mut *last].into_iter().enumerate() {
        if asked_for[nth] {
            report(names[nth], samples);
        }
    }
    assert!(
        10 * median(last) <= 12 * median(first),
        "faults grow dearer with the generations: {} and {}",
        median(first),
        median(last)
    );
    Ok(())
}

fn median(samples: &mut [u64]) -> u64 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// The generations after the first one. Each ends here in its turn, the last one returns.
fn descend(board: &Board) {
    for generation in 1..=GENERATIONS {
        let parent = getpid();
        if process::fork().expect("fork") != 0 {
            until("the child's word", || board.generation() == generation);
            process::exit(0);
        }
        assert_eq!(peek(SCRATCH), generation - 1, "the parent's page");
        let copied = written(SCRATCH, generation);
        board.say(generation);
        until("the parent's end", || getppid() != parent);
        let taken_back = written(SCRATCH + PAGE, generation);
        board.note(generation, copied + taken_back);
    }
}

/// What it costs to write a word.
fn written(at: u64, value: u64) -> u64 {
    let begin = begin();
    poke(at, value);
    end() - begin
}

/// Shared memory of all generations: how many there have been, and the samples.
struct Board(PageBuffer);

impl Board {
    fn new() -> Result<Self, Error> {
        let page = PageBuffer::new(PAGE_SIZE)?;
        page.make_shared()?;
        Ok(Self(page))
    }

    fn generation(&self) -> u64 {
        peek(self.0.addr())
    }

    fn say(&self, generation: u64) {
        poke(self.0.addr(), generation);
    }

    /// Keeps the sample of a generation that is measured.
    fn note(&self, generation: u64, sample: u64) {
        let first = generation.checked_sub(WARM_UP);
        let last = generation.checked_sub(GENERATIONS - MEASURED + 1);
        let place = match (first, last) {
            (_, Some(nth)) => MEASURED + nth,
            (Some(nth), _) if nth < MEASURED => nth,
            _ => return,
        };
        poke(self.0.addr() + 8 * (1 + place), sample);
    }

    fn samples(&self) -> [u64; 2 * MEASURED as usize] {
        core::array::from_fn(|nth| peek(self.0.addr() + 8 * (1 + nth as u64)))
    }
}
