//! What the first writes after a fork cost, while the child is there and has not written.
//!
//! The memory lies below an entry of the root that has nothing else: so its tables of all levels are
//! shared until the first write.

use alloc::format;

use libipc::services::Error;
use libipc::{course, process};
use user_apps::bench::{Rounds, measure_with, rounds_of};
use user_apps::scenario::frames;
use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, map, peek, poke};

const MIB: u64 = 1 << 20;

pub(crate) fn run() -> Result<(), Error> {
    first_write(256);
    rewrite(256);
    first_write(1024);
    Ok(())
}

/// One write to memory of which all pages were written before the fork.
fn first_write(mib: u64) {
    let some = Rounds {
        warm_up: 2,
        counted: 9,
    };
    after_forks(&format!("first_write/{mib}"), some, mib, |memory| {
        poke(at_middle(memory), 0);
    });
}

/// A write to each page.
fn rewrite(mib: u64) {
    after_forks(&format!("rewrite/{mib}"), Rounds::FEW, mib, |memory| {
        write_all(memory, 0)
    });
}

/// Measures what the parent of a waiting child writes, each time to memory that was written before.
fn after_forks(name: &str, rounds: Rounds, mib: u64, write: impl Fn(&Mapped)) {
    if rounds_of(name, rounds).is_none() {
        return;
    }
    let memory = map(SCRATCH, mib * MIB / PAGE);
    let mut seed = 0;
    measure_with(
        name,
        rounds,
        || {
            seed += 1;
            write_all(&memory, seed);
            Child::fork(&memory)
        },
        |child| {
            write(&memory);
            child
        },
        |child| {
            assert_eq!(peek(at_middle(&memory)), 0, "{name}: what was written");
            child.end(name);
            give_back_all();
        },
    );
    drop(memory);
    give_back_all();
}

/// Memory is given back piece by piece, on any CPU: whoever asks how much is free waits for all of it.
fn give_back_all() {
    let _ = frames::available();
}

/// A process that waits, and then says whether it has its memory as it was at the fork.
struct Child(u64);

impl Child {
    /// Returns when the child waits.
    fn fork(memory: &Mapped) -> Child {
        let expected = sum(memory);
        let pid = process::fork().expect("fork");
        if pid == 0 {
            process::exit(serve(memory, expected));
        }
        course::send(pid, &[], &mut []).expect("the child is there");
        Child(pid)
    }

    fn end(self, name: &str) {
        course::send(self.0, &[], &mut []).expect("the child is there");
        let ended = process::wait(self.0).expect("wait");
        assert_eq!(ended.status, 0, "{name}: the child saw the parent's writes");
    }
}

fn serve(memory: &Mapped, expected: u64) -> i32 {
    let answer = || course::recv(&mut []).and_then(|letter| letter.reply(&[]));
    if answer().and_then(|()| answer()).is_err() {
        return 2;
    }
    i32::from(sum(memory) != expected)
}

fn write_all(memory: &Mapped, seed: u64) {
    for page in pages(memory) {
        poke(page, seed * page);
    }
}

/// The sum of the first words of all pages.
fn sum(memory: &Mapped) -> u64 {
    pages(memory).map(peek).fold(0, u64::wrapping_add)
}

fn at_middle(memory: &Mapped) -> u64 {
    memory.addr() + memory.len() as u64 / 2
}

fn pages(memory: &Mapped) -> impl Iterator<Item = u64> {
    let end = memory.addr() + memory.len() as u64;
    (memory.addr()..end).step_by(PAGE as usize)
}
