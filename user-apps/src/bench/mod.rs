//! Programs that measure: one in each `src/bin/bench_*`.
//!
//! The clock is the time-stamp counter. Under QEMU's `-icount shift=0` it counts guest instructions,
//! exactly and the same in every run; otherwise it counts the host's time and means little. Each
//! operation is measured many times on its own, the cost of reading the clock is subtracted, and
//! one line a benchmark goes out for `cargo xtask bench` to read:
//!
//! ```text
//! bench NAME median MEDIAN min MIN max MAX rounds ROUNDS
//! ```
//!
//! With an operation's name as its argument, a program measures that one alone, in one round: this
//! is for the profiler, which finds that round in a trace by the two functions that begin and end it.

use alloc::vec::Vec;
use core::hint::black_box;

use libipc::raw::ticks;
use libipc::{println, start};

/// How often an operation is measured.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Rounds before the first that counts: first touches of memory, first uses of tables.
    pub warm_up: usize,
    /// Rounds that count.
    pub counted: usize,
}

impl Rounds {
    /// For operations of some hundred instructions.
    pub const MANY: Rounds = Rounds {
        warm_up: 4,
        counted: 200,
    };

    /// For operations that move much memory.
    pub const FEW: Rounds = Rounds {
        warm_up: 1,
        counted: 5,
    };
}

/// How often to measure the operation with this name: not at all if another one is asked for.
#[must_use]
pub fn rounds_of(name: &str, rounds: Rounds) -> Option<Rounds> {
    match start::args().nth(1) {
        None => Some(rounds),
        Some(only) => (only == name).then_some(Rounds {
            counted: 1,
            ..rounds
        }),
    }
}

/// The clock before an operation.
#[inline]
pub fn begin() -> u64 {
    trace_begin();
    ticks()
}

/// The clock after an operation.
#[inline]
pub fn end() -> u64 {
    let end = ticks();
    trace_end();
    end
}

/// Where a trace begins. The value keeps the compiler from making one function of the two.
#[inline(never)]
pub fn trace_begin() {
    black_box(1);
}

/// Where a trace ends.
#[inline(never)]
pub fn trace_end() {
    black_box(2);
}

/// Measures `operation` and prints the result.
pub fn measure(name: &str, rounds: Rounds, mut operation: impl FnMut()) {
    measure_with(name, rounds, || (), |()| operation(), drop);
}

/// Measures `operation`, each time on what `prepare` has made. What it returns goes to `finish`;
/// neither of these two counts.
pub fn measure_with<T, R>(
    name: &str,
    rounds: Rounds,
    mut prepare: impl FnMut() -> T,
    mut operation: impl FnMut(T) -> R,
    mut finish: impl FnMut(R),
) {
    let Some(rounds) = rounds_of(name, rounds) else {
        return;
    };
    let mut samples = Vec::with_capacity(rounds.counted);
    for round in 0..rounds.warm_up + rounds.counted {
        let prepared = prepare();
        let begin = begin();
        let result = operation(prepared);
        let end = end();
        finish(result);
        if round >= rounds.warm_up {
            samples.push(end - begin);
        }
    }
    report(name, &mut samples);
}

/// Prints the result of samples that were taken by hand: differences of [`ticks`].
pub fn report(name: &str, samples: &mut [u64]) {
    let overhead = overhead();
    samples.sort_unstable();
    let of = |sample: Option<&u64>| sample.map_or(0, |sample| sample.saturating_sub(overhead));
    println!(
        "bench {name} median {} min {} max {} rounds {}",
        of(samples.get(samples.len() / 2)),
        of(samples.first()),
        of(samples.last()),
        samples.len()
    );
}

/// What reading the clock twice costs.
fn overhead() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..16 {
        let begin = ticks();
        least = least.min(ticks() - begin);
    }
    least
}
