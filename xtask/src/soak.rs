//! `cargo xtask soak`: lets the user program `soak`, or the cases of `test_races`, race on several CPUs for as long as one
//! likes.
//!
//! The kernel is optimised, and checks itself: after each lap, or case, it counts all references again.
//!
//! What the machine prints goes to stdout, line by line. The seed decides what its processes do; it is chosen by the
//! clock unless it is given, and said in the beginning and, with the command that repeats it, in the end.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::build::{BuildArgs, Built, build};
use crate::ending::Ending;
use crate::limine_conf;
use crate::machine::Machine;
use crate::setup::{self, Purpose};

/// The program.
const PROGRAM: &str = "soak";
/// The program whose cases are races.
const RACES: &str = "test_races";

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
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
    /// Repeat the cases of the program test_races instead
    #[arg(long, conflicts_with = "seed")]
    races: bool,
    /// With --races: not for some time, but until each case has gone so many rounds
    #[arg(long, value_name = "R", requires = "races", conflicts_with = "minutes")]
    rounds: Option<u64>,
}

/// Runs the task.
pub(crate) fn main(args: &SoakArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Run)?;
    let built = build(&BuildArgs {
        debug: args.debug,
        checked: !args.debug,
        ..BuildArgs::default()
    })?;
    if args.races {
        return race(args, &built);
    }
    let seed = args.seed.unwrap_or_else(seed_of_the_clock);
    let seconds = args.minutes * 60;
    let words = [PROGRAM.into(), seconds.to_string(), seed.to_string()];
    let limit = Duration::from_secs(seconds) + PATIENCE;
    let ending = machine(args, &built, &words)?.converse(
        std::io::empty(),
        std::io::stdout(),
        Some(limit),
    )?;
    if ending == Ending::Exit(0) {
        eprintln!("xtask: the soak is well; seed {seed}");
    } else {
        eprintln!("xtask: {ending}; to repeat:\n    {}", repeat(args, seed));
    }
    Ok(ExitCode::from(ending.status()))
}

/// Runs the races again and again, and says how many rounds each has gone.
fn race(args: &SoakArgs, built: &Built) -> Result<ExitCode> {
    let begin = Instant::now();
    let time = Duration::from_secs(args.minutes * 60);
    let mut totals = BTreeMap::new();
    let mut rest = Vec::new();
    let ending = loop {
        let words: Vec<_> = [RACES.to_owned()].into_iter().chain(rest).collect();
        let mut output = Vec::new();
        let machine = machine(args, built, &words)?;
        let ending = machine.converse(std::io::empty(), &mut output, Some(RACES_LIMIT))?;
        let output = String::from_utf8_lossy(&output);
        add_rounds(&mut totals, &output);
        if ending != Ending::Exit(0) {
            print!("{output}");
            eprintln!("xtask: {ending}");
            break ending;
        }
        rest = match args.rounds {
            Some(wanted) => cases_below(&totals, wanted),
            None => Vec::new(),
        };
        let is_over = match args.rounds {
            Some(_) => rest.is_empty(),
            None => begin.elapsed() >= time,
        };
        if is_over {
            break ending;
        }
        let (nr_left, nr_cases) = (rest.len(), totals.len());
        let minutes = begin.elapsed().as_secs() / 60;
        match args.rounds {
            Some(wanted) => eprintln!(
                "xtask: {nr_left} of {nr_cases} races have not gone {wanted} rounds after {minutes} min"
            ),
            None => eprintln!(
                "xtask: {nr_cases} races are well after {minutes} of {} min",
                args.minutes
            ),
        }
    };
    for (case, rounds) in totals {
        println!("{rounds:>9} rounds of {case}");
    }
    Ok(ExitCode::from(ending.status()))
}

/// The cases that have gone fewer rounds than that.
fn cases_below(totals: &BTreeMap<String, u64>, wanted: u64) -> Vec<String> {
    let below = totals.iter().filter(|(_, rounds)| **rounds < wanted);
    below.map(|(case, _)| case.clone()).collect()
}

/// How long all races may take: on a host that is busy many times as long as they do.
const RACES_LIMIT: Duration = Duration::from_secs(900);

/// Adds the rounds that each case of a boot has gone: it says so before its verdict, each of its threads for itself.
fn add_rounds(totals: &mut BTreeMap<String, u64>, output: &str) {
    let mut rounds = 0;
    for line in output.lines() {
        if let Some(nr) = line.trim().strip_suffix(" rounds") {
            rounds += nr.parse::<u64>().unwrap_or(0);
        } else if let Some(case) = line
            .strip_prefix("test ")
            .and_then(|l| l.strip_suffix(" ... ok"))
        {
            *totals.entry(case.into()).or_default() += core::mem::take(&mut rounds);
        }
    }
}

fn machine(args: &SoakArgs, built: &Built, words: &[String]) -> Result<Machine> {
    let base = limine_conf::entry()?.cmdline;
    Ok(Machine::direct(built, &base, words, args.smp, "256M"))
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
    fn the_rounds_of_all_threads_and_boots_are_added() {
        let boot = "    3 rounds\n    4 rounds\ntest a ... ok\n    5 rounds\ntest b ... ok\n";
        let mut totals = BTreeMap::new();
        add_rounds(&mut totals, boot);
        add_rounds(&mut totals, boot);
        let expected = [("a".to_owned(), 14), ("b".to_owned(), 10)];
        assert_eq!(totals, expected.into());
    }

    #[test]
    fn cases_that_have_gone_too_few_rounds_go_on() {
        let totals = [("a", 14), ("b", 10), ("c", 9)].map(|(case, n)| (case.to_owned(), n));
        let totals = BTreeMap::from(totals);
        assert_eq!(cases_below(&totals, 11), ["b", "c"]);
        assert!(cases_below(&totals, 9).is_empty());
    }

    #[test]
    fn the_command_that_repeats_a_soak_has_all_that_decides() {
        let args = SoakArgs {
            minutes: 3,
            smp: 8,
            seed: None,
            debug: true,
            races: false,
            rounds: None,
        };
        assert_eq!(
            repeat(&args, 42),
            "cargo xtask soak --minutes 3 --smp 8 --seed 42 --debug"
        );
    }
}
