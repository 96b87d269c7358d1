//! `cargo xtask run`: boots Cowslip in QEMU.
//!
//! On a terminal the guest has the keyboard, Ctrl-C included; Ctrl-A X leaves. Otherwise stdout
//! carries what the guest's programs print and nothing else, and everything that xtask itself has
//! to say goes to stderr. Either way frames of backtraces get functions and lines.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::build::{BuildArgs, Built, build, shown};
use crate::cmdline::command_line;
use crate::ending::Ending;
use crate::image;
use crate::limine_conf;
use crate::machine::{Firmware, Machine, Medium, Scratch, no_far_cpu};
use crate::setup::{self, Purpose};
use crate::symbolize::Symbolized;

/// How to boot, and what to run.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    smp: u32,
    /// One CPU more, whose local APIC can be reached as x2APIC only: takes QEMU 9
    #[arg(long)]
    far_cpu: bool,
    /// Amount of memory
    #[arg(long, value_name = "SIZE", default_value = "1280M")]
    mem: String,
    /// The door to boot through
    #[arg(long, value_enum, default_value_t = Door::Direct)]
    boot: Door,
    /// The firmware under Limine
    #[arg(long, value_enum, default_value_t = Firmware::Bios)]
    firmware: Firmware,
    /// Count instructions instead of time: slow, single-CPU and exactly repeatable
    #[arg(long)]
    icount: bool,
    /// Wait for a debugger on port 1234 before the first instruction
    #[arg(long)]
    gdb: bool,
    /// Stop the machine after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Keep what comes over the serial line in a file
    #[arg(long, value_name = "FILE")]
    keep_log: Option<PathBuf>,
    /// The kernel's log level: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Another word of the kernel's command line; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    build: BuildArgs,
    /// The program to run, with its arguments; without one, a shell
    #[arg(last = true, value_name = "PROGRAM [ARGS]")]
    program: Vec<String>,
}

/// The ways into the kernel.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Door {
    /// QEMU loads the kernel itself (PVH)
    Direct,
    /// The Limine boot loader, from a disc
    Limine,
}

/// Runs the task.
pub(crate) fn main(args: &RunArgs) -> Result<ExitCode> {
    if args.icount && args.smp != 1 {
        bail!("--icount goes with one CPU only");
    }
    setup::ensure(Purpose::Run)?;
    if let Some(reason) = args.far_cpu.then(no_far_cpu).flatten() {
        bail!("--far-cpu: {reason}");
    }
    let built = build(&args.build)?;
    let ending = boot(args, &built);
    built.discard_own_archive();
    let ending = ending?;
    if ending != Ending::Exit(0) {
        eprintln!("xtask: {ending}");
    }
    Ok(ExitCode::from(ending.status()))
}

fn boot(args: &RunArgs, built: &Built) -> Result<Ending> {
    let entry = limine_conf::entry()?;
    let base = [&[entry.cmdline][..], &args.set].concat().join(" ");
    let cmdline = command_line(&base, args.log.as_deref(), &args.program);
    let archive = built.archive_for(args.program.first().map(String::as_str));
    let disc = Scratch::new()?;
    let medium = match args.boot {
        Door::Direct => Medium::Direct {
            kernel: built.kernel.clone(),
            archive: archive.to_owned(),
            cmdline,
        },
        Door::Limine => {
            let conf = limine_conf::with_cmdline(&limine_conf::text()?, &cmdline);
            let image = disc.path().join("cowslip.iso");
            image::make(&built.kernel, archive, &conf, &image)?;
            Medium::Disc {
                image,
                firmware: args.firmware,
            }
        }
    };
    let machine = Machine {
        medium,
        smp: args.smp,
        far_cpu: args.far_cpu,
        mem: args.mem.clone(),
        icount: args.icount,
        gdb: args.gdb.then(|| "tcp::1234".into()),
        log: args.keep_log.clone(),
        trace: None,
        memory: None,
    };
    if args.gdb {
        explain_debugging(built, &args.program);
    }
    let limit = args.timeout.map(Duration::from_secs);
    let output = Symbolized::new(std::io::stdout(), built);
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        eprintln!("xtask: Ctrl-A X leaves the machine");
        machine.run_on_terminal(output, limit)
    } else {
        machine.converse(std::io::stdin(), output, limit)
    }
}

fn explain_debugging(built: &Built, program: &[String]) {
    let kernel = shown(&built.kernel);
    eprintln!("xtask: the machine waits for a debugger; attach with");
    eprintln!("    rust-gdb {kernel} -ex 'target remote :1234'");
    eprintln!(
        "xtask: before paging is on, only hardware breakpoints work: hbreak NAME, then continue"
    );
    if let Some(program) = program.first() {
        let program = shown(&built.program(program));
        eprintln!("xtask: to stop in {program}:");
        eprintln!("    add-symbol-file {program}");
        eprintln!("xtask: programs have the same addresses, so others stop there too");
    }
}
