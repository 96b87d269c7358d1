//! `cargo xtask test`: everything that can fail, in three groups.
//!
//! 1. *Host tests*: `cargo test` over the workspace.
//! 2. *Test programs*: user programs that list test cases in a section of their ELF file. One boot runs
//!    one program, and a case is named `PROGRAM::CASE`.
//! 3. *Scenarios*: `cargo xtask run` itself, seen from outside: output, exit status, doors. They are in
//!    the table of [`scenarios`]. And what `cargo xtask new` makes, a program in another language, what `trace` tells and
//!    what `gdb` shows: see [`new`], [`foreign`], [`tracing`] and [`debugger`]; and races on a machine that is stricter than QEMU's: [`bochs`].
//!
//! With `--app`, a program or crate from elsewhere, only its own host tests and test programs run.
//!
//! The last line says `N passed, N failed`. What cannot be run here is skipped with a reason, and
//! listed; it counts as neither.

mod bochs;
mod debugger;
mod foreign;
mod host;
mod new;
mod program;
mod report;
mod scenarios;
mod tracing;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use self::program::ProgramRun;
use self::report::{Outcome, Report, Verdict};
use self::scenarios::{SCENARIOS, Scenario};
use crate::archive;
use crate::build::{BuildArgs, Built, build};
use crate::setup::{self, Purpose};

/// Which tests to run, and how.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Say which tests there are, and run none
    #[arg(long)]
    list: bool,
    /// Only the tests that need no machine
    #[arg(long, conflicts_with = "qemu_only")]
    host_only: bool,
    /// Only the tests that boot a machine
    #[arg(long)]
    qemu_only: bool,
    /// Only the test programs, on a debug build of the kernel, which audits itself after every case
    #[arg(long, conflicts_with = "host_only")]
    debug: bool,
    /// Only the tests of another crate, in this folder, or of a test program, an ELF file; may be repeated
    #[arg(long = "app", value_name = "PATH")]
    apps: Vec<PathBuf>,
    /// Number of CPUs of the machines, instead of each test's own choice
    #[arg(long, value_name = "N")]
    smp: Option<u32>,
    /// How many machines run at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Show the output of passing tests as well
    #[arg(long)]
    nocapture: bool,
    /// How long a machine may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// The numbers of CPUs that tests run with, unless the command line says otherwise.
const CPUS: &[u32] = &[1, 4];

/// The test program that is about CPUs that meet, and the numbers of CPUs that it runs with besides.
const RACES: &str = "test_races";
const CPUS_OF_RACES: &[u32] = &[2, 8];

/// How much longer a machine may take that has several CPUs, which may be more than the host's.
const SLOWER: u32 = 3;

/// One boot.
enum Job {
    Program(ProgramRun),
    Scenario {
        scenario: &'static Scenario,
        smp: u32,
    },
}

impl TestArgs {
    /// The numbers of CPUs to run with.
    fn cpus(&self) -> Vec<u32> {
        self.smp.map_or_else(|| CPUS.to_vec(), |smp| vec![smp])
    }
}

/// Runs the task.
pub(crate) fn main(args: &TestArgs) -> Result<ExitCode> {
    let report = Report::new(args.nocapture);
    if !args.qemu_only && !args.debug {
        on_the_host(args, &report)?;
    }
    if !args.host_only {
        in_machines(args, &report)?;
    }
    Ok(if args.list {
        ExitCode::SUCCESS
    } else {
        report.finish()
    })
}

fn on_the_host(args: &TestArgs, report: &Report) -> Result<()> {
    if args.list {
        host::list(&args.apps, &args.filters)
    } else {
        host::run(&args.apps, &args.filters, report)
    }
}

fn in_machines(args: &TestArgs, report: &Report) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    let built = build(&BuildArgs {
        debug: args.debug,
        apps: args.apps.clone(),
        ..BuildArgs::default()
    })?;
    let jobs = jobs(args, &built)?;
    let news = args.apps.is_empty() && !args.debug;
    if args.list {
        jobs.iter()
            .flat_map(Job::names)
            .for_each(|name| println!("{name}"));
        if news {
            let others = [
                new::names(&args.filters),
                foreign::names(&args.filters),
                tracing::names(&args.cpus(), &args.filters),
                debugger::names(&args.filters),
                bochs::names(&args.filters),
            ];
            others.iter().flatten().for_each(|name| println!("{name}"));
        }
    } else {
        run_all(jobs, args, &built, report);
        built.discard_own_archive();
        if news {
            let limit = Duration::from_secs(args.timeout);
            bochs::run(&args.filters, limit, &built, report)?;
            new::run(&args.filters, report)?;
            foreign::run(&args.filters, report)?;
            tracing::run(&args.cpus(), &args.filters, limit, report)?;
            debugger::run(&args.filters, limit, report)?;
        }
    }
    Ok(())
}

