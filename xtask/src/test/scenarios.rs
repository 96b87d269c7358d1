//! Scenarios: what a person sees who types `cargo xtask run`, as a table.
//!
//! Each one starts `run` as a process of its own and looks at nothing but its exit status and its stdout,
//! which must carry the program's output and nothing else. To add one, add a row.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use super::{last_lines, with_cpus};
use crate::firmware::uefi;
use crate::image::limine;
use crate::machine::no_far_cpu;
use crate::workspace::root;

/// One scenario.
pub(super) struct Scenario {
    name: &'static str,
    /// Further options of `run`.
    options: &'static [&'static str],
    /// The program and its arguments; empty for a shell.
    program: &'static [&'static str],
    /// What is typed.
    input: &'static str,
    /// The exit status of `run`.
    status: i32,
    /// Judges stdout.
    check: fn(&str) -> Result<(), String>,
    door: Door,
}

/// The door to boot through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Direct,
    LimineBios,
    LimineUefi,
}

/// The option for a CPU that is reached by x2APIC only.
const FAR_CPU: &str = "--far-cpu";

/// A scenario of the most usual kind; rows say what differs.
const USUAL: Scenario = Scenario {
    name: "",
    options: &[],
    program: &[],
    input: "",
    status: 0,
    check: |_| Ok(()),
    door: Door::Direct,
};

