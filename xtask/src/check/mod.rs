//! `cargo xtask check`: what can be judged without running anything.
//!
//! Formatting, lints, documentation, and rules of this project that no tool knows: a kernel module
//! imports only what stands below it, machine code stays in few places, and the pages of the book are true as far as a
//! program can tell: samples are quotations, links lead somewhere, commands are understood.

mod commands;
mod layers;
mod links;
mod machine_code;
mod pages;
mod samples;
mod source;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::book;
use crate::setup::{self, Purpose};
use crate::workspace::{Part, cargo, root, succeed};

/// A step: its name, and how it is done.
type Step = (&'static str, fn() -> Result<()>);

/// The steps, quick ones first.
const STEPS: &[Step] = &[
    ("formatting", formatting),
    ("dependency direction of kernel modules", || {
        verdict(layers::check()?)
    }),
    ("machine code only where it belongs", || {
        verdict(machine_code::check()?)
    }),
    (
        "samples in the documentation",
        || verdict(samples::check()?),
    ),
    ("links and names in the documentation", || {
        verdict(links::check()?)
    }),
    ("commands in the documentation", || {
        verdict(commands::check()?)
    }),
    ("the book", || verdict(book::check()?)),
    ("lints, host", lints_host),
    ("lints, kernel on bare metal", || lints(Part::Kernel)),
    ("lints, user programs on bare metal", || lints(Part::User)),
    ("lints, kernel and servers that trace", || {
        lints(Part::TracedKernel)?;
        lints(Part::TracedServers)
    }),
    ("documentation", documentation),
    ("documentation, kernel on bare metal", kernel_documentation),
];

/// Runs the task: every step, whatever the ones before it say.
pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(Purpose::Check)?;
    let mut lines = Vec::new();
    let mut well = true;
    for (name, step) in STEPS {
        eprintln!("xtask: {name}");
        let start = Instant::now();
        let result = step();
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        well &= result.is_ok();
        lines.push(format!(
            "check {name} ... {word} ({:.1} s)",
            start.elapsed().as_secs_f32()
        ));
        if let Err(error) = result {
            eprintln!("{error:#}");
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Names the files only: what is wrong with them, `cargo fmt` knows.
fn formatting() -> Result<()> {
    let mut command = cargo();
    command.args(["fmt", "--all", "--check", "--", "--files-with-diff"]);
    let output = command.output()?;
    let prefix = format!("{}/", root().display());
    let mut complaints: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|path| format!("{}: `cargo fmt` would change it", path.replace(&prefix, "")))
        .collect();
    if complaints.is_empty() && !output.status.success() {
        complaints.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    complaints.dedup();
    verdict(complaints)
}

fn lints_host() -> Result<()> {
    succeed(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn lints(part: Part) -> Result<()> {
    succeed(part.cargo("clippy").args(["--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    let mut command = cargo();
    command.args(["doc", "--workspace", "--document-private-items"]);
    succeed(strict_documentation(&mut command))
}

/// What only exists on bare metal is not seen by the host's documentation.
fn kernel_documentation() -> Result<()> {
    let mut command = Part::Kernel.cargo("doc");
    command.arg("--document-private-items");
    succeed(strict_documentation(&mut command))
}

/// Private items are documented too, so links to them lead somewhere.
fn strict_documentation(command: &mut Command) -> &mut Command {
    command.arg("--no-deps").env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private_intra_doc_links",
    )
}

/// No complaints, or all of them.
fn verdict(complaints: Vec<String>) -> Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("\n"));
}
