//! Finds QEMU's firmware files.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where distributions put QEMU's data and OVMF.
const FOLDERS: &[&str] = &[
    "/usr/share/qemu",
    "/usr/share/OVMF",
    "/usr/share/ovmf",
    "/usr/share/ovmf/x64",
    "/usr/share/edk2/x64",
    "/usr/share/edk2/ovmf",
    "/usr/local/share/qemu",
    "/opt/homebrew/share/qemu",
];

/// UEFI firmware, whole or split.
pub(crate) enum Uefi {
    /// One file.
    Whole(PathBuf),
    /// Code and a template for the variables.
    Split { code: PathBuf, variables: PathBuf },
}

/// Finds a firmware file by name.
pub(crate) fn data_file(name: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

/// Finds OVMF.
pub(crate) fn uefi() -> Result<Uefi> {
    if let Some(file) = data_file("OVMF.fd") {
        return Ok(Uefi::Whole(file));
    }
    for (code, variables) in [
        ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        ("OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),
        ("OVMF_CODE.fd", "OVMF_VARS.fd"),
        ("edk2-x86_64-code.fd", "edk2-i386-vars.fd"),
    ] {
        if let (Some(code), Some(variables)) = (data_file(code), data_file(variables)) {
            return Ok(Uefi::Split { code, variables });
        }
    }
    bail!("no UEFI firmware (OVMF) found; `cargo xtask setup` installs it")
}