/// The table.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hello_prints",
        program: &["hello"],
        check: greets,
        ..USUAL
    },
    Scenario {
        name: "exit_status_comes_through",
        program: &["crash", "exit", "42"],
        status: 42,
        ..USUAL
    },
    Scenario {
        name: "bad_read_is_killed",
        program: &["crash", "read"],
        status: 139,
        check: |output| {
            contains(
                output,
                "\n  in thread 1 of 1\n  expected memory that may be read\n  #0 crash 0x",
            )?;
            traced(output, "read_at", "read_volatile(black_box(address))")?;
            traced(output, "run", "(Some(\"read\"), None) => read(),")
        },
        ..USUAL
    },
    Scenario {
        name: "a_null_pointer_is_called_one",
        program: &["crash", "null"],
        status: 139,
        check: |output| contains(output, "\n  a null pointer\n  #0 crash 0x"),
        ..USUAL
    },
    Scenario {
        name: "a_stack_overflow_is_called_one",
        program: &["crash", "overflow"],
        status: 139,
        check: |output| {
            contains(
                output,
                "\n  a stack overflow: the stack ends there\n  #0 crash 0x",
            )?;
            contains(output, "\n  #23 crash 0x")?;
            traced(output, "crash::descend", "=> descend(depth - 1)")
        },
        ..USUAL
    },
    Scenario {
        name: "a_fault_of_a_second_thread_is_told_as_its",
        program: &["crash", "thread"],
        status: 139,
        check: |output| {
            contains(output, "\n  in thread 2 of 2\n")?;
            traced(output, "{closure#0}", "thread::spawn(|_| read()")
        },
        ..USUAL
    },
    Scenario {
        name: "a_panic_says_where_it_was",
        program: &["crash", "panic"],
        status: 101,
        check: |output| {
            contains(output, "as asked for\n  #0 crash 0x")?;
            traced(output, "run", "panic!(\"as asked for\")")
        },
        ..USUAL
    },
    Scenario {
        name: "shell_shows_what_happens",
        input: "store &\nps\nmemmap 3\nbacktrace 2\nmemmap 2\nmemmap 1\nkill 3\nps -t\nexit\n",
        check: shows_what_happens,
        ..USUAL
    },
    Scenario {
        name: "bad_write_is_killed",
        program: &["crash", "write"],
        status: 139,
        check: |output| {
            contains(output, ", where memory is code, at instruction 0x")?;
            contains(output, "\n  expected memory that may be written\n")?;
            traced(output, "write", "write_volatile(black_box(code)")
        },
        ..USUAL
    },
    Scenario {
        name: "bad_jump_is_killed",
        program: &["crash", "exec"],
        status: 139,
        check: |output| {
            contains(output, "\n  expected code\n  #0 crash 0x")?;
            traced(output, "run", "=> execute(),")
        },
        ..USUAL
    },
    Scenario {
        name: "division_by_zero_is_killed",
        program: &["crash", "div"],
        status: 136,
        ..USUAL
    },
    Scenario {
        name: "kill_is_told_apart",
        program: &["crash", "kill"],
        status: 137,
        ..USUAL
    },
    Scenario {
        name: "out_of_memory_is_killed",
        options: &["--mem", "64M"],
        program: &["crash", "oom"],
        status: 135,
        ..USUAL
    },
    Scenario {
        name: "without_its_process_server_the_machine_ends",
        options: &["--set", "mortal"],
        program: &["crash", "server", "procd"],
        status: 70,
        check: |output| contains(output, "init: the server procd has ended"),
        ..USUAL
    },
    Scenario {
        name: "a_server_that_ends_too_often_ends_the_machine",
        options: &["--set", "mortal"],
        program: &["crash", "server", "memstat"],
        status: 70,
        check: |output| contains(output, "init: the server memstat ends again and again"),
        ..USUAL
    },
    Scenario {
        name: "servers_are_only_ended_where_that_is_allowed",
        program: &["crash", "server", "memstat"],
        status: 2,
        check: |output| contains(output, "memstat cannot be ended"),
        ..USUAL
    },
    Scenario {
        name: "forkapp_replies",
        program: &["forkapp"],
        check: four_equal_replies,
        ..USUAL
    },
    Scenario {
        name: "a_gigabyte_is_shared_in_a_few_frames",
        program: &["cowdemo"],
        check: gigabyte_in_few_frames,
        ..USUAL
    },
    Scenario {
        name: "less_than_a_gigabyte_is_said_so",
        options: &["--mem", "64M"],
        program: &["cowdemo"],
        check: |output| contains(output, "no room for a gigabyte"),
        ..USUAL
    },
    Scenario {
        name: "shell_runs_programs",
        input: "hello\nexit\n",
        check: |output| contains(output, "hello"),
        ..USUAL
    },
    Scenario {
        name: "shell_runs_strict_programs",
        input: "strict memhog 4\nstrict memhog 2000\nps\nexit\n",
        check: |output| {
            contains(output, "given back: ")?;
            contains(output, "/bin/memhog: out of memory")?;
            contains(output, " NAME           BLOCKED ON")
        },
        ..USUAL
    },
    Scenario {
        name: "shell_redirects",
        input: "echo one > /f\necho two words >> /f\nwc < /f > /g\ncat /f /g\necho new > f\ncat f\nls /\nexit\n",
        check: |output| {
            contains(output, "one\ntwo words\n       2        3       14 \n")?;
            contains(output, "$ cat f\nnew\n")?;
            contains(output, "         4  f\n")
        },
        ..USUAL
    },
    Scenario {
        name: "shell_pipes",
        input: "echo a b c | cat | wc\ncat /bin/sh | ls /boot\nnone | wc\nls | none\necho a |\nexit 4\n",
        status: 4,
        check: |output| {
            contains(output, "       1        3        6 \n")?;
            contains(output, "kernel.sym")?;
            contains(output, "sh: none: not found")?;
            contains(output, "sh: a command is missing")
        },
        ..USUAL
    },
    Scenario {
        name: "shell_works_on_files",
        input: "mkdir /d\ncp /bin/hello /d\n/d/hello\nmv /d/hello /d/greet\n/d/greet\nls /d\nrm /d\nrm /d/greet /d\nls /d\nrm /bin/sh\nexit\n",
        check: |output| {
            contains(output, "hello from process")?;
            contains(output, "greet\n")?;
            contains(output, "rm: /d: directory not empty\n[status 1]")?;
            contains(output, "ls: /d: not found\n[status 1]")?;
            contains(output, "rm: /bin/sh: read-only")
        },
        ..USUAL
    },
    Scenario {
        name: "shell_removes_directories_with_all_that_is_in_them",
        input: "mkdir /a /a/b /a/b/c\ncp /bin/hello /a/b\nrm /a\nrm -r /a /none\nls /a\nrm -r\nrm -r /bin\n/bin/hello\nexit\n",
        check: |output| {
            contains(output, "rm: /a: directory not empty\n[status 1]")?;
            contains(output, "rm: /none: not found\n[status 1]")?;
            contains(output, "ls: /a: not found\n[status 1]")?;
            contains(output, "usage: rm [-r] PATH...\n[status 2]")?;
            contains(output, ": read-only")?;
            contains(output, "hello from process")
        },
        ..USUAL
    },
    Scenario {
        name: "no_line_is_lost",
        program: &["chatter", "4", "500"],
        check: chatter,
        ..USUAL
    },
    Scenario {
        name: "no_line_is_lost_counting_instructions",
        options: &["--icount"],
        program: &["chatter", "4", "500"],
        check: chatter,
        ..USUAL
    },
    // There is room for kernel and archive, and some to grow for the archive. Nothing can take all.
    Scenario {
        name: "too_little_memory_is_told",
        options: &["--mem", "8M"],
        program: &["memhog", "8"],
        status: 135,
        check: |output| {
            contains(
                output,
                " (memhog) ended: out of memory: no frame for the write to 0x",
            )
        },
        ..USUAL
    },
    Scenario {
        name: "cpus_that_only_x2apic_reaches_race",
        options: &[FAR_CPU, "--log", "info"],
        program: &[
            "test_races",
            "writes_survive_the_forks_of_another_thread",
            "after_an_unmap_no_access_gets_through",
            "a_kill_races_send_and_reply",
            "no_notification_of_any_cpu_is_lost",
            "no_timer_of_any_cpu_is_lost",
            "a_running_thread_goes_where_it_is_bound",
            "idle_cpus_take_work_until_all_run_at_once",
        ],
        check: |output| {
            contains(output, "x2APIC: on")?;
            contains(output, "CPUs: 2 of 2")?;
            contains(
                output,
                "test idle_cpus_take_work_until_all_run_at_once ... ok",
            )
        },
        ..USUAL
    },
    Scenario {
        name: "cpus_that_choose_asids_race",
        options: &["--set", "pcid=dry"],
        program: &[
            "test_races",
            "writes_survive_the_forks_of_another_thread",
            "two_processes_break_the_same_table_at_once",
            "after_an_unmap_no_access_gets_through",
            "a_kill_races_calls_on_the_memory_of_the_dying",
        ],
        check: |output| {
            contains(
                output,
                "test a_kill_races_calls_on_the_memory_of_the_dying ... ok",
            )
        },
        ..USUAL
    },
    Scenario {
        name: "kernel_panic_is_told",
        options: &["--set", "panic=test"],
        program: &["hello"],
        status: 125,
        check: panic_with_names,
        ..USUAL
    },
    Scenario {
        name: "limine_bios_boots",
        program: &["hello"],
        check: greets,
        door: Door::LimineBios,
        ..USUAL
    },
    Scenario {
        name: "limine_uefi_boots",
        program: &["hello"],
        check: greets,
        door: Door::LimineUefi,
        ..USUAL
    },
];

