//! `cargo xtask build`: the kernel, the user programs, and the boot archive that carries them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::archive::Archive;
use crate::setup::{self, Purpose};
use crate::workspace::{BARE_METAL, Part, output_dir, root, stdout_of};

/// What to build.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct BuildArgs {
    /// Build without optimisation
    #[arg(long)]
    pub(crate) debug: bool,
    /// Put another program into the boot archive, as bin/ and its file name; may be repeated
    #[arg(long = "app", value_name = "PATH")]
    pub(crate) apps: Vec<PathBuf>,
    /// Take what the last build has made
    #[arg(long, conflicts_with_all = ["debug", "apps"])]
    pub(crate) no_build: bool,
    /// Build a kernel with optimisation that checks itself as one without does
    #[arg(skip)]
    pub(crate) checked: bool,
}

/// What a build has made.
#[derive(Clone)]
pub(crate) struct Built {
    /// The kernel's ELF file.
    pub(crate) kernel: PathBuf,
    /// The boot archive.
    pub(crate) archive: PathBuf,
    /// The ELF files of the workspace's user programs, not stripped, sorted by name.
    pub(crate) programs: Vec<PathBuf>,
    /// Whether the archive was made for one run only.
    own_archive: bool,
}

impl Built {
    /// Removes the archive if it was made for one run only.
    pub(crate) fn discard_own_archive(&self) {
        if self.own_archive {
            let _ = std::fs::remove_file(&self.archive);
        }
    }
}

/// Runs the task.
pub(crate) fn main(args: &BuildArgs) -> Result<ExitCode> {
    let built = build(args)?;
    eprintln!("     Kernel {}", shown(&built.kernel));
    eprintln!(
        "    Archive {} ({} programs)",
        shown(&built.archive),
        built.programs.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// Builds everything that a boot needs, or finds what the last build has made.
pub(crate) fn build(args: &BuildArgs) -> Result<Built> {
    if args.no_build {
        return last_build();
    }
    setup::ensure(Purpose::Build)?;
    let profile = if args.debug { "dev" } else { "release" };
    let of_kernel = if args.checked { "checked" } else { profile };
    let kernels = executables(Part::Kernel, of_kernel)?;
    let [kernel] = &kernels[..] else {
        bail!("the kernel package has no executable `cowslip`")
    };
    let programs = executables(Part::User, profile)?;

    let mut archive = Archive::default();
    for program in programs.iter().chain(&args.apps) {
        archive.add_program(program)?;
    }
    archive.add_symbols(kernel)?;

    let bytes = archive.into_tar()?;
    let path = output_dir()?.join(archive_name(args));
    write_if_changed(&path, &bytes)?;
    Ok(Built {
        kernel: kernel.clone(),
        archive: path,
        programs,
        own_archive: !args.apps.is_empty(),
    })
}

/// What the last optimised build has made.
fn last_build() -> Result<Built> {
    let kernel = Part::Kernel
        .target_dir()
        .join(BARE_METAL)
        .join("release/cowslip");
    let archive = output_dir()?.join("archive.tar");
    if !kernel.is_file() || !archive.is_file() {
        bail!("nothing has been built yet");
    }
    Ok(Built {
        kernel,
        archive,
        programs: Vec::new(),
        own_archive: false,
    })
}

/// Archives with different contents have different names: a boot that is under way keeps its own.
fn archive_name(args: &BuildArgs) -> String {
    let profile = match args {
        BuildArgs { checked: true, .. } => "-checked",
        BuildArgs { debug: true, .. } => "-debug",
        _ => "",
    };
    if args.apps.is_empty() {
        format!("archive{profile}.tar")
    } else {
        format!("archive{profile}-{}.tar", std::process::id())
    }
}

/// Builds a part and returns its executables.
fn executables(part: Part, profile: &str) -> Result<Vec<PathBuf>> {
    let mut command = part.cargo("build");
    command.args([
        "--message-format=json-render-diagnostics",
        "--profile",
        profile,
    ]);
    executables_in(&stdout_of(&mut command)?)
}

/// The executables that cargo's JSON messages tell of, sorted.
fn executables_in(messages: &[u8]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for message in serde_json::Deserializer::from_slice(messages).into_iter::<Value>() {
        let message = message.context("cargo's messages are not JSON")?;
        if let Some(path) = message["executable"].as_str() {
            paths.push(PathBuf::from(path));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes a file in one step, so that a boot that starts meanwhile sees the old or the new one;
/// leaves it alone if it has these bytes already.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    std::fs::write(&draft, bytes)
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A path as a person in the workspace's root would write it.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/shell"}
{"reason":"compiler-artifact","executable":"/t/init"}
{"reason":"build-finished","success":true}
"#;
        let paths = executables_in(messages).unwrap();
        assert_eq!(paths, [PathBuf::from("/t/init"), PathBuf::from("/t/shell")]);
    }
}
