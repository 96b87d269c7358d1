//! What it costs to take a page away that other CPUs may have translations of.
//!
//! One CPU unmaps a page of its space while others run without a pause: threads of the same space that have read
//! the page just before, or, for comparison, programs that have read a copy of it. The counter counts the instructions
//! of all CPUs, which take turns; those of others that do nothing but look at a word count in both cases.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::services::Error;
use libipc::thread::Running;
use libipc::{PAGE_SIZE, PageBuffer, Perm, Space, Thread};
use user_apps::bench::{Rounds, measure_with};
use user_apps::scenario::cpus;
use user_apps::scenario::memory::{PAGE, SCRATCH, peek, poke};
use user_apps::scenario::peer::thread;
use user_apps::scenario::twin::{Twin, system};

libipc::program!(run);

const ROUNDS: Rounds = Rounds {
    warm_up: 4,
    counted: 50,
};

/// The page that is taken away. It is in a table with another one, which stays.
const PLACE: u64 = SCRATCH;
const NEIGHBOUR: u64 = SCRATCH + PAGE;

fn run() -> Result<(), Error> {
    let nr_cpus = cpus::count();
    let memory = PageBuffer::new(PAGE_SIZE)?;
    memory.make_shared()?;
    let board = Board(memory.addr());
    let (own, system) = (Space::own(), system());
    own.map(PLACE, 2 * PAGE, Perm::RW)?;
    poke(PLACE, 1);
    poke(NEIGHBOUR, 1);
    cpus::stay_on_one();
    for nr in [2, 4, 8].into_iter().filter(|&nr| nr <= nr_cpus) {
        let start = |cpu| {
            let twin = Twin::start(&system, &[], move |_| board.follow(cpu));
            go_to(&twin.thread, cpu);
            twin
        };
        let programs: Vec<Twin> = (1..nr).map(start).collect();
        measure(&format!("shootdown_apart/{nr}"), board, nr);
        programs.into_iter().for_each(Twin::kill);

        let start = |cpu| {
            let running = thread(move || board.follow(cpu));
            go_to(running.thread(), cpu);
            running
        };
        let threads: Vec<Running> = (1..nr).map(start).collect();
        measure(&format!("shootdown/{nr}"), board, nr);
        drop(threads);
    }
    Ok(own.unmap(PLACE, 2 * PAGE)?)
}

fn go_to(thread: &Thread, cpu: u64) {
    cpus::bind(thread, 1 << cpu).expect("the CPU is there");
}

/// Unmaps the page again and again, which so many CPUs have read, this one among them.
fn measure(name: &str, board: Board, nr_cpus: u64) {
    let own = Space::own();
    measure_with(
        name,
        ROUNDS,
        || board.have_read(nr_cpus),
        |()| own.unmap(PLACE, PAGE),
        |result| {
            result.expect("unmap");
            own.map(PLACE, PAGE, Perm::RW).expect("map");
            poke(PLACE, 1);
        },
    );
}

/// Memory that all share: the number of the round, and what each CPU has read the page in.
#[derive(Clone, Copy)]
struct Board(u64);

impl Board {
    fn word(&self, cpu: u64) -> &AtomicU64 {
        // SAFETY: the board stays mapped until the program ends, and has room for each CPU.
        unsafe { AtomicU64::from_ptr((self.0 + 64 * cpu) as *mut u64) }
    }

    /// Lets all read the page, and waits until they have.
    fn have_read(self, nr_cpus: u64) {
        let round = self.word(0).fetch_add(1, SeqCst) + 1;
        while (1..nr_cpus).any(|cpu| self.word(cpu).load(SeqCst) != round) {
            spin_loop();
        }
    }

    /// Reads the page once in each round.
    fn follow(self, cpu: u64) {
        loop {
            let round = self.word(0).load(SeqCst);
            if self.word(cpu).load(SeqCst) != round {
                assert_eq!(peek(PLACE), 1);
                self.word(cpu).store(round, SeqCst);
            }
            spin_loop();
        }
    }
}
