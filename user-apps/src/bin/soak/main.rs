//! Everything that several CPUs can do to each other, mixed at random for as long as one likes: `soak [SECONDS] [SEED]`.
//!
//! Time goes by in laps. In each, a few processes do one random [action](actor) after another, on any CPU, while this one kills
//! some of them and starts others. At a lap's end all of them have ended, and then every frame must be back, and in a debug
//! kernel every reference be right. The seed decides what is done; in which order CPUs do it differs from run to run.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod actor;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::object::clock;
use libipc::services::procd::Reason;
use libipc::{PAGE_SIZE, PageBuffer, println, process, start};
use user_apps::scenario::cpus;
use user_apps::scenario::frames::{self, Frames};
use user_apps::scenario::peer::{child, rest, status_of};
use user_apps::scenario::rng::Rng;

libipc::program!(run);

/// Processes that act at a time.
const ACTORS: usize = 6;
/// How long a lap takes, and the longest time between two kills, in nanoseconds.
const LAP_NS: u64 = 10_000_000_000;
const PAUSE_NS: u64 = 300_000_000;

/// What a lap may find.
enum Flaw {
    /// An actor ended with this status.
    Status(i32),
    /// Frames are missing, or there are too many.
    Frames { before: u64, after: u64 },
    /// The kernel's audit found this.
    Audit([u64; 4]),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Status(status) => write!(f, "a process ended with status {status}"),
            Flaw::Frames { before, after } => write!(f, "{before} frames before, {after} after"),
            Flaw::Audit(flaw) => write!(f, "the kernel's audit found {flaw:x?}"),
        }
    }
}

fn run() -> i32 {
    let mut numbers = start::args().skip(1).filter_map(|arg| arg.parse().ok());
    let seconds: u64 = numbers.next().unwrap_or(60);
    let seed = numbers.next().unwrap_or_else(now);
    println!("soak: seed {seed}, {seconds} s on {} CPUs", cpus::count());
    let start = now();
    let end = start + seconds * 1_000_000_000;
    let mut rng = Rng::new(seed);
    let mut nr_actions = 0;
    for lap in 1.. {
        let lap_end = (now() + LAP_NS).min(end);
        match judge(rng.word(), lap_end) {
            Ok(nr) => nr_actions += nr,
            Err(flaw) => {
                println!("soak: FAILED in lap {lap} of seed {seed}: {flaw}");
                return 1;
            }
        }
        let elapsed = (now() - start) / 1_000_000_000;
        println!("soak: lap {lap}, {elapsed} s, {nr_actions} actions, every frame is back");
        if now() >= end {
            break;
        }
    }
    println!("soak: ok");
    0
}

fn now() -> u64 {
    clock().expect("clock").0
}

/// Runs a lap; returns how many actions were done.
///
/// A lap may be the first to make a server touch a page of its tables, which happens once. So one that
/// costs frames is run again, as often as that can happen, and then the count must be exact.
fn judge(seed: u64, end: u64) -> Result<u64, Flaw> {
    let length = end.saturating_sub(now());
    let mut result = check(seed, end);
    for _ in 0..2 {
        match result {
            Err(Flaw::Frames { before, after }) => {
                println!("soak: {before} frames before, {after} after: the lap is repeated");
            }
            result => return result,
        }
        result = check(seed, now() + length);
    }
    result
}

fn check(seed: u64, end: u64) -> Result<u64, Flaw> {
    let before = frames::available();
    let nr_actions = lap(seed, end)?;
    let frames = Frames::expect(before);
    frames::audit().map_err(Flaw::Audit)?;
    frames.map_err(|after| Flaw::Frames { before, after })?;
    Ok(nr_actions)
}

fn lap(seed: u64, end: u64) -> Result<u64, Flaw> {
    let page = PageBuffer::new(PAGE_SIZE).expect("page");
    page.make_shared().expect("shared memory");
    let at = page.addr();
    // SAFETY: the page is mapped in this process and all that it starts, until they have ended.
    let tally = unsafe { AtomicU64::from_ptr(at as *mut u64) };
    let mut rng = Rng::new(seed);
    let mut actors = [(); ACTORS].map(|()| start_actor(&mut rng, end, tally));
    while now() < end {
        rest(rng.below(PAUSE_NS));
        let victim = &mut actors[rng.below(ACTORS as u64) as usize];
        if rng.one_in(4) {
            // One that has ended by itself is not there to be killed.
            let _ = process::kill(*victim);
        } else if now() < end {
            continue;
        }
        judge_end(*victim)?;
        *victim = start_actor(&mut rng, end, tally);
    }
    for actor in actors {
        judge_end(actor)?;
    }
    Ok(tally.load(Relaxed))
}

fn start_actor(rng: &mut Rng, end: u64, tally: &AtomicU64) -> u64 {
    let seed = rng.word();
    child(|| {
        let mut rng = Rng::new(seed);
        actor::act(&mut rng, || {
            tally.fetch_add(1, Relaxed);
            now() < end
        });
        0
    })
}

/// Waits for the end of an actor, which may have been killed.
fn judge_end(pid: u64) -> Result<(), Flaw> {
    match status_of(pid) {
        0 => Ok(()),
        status if status == Reason::Killed.status() => Ok(()),
        status => Err(Flaw::Status(status)),
    }
}
