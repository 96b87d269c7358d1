//! A virtual machine: QEMU, started with a console, watched to its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use crate::build::Built;
use crate::child::{TICK, wait_within};
use crate::cmdline::command_line;
use crate::ending::Ending;
use crate::firmware::{Uefi, data_file, uefi};
use crate::serial::Plain;

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The program that emulates a stricter one, for tests.
pub(crate) const BOCHS: &str = "bochs";

/// How long QEMU gets to put the terminal in order before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// A machine that can be started.
#[derive(Clone)]
pub(crate) struct Machine {
    /// Where it boots from.
    pub(crate) medium: Medium,
    /// The number of CPUs.
    pub(crate) smp: u32,
    /// One CPU more, whose local APIC has a number that only x2APIC knows.
    pub(crate) far_cpu: bool,
    /// The amount of memory, as QEMU takes it: `128M`.
    pub(crate) mem: String,
    /// Count instructions instead of time.
    pub(crate) icount: bool,
    /// Wait for a debugger here, as QEMU names the place.
    pub(crate) gdb: Option<String>,
    /// Where to keep what comes over the serial line, byte by byte.
    pub(crate) log: Option<PathBuf>,
    /// A pipe that is told each instruction's address: very slow.
    pub(crate) trace: Option<PathBuf>,
    /// A file that is its memory, and is there when it has ended.
    pub(crate) memory: Option<PathBuf>,
}

/// What a machine boots from.
#[derive(Clone)]
pub(crate) enum Medium {
    /// The direct door: QEMU puts kernel and archive into memory.
    Direct {
        kernel: PathBuf,
        archive: PathBuf,
        cmdline: String,
    },
    /// A disc with Limine on it.
    Disc { image: PathBuf, firmware: Firmware },
}

/// The firmware that starts a boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Firmware {
    /// SeaBIOS
    Bios,
    /// OVMF
    Uefi,
}

impl Machine {
    /// One that boots what was built through the direct door, and runs a program with its arguments, or a shell. `base` is the command
    /// line before these.
    pub(crate) fn direct(
        built: &Built,
        base: &str,
        program: &[String],
        smp: u32,
        mem: &str,
    ) -> Self {
        let archive = built.archive_for(program.first().map(String::as_str));
        Self {
            medium: Medium::Direct {
                kernel: built.kernel.clone(),
                archive: archive.to_owned(),
                cmdline: command_line(base, None, program),
            },
            smp,
            far_cpu: false,
            mem: mem.to_owned(),
            icount: false,
            gdb: None,
            log: None,
            trace: None,
            memory: None,
        }
    }

    /// Runs the machine on this terminal: it has the keyboard, and what it says goes to `output`.
    pub(crate) fn run_on_terminal(
        &self,
        output: impl Write + Send,
        limit: Option<Duration>,
    ) -> Result<Ending> {
        let mut running = self.start("mux=on", "-mon", "chardev=console", |command| {
            command.stdout(Stdio::piped())
        })?;
        running.owns_terminal = true;
        let said = running.qemu.stdout.take().expect("stdout is piped");
        thread::scope(|scope| {
            scope.spawn(|| pass_on(said, output));
            running.watch(limit)
        })
    }