fn greets(output: &str) -> Result<(), String> {
    contains(&output.to_lowercase(), "hello")
}

/// A program's output, and then what the kernel says at its end: why, where, and who was running.
fn panic_with_names(output: &str) -> Result<(), String> {
    let (before, panic) = output
        .split_once(": as the command line asks for")
        .filter(|(before, _)| before.contains("kernel panic on CPU "))
        .ok_or("no `kernel panic` in the output")?;
    greets(before)?;
    for words in [
        "\n  at kernel/src/arch/power.rs:",
        " cowslip::arch::power::shutdown+0x",
        " cowslip::arch::trap::system_call+0x",
        "\nrunning thread: ",
        "    rip: 0x",
    ] {
        contains(panic, words)?;
    }
    Ok(())
}

/// What `chatter 4 500` prints: every line of the four, and of those that were killed the first ones,
/// each in one piece.
fn chatter(output: &str) -> Result<(), String> {
    let mut next = [0; 4 + 8];
    for line in output.lines() {
        let mut words = line.split(' ');
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<usize>().ok());
        let (Some(name), Some(nr), Some(rest), None) = (
            number(words.next()),
            number(words.next()),
            words.next(),
            words.next(),
        ) else {
            return Err(format!("`{line}` is no line of chatter"));
        };
        let expected = next
            .get_mut(name)
            .ok_or_else(|| format!("nobody is {name}"))?;
        if nr != *expected || rest != "x".repeat((name * 31 + nr * 7) % 190) {
            return Err(format!("`{line}` instead of line {expected} of {name}"));
        }
        *expected += 1;
    }
    match next[..4].iter().position(|&count| count != 500) {
        Some(name) => Err(format!("{} lines of {name} instead of 500", next[name])),
        None => Ok(()),
    }
}

