//! `cargo xtask build`: the kernel, the user programs, and the boot archive that carries them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::archive::{Archive, is_for_tests};
use crate::setup::{self, Purpose};
use crate::workspace::{BARE_METAL, Part, output_dir, outside, root, stdout_of};

/// What to build.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct BuildArgs {
    /// Build without optimisation
    #[arg(long)]
    pub(crate) debug: bool,
    /// Put further programs into the boot archive, as bin/ and their names: those of a crate in a folder, or an ELF file; may
    /// be repeated
    #[arg(long = "app", value_name = "PATH")]
    pub(crate) apps: Vec<PathBuf>,
    /// Take what the last build has made
    #[arg(long, conflicts_with_all = ["debug", "apps"])]
    pub(crate) no_build: bool,
    /// Build a kernel with optimisation that checks itself as one without does
    #[arg(skip)]
    pub(crate) checked: bool,
    /// Build a kernel that records what happens, and servers that tell it names
    #[arg(skip)]
    pub(crate) traced: bool,
}

/// What a build has made.
#[derive(Clone, Default)]
pub(crate) struct Built {
    /// The kernel's ELF file.
    pub(crate) kernel: PathBuf,
    /// The boot archive, without programs that test or measure.
    archive: PathBuf,
    /// The boot archive with all programs.
    whole_archive: PathBuf,
    /// The ELF files of the workspace's user programs, not stripped, sorted by name.
    pub(crate) programs: Vec<PathBuf>,
    /// Those that the options name.
    pub(crate) apps: Vec<PathBuf>,
    /// Whether the archive was made for one run only.
    own_archive: bool,
}

impl Built {
    /// The boot archive for a machine that runs this program, or none but the shell: what tests and measures is in it only if
    /// the program does.
    pub(crate) fn archive_for(&self, program: Option<&str>) -> &Path {
        if program.is_some_and(is_for_tests) {
            &self.whole_archive
        } else {
            &self.archive
        }
    }

    /// The ELF file of a program, with its symbols.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let mut built = self.apps.iter().chain(&self.programs);
        let found = built.find(|program| program.ends_with(name)).cloned();
        found.unwrap_or_else(|| {
            let folder = Part::User.target_dir().join(BARE_METAL);
            folder.join("release").join(name)
        })
    }

    /// Removes the archives if they were made for one run only.
    pub(crate) fn discard_own_archive(&self) {
        if self.own_archive {
            let _ = std::fs::remove_file(&self.archive);
            let _ = std::fs::remove_file(&self.whole_archive);
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
        built.programs.len() + built.apps.len()
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
    let kernel = if args.traced {
        Part::TracedKernel
    } else {
        Part::Kernel
    };
    let kernels = executables(kernel, of_kernel)?;
    let [kernel] = &kernels[..] else {
        bail!("the kernel package has no executable `cowslip`")
    };
    let programs = executables(Part::User, profile)?;

    let servers = if args.traced {
        executables(Part::TracedServers, profile)?
    } else {
        Vec::new()
    };

    let mut apps = Vec::new();
    for app in &args.apps {
        apps.extend(app_programs(app, profile)?);
    }

    let mut whole = Archive::default();
    // Of two with the same name the later one counts.
    for program in programs.iter().chain(&servers) {
        whole.add_program(program)?;
    }
    whole.add_symbols(kernel)?;
    let mut usual = whole.without_tests();
    for app in &apps {
        whole.add_program(app)?;
        usual.add_program(app)?;
    }
    Ok(Built {
        kernel: kernel.clone(),
        archive: write_archive(usual, &archive_name(args, ""))?,
        whole_archive: write_archive(whole, &archive_name(args, WHOLE))?,
        programs,
        apps,
        own_archive: !args.apps.is_empty(),
    })
}

/// Writes an archive below the output folder, and returns its path.
fn write_archive(archive: Archive, name: &str) -> Result<PathBuf> {
    let path = output_dir()?.join(name);
    write_if_changed(&path, &archive.into_tar()?)?;
    Ok(path)
}

/// The programs that an `--app` stands for: those of the crate in a folder, which is built, or an ELF file.
fn app_programs(app: &Path, profile: &str) -> Result<Vec<PathBuf>> {
    if app.is_dir() {
        let programs = executables_of(outside(app)?.args(["--bins"]), profile)?;
        if programs.is_empty() {
            bail!("the crate in {} has no programs", app.display());
        }
        return Ok(programs);
    }
    if !app.is_file() {
        bail!(
            "--app {}: there is no such folder or file; `cargo xtask new` makes a crate",
            app.display()
        );
    }
    Ok(vec![app.to_owned()])
}

/// What the last optimised build has made.
fn last_build() -> Result<Built> {
    let kernel = Part::Kernel
        .target_dir()
        .join(BARE_METAL)
        .join("release/cowslip");
    let args = BuildArgs::default();
    let [archive, whole_archive] = [
        output_dir()?.join(archive_name(&args, "")),
        output_dir()?.join(archive_name(&args, WHOLE)),
    ];
    if ![&kernel, &archive, &whole_archive]
        .iter()
        .all(|path| path.is_file())
    {
        bail!("nothing has been built yet");
    }
    Ok(Built {
        kernel,
        archive,
        whole_archive,
        programs: Vec::new(),
        apps: Vec::new(),
        own_archive: false,
    })
}

/// What the name of an archive has that has all programs.
const WHOLE: &str = "-whole";

/// Archives with different contents have different names: a boot that is under way keeps its own.
fn archive_name(args: &BuildArgs, which: &str) -> String {
    let profile = match args {
        BuildArgs { checked: true, .. } => "-checked",
        BuildArgs { traced: true, .. } => "-traced",
        BuildArgs { debug: true, .. } => "-debug",
        _ => "",
    };
    if args.apps.is_empty() {
        format!("archive{which}{profile}.tar")
    } else {
        format!("archive{which}{profile}-{}.tar", std::process::id())
    }
}

/// Builds a part and returns its executables.
fn executables(part: Part, profile: &str) -> Result<Vec<PathBuf>> {
    executables_of(&mut part.cargo("build"), profile)
}

/// Runs a `cargo build` and returns the executables that it makes.
fn executables_of(command: &mut Command, profile: &str) -> Result<Vec<PathBuf>> {
    command.args([
        "--message-format=json-render-diagnostics",
        "--profile",
        profile,
    ]);
    executables_in(&stdout_of(command)?)
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
