//! `cargo xtask image`: a disc that boots on BIOS and UEFI machines, through Limine.
//!
//! ```text
//! /boot/cowslip            the kernel
//! /boot/archive.tar        the boot archive
//! /boot/limine/            limine.conf, and Limine's own files
//! /EFI/BOOT/BOOTX64.EFI    Limine for UEFI, where the disc is written to a stick
//! ```

pub(crate) mod limine;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::{BuildArgs, build, shown};
use crate::limine_conf;
use crate::machine::Scratch;
use crate::setup::{self, Purpose};
use crate::workspace::{output_dir, words};

/// What to put where.
#[derive(clap::Args)]
pub(crate) struct ImageArgs {
    /// Where to write the disc image
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
}

/// Runs the task.
pub(crate) fn main(args: &ImageArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Image)?;
    let built = build(&args.build)?;
    let out = match &args.out {
        Some(out) => std::path::absolute(out)?,
        None => output_dir()?.join("cowslip.iso"),
    };
    make(
        &built.kernel,
        built.archive_for(None),
        &limine_conf::text()?,
        &out,
    )?;
    built.discard_own_archive();
    eprintln!("      Image {}", shown(&out));
    Ok(ExitCode::SUCCESS)
}

/// Writes a disc image with this text as its `limine.conf`.
pub(crate) fn make(kernel: &Path, archive: &Path, conf: &str, out: &Path) -> Result<()> {
    let limine = limine::folder()?;
    let entry = limine_conf::entry()?;
    let stage = Scratch::new()?;
    let place =
        |source: &Path, path: &str| copy(source, &stage.path().join(path.trim_start_matches('/')));
    place(kernel, &entry.kernel)?;
    for module in &entry.modules {
        place(archive, module)?;
    }
    for file in [
        "limine-bios.sys",
        "limine-bios-cd.bin",
        "limine-uefi-cd.bin",
    ] {
        place(&limine.join(file), &format!("boot/limine/{file}"))?;
    }
    place(&limine.join("BOOTX64.EFI"), "EFI/BOOT/BOOTX64.EFI")?;
    let conf_path = stage.path().join("boot/limine/limine.conf");
    std::fs::write(&conf_path, conf).context("cannot write the disc's limine.conf")?;
    xorriso(stage.path(), out)
}

/// Makes the image of a folder. It is hybrid: a CD for BIOS and UEFI, and a stick for UEFI.
fn xorriso(stage: &Path, out: &Path) -> Result<()> {
    let mut command = Command::new("xorriso");
    command
        .args(["-as", "mkisofs", "-quiet", "-R", "-r", "-J"])
        .args(["-b", "boot/limine/limine-bios-cd.bin"])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["--efi-boot", "boot/limine/limine-uefi-cd.bin"])
        .args([
            "-efi-boot-part",
            "--efi-boot-image",
            "--protective-msdos-label",
        ])
        .arg(stage)
        .arg("-o")
        .arg(out);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start xorriso; `cargo xtask setup` installs it")?;
    if !output.status.success() {
        bail!(
            "`{}` failed:\n{}",
            words(&command),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    let folder = target
        .parent()
        .context("a file on the disc is in a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::copy(source, target).with_context(|| format!("cannot copy {}", source.display()))?;
    Ok(())
}