/// Four lines `REPLY: AA`, with the same letter twice in each.
fn four_equal_replies(output: &str) -> Result<(), String> {
    let replies: Vec<_> = output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("REPLY: "))
        .collect();
    if replies.len() != 4 {
        return Err(format!("{} lines `REPLY: ..` instead of 4", replies.len()));
    }
    let is_pair =
        |reply: &&str| matches!(reply.as_bytes(), [a, b] if a == b && a.is_ascii_alphabetic());
    match replies.iter().find(|reply| !is_pair(reply)) {
        Some(reply) => Err(format!("`REPLY: {reply}` has not the same letter twice")),
        None => Ok(()),
    }
}

/// The row `1 GiB` of the table of `cowdemo`: that much is forked, and sent, in some frames each. It is not copied:
/// there is no room.
fn gigabyte_in_few_frames(output: &str) -> Result<(), String> {
    let row = output
        .lines()
        .find(|line| line.trim_start().starts_with("1 GiB "))
        .ok_or("no row `1 GiB`")?;
    let words: Vec<_> = row.split_whitespace().collect();
    let frames = |at: usize| words.get(at)?.parse::<u64>().ok();
    match (words.get(2..4).unwrap_or_default(), frames(4), frames(7)) {
        (["-", "-"], Some(1..=16), Some(0..=16)) => Ok(()),
        _ => Err(format!("`{row}` is dearer than a few frames")),
    }
}

/// Whether a frame of a backtrace says that it is in a function, of whose name this is the end, at the line of `crash` that has these words.
fn traced(output: &str, function: &str, words: &str) -> Result<(), String> {
    const FILE: &str = "user-apps/src/bin/crash.rs";
    let source = std::fs::read_to_string(root().join(FILE)).map_err(|error| error.to_string())?;
    let mut lines = source.lines().zip(1..);
    let line = lines.find(|(line, _)| line.contains(words));
    let (_, line) = line.ok_or(format!("no `{words}` in {FILE}"))?;
    contains(output, &format!("{function} at {FILE}:{line}\n"))
}

/// What the shell shows of a server that waits, and what it does not of others.
fn shows_what_happens(output: &str) -> Result<(), String> {
    contains(output, " memstat        a message\n")?;
    contains(output, " sh             reply from procd\n")?;
    contains(output, "r-x cow ")?;
    contains(output, " stack  ")?;
    contains(output, "thread 1\n  #0 sh 0x")?;
    contains(output, "run at user-apps/src/bin/sh.rs:")?;
    contains(output, "sh: memmap: not allowed\n")?;
    contains(output, "         thread 1     ")?;
    let rows = output.lines().filter(|line| line.contains("K "));
    match rows.into_iter().find(|line| line.len() > 80) {
        None => Ok(()),
        Some(line) => Err(format!("more than 80 columns: {line}")),
    }
}

fn contains(output: &str, words: &str) -> Result<(), String> {
    if output.contains(words) {
        Ok(())
    } else {
        Err(format!("no `{words}` in the output"))
    }
}

impl Scenario {
    /// Whether the scenario can run on a machine with so many CPUs: instructions are counted on one, and a far CPU is one
    /// more.
    pub(super) fn runs_on(&self, smp: u32) -> bool {
        let on_one_only = ["--icount", FAR_CPU];
        smp == 1
            || !on_one_only
                .iter()
                .any(|option| self.options.contains(option))
    }

    /// The name in reports.
    pub(super) fn full_name(&self, smp: u32) -> String {
        with_cpus(&format!("run::{}", self.name), smp)
    }

