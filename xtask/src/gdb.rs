//! `cargo xtask gdb`: a machine that stands still at its first instruction, and gdb with the symbols of kernel and program.
//!
//! gdb begins with a script, which this task writes: it goes on to the program's `run` and hands over there. Programs have the same
//! addresses, so the breakpoint at that function would stop others in the middle of something else: its condition is that the code
//! there is the program's.
//!
//! The machine has a process group of its own, and this task takes no notice of Ctrl-C: that is gdb's.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};

use crate::build::{BuildArgs, Built, build};
use crate::child::{TICK, end_within};
use crate::limine_conf;
use crate::machine::{Machine, Scratch};
use crate::setup::{self, Purpose};
use crate::workspace::output_dir;

/// The debugger.
pub(crate) const GDB: &str = "gdb";

/// How long QEMU may take until gdb can connect.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of a function's code tells it from others at its address.
const NR_WORDS: usize = 4;

/// What to debug, and on what machine.
#[derive(clap::Args)]
pub(crate) struct GdbArgs {
    /// Number of CPUs, each a thread for gdb
    #[arg(long, value_name = "N", default_value_t = 1)]
    smp: u32,
    /// Amount of memory
    #[arg(long, value_name = "SIZE", default_value = "1280M")]
    mem: String,
    /// Debug the optimised build, as `run` runs it
    #[arg(long)]
    release: bool,
    /// Let gdb carry out this file of commands behind its own, and end
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// End gdb after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The program to stop in, with its arguments; without one, the machine waits at its first instruction
    #[arg(last = true, value_name = "PROGRAM [ARGS]")]
    program: Vec<String>,
}

