//! The tools that the tasks use, and how each is found.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::packages::Package;
use crate::firmware::{Uefi, data_file, uefi};
use crate::gdb::GDB;
use crate::machine::{BOCHS, QEMU};
use crate::workspace::BARE_METAL;

/// What a tool is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building kernel and user programs.
    Build,
    /// Booting them.
    Run,
    /// Judging the sources.
    Check,
    /// Making a disc.
    Image,
}

/// How a tool gets onto the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Install {
    /// `rustup target add`, for bare metal.
    Target,
    /// `rustup component add`.
    Component(&'static str),
    /// The system's package manager.
    Package(Package),
    /// Not by us.
    ByHand,
}

/// A tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) purposes: &'static [Purpose],
    /// Whether things that matter work without it.
    pub(super) optional: bool,
    pub(super) install: Install,
    /// Where, or in which version, it is there.
    pub(super) find: fn() -> Option<String>,
}

/// All tools.
pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: BARE_METAL,
        why: "building kernel and user programs",
        purposes: &[Purpose::Build, Purpose::Run, Purpose::Check, Purpose::Image],
        optional: false,
        install: Install::Target,
        find: find_target,
    },
    Tool {
        name: "QEMU",
        why: "run and test",
        purposes: &[Purpose::Run],
        optional: false,
        install: Install::Package(Package::Qemu),
        find: || in_path(QEMU),
    },
    Tool {
        name: "rustfmt",
        why: "check",
        purposes: &[Purpose::Check],
        optional: false,
        install: Install::Component("rustfmt"),
        find: || first_line("cargo", &["fmt", "--version"]),
    },
    Tool {
        name: "clippy",
        why: "check",
        purposes: &[Purpose::Check],
        optional: false,
        install: Install::Component("clippy"),
        find: || first_line("cargo", &["clippy", "--version"]),
    },
    Tool {
        name: "xorriso",
        why: "image and run --boot limine",
        purposes: &[Purpose::Image],
        optional: true,
        install: Install::Package(Package::Xorriso),
        find: || in_path("xorriso"),
    },
    Tool {
        name: "OVMF",
        why: "run --boot limine --firmware uefi",
        purposes: &[],
        optional: true,
        install: Install::Package(Package::Ovmf),
        find: find_uefi,
    },
    Tool {
        name: "qboot",
        why: "boots through the direct door in a third of the time",
        purposes: &[],
        optional: true,
        install: Install::ByHand,
        find: || data_file("qboot.rom").map(shown),
    },
    Tool {
        name: "gdb",
        why: "gdb",
        purposes: &[],
        optional: true,
        install: Install::Package(Package::Gdb),
        find: || in_path(GDB),
    },
    Tool {
        name: "Bochs",
        why: "test, on a machine with PCID and x2APIC, with Limine",
        purposes: &[],
        optional: true,
        install: Install::ByHand,
        find: || in_path(BOCHS),
    },
    Tool {
        name: "Miri",
        why: "miri (nightly toolchain, with the components miri and rust-src)",
        purposes: &[],
        optional: true,
        install: Install::ByHand,
        find: || first_line("rustup", &["run", "nightly", "cargo", "miri", "--version"]),
    },
];

/// Where the bare-metal target's libraries are, if they are.
fn find_target() -> Option<String> {
    let dir = first_line(
        "rustc",
        &["--print", "target-libdir", "--target", BARE_METAL],
    )?;
    Path::new(&dir).is_dir().then_some(dir)
}

fn find_uefi() -> Option<String> {
    match uefi().ok()? {
        Uefi::Whole(file) | Uefi::Split { code: file, .. } => Some(shown(file)),
    }
}

/// The path of a program.
pub(super) fn in_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .map(shown)
}

/// The first line that a program prints, if it succeeds.
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}
