//! `cargo xtask miri`: the kernel's library tests under Miri, which sees undefined behaviour, and one sequence
//! of random operations on memory.
//!
//! Miri needs the nightly toolchain; it is never installed from here, because that would be a second
//! compiler on someone's machine.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::workspace::{root, succeed, target_dir};

/// The components that Miri consists of.
const COMPONENTS: [&str; 2] = ["miri", "rust-src"];

/// The test that compares memory with its model.
const MODEL_TEST: &str = "operations_agree_with_the_model";

/// How it is run: page tables of two entries have the fewest to look through.
const MODEL: [&str; 4] = ["--test", "model", "--features", "tiny-tables"];

/// What to run.
#[derive(clap::Args)]
pub(crate) struct MiriArgs {
    /// Only tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the task.
pub(crate) fn main(args: &MiriArgs) -> Result<ExitCode> {
    if let Some(advice) = missing(installed().as_deref()) {
        bail!("{advice}");
    }
    let filters = &args.filters;
    let is_selected = |filter: &String| MODEL_TEST.contains(filter.as_str());
    let is_model = |filter: &String| filter == MODEL_TEST;
    if filters.is_empty() || !filters.iter().all(is_model) {
        succeed(miri_test(&["--lib"]).arg("--").args(filters))?;
    }
    if filters.is_empty() || filters.iter().any(is_selected) {
        succeed(&mut miri_test(&MODEL))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo miri test` for the kernel, with these arguments.
fn miri_test(args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .current_dir(root())
        .args(["run", "nightly", "cargo", "miri", "test"])
        .args(["--package", "kernel", "--target-dir"])
        .arg(target_dir().join("miri"))
        .args(args);
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    // Property tests look at the environment and at their file of known failures.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    if std::env::var_os("PROPTEST_CASES").is_none() {
        command.env("PROPTEST_CASES", "4");
    }
    command
}

/// The nightly toolchain's components as rustup lists them; none without such a toolchain.
fn installed() -> Option<String> {
    let mut command = Command::new("rustup");
    command.args(["component", "list", "--toolchain", "nightly", "--installed"]);
    let output = command.stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is missing, and the command that would change that.
fn missing(installed: Option<&str>) -> Option<String> {
    let Some(installed) = installed else {
        return Some(
            "Miri needs the nightly toolchain, which is not there; this installs it:\n    \
             rustup toolchain install nightly --profile minimal --component miri,rust-src"
                .into(),
        );
    };
    let is_missing = |component: &&str| !installed.lines().any(|line| line.starts_with(component));
    let missing: Vec<_> = COMPONENTS.into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(" ");
    Some(format!(
        "the nightly toolchain lacks: {missing}; this adds it:\n    \
         rustup component add --toolchain nightly {missing}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_exactly() {
        assert!(missing(None).unwrap().contains("toolchain install nightly"));
        let advice = missing(Some("cargo-x86_64\nrust-src\n")).unwrap();
        assert!(advice.ends_with("--toolchain nightly miri"));
        assert_eq!(
            missing(Some("miri-x86_64-unknown-linux-gnu\nrust-src\n")),
            None
        );
    }
}
