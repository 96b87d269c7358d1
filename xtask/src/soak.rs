//! `cargo xtask soak`: lets the user program `soak` race on several CPUs for as long as one likes.
//!
//! What the machine prints goes to stdout, line by line. The seed decides what its processes do; it is chosen by the
//! clock unless it is given, and said in the beginning and, with the command that repeats it, in the end.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::build::{BuildArgs, Built, build};
use crate::cmdline::command_line;
use crate::ending::Ending;
use crate::limine_conf;
use crate::machine::{Machine, Medium};
use crate::setup::{self, Purpose};

/// The program.
const PROGRAM: &str = "soak";

/// How long the machine may take on top of its time, to start, to let all end and to repeat a lap: a process
/// that hangs is noticed by this.
const PATIENCE: Duration = Duration::from_secs(180);

/// For how long, and what.
#[derive(clap::Args)]
pub(crate) struct SoakArgs {
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 5)]
    minutes: u64,
    /// Number of CPUs
    #[arg(long, value_name = "M", default_value_t = 4)]
    smp: u32,
    /// What the processes do follows from this number
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Use a debug build of the kernel, which counts all references after each lap
    #[arg(long)]
    debug: bool,
}

/// Runs the task.
pub(crate) fn main(args: &SoakArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Run)?;
    let built = build(&BuildArgs {
        debug: args.debug,
        ..BuildArgs::default()
    })?;
    let seed = args.seed.unwrap_or_else(seed_of_the_clock);
    let ending = boot(args, seed, &built)?;
    if ending == Ending::Exit(0) {
        eprintln!("xtask: the soak is well; seed {seed}");
    } else {
        eprintln!("xtask: {ending}; to repeat:\n    {}", repeat(args, seed));
    }
    Ok(ExitCode::from(ending.status()))
}

fn boot(args: &SoakArgs, seed: u64, built: &Built) -> Result<Ending> {
    let seconds = args.minutes * 60;
    let words = [PROGRAM.into(), seconds.to_string(), seed.to_string()];
    let machine = Machine {
        medium: Medium::Direct {
            kernel: built.kernel.clone(),
            archive: built.archive.clone(),
            cmdline: command_line(&limine_conf::entry()?.cmdline, None, &words),
        },
        smp: args.smp,
        far_cpu: false,
        mem: "256M".into(),
        icount: false,
        gdb: false,
        log: None,
        trace: None,
    };
    let limit = Duration::from_secs(seconds) + PATIENCE;
    machine.converse(std::io::empty(), std::io::stdout(), Some(limit))
}

/// A seed that nobody has chosen, short enough to be typed.
fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_millis() as u64 % 1_000_000_000)
}

/// The command that does the same once more.
fn repeat(args: &SoakArgs, seed: u64) -> String {
    let SoakArgs { minutes, smp, .. } = args;
    let debug = if args.debug { " --debug" } else { "" };
    format!("cargo xtask soak --minutes {minutes} --smp {smp} --seed {seed}{debug}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_repeats_a_soak_has_all_that_decides() {
        let args = SoakArgs {
            minutes: 3,
            smp: 8,
            seed: None,
            debug: true,
        };
        assert_eq!(
            repeat(&args, 42),
            "cargo xtask soak --minutes 3 --smp 8 --seed 42 --debug"
        );
    }
}
