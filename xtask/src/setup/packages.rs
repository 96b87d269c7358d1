//! The system's package managers.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::tools::in_path;
use crate::workspace::succeed;

/// Something that a distribution packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Package {
    Qemu,
    Xorriso,
    Ovmf,
    Gdb,
}

/// A package manager: its program, the command that installs, and its names for the packages.
struct Manager {
    program: &'static str,
    install: &'static str,
    name: fn(Package) -> &'static str,
}

const MANAGERS: &[Manager] = &[
    Manager {
        program: "apt-get",
        install: "apt-get install --yes --no-install-recommends",
        name: |package| match package {
            Package::Qemu => "qemu-system-x86 seabios",
            Package::Xorriso => "xorriso",
            Package::Ovmf => "ovmf",
            Package::Gdb => "gdb",
        },
    },
    Manager {
        program: "dnf",
        install: "dnf install",
        name: |package| match package {
            Package::Qemu => "qemu-system-x86-core seabios-bin",
            Package::Xorriso => "xorriso",
            Package::Ovmf => "edk2-ovmf",
            Package::Gdb => "gdb",
        },
    },
    Manager {
        program: "pacman",
        install: "pacman -S --needed",
        name: |package| match package {
            Package::Qemu => "qemu-system-x86 seabios",
            Package::Xorriso => "libisoburn",
            Package::Ovmf => "edk2-ovmf",
            Package::Gdb => "gdb",
        },
    },
    Manager {
        program: "brew",
        install: "brew install",
        name: |package| match package {
            Package::Xorriso => "xorriso",
            Package::Qemu | Package::Ovmf => "qemu",
            Package::Gdb => "gdb",
        },
    },
];

impl Manager {
    /// The command that installs packages, as a person would type it.
    fn command(&self, packages: &[Package]) -> String {
        let mut words = vec![self.install];
        words.extend(
            packages
                .iter()
                .flat_map(|&package| (self.name)(package).split(' ')),
        );
        words.join(" ")
    }
}

/// Installs packages by apt where that needs no password, and otherwise fails with the command to type.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    let here = MANAGERS
        .iter()
        .find(|manager| in_path(manager.program).is_some());
    let Some(manager) = here else {
        bail!("install them by one of\n{}", all_commands(packages))
    };
    let command = manager.command(packages);
    let may = if manager.program == "apt-get" {
        privilege()
    } else {
        None
    };
    let Some(prefix) = may else {
        bail!("install them by\n    {}{command}", sudo(manager))
    };
    // Without the index of a fresh machine no package is known; an old one may name files that are gone.
    apt(prefix, "apt-get update")?;
    apt(prefix, &command)
}

/// What must stand before a command that only root may give; none if a person must give it.
fn privilege() -> Option<&'static str> {
    if rustix::process::geteuid().is_root() {
        return Some("");
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sudo.status()
        .is_ok_and(|status| status.success())
        .then_some("sudo -n ")
}

/// Runs apt without questions. What it says is progress, so it goes to stderr.
fn apt(prefix: &str, command: &str) -> Result<()> {
    eprintln!("xtask: {prefix}{command}");
    let line = format!("{prefix}env DEBIAN_FRONTEND=noninteractive {command} -qq");
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    succeed(
        Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(std::io::stderr()),
    )
}

fn all_commands(packages: &[Package]) -> String {
    let lines = MANAGERS
        .iter()
        .map(|manager| format!("    {}{}", sudo(manager), manager.command(packages)));
    lines.collect::<Vec<_>>().join("\n")
}

fn sudo(manager: &Manager) -> &'static str {
    if manager.program == "brew" {
        ""
    } else {
        "sudo "
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manager_has_its_command() {
        let text = all_commands(&[Package::Qemu, Package::Ovmf]);
        assert!(text.contains(
            "sudo apt-get install --yes --no-install-recommends qemu-system-x86 seabios ovmf\n"
        ));
        assert!(text.contains("sudo dnf install qemu-system-x86-core seabios-bin edk2-ovmf\n"));
        assert!(text.contains("sudo pacman -S --needed qemu-system-x86 seabios edk2-ovmf\n"));
        assert!(text.contains("    brew install qemu"));
    }
}