/// The boots that the filters ask for.
fn jobs(args: &TestArgs, built: &Built) -> Result<VecDeque<Job>> {
    let cpus = args.cpus();
    let mut jobs = VecDeque::new();
    if !args.apps.is_empty() {
        for (smp, program) in cpus
            .iter()
            .flat_map(|smp| built.apps.iter().map(move |app| (*smp, app)))
        {
            jobs.extend(program_run(program, smp, &args.filters)?);
        }
        return Ok(jobs);
    }
    for smp in cpus {
        for program in &built.programs {
            jobs.extend(program_run(program, smp, &args.filters)?);
        }
        for scenario in SCENARIOS {
            // They are about what is built for use.
            if !args.debug
                && scenario.runs_on(smp)
                && selected(&scenario.full_name(smp), &args.filters)
            {
                jobs.push_back(Job::Scenario { scenario, smp });
            }
        }
    }
    let races = built.programs.iter().find(|path| path.ends_with(RACES));
    if let (Some(races), None) = (races, args.smp) {
        for &smp in CPUS_OF_RACES {
            jobs.extend(program_run(races, smp, &args.filters)?);
        }
    }
    Ok(jobs)
}

/// The boot of a program with the cases that the filters ask for, if it has any.
fn program_run(program: &Path, smp: u32, filters: &[String]) -> Result<Option<Job>> {
    let cases = archive::scenarios(program)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    Ok(ProgramRun::new(name.into_owned(), cases, smp, filters).map(Job::Program))
}

/// Runs the boots: a few at a time of those with one CPU, then the others one by one, as the CPUs of a
/// machine wait for each other and should not wait for the host's as well.
fn run_all(jobs: VecDeque<Job>, args: &TestArgs, built: &Built, report: &Report) {
    let limit = Duration::from_secs(args.timeout);
    let (single, multiple) = jobs.into_iter().partition(|job| job.smp() == 1);
    let run_some = |jobs: VecDeque<Job>, at_a_time: usize, limit| {
        let jobs = Mutex::new(jobs);
        let next = || jobs.lock().expect("no job panics").pop_front();
        thread::scope(|scope| {
            for _ in 0..at_a_time {
                scope.spawn(|| {
                    while let Some(job) = next() {
                        job.run(limit, built, report);
                    }
                });
            }
        });
    };
    run_some(single, args.jobs.max(1), limit);
    run_some(multiple, 1, limit * SLOWER);
}

impl Job {
    fn smp(&self) -> u32 {
        match self {
            Job::Program(program) => program.smp(),
            Job::Scenario { smp, .. } => *smp,
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Job::Program(program) => program.names(),
            Job::Scenario { scenario, smp } => vec![scenario.full_name(*smp)],
        }
    }

    /// Runs the boot and reports. Trouble on this side of the machine fails every test in it.
    fn run(&self, limit: Duration, built: &Built, report: &Report) {
        let result = match self {
            Job::Program(program) => program.run(limit, built, report),
            Job::Scenario { scenario, smp } => scenario.run(*smp, limit, report),
        };
        if let Err(error) = result {
            for name in self.names() {
                let verdict = Verdict::Failed(format!("{error:#}\n"));
                report.add(Outcome {
                    name,
                    verdict,
                    output: String::new(),
                });
            }
        }
    }
}

/// Whether the filters ask for a test. Without filters, every test is asked for.
fn selected(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// The last `count` lines of a text.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(count);
    let mut tail = lines[skipped..].join("\n");
    if skipped > 0 {
        tail.insert_str(0, &format!("({skipped} lines before these)\n"));
    }
    tail
}

/// A test's name with its machine, where that is not the usual one.
fn with_cpus(name: &str, smp: u32) -> String {
    if smp == 1 {
        name.to_owned()
    } else {
        format!("{name} ({smp} CPUs)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_select_by_substring() {
        assert!(selected("fork::deep", &[]));
        assert!(selected("fork::deep", &["x".into(), "k::d".into()]));
        assert!(!selected("fork::deep", &["x".into()]));
    }

    #[test]
    fn long_output_is_cut_at_its_beginning() {
        assert_eq!(last_lines("a\nb\n", 2), "a\nb");
        assert_eq!(last_lines("a\nb\nc\n", 2), "(1 lines before these)\nb\nc");
    }
}