    /// Runs the scenario and reports it.
    pub(super) fn run(&self, smp: u32, limit: Duration, report: &Report) -> Result<()> {
        let name = self.full_name(smp);
        let no_machine = || self.options.contains(&FAR_CPU).then(no_far_cpu).flatten();
        if let Some(reason) = self.door.closed().or_else(no_machine) {
            report.add(Outcome {
                name,
                verdict: Verdict::Skipped(reason),
                output: String::new(),
            });
            return Ok(());
        }
        let mut command = self.command(smp, limit)?;
        let mut child = command.spawn().context("cannot start `xtask run`")?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = self.input;
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let ended = child.wait_with_output()?;

        let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        let verdict = match self.judge(ended.status.code(), &stdout) {
            Ok(()) => Verdict::Passed,
            Err(why) => Verdict::Failed(format!(
                "{why}\nstdout:\n{}\nstderr:\n{}\n",
                last_lines(&stdout, 40),
                last_lines(&stderr, 10)
            )),
        };
        report.add(Outcome {
            name,
            verdict,
            output: stdout,
        });
        Ok(())
    }

    fn judge(&self, status: Option<i32>, stdout: &str) -> Result<(), String> {
        if status != Some(self.status) {
            let status = status.map_or("none".into(), |status| status.to_string());
            return Err(format!("exit status {status} instead of {}", self.status));
        }
        (self.check)(stdout)
    }

    /// `xtask run`, with what has just been built.
    fn command(&self, smp: u32, limit: Duration) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", "--no-build", "--smp", &smp.to_string()]);
        command.args(["--timeout", &limit.as_secs().to_string()]);
        command.args(self.door.args()).args(self.options);
        if !self.program.is_empty() {
            command.arg("--").args(self.program);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

impl Door {
    fn args(self) -> &'static [&'static str] {
        match self {
            Door::Direct => &[],
            Door::LimineBios => &["--boot", "limine", "--firmware", "bios"],
            Door::LimineUefi => &["--boot", "limine", "--firmware", "uefi"],
        }
    }

    /// Why nothing can go through this door on this machine, if so.
    pub(super) fn closed(self) -> Option<String> {
        if self == Door::Direct {
            return None;
        }
        if !crate::setup::has("xorriso") {
            return Some("no xorriso".into());
        }
        if self == Door::LimineUefi && uefi().is_err() {
            return Some("no OVMF".into());
        }
        static LIMINE: OnceLock<bool> = OnceLock::new();
        // A download that fails is not tried twice.
        let is_here = *LIMINE.get_or_init(|| limine::folder().is_ok());
        (!is_here).then(|| "no Limine binaries, and no way to download them".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_four_pairs() {
        assert!(four_equal_replies("x\nREPLY: AA\nREPLY: BB\nREPLY: AA\nREPLY: CC\n").is_ok());
        assert!(four_equal_replies("REPLY: AA\nREPLY: BB\nREPLY: AA\n").is_err());
        assert!(four_equal_replies("REPLY: AA\nREPLY: BB\nREPLY: AA\nREPLY: CD\n").is_err());
    }

    #[test]
    fn gigabytes_are_cheap_or_not() {
        let row =
            "   1 GiB       -         -       8    822 us       1  1,202 us       -         -\n";
        assert!(gigabyte_in_few_frames(&format!("head\n{row}1 GiB, step by step\n")).is_ok());
        assert!(gigabyte_in_few_frames(&row.replace("8    822", "262,144 822")).is_err());
        assert!(gigabyte_in_few_frames(&row.replace("1  1,202", "99  1,202")).is_err());
        assert!(gigabyte_in_few_frames("128 MiB 1 1\n").is_err());
    }

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
    }

    #[test]
    fn status_and_output_must_both_fit() {
        let scenario = Scenario {
            status: 42,
            check: |output| contains(output, "x"),
            ..USUAL
        };
        assert!(scenario.judge(Some(42), "xyz").is_ok());
        assert!(scenario.judge(Some(42), "yz").is_err());
        assert!(scenario.judge(Some(0), "xyz").is_err());
        assert!(scenario.judge(None, "xyz").is_err());
    }
}
