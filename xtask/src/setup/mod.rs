//! `cargo xtask setup`: says which tools are there, and installs those that are missing if it may.
//!
//! Other tasks call [`ensure`] first, so that on a fresh machine `cargo xtask run` just works.

mod packages;
mod tools;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

pub(crate) use self::tools::Purpose;
use self::tools::{Install, TOOLS, Tool};
use crate::image::limine;
use crate::workspace::{BARE_METAL, succeed};

/// Runs the task.
pub(crate) fn main() -> Result<ExitCode> {
    print_table();
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|tool| (tool.find)().is_none())
        .collect();
    let installable = missing
        .iter()
        .filter(|tool| tool.install != Install::ByHand);
    install(&installable.copied().collect::<Vec<_>>())?;
    if !missing.is_empty() {
        println!();
        print_table();
    }
    println!();
    println!("{}", limine::state());
    let required = missing.iter().filter(|tool| !tool.optional);
    let lacking: Vec<_> = required.filter(|tool| (tool.find)().is_none()).collect();
    match &lacking[..] {
        [] => {
            println!("ready: `cargo xtask run` boots the system, `cargo xtask test` tests it");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("still missing: {}", names(lacking.iter().copied().copied())),
    }
}

/// Sees to it that a task finds what it needs: silent if everything is there, installs what is missing
/// if possible, and says what to do if not.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let needed = TOOLS
        .iter()
        .filter(|tool| !tool.optional && tool.purposes.contains(&purpose));
    let missing: Vec<_> = needed.filter(|tool| (tool.find)().is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("xtask: missing: {}", names(missing.iter().copied()));
    install(&missing)?;
    let lacking: Vec<_> = missing
        .into_iter()
        .filter(|tool| (tool.find)().is_none())
        .collect();
    if !lacking.is_empty() {
        bail!("still missing: {}", names(lacking.into_iter()));
    }
    Ok(())
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    tools::in_path(program).is_some()
}

fn print_table() {
    let width = TOOLS.iter().map(|tool| tool.name.len()).max().unwrap_or(0);
    for tool in TOOLS {
        let (mark, state) = match (tool.find)() {
            Some(found) => ("ok     ", found),
            None if tool.optional => ("absent ", format!("optional, for {}", tool.why)),
            None => ("MISSING", format!("needed for {}", tool.why)),
        };
        println!("{mark}  {:width$}  {state}", tool.name);
    }
}

/// Installs tools: what rustup has by rustup, the rest by the system's package manager.
fn install(tools: &[&Tool]) -> Result<()> {
    let mut packages = Vec::new();
    for tool in tools {
        match tool.install {
            Install::Target => rustup(&["target", "add", BARE_METAL])?,
            Install::Component(component) => rustup(&["component", "add", component])?,
            Install::Package(package) => packages.push(package),
            Install::ByHand => {}
        }
    }
    if packages.is_empty() {
        Ok(())
    } else {
        packages::install(&packages)
    }
}

/// Calls rustup; its messages go to stderr, like all progress.
fn rustup(args: &[&str]) -> Result<()> {
    eprintln!("xtask: rustup {}", args.join(" "));
    succeed(Command::new("rustup").args(args).stdout(std::io::stderr()))
}

fn names<'a>(tools: impl Iterator<Item = &'a Tool>) -> String {
    tools.map(|tool| tool.name).collect::<Vec<_>>().join(", ")
}
