//! Where things are, and how cargo is called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The target of the kernel and of every user program.
pub(crate) const BARE_METAL: &str = "x86_64-unknown-none";

/// Flags for bare metal. The target's kernel code model serves user programs as well, which lie below
/// 2 GiB; a model of their own would keep them from being optimised together with `alloc`.
const RUSTFLAGS: [&str; 2] = ["-Crelocation-model=static", "-Cforce-frame-pointers=yes"];

/// Flags for user programs alone, so that a small one is few pages and one page table: right above the stack, constants on
/// the pages of the code, and all that is written in one segment.
const USER_FLAGS: [&str; 3] = [
    "-Clink-arg=--image-base=0x60000",
    "-Clink-arg=--no-rosegment",
    "-Clink-arg=-znorelro",
];

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// A source file of this project, from its root.
pub(crate) fn own_file(path: &str) -> Option<&str> {
    path.strip_prefix(root().to_str()?)?.strip_prefix('/')
}

/// Cargo's target folder; below it, every kind of build has a folder of its own.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The folder of the workspace with a crate in each folder that `cargo xtask new` has made, named like the crate.
pub(crate) const APPS: &str = "apps";

/// The crates in [`APPS`], sorted.
fn apps() -> Vec<String> {
    let entries = std::fs::read_dir(root().join(APPS)).into_iter().flatten();
    let crates = entries
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").is_file());
    let mut names: Vec<_> = crates
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A folder below the target folder for what xtask itself makes; created on demand.
pub(crate) fn output_dir() -> Result<PathBuf> {
    let dir = target_dir().join("cowslip");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Cargo, run in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Which part of the system a bare-metal cargo call is for. With a target folder each, one can be
/// built while the other is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The kernel.
    Kernel,
    /// Servers and other user programs.
    User,
    /// The kernel that records what happens.
    TracedKernel,
    /// The servers, which tell it the names of programs.
    TracedServers,
}

impl Part {
    /// The part's target folder.
    pub(crate) fn target_dir(self) -> PathBuf {
        target_dir().join(match self {
            Part::Kernel => "kernel",
            Part::User => "user",
            Part::TracedKernel => "traced-kernel",
            Part::TracedServers => "traced-user",
        })
    }

    /// The flags of its builds.
    fn rust_flags(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Part::Kernel | Part::TracedKernel => &[],
            Part::User | Part::TracedServers => &USER_FLAGS,
        };
        [&RUSTFLAGS, own].concat()
    }

    /// The packages and targets that make up the part.
    fn selection(self) -> Vec<String> {
        let of = |packages: &[&str], targets: &[&str]| {
            let packages = packages.iter().flat_map(|package| ["-p", package]);
            packages
                .chain(targets.iter().copied())
                .map(str::to_owned)
                .collect()
        };
        match self {
            Part::Kernel => of(&["kernel"], &["--bin", "cowslip"]),
            Part::TracedKernel => of(&["kernel"], &["--bin", "cowslip", "--features", "trace"]),
            Part::TracedServers => of(&["servers"], &["--bins", "--features", "trace"]),
            Part::User => {
                let apps = apps();
                let apps = apps.iter().map(String::as_str);
                let packages: Vec<_> = ["servers", "user-apps"].into_iter().chain(apps).collect();
                of(&packages, &["--bins"])
            }
        }
    }

    /// `cargo SUBCOMMAND` over the part, for bare metal.
    pub(crate) fn cargo(self, subcommand: &str) -> Command {
        let mut command = self.bare_metal(subcommand);
        command.args(self.selection());
        command
    }

    /// `cargo SUBCOMMAND` over nothing yet, with the part's flags and target folder.
    ///
    /// Flags inherited from the environment are made for the host; here they would silently
    /// replace the ones that the linker scripts rely on, so they are dropped.
    fn bare_metal(self, subcommand: &str) -> Command {
        let mut command = cargo();
        command
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rust_flags().join("\x1f"))
            .arg(subcommand)
            .args(["--target", BARE_METAL, "--target-dir"])
            .arg(self.target_dir());
        command
    }
}

/// `cargo build` of the crate in a folder, which need not be in the workspace, for bare metal.
pub(crate) fn outside(folder: &Path) -> Result<Command> {
    let mut command = Part::User.bare_metal("build");
    command.arg("--manifest-path").arg(manifest_of(folder)?);
    Ok(command)
}

/// `cargo test` of the crate in a folder, which need not be in the workspace, on the host.
pub(crate) fn outside_tests(folder: &Path) -> Result<Command> {
    let mut command = cargo();
    command
        .arg("test")
        .arg("--target-dir")
        .arg(target_dir())
        .arg("--manifest-path")
        .arg(manifest_of(folder)?);
    Ok(command)
}

/// The manifest in a folder. Cargo runs elsewhere, so its path is made absolute.
fn manifest_of(folder: &Path) -> Result<PathBuf> {
    let manifest = std::path::absolute(folder)?.join("Cargo.toml");
    if !manifest.is_file() {
        bail!(
            "{} has no Cargo.toml; `cargo xtask new server NAME --path {0}` makes a crate",
            folder.display()
        );
    }
    Ok(manifest)
}

/// Runs a command to its end and fails unless it succeeds.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", words(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", words(command));
    }
    Ok(())
}

/// Runs a command, lets its messages through to stderr, and returns what it wrote to stdout.
pub(crate) fn stdout_of(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", words(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", words(command), output.status);
    }
    Ok(output.stdout)
}

/// A command in words, the way a person would type it: programs by name, without their folder.
pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy();
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    std::iter::once(name)
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_told_from_the_librarys() {
        let path = root().join("kernel/src/lib.rs");
        assert_eq!(own_file(path.to_str().unwrap()), Some("kernel/src/lib.rs"));
        assert_eq!(own_file("/rustc/1/library/core/src/cell.rs"), None);
    }
}
