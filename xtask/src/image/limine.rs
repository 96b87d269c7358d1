//! Limine's binaries: from the folder that `LIMINE_DIR` names, or else the pinned release.
//!
//! They are in no package registry and are not kept in the repository. The release is a commit of
//! Limine's branch of binaries; every file used must have the SHA-256 given here.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::child::end_within;
use crate::workspace::output_dir;

const REPOSITORY: &str = "https://github.com/limine-bootloader/limine";
/// A commit of the branch `v8.x-binary`.
const COMMIT: &str = "1dbdf77f82211c42969c7c5114377436fabc9187";
/// The files that a disc needs, with their SHA-256.
const FILES: &[(&str, &str)] = &[
    (
        "limine-bios.sys",
        "8382e36ff9d51e52e9160842f834a346028edf9e0319b1c728d290e3044a44a7",
    ),
    (
        "limine-bios-cd.bin",
        "3b889bf946b1f248c93efa90fd1718aad79f867e8184f9167a0b9875a0c41191",
    ),
    (
        "limine-uefi-cd.bin",
        "1801a9034420fb1b17bdcdedee11f29c946169abac103b161e7bfd01d98caf29",
    ),
    (
        "BOOTX64.EFI",
        "7bf99f9ffdbce1443bd7f148f01bee47d4a587f58fb170e42dab29790e6d831a",
    ),
];
/// How long a download may take: without a network, connecting may hang rather than fail.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(90);

/// The folder with Limine's files; downloads them if need be.
pub(crate) fn folder() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("LIMINE_DIR") {
        let dir = std::path::absolute(dir)?;
        for (file, _) in FILES {
            if !dir.join(file).is_file() {
                bail!("LIMINE_DIR has no {file}");
            }
        }
        return Ok(dir);
    }
    let dir = downloaded()?;
    if verify(&dir).is_err() {
        download(&dir).context(
            "Limine cannot be downloaded; LIMINE_DIR may name a folder that has its binaries",
        )?;
        verify(&dir)?;
    }
    Ok(dir)
}

/// In one line, whether Limine's files are there.
pub(crate) fn state() -> String {
    if std::env::var_os("LIMINE_DIR").is_some() {
        return match folder() {
            Ok(dir) => format!("Limine: from LIMINE_DIR, {}", dir.display()),
            Err(error) => format!("Limine: {error:#}"),
        };
    }
    match downloaded() {
        Ok(dir) if verify(&dir).is_ok() => format!("Limine: {}", dir.display()),
        _ => "Limine: downloaded when first used, unless LIMINE_DIR names a folder that has it"
            .into(),
    }
}

/// Where the download goes.
fn downloaded() -> Result<PathBuf> {
    Ok(output_dir()?.join(format!("limine-{}", &COMMIT[..12])))
}

/// Fetches the pinned commit, and no other.
fn download(dir: &Path) -> Result<()> {
    eprintln!(
        "xtask: downloading Limine, {REPOSITORY} at {}",
        &COMMIT[..12]
    );
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir)?;
    git(dir, &["init", "--quiet"])?;
    git(
        dir,
        &["fetch", "--quiet", "--depth", "1", REPOSITORY, COMMIT],
    )?;
    git(dir, &["checkout", "--quiet", "--detach", "FETCH_HEAD"])
}

fn git(dir: &Path, args: &[&str]) -> Result<()> {
    let mut child = Command::new("git")
        .current_dir(dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start git")?;
    match end_within(&mut child, Some(DOWNLOAD_LIMIT))? {
        Some(status) if status.success() => Ok(()),
        Some(_) => {
            let mut why = String::new();
            child
                .stderr
                .take()
                .expect("stderr is piped")
                .read_to_string(&mut why)?;
            bail!("git {}: {}", args[0], why.trim());
        }
        None => bail!(
            "git {} took more than {} s",
            args[0],
            DOWNLOAD_LIMIT.as_secs()
        ),
    }
}

/// Compares every file with its hash.
fn verify(dir: &Path) -> Result<()> {
    for (file, expected) in FILES {
        let bytes =
            std::fs::read(dir.join(file)).with_context(|| format!("Limine's {file} is missing"))?;
        if sha256(&bytes) != *expected {
            bail!("Limine's {file} is not the file it should be: its SHA-256 differs");
        }
    }
    Ok(())
}

/// The SHA-256 of some bytes, in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_the_standards() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }

    #[test]
    fn files_with_other_contents_are_refused() {
        let dir = crate::machine::Scratch::new().unwrap();
        assert!(verify(dir.path()).is_err());
        for (file, _) in FILES {
            std::fs::write(dir.path().join(file), b"something else").unwrap();
        }
        assert!(
            verify(dir.path())
                .unwrap_err()
                .to_string()
                .contains("SHA-256")
        );
    }
}
