//! `cargo xtask bench`: what the system's operations cost, in guest instructions; `--host`: in
//! nanoseconds, as far as the host can run them.
//!
//! ```text
//! bench programs ──guest──▶ readings ──┐
//! boot, least memory ──guest──────────▶├─ rows ──▶ table, JSON, HTML page
//! xtask/bench/peers.toml ──reference──▶┘    └────▶ baseline: dearer than it was?
//! ```
//!
//! Everything runs twice, and figures that differ between the two runs are an error: what is
//! counted are instructions, and a count that varies measures something else.

mod baseline;
mod guest;
mod host;
mod idle;
mod json;
mod least;
mod page;
mod plot;
mod profile;
mod reading;
mod reference;
mod rows;
mod scale;
mod svg;
mod table;
mod trace;
mod written;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::baseline::{Baseline, tools};
use self::guest::{Guest, Subject};
use self::reading::{Reading, agree};
use self::reference::Reference;
use self::rows::Row;
use crate::build::{BuildArgs, build, shown};
use crate::setup::{self, Purpose};

/// What to measure, and where to put it.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Only operations whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Write the figures to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fail if an operation has become more than 3 % dearer than in the baseline; with --smp, if one that
    /// stays on its CPU is more than 3 % dearer than on a machine with one
    #[arg(long)]
    check: bool,
    /// Make these figures the baseline
    #[arg(long, conflicts_with = "check")]
    update_baseline: bool,
    /// Say which functions the instructions of one operation are in, and nothing else
    #[arg(long, value_name = "OPERATION", conflicts_with_all = ["filter", "json", "html", "check", "update_baseline"])]
    profile: Option<String>,
    /// Time the copy-on-write engine on this machine instead, in nanoseconds
    #[arg(long, conflicts_with_all = ["json", "html", "check", "update_baseline", "profile", "no_build"])]
    host: bool,
    /// Say how much more two CPUs do than one, by the clock: needs an idle host
    #[arg(long, conflicts_with_all = ["host", "filter", "json", "html", "check", "update_baseline", "profile", "smp"])]
    scale: bool,
    /// Number of CPUs of the machine: all but the one that measures are idle
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["host", "update_baseline", "profile"])]
    smp: u32,
    /// Take what the last build has made
    #[arg(long)]
    no_build: bool,
}

/// Runs the task.
pub(crate) fn main(args: &BenchArgs) -> Result<ExitCode> {
    let filter = args.filter.as_deref().unwrap_or("");
    if args.host {
        print!("{}", host::host(filter)?);
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(Purpose::Run)?;
    let reference = Reference::read()?;
    let built = build(&BuildArgs {
        no_build: args.no_build,
        ..BuildArgs::default()
    })?;
    let guest = Guest::new(built, args.smp)?;
    if let Some(operation) = &args.profile {
        print!("{}", profile::profile(&guest, operation)?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.scale {
        print!("{}", scale::scale(&guest)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = measure_all(&guest, filter, &reference)?;
    if rows.is_empty() {
        bail!("no operation's name contains `{filter}`");
    }
    let (written, others): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(written::is_written);
    print!("{}", table::table(&others));
    print!("{}", written::text(&written));
    if let Some(path) = &args.json {
        write(path, &json::json(&rows, &reference))?;
    }
    if let Some(path) = &args.html {
        write(path, &page::page(&rows, &reference)?)?;
    }
    let whole = args.filter.is_none();
    if args.update_baseline {
        Baseline::of(&tools()?, &rows).write(whole)?;
    }
    if args.smp > 1 {
        let alone = measure_all(&guest.with_one_cpu(), filter, &reference)?;
        let mut comparison = idle::Comparison::of(&alone, &rows, args.smp);
        if !comparison.is_well() {
            let guest = guest.with_more_memory();
            let alone = measure_all(&guest.with_one_cpu(), filter, &reference)?;
            let rows = measure_all(&guest, filter, &reference)?;
            comparison.look_again(&idle::Comparison::of(&alone, &rows, args.smp));
        }
        println!("{comparison}");
        if args.check && !comparison.is_well() {
            return Ok(ExitCode::FAILURE);
        }
    } else if args.check {
        let verdict = Baseline::read()?.compare(&tools()?, &rows, whole);
        println!("{verdict}");
        if !verdict.is_well() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows whose names contain the filter.
fn measure_all(guest: &Guest, filter: &str, reference: &Reference) -> Result<Vec<Row>> {
    let mut readings = Vec::new();
    for subject in Subject::ALL
        .iter()
        .filter(|subject| subject.may_have(filter))
    {
        eprintln!("xtask: {subject}, twice");
        readings.extend(measure(guest, subject)?);
    }
    if least::NAME.contains(filter) {
        eprintln!("xtask: {}", least::NAME);
        readings.push(least::least_memory(guest)?);
    }
    let mut rows = rows::rows(&readings, reference);
    rows.retain(|row| row.name.contains(filter));
    Ok(rows)
}

/// Runs a subject twice, at the same time, and returns the readings that both agree on.
fn measure(guest: &Guest, subject: &Subject) -> Result<Vec<Reading>> {
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| guest.readings(subject));
        let first = guest.readings(subject);
        (first, second.join().expect("no panic"))
    });
    let (first, second) = (first?, second?);
    if let Err(differences) = agree(&first, &second) {
        bail!(
            "{subject}: two runs disagree, so this is no count of instructions alone:\n{differences}"
        );
    }
    Ok(first)
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("    Written {}", shown(path));
    Ok(())
}