/// Runs the task.
pub(crate) fn main(args: &GdbArgs) -> Result<ExitCode> {
    if !setup::has(GDB) {
        bail!("gdb is missing; `cargo xtask setup` installs it, or says how");
    }
    setup::ensure(Purpose::Run)?;
    let built = build(&BuildArgs {
        debug: !args.release,
        ..BuildArgs::default()
    })?;
    let scratch = Scratch::new()?;
    let socket = scratch.path().join("gdb");
    let script = write_script(&built, args.program.first(), &socket)?;
    let machine = machine(args, &built, &socket)?;
    // Ctrl-C stops what is debugged: gdb sees to it.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default())?;
    let status = machine.beside(std::io::stderr(), || {
        wait_for(&socket)?;
        run_gdb(args, &script)
    })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn machine(args: &GdbArgs, built: &Built, socket: &Path) -> Result<Machine> {
    let base = limine_conf::entry()?.cmdline;
    Ok(Machine {
        gdb: Some(format!("unix:{},server=on,wait=off", socket.display())),
        ..Machine::direct(built, &base, &args.program, args.smp, &args.mem)
    })
}

/// Waits until QEMU listens.
fn wait_for(socket: &Path) -> Result<()> {
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() >= PATIENCE {
            bail!("QEMU does not wait for a debugger");
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Runs gdb to its end, on this terminal.
fn run_gdb(args: &GdbArgs, script: &Path) -> Result<ExitStatus> {
    let mut command = Command::new(GDB);
    command.args(["-q", "-x"]).arg(script);
    if let Some(batch) = &args.batch {
        command.arg("-batch").arg("-x").arg(batch);
    }
    let mut gdb = command.spawn().context("cannot start gdb")?;
    let limit = args.timeout.map(Duration::from_secs);
    end_within(&mut gdb, limit)?.with_context(|| {
        let limit = limit.unwrap_or_default();
        format!("gdb was still running after {} s", limit.as_secs())
    })
}

/// Writes the commands that gdb begins with.
fn write_script(built: &Built, program: Option<&String>, socket: &Path) -> Result<PathBuf> {
    let program = match program {
        Some(path) => Some(target(&built.program(libipc::fs::file_name(path)))?),
        None => None,
    };
    let text = script(&built.kernel, program.as_ref(), socket);
    let path = output_dir()?.join("session.gdb");
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A program, and where to stop in it.
struct Target {
    file: PathBuf,
    address: u64,
    /// The code there.
    code: Vec<u64>,
}

/// Where a program begins to be its own: in its function `run`, or where the kernel starts it.
fn target(file: &Path) -> Result<Target> {
    let bytes =
        std::fs::read(file).with_context(|| format!("there is no program {}", file.display()))?;
    let elf = ElfFile64::<object::Endianness>::parse(&bytes[..])?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let run = format!("{}::run", name.replace('-', "_"));
    let mut symbols = elf.symbols();
    let found = symbols.find(|symbol| {
        let name = symbol.name().unwrap_or_default();
        format!("{:#}", rustc_demangle::demangle(name)) == run
    });
    let address = found.map_or(elf.entry(), |symbol| symbol.address());
    Ok(Target {
        file: file.to_owned(),
        address,
        code: code_at(&elf, address),
    })
}

fn code_at(elf: &ElfFile64<'_, object::Endianness>, address: u64) -> Vec<u64> {
    let mut sections = elf.sections();
    let code =
        sections.find_map(|section| section.data_range(address, 8 * NR_WORDS as u64).ok()?);
    let (words, _) = code.unwrap_or_default().as_chunks();
    words.iter().copied().map(u64::from_le_bytes).collect()
}

/// The commands: symbols, what a person may want, the connection; and on to the program.
fn script(kernel: &Path, target: Option<&Target>, socket: &Path) -> String {
    let mut text = format!(
        "set confirm off\n\
         file {}\n\
         define program\n\
         \x20 set language c\n\
         \x20 remove-symbol-file -a (unsigned long)&_start\n\
         \x20 set language auto\n\
         \x20 add-symbol-file {}/$arg0\n\
         end\n\
         document program\n\
         program NAME: other programs are at the same addresses; take the symbols of this one.\n\
         end\n",
        kernel.display(),
        folder(target).display(),
    );
    if let Some(target) = target {
        // Writing to a string does not fail.
        let _ = writeln!(text, "add-symbol-file {}", target.file.display());
    }
    let _ = writeln!(text, "target remote {}", socket.display());
    if let Some(Target { address, code, .. }) = target {
        let word = |(number, word): (usize, &u64)| {
            format!(
                "*(unsigned long *){:#x} == {word:#x}",
                address + 8 * number as u64
            )
        };
        let is_there: Vec<_> = code.iter().enumerate().map(word).collect();
        // A breakpoint in hardware needs no memory to be there yet.
        let _ = writeln!(
            text,
            "set language c\nthbreak *{address:#x} if {}\nset language auto\ncontinue",
            is_there.join(" && ")
        );
    }
    text
}

/// Where programs are.
fn folder(target: Option<&Target>) -> &Path {
    let parent = target.and_then(|target| target.file.parent());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breakpoint_is_for_the_programs_own_code() {
        let target = Target {
            file: "/t/hello".into(),
            address: 0x6_1000,
            code: vec![0x55, 0x66],
        };
        let text = script(Path::new("/t/cowslip"), Some(&target), Path::new("/s"));
        assert!(text.contains("\nadd-symbol-file /t/hello\ntarget remote /s\n"));
        assert!(text.contains(
            "thbreak *0x61000 if *(unsigned long *)0x61000 == 0x55 && *(unsigned long *)0x61008 == 0x66\n"
        ));
        assert!(text.contains("add-symbol-file /t/$arg0\n"));
    }

    #[test]
    fn without_a_program_the_machine_waits() {
        let text = script(Path::new("/t/cowslip"), None, Path::new("/s"));
        assert!(text.ends_with("target remote /s\n"));
    }

    #[test]
    fn a_program_without_run_is_stopped_where_it_starts() {
        let own = target(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(own.code.len(), NR_WORDS);
        assert!(target(Path::new("/none")).is_err());
    }
}
