//! New crates: what `cargo xtask new` makes outside of the workspace builds, and passes its own tests, on the host and in
//! machines.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use super::{last_lines, selected};
use crate::machine::Scratch;
use crate::workspace::words;

/// The kinds of crates.
const KINDS: [&str; 2] = ["server", "app"];

/// The name of the crate that is made.
const NAME: &str = "novelty";

/// How much of what a command says a failure shows.
const TAIL_LINES: usize = 60;

/// The names of these tests.
pub(super) fn names(filters: &[String]) -> Vec<String> {
    let names = KINDS.map(|kind| format!("new::{kind}"));
    names
        .into_iter()
        .filter(|name| selected(name, filters))
        .collect()
}

/// Runs those that the filters ask for.
pub(super) fn run(filters: &[String], report: &Report) -> Result<()> {
    for kind in KINDS {
        let name = format!("new::{kind}");
        if selected(&name, filters) {
            let (verdict, output) = make_and_test(kind)?;
            report.add(Outcome {
                name,
                verdict,
                output,
            });
        }
    }
    Ok(())
}

/// Makes a crate in a folder of its own, and has it tested.
fn make_and_test(kind: &str) -> Result<(Verdict, String)> {
    let scratch = Scratch::new()?;
    let folder = scratch.path().join(NAME);
    let mut make = Command::new(std::env::current_exe()?);
    make.args(["new", kind, NAME, "--path"]).arg(&folder);
    let mut test = Command::new(std::env::current_exe()?);
    test.args(["test", "--smp", "1", "--app"]).arg(&folder);
    let mut output = String::new();
    for command in [&mut make, &mut test] {
        let ended = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", words(command)))?;
        output += &String::from_utf8_lossy(&ended.stderr);
        output += &String::from_utf8_lossy(&ended.stdout);
        if !ended.status.success() {
            let why = format!(
                "`{}` failed: {}\n{}\n",
                words(command),
                ended.status,
                last_lines(&output, TAIL_LINES)
            );
            return Ok((Verdict::Failed(why), output));
        }
    }
    Ok((Verdict::Passed, output))
}
