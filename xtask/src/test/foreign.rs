//! A program in another language: the one in C that the book shows is compiled, put into the boot archive, and run.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use super::selected;
use crate::machine::Scratch;
use crate::workspace::{root, words};

/// The test's name.
const NAME: &str = "foreign::c";

/// The compiler, and what it takes to make a program of Cowslip: see `docs/porting.md`.
const COMPILER: &str = "gcc";
const FLAGS: &[&str] = &[
    "-O2",
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-fno-pie",
    "-fno-stack-protector",
];

const SOURCE: &str = "user-apps/c/hello.c";
const PROGRAM: &str = "hello-c";
const OUTPUT: &str = "hello from C\n";

/// The name of the test, if the filters ask for it.
pub(super) fn names(filters: &[String]) -> Vec<String> {
    let is_wanted = selected(NAME, filters);
    is_wanted.then(|| NAME.to_owned()).into_iter().collect()
}

/// Runs it, if the filters ask for it.
pub(super) fn run(filters: &[String], report: &Report) -> Result<()> {
    if selected(NAME, filters) {
        let (verdict, output) = compile_and_run()?;
        report.add(Outcome {
            name: NAME.into(),
            verdict,
            output,
        });
    }
    Ok(())
}

fn compile_and_run() -> Result<(Verdict, String)> {
    let scratch = Scratch::new()?;
    let program = scratch.path().join(PROGRAM);
    let mut compile = Command::new(COMPILER);
    compile.args(FLAGS).arg("-o").arg(&program);
    let Ok(compiled) = compile.arg(root().join(SOURCE)).output() else {
        let reason = format!("no {COMPILER}");
        return Ok((Verdict::Skipped(reason), String::new()));
    };
    if !compiled.status.success() {
        let why = String::from_utf8_lossy(&compiled.stderr).into_owned();
        return Ok((Verdict::Failed(why), String::new()));
    }
    let mut run = Command::new(std::env::current_exe()?);
    run.args(["run", "--timeout", "120", "--app"]).arg(&program);
    run.args(["--", PROGRAM]).stdin(Stdio::null());
    let ended = run
        .output()
        .with_context(|| format!("cannot start {}", words(&run)))?;
    let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
    let verdict = if ended.status.success() && stdout == OUTPUT {
        Verdict::Passed
    } else {
        let stderr = String::from_utf8_lossy(&ended.stderr);
        Verdict::Failed(format!("{}\n{stdout}{stderr}", ended.status))
    };
    Ok((verdict, stdout))
}
