//! A stricter machine: [Bochs](https://bochs.sourceforge.io) has process-context identifiers and x2APIC, which QEMU's emulator lacks or
//! lacks in older versions, and does as the manuals say in places where QEMU is kind. Races on two of its CPUs show that
//! both work there, and that each CPU has its timer.
//!
//! It knows no other way than from a disc, and so takes Limine.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use super::scenarios::Door;
use super::{RACES, last_lines, selected};
use crate::build::Built;
use crate::child::end_within;
use crate::cmdline::command_line;
use crate::machine::{BOCHS, Scratch};
use crate::setup;
use crate::{image, limine_conf};

/// Races on a machine with an option of the kernel.
struct Case {
    name: &'static str,
    option: &'static str,
    /// What the kernel says of it.
    says: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        name: "bochs::cpus_that_keep_what_they_know_of_page_tables_race",
        option: "pcid=on",
        says: "pcid=on",
    },
    Case {
        name: "bochs::cpus_with_x2apic_race",
        option: "apic=x2apic",
        says: "x2APIC: on",
    },
];

/// What races: memory that is flushed, timers, and turns.
const RACERS: [&str; 6] = [
    "writes_survive_the_forks_of_another_thread",
    "two_processes_break_the_same_table_at_once",
    "after_an_unmap_no_access_gets_through",
    "a_kill_races_calls_on_the_memory_of_the_dying",
    "no_timer_of_any_cpu_is_lost",
    "more_threads_than_cpus_all_make_progress",
];

/// How much longer than under QEMU it may take.
const SLOWER: u32 = 8;

/// How much of what was said a failure shows.
const TAIL_LINES: usize = 40;

/// The names of those that the filters ask for.
pub(super) fn names(filters: &[String]) -> Vec<String> {
    chosen(filters).map(|case| case.name.to_owned()).collect()
}

/// Runs those that the filters ask for.
pub(super) fn run(
    filters: &[String],
    limit: Duration,
    built: &Built,
    report: &Report,
) -> Result<()> {
    for case in chosen(filters) {
        let no_bochs = || (!setup::has(BOCHS)).then(|| "no Bochs".to_owned());
        let (verdict, output) = match Door::LimineBios.closed().or_else(no_bochs) {
            Some(reason) => (Verdict::Skipped(reason), String::new()),
            None => case.run(limit * SLOWER, built)?,
        };
        report.add(Outcome {
            name: case.name.into(),
            verdict,
            output,
        });
    }
    Ok(())
}

fn chosen(filters: &[String]) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| selected(case.name, filters))
}

impl Case {
    fn run(&self, limit: Duration, built: &Built) -> Result<(Verdict, String)> {
        let scratch = Scratch::new()?;
        let file = |name| scratch.path().join(name);
        let [disc, serial, log] = ["cowslip.iso", "serial", "log"].map(file);
        let program = [RACES].iter().chain(&RACERS);
        let program: Vec<_> = program.map(|&word| word.to_owned()).collect();
        let base = [&limine_conf::entry()?.cmdline, self.option].join(" ");
        let line = command_line(&base, Some("info"), &program);
        let conf = limine_conf::with_cmdline(&limine_conf::text()?, &line);
        image::make(&built.kernel, built.archive_for(Some(RACES)), &conf, &disc)?;
        std::fs::write(file("bochsrc"), configuration(&disc, &serial, &log))?;

        let mut command = Command::new(BOCHS);
        let mut bochs = command
            .arg("-q")
            .arg("-f")
            .arg(file("bochsrc"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start bochs")?;
        // One that was built with its debugger waits for this.
        let mut stdin = bochs.stdin.take().context("stdin is piped")?;
        let _ = stdin.write_all(b"continue\n");
        let has_ended = end_within(&mut bochs, Some(limit))?.is_some();
        let output = std::fs::read(&serial).unwrap_or_default();
        let output = String::from_utf8_lossy(&output).into_owned();
        let verdict = match self.missing(&output) {
            None if has_ended => Verdict::Passed,
            None => Verdict::Failed("the machine does not switch itself off\n".into()),
            Some(words) => Verdict::Failed(format!(
                "no `{words}` in\n{}\n",
                last_lines(&output, TAIL_LINES)
            )),
        };
        Ok((verdict, output))
    }

    /// The first of the words that should be there and are not.
    fn missing(&self, output: &str) -> Option<String> {
        let passed = RACERS.map(|race| format!("test {race} ... ok"));
        let expected = [self.says, "CPUs: 2 of 2"].map(str::to_owned);
        let mut expected = expected.into_iter().chain(passed);
        expected.find(|words| !output.contains(words))
    }
}

/// A machine with two CPUs of a kind that has both.
fn configuration(disc: &Path, serial: &Path, log: &Path) -> String {
    let (disc, serial, log) = (disc.display(), serial.display(), log.display());
    format!(
        "config_interface: textconfig
display_library: rfb, options=\"timeout=0\"
cpu: model=corei7_skylake_x, count=2, ips=100000000
clock: sync=none
memory: guest=256, host=256
romimage: file=$BXSHARE/BIOS-bochs-latest
vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={disc}, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={serial}
log: {log}
panic: action=fatal
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_races_must_have_passed_on_both_cpus() {
        let case = &CASES[1];
        let mut output = "x2APIC: on\nCPUs: 2 of 2\n".to_owned();
        assert!(case.missing(&output).is_some());
        for race in RACERS {
            assert!(
                case.missing(&output)
                    .is_some_and(|words| words.contains(race))
            );
            output += &format!("test {race} ... ok\n");
        }
        assert_eq!(case.missing(&output), None);
        assert!(case.missing(&output.replace("2 of 2", "1 of 2")).is_some());
        assert!(case.missing(&output.replace("x2APIC", "xAPIC")).is_some());
    }
}
