//! Several processes print at once, and some are killed at it: `chatter [PROCESSES] [LINES]`.
//!
//! Each line names its process and its number, and has a length that follows from both, so that who
//! reads it can tell whether anything is missing.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::{fork, object, println, process, start};

libipc::program!(run);

/// How many processes are killed while they print.
const DOOMED: usize = 8;

fn run() -> Result<i32, Error> {
    let mut numbers = start::args().skip(1).filter_map(|arg| arg.parse().ok());
    let nr_processes: usize = numbers.next().unwrap_or(4);
    let nr_lines: usize = numbers.next().unwrap_or(500);
    for name in 0..nr_processes {
        if fork()? == 0 {
            (0..nr_lines).for_each(|nr| say(name, nr));
            return Ok(0);
        }
    }
    for name in nr_processes..nr_processes + DOOMED {
        let doomed = fork()?;
        if doomed == 0 {
            for nr in 0.. {
                say(name, nr);
            }
        }
        object::yield_now();
        process::kill(doomed)?;
        process::wait(doomed)?;
    }
    let mut worst = 0;
    for _ in 0..nr_processes {
        worst = worst.max(process::wait_any()?.status);
    }
    Ok(worst)
}

/// Prints one line.
fn say(name: usize, nr: usize) {
    println!("{name} {nr} {:x>1$}", "", (name * 31 + nr * 7) % 190);
}
