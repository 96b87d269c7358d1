//! `cargo xtask book`: the documentation as a book, by mdBook.
//!
//! The program that makes it is the crate in `xtask/book`, which is only built for this.

mod html;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::workspace::{cargo, output_dir, root, succeed};

/// What to do with the book.
#[derive(clap::Args)]
pub(crate) struct BookArgs {
    /// Show it in a browser
    #[arg(long)]
    open: bool,
}

/// Programs that show a file as the user likes it, of different systems.
const OPENERS: &[&str] = &["xdg-open", "open"];

/// Runs the task.
pub(crate) fn main(args: &BookArgs) -> Result<ExitCode> {
    let folder = make()?;
    let complaints = html::broken_links(&folder)?;
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    let first = folder.join("index.html");
    println!("{}", first.display());
    if args.open {
        open(&first)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the book, and says which of its links lead nowhere.
pub(crate) fn check() -> Result<Vec<String>> {
    html::broken_links(&make()?)
}

/// Makes the book, and returns its folder.
fn make() -> Result<PathBuf> {
    let folder = output_dir()?.join("book");
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "cowslip-book", "--"]);
    succeed(command.arg(root()).arg(&folder))?;
    Ok(folder)
}

fn open(file: &Path) -> Result<()> {
    for opener in OPENERS {
        let quiet = || Stdio::null();
        let mut command = Command::new(opener);
        command.arg(file).stdout(quiet()).stderr(quiet());
        if command.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    bail!("none of {} shows it", OPENERS.join(", "));
}