    /// Runs the machine with its serial line on a pipe: sends `input` to it, and the plain text of what it
    /// says to `output`. The end of the input is sent as Ctrl-D.
    pub(crate) fn converse(
        &self,
        input: impl Read + Send + 'static,
        output: impl Write + Send,
        limit: Option<Duration>,
    ) -> Result<Ending> {
        let mut running = self.start("mux=off", "-monitor", "none", |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped())
        })?;
        let spoke = Arc::new(AtomicBool::new(false));
        let serial_in = running.qemu.stdin.take().expect("stdin is piped");
        let serial_out = running.qemu.stdout.take().expect("stdout is piped");
        let ready = Ready {
            said: running.scratch.said(),
            spoke: spoke.clone(),
            limit: self.medium.time_to_serial_line(),
        };
        // Not joined: it may be waiting for input that never comes.
        thread::spawn(move || send(input, serial_in, &ready));
        thread::scope(|scope| {
            scope.spawn(|| receive(serial_out, output, &spoke));
            running.watch(limit)
        })
    }

    /// Runs the machine, which takes no input and no notice of Ctrl-C, while something is done beside it; then stops it. The plain
    /// text of what it says goes to `output`.
    pub(crate) fn beside<T>(
        &self,
        output: impl Write + Send,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut running = self.start("mux=off", "-monitor", "none", |command| {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
        })?;
        let serial_out = running.qemu.stdout.take().expect("stdout is piped");
        let spoke = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| receive(serial_out, output, &spoke));
            let result = act();
            running.stop()?;
            result
        })
    }

    /// Starts QEMU; the console's character device and the monitor differ between terminal and pipe.
    fn start(
        &self,
        mux: &str,
        monitor: &str,
        monitor_is: &str,
        stdio: impl Fn(&mut Command) -> &mut Command,
    ) -> Result<Running> {
        let scratch = Scratch::new()?;
        let mut console = OsString::from(format!("stdio,id=console,signal=off,{mux}"));
        if let Some(log) = &self.log {
            console.push(",logappend=off,logfile=");
            console.push(option_value(log));
        }
        let mut command = Command::new(QEMU);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(["-machine", "q35", "-cpu", "max", "-m", &self.mem])
            .args(self.memory())
            .args(self.cpus())
            .args(self.accelerator())
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .arg("-chardev")
            .arg(console)
            .args(["-serial", "chardev:console", monitor, monitor_is])
            .arg("-debugcon")
            .arg(joined("file:", &scratch.said()))
            .args(["-global", "isa-debugcon.iobase=0xe9"]);
        match &self.trace {
            Some(pipe) => command
                .args(["-singlestep", "-d", "exec,nochain", "-D"])
                .arg(pipe),
            None => command
                .args(["-d", "cpu_reset", "-D"])
                .arg(scratch.resets()),
        };
        if let Some(place) = &self.gdb {
            command.args(["-gdb", place, "-S"]);
        }
        self.medium.add_to(&mut command)?;
        // SAFETY: between fork and exec only a system call is made, which needs no lock and no memory.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
                Ok(())
            });
        }
        let qemu = stdio(&mut command).spawn().with_context(|| {
            format!("cannot start {QEMU}; `cargo xtask setup` says what is missing")
        })?;
        Ok(Running {
            qemu,
            scratch,
            owns_terminal: false,
        })
    }

    /// How many CPUs, and where they sit.
    fn cpus(&self) -> Vec<String> {
        if !self.far_cpu {
            return vec!["-smp".into(), self.smp.to_string()];
        }
        // A socket takes the numbers of 129 cores, rounded up to a power of two: the second begins with 256.
        let sockets = format!("{},sockets=2,cores=129,threads=1,maxcpus=258", self.smp);
        let far = "max-x86_64-cpu,socket-id=1,core-id=0,thread-id=0";
        ["-smp", &sockets, "-device", far].map(str::to_owned).into()
    }

    /// Where its memory is.
    fn memory(&self) -> Vec<OsString> {
        let Some(file) = &self.memory else {
            return Vec::new();
        };
        let mut object = OsString::from(format!(
            "memory-backend-file,id=memory,share=on,size={},mem-path=",
            self.mem
        ));
        object.push(option_value(file));
        let backend = "memory-backend=memory";
        ["-object".into(), object, "-machine".into(), backend.into()].into()
    }

    fn accelerator(&self) -> &'static [&'static str] {
        if self.icount {
            &["-accel", "tcg", "-icount", "shift=0,sleep=off"]
        } else if kvm_works() {
            &["-accel", "kvm"]
        } else {
            &["-accel", "tcg"]
        }
    }
}

/// Why a machine with a [far CPU](Machine::far_cpu) cannot be had, if so.
pub(crate) fn no_far_cpu() -> Option<String> {
    /// The first QEMU that emulates x2APIC.
    const FIRST: u32 = 9;
    let said = Command::new(QEMU).arg("--version").output().ok()?.stdout;
    let version = major_version(&String::from_utf8_lossy(&said));
    let is_old = version.is_none_or(|version| version < FIRST);
    (is_old || kvm_works()).then(|| format!("x2APIC takes QEMU {FIRST} without KVM"))
}

/// What stands before the first point in `QEMU emulator version 7.2.22 (...)`.
fn major_version(said: &str) -> Option<u32> {
    let (_, version) = said.split_once(" version ")?;
    version.split('.').next()?.parse().ok()
}

impl Medium {
    /// How long it takes at most, with a margin for a slow host, until the kernel has set up the serial line.
    fn time_to_serial_line(&self) -> Duration {
        Duration::from_secs(match self {
            Medium::Direct { .. } => 5,
            Medium::Disc { .. } => 60,
        })
    }

    fn add_to(&self, command: &mut Command) -> Result<()> {
        match self {
            Medium::Direct {
                kernel,
                archive,
                cmdline,
            } => {
                // Far less to do than in SeaBIOS; that one serves where it is not installed.
                if let Some(qboot) = data_file("qboot.rom") {
                    command.arg("-bios").arg(qboot);
                }
                command
                    .arg("-kernel")
                    .arg(kernel)
                    .arg("-initrd")
                    .arg(archive);
                command.args(["-append", cmdline]);
            }
            Medium::Disc { image, firmware } => {
                if *firmware == Firmware::Uefi {
                    add_uefi(command, &uefi()?);
                }
                // Limine's BIOS stages want a display adapter, though nobody looks at it.
                command.args(["-vga", "std", "-cdrom"]).arg(image);
            }
        }
        Ok(())
    }
}

