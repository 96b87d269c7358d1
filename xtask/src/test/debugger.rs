//! The debugger: `cargo xtask gdb` stops in a program and in the kernel, and shows where in the source that is.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use super::{last_lines, selected};
use crate::gdb::GDB;
use crate::machine::Scratch;
use crate::setup;

const NAME: &str = "gdb::stops_in_the_program_and_in_the_kernel";

/// What is done once gdb has stopped in the program.
const COMMANDS: &str = "backtrace 2
thbreak cowslip::arch::trap::messages::fast_send
continue
backtrace 2
";

/// What gdb then has said, in this order.
const EXPECTED: [&str; 4] = [
    "hello::run () at ",
    "src/bin/hello.rs:",
    "cowslip::arch::trap::messages::fast_send () at ",
    "kernel/src/arch/trap/messages.rs:",
];

/// How much of what was said a failure shows.
const TAIL_LINES: usize = 40;

/// The names of those that the filters ask for.
pub(super) fn names(filters: &[String]) -> Vec<String> {
    let names = [NAME.to_owned()].into_iter();
    names.filter(|name| selected(name, filters)).collect()
}

/// Runs those that the filters ask for.
pub(super) fn run(filters: &[String], limit: Duration, report: &Report) -> Result<()> {
    if !selected(NAME, filters) {
        return Ok(());
    }
    let (verdict, output) = if setup::has(GDB) {
        session(limit)?
    } else {
        (Verdict::Skipped("no gdb".into()), String::new())
    };
    report.add(Outcome {
        name: NAME.into(),
        verdict,
        output,
    });
    Ok(())
}

fn session(limit: Duration) -> Result<(Verdict, String)> {
    let scratch = Scratch::new()?;
    let commands = scratch.path().join("commands");
    std::fs::write(&commands, COMMANDS)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("gdb").arg("--batch").arg(&commands);
    command.args(["--timeout", &limit.as_secs().to_string()]);
    let ended = command
        .args(["--", "hello"])
        .stdin(Stdio::null())
        .output()
        .context("cannot start `xtask gdb`")?;
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    let verdict = match missing(&output) {
        None => Verdict::Passed,
        Some(words) => Verdict::Failed(format!(
            "no `{words}` in\n{}\nstderr:\n{}\n",
            last_lines(&output, TAIL_LINES),
            last_lines(&String::from_utf8_lossy(&ended.stderr), TAIL_LINES)
        )),
    };
    Ok((verdict, output))
}

/// The first of the expected words that do not follow those before.
fn missing(output: &str) -> Option<&'static str> {
    let mut rest = output;
    EXPECTED
        .into_iter()
        .find(|words| match rest.split_once(words) {
            Some((_, behind)) => {
                rest = behind;
                false
            }
            None => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_must_come_in_their_order() {
        let all = EXPECTED.join(" ");
        assert_eq!(missing(&all), None);
        assert_eq!(
            missing(&all.replace("hello.rs", "other.rs")),
            Some(EXPECTED[1])
        );
        let turned = [EXPECTED[2], EXPECTED[3], EXPECTED[0], EXPECTED[1]].join(" ");
        assert_eq!(missing(&turned), Some(EXPECTED[2]));
    }
}
