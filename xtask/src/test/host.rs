//! Host tests: `cargo test` over the workspace, counted, and shown only where something fails; and, with small page tables once
//! more, the comparison of memory with its model, and spaces that are used together.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use crate::workspace::{cargo, outside_tests, stdout_of};

/// The tests that are repeated with other page tables, all of those in `kernel/tests`.
const REPEATED: [&str; 4] = [
    "operations_agree_with_the_model",
    "they_copy_the_same_tables_at_once",
    "each_space_has_what_it_wrote_and_no_frame_is_lost",
    "nor_is_one_where_memory_is_short",
];

/// Features of the kernel that make its page tables small, and how many sequences of operations are
/// tried then, unless `PROPTEST_CASES` says so: together about a minute.
const SMALL_TABLES: [(&str, &str); 2] = [("small-tables", "400"), ("tiny-tables", "3000")];

/// Runs the host tests that match the filters: those of the workspace, or of these crates if there are some.
pub(super) fn run(apps: &[PathBuf], filters: &[String], report: &Report) -> Result<()> {
    if !apps.is_empty() {
        for app in crates(apps) {
            let name = format!("host tests of {}", app.display());
            run_one(&name, crate_test(app, filters)?, report)?;
        }
        return Ok(());
    }
    run_one("host tests", cargo_test(filters), report)?;
    let is_meant = |filter: &String| REPEATED.iter().any(|test| test.contains(filter));
    if filters.is_empty() || filters.iter().any(is_meant) {
        for (feature, nr_cases) in SMALL_TABLES {
            let name = format!("host tests with {feature}");
            run_one(&name, repeated_tests(feature, nr_cases, filters), report)?;
        }
    }
    Ok(())
}

/// Runs one `cargo test`.
fn run_one(name: &str, mut command: Command, report: &Report) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut sum = Sum::default();
    for line in BufReader::new(stdout).split(b'\n') {
        sum.add(&String::from_utf8_lossy(&line?));
    }
    let status = child.wait()?;

    println!("{name}: {} passed, {} failed", sum.passed, sum.failed);
    print!("{}", sum.failures);
    report.count(sum.passed, sum.failed);
    if sum.ignored > 0 {
        report.skip(&format!("{} host tests", sum.ignored), "marked #[ignore]");
    }
    if !status.success() && sum.failed == 0 {
        let why = format!("`cargo test` failed: {status}\n{}", sum.section);
        let verdict = Verdict::Failed(why);
        report.add(Outcome {
            name: name.into(),
            verdict,
            output: String::new(),
        });
    }
    Ok(())
}

/// Those of the apps that are crates: a program has no host tests.
fn crates(apps: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    apps.iter().filter(|app| app.is_dir())
}

fn crate_test(folder: &Path, filters: &[String]) -> Result<Command> {
    let mut command = outside_tests(folder)?;
    command.arg("--").args(filters).stdin(Stdio::null());
    Ok(command)
}

/// Prints the names of the host tests that match the filters: those of the workspace, or of these crates if there are some.
pub(super) fn list(apps: &[PathBuf], filters: &[String]) -> Result<()> {
    let mut commands = Vec::new();
    if apps.is_empty() {
        commands.push(cargo_test(filters));
    }
    for app in crates(apps) {
        commands.push(crate_test(app, filters)?);
    }
    for mut command in commands {
        let text = stdout_of(command.arg("--list"))?;
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some(name) = line.strip_suffix(": test") {
                println!("{name}");
            }
        }
    }
    Ok(())
}

/// The crate of the book has no tests of its own, and takes long to build: `cargo xtask check` makes the book.
const BOOK: &str = "cowslip-book";

fn cargo_test(filters: &[String]) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--exclude", BOOK])
        .args(["--no-fail-fast", "--"])
        .args(filters);
    command.stdin(Stdio::null());
    command
}

fn repeated_tests(feature: &str, nr_cases: &str, filters: &[String]) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--package", "kernel", "--no-fail-fast"])
        .args(["--test", "model", "--test", "together"])
        .args(["--features", feature, "--"])
        .args(filters)
        .stdin(Stdio::null());
    if std::env::var_os("PROPTEST_CASES").is_none() {
        command.env("PROPTEST_CASES", nr_cases);
    }
    command
}

/// The sum over the output of many test programs.
#[derive(Default)]
struct Sum {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// What failing test programs said about it.
    failures: String,
    /// What the test program that is running has said so far.
    section: String,
}

impl Sum {
    /// Takes one line of `cargo test`'s output.
    fn add(&mut self, line: &str) {
        let passes = line.starts_with("test ") && line.ends_with(" ... ok");
        if !passes && !line.is_empty() {
            self.section += line;
            self.section += "\n";
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let [passed, failed, ignored] =
            ["passed", "failed", "ignored"].map(|what| number_before(result, what));
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        if failed > 0 {
            self.failures += &self.section;
        }
        self.section.clear();
    }
}

/// The number in `; N what`.
fn number_before(result: &str, what: &str) -> usize {
    let fields = result.split([';', '.']);
    let number = fields.filter_map(|field| {
        field
            .trim()
            .strip_suffix(what)?
            .trim()
            .parse::<usize>()
            .ok()
    });
    number.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut sum = Sum::default();
        let output = "\nrunning 2 tests\ntest a ... ok\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            \nrunning 2 tests\ntest c ... FAILED\ntest d ... ok\n\nfailures:\n\n---- c stdout ----\nwhy\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.1s\n";
        output.lines().for_each(|line| sum.add(line));
        assert_eq!((sum.passed, sum.failed, sum.ignored), (3, 1, 1));
        assert!(sum.failures.contains("---- c stdout ----\nwhy\n"));
        assert!(!sum.failures.contains("test a"));
    }

    #[test]
    fn a_test_program_that_dies_leaves_its_words() {
        let mut sum = Sum::default();
        "running 2 tests\ntest a ... ok\nmemory allocation failed"
            .lines()
            .for_each(|line| sum.add(line));
        assert_eq!(sum.section, "running 2 tests\nmemory allocation failed\n");
    }
}