fn add_uefi(command: &mut Command, uefi: &Uefi) {
    let drive = |options: &str, file: &Path| {
        let mut drive = OsString::from(format!("if=pflash,format=raw,{options},file="));
        drive.push(option_value(file));
        drive
    };
    match uefi {
        Uefi::Whole(file) => {
            command.arg("-bios").arg(file);
        }
        Uefi::Split { code, variables } => {
            command.arg("-drive").arg(drive("readonly=on", code));
            command.arg("-drive").arg(drive("snapshot=on", variables));
        }
    }
}

/// A started QEMU. Dropping it ends it.
struct Running {
    qemu: Child,
    scratch: Scratch,
    owns_terminal: bool,
}

impl Running {
    /// Waits for the end, at most to the limit.
    fn watch(&mut self, limit: Option<Duration>) -> Result<Ending> {
        let Some(status) = wait_within(&mut self.qemu, limit)? else {
            self.stop()?;
            return Ok(Ending::Timeout(limit.unwrap_or_default().as_secs()));
        };
        let read =
            |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Ok(Ending::judge(
            status.code(),
            &read(self.scratch.said()),
            &read(self.scratch.resets()),
        ))
    }

    /// Ends QEMU. One that owns the terminal is asked first, so that it can put that in order.
    fn stop(&mut self) -> Result<()> {
        if self.owns_terminal {
            rustix::process::kill_process(Pid::from_child(&self.qemu), Signal::TERM)?;
            if wait_within(&mut self.qemu, Some(GRACE))?.is_some() {
                return Ok(());
            }
        }
        self.qemu.kill()?;
        self.qemu.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.qemu.try_wait(), Ok(None)) {
            let _ = self.stop();
        }
    }
}

/// Writes everything as it comes.
fn pass_on(mut said: impl Read, mut output: impl Write) {
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = said.read(&mut piece) {
        if output
            .write_all(&piece[..len])
            .and_then(|()| output.flush())
            .is_err()
        {
            return;
        }
    }
}

/// Tells when the guest is ready for input: a byte that arrives before its kernel has set up
/// the serial line would be lost.
struct Ready {
    /// What the guest has written to the debug port: `ready` among it.
    said: PathBuf,
    /// Set at the first output that is not the firmware's.
    spoke: Arc<AtomicBool>,
    /// After this time, input is sent regardless: a program may want some before it says anything.
    limit: Duration,
}

impl Ready {
    fn wait(&self) {
        let start = Instant::now();
        while !self.is_ready() && start.elapsed() < self.limit {
            thread::sleep(TICK);
        }
    }

    fn is_ready(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
            || std::fs::read_to_string(&self.said).is_ok_and(|said| said.contains("ready\n"))
    }
}

/// Sends the input, then Ctrl-D: one after a complete line, two after an incomplete one.
fn send(mut input: impl Read, mut serial: ChildStdin, ready: &Ready) {
    const CTRL_D: u8 = 4;
    ready.wait();
    let mut buffer = [0; 4096];
    let mut last = b'\n';
    while let Ok(count @ 1..) = input.read(&mut buffer) {
        last = buffer[count - 1];
        if serial.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let end: &[u8] = if last == b'\n' {
        &[CTRL_D]
    } else {
        &[CTRL_D, CTRL_D]
    };
    let _ = serial.write_all(end);
    // QEMU takes the end of the pipe for nothing special; keeping it open costs nothing either.
    std::mem::forget(serial);
}

/// Passes on the plain text of what the machine says, as it says it.
fn receive(mut serial: impl Read, mut output: impl Write, spoke: &AtomicBool) {
    let mut buffer = [0; 4096];
    let mut plain = Plain::default();
    let mut text = Vec::new();
    while let Ok(count @ 1..) = serial.read(&mut buffer) {
        plain.feed(&buffer[..count], &mut text);
        if !text.trim_ascii().is_empty() {
            spoke.store(true, Ordering::Relaxed);
        }
        // Whoever reads may have gone; the machine runs on to its end.
        let _ = output.write_all(&text).and_then(|()| output.flush());
        text.clear();
    }
    plain.finish(&mut text);
    let _ = output.write_all(&text).and_then(|()| output.flush());
}

/// A temporary folder of one boot, removed with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A fresh folder.
    pub(crate) fn new() -> Result<Scratch> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cowslip-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch(path))
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What the guest writes to the debug port.
    fn said(&self) -> PathBuf {
        self.0.join("debugcon")
    }

    /// QEMU's log of CPU resets.
    fn resets(&self) -> PathBuf {
        self.0.join("resets")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether KVM can be used. On a host without hardware virtualisation `/dev/kvm` may open and
/// the guest hang all the same, so the CPU's word is needed as well.
fn kvm_works() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualises = cpuinfo
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    virtualises
        && File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

/// A path within a comma-separated option.
fn option_value(path: &Path) -> OsString {
    path.to_string_lossy().replace(',', ",,").into()
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut joined = OsString::from(prefix);
    joined.push(path);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_qemu_is_found() {
        let said = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert_eq!(major_version(said), Some(10));
        assert_eq!(major_version("QEMU"), None);
    }
}
