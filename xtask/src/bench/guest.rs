//! The machine that is measured: one CPU, unless it is about several, whose time-stamp counter counts instructions.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::reading::{Reading, readings};
use crate::build::Built;
use crate::ending::Ending;
use crate::limine_conf;
use crate::machine::Machine;

/// How long a boot may take.
const LIMIT: Duration = Duration::from_secs(180);

/// A program that measures, and the beginnings of its operations' names.
pub(super) struct Subject {
    program: &'static [&'static str],
    families: &'static [&'static str],
    /// How much memory its machines have.
    mem_mib: u32,
    /// The least number of CPUs that it is about.
    least_smp: u32,
}

impl Subject {
    /// The name of the program.
    pub(super) fn name(&self) -> &'static str {
        self.program[0]
    }

    /// Whether an operation with this name is one of its.
    pub(super) fn has(&self, operation: &str) -> bool {
        let mut families = self.families.iter();
        families.any(|family| operation.starts_with(family))
    }

    /// All of them, in the order of the table.
    pub(super) const ALL: &[Subject] = &[
        Subject {
            program: &["bench_ipc"],
            families: &[
                "null_syscall",
                "ipc_rtt",
                "service_call",
                "ipc_handle_rtt",
                "notify",
            ],
            mem_mib: 128,
            least_smp: 1,
        },
        Subject {
            program: &["bench_memory"],
            families: &[
                "send_cow/",
                "send_cow_per_page",
                "send_cow_fresh",
                "send_cow_written",
                "send_copy",
                "send_move",
                "map",
                "unmap",
                "zero_fault",
                "cow_fault",
                "pager_fault",
            ],
            mem_mib: 128,
            least_smp: 1,
        },
        Subject {
            program: &["bench_process"],
            families: &[
                "thread_create_join",
                "spawn_wait",
                "fork_",
                "irq_late",
                "worst_irq_off",
            ],
            // The largest parent has 256 MiB.
            mem_mib: 512,
            least_smp: 1,
        },
        Subject {
            program: &["bench_large"],
            families: &[
                "send_cow_2MiB",
                "send_cow_32MiB",
                "send_cow_64MiB",
                "send_cow_1GiB",
                "first_write",
                "rewrite",
                "reserve_1TiB",
                "generation_fault",
                "file_read_64MiB",
            ],
            // Two messages of 1 GiB, all of which is written.
            mem_mib: 2304,
            least_smp: 1,
        },
        Subject {
            program: &["bench_shootdown"],
            families: &["shootdown"],
            mem_mib: 128,
            least_smp: 8,
        },
        Subject {
            program: &["sh", "--ticks"],
            families: &["boot_to_"],
            mem_mib: 128,
            least_smp: 1,
        },
    ];

    /// Whether it has operations with this in their name.
    pub(super) fn may_have(&self, filter: &str) -> bool {
        let known = |subject: &Subject| {
            subject
                .families
                .iter()
                .any(|family| family.contains(filter) || filter.starts_with(family))
        };
        known(self) || !Subject::ALL.iter().any(known)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program.join(" "))
    }
}

/// How much more memory some machines have, so that frames lie elsewhere, in MiB.
pub(super) const MORE_MIB: u32 = 4;

/// What a build has made, ready to boot.
#[derive(Clone)]
pub(super) struct Guest {
    built: Built,
    base: String,
    smp: u32,
    /// How much more memory the machines have, in MiB.
    more_mib: u32,
}

impl Guest {
    /// Boots what a build has made, on machines with so many CPUs.
    pub(super) fn new(built: Built, smp: u32) -> Result<Guest> {
        let base = limine_conf::entry()?.cmdline;
        Ok(Guest {
            built,
            base,
            smp,
            more_mib: 0,
        })
    }

    /// The same on machines with one CPU.
    pub(super) fn with_one_cpu(&self) -> Guest {
        Guest {
            smp: 1,
            ..self.clone()
        }
    }

    /// The same on machines with [more memory](MORE_MIB).
    pub(super) fn with_more_memory(&self) -> Guest {
        Guest {
            more_mib: MORE_MIB,
            ..self.clone()
        }
    }

    /// The kernel's ELF file.
    pub(super) fn kernel(&self) -> &Path {
        &self.built.kernel
    }

    /// A program's ELF file, with its symbols.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.built.program(name)
    }

    /// Runs a program that measures.
    pub(super) fn readings(&self, subject: &Subject) -> Result<Vec<Reading>> {
        Self::measured(&self.machine_for(subject, subject.program), subject, LIMIT)
    }

    /// Has a program measure one operation, while the addresses of all instructions go into a pipe.
    pub(super) fn traced(
        &self,
        subject: &Subject,
        operation: &str,
        pipe: &Path,
    ) -> Result<Vec<Reading>> {
        let machine = Machine {
            trace: Some(pipe.to_owned()),
            ..self.machine_for(subject, &[subject.name(), operation])
        };
        Self::measured(&machine, subject, 10 * LIMIT)
    }

    fn measured(machine: &Machine, subject: &Subject, limit: Duration) -> Result<Vec<Reading>> {
        let (_speak, silence) = silence();
        let (ending, output) = talk(machine, silence, limit)?;
        if ending != Ending::Exit(0) {
            bail!("{subject}: {ending}\n{output}");
        }
        let readings = readings(&output)?;
        if readings.is_empty() {
            bail!("{subject} measured nothing:\n{output}");
        }
        Ok(readings)
    }

    /// Lets workers race against the clock, on two CPUs, or one of them do this work alone; returns what the machine prints.
    pub(super) fn scale(&self, work: Option<&str>) -> Result<String> {
        let program: Vec<_> = ["bench_scale"].into_iter().chain(work).collect();
        let machine = Machine {
            smp: 2,
            icount: false,
            ..self.machine("128M", &program)
        };
        let (_speak, silence) = silence();
        match talk(&machine, silence, LIMIT)? {
            (Ending::Exit(0), output) => Ok(output),
            (ending, output) => bail!("bench_scale: {ending}\n{output}"),
        }
    }

    /// Types lines into the shell of a machine with so much memory; returns what it printed, if it
    /// came to a good end.
    pub(super) fn shell(&self, mem: &str, lines: &str, limit: Duration) -> Result<Option<String>> {
        let input = Cursor::new(lines.to_owned());
        let (ending, output) = talk(&self.machine(mem, &[]), input, limit)?;
        Ok((ending == Ending::Exit(0)).then_some(output))
    }

    fn machine_for(&self, subject: &Subject, program: &[&str]) -> Machine {
        let mem = format!("{}M", subject.mem_mib + self.more_mib);
        Machine {
            smp: self.smp.max(subject.least_smp),
            ..self.machine(&mem, program)
        }
    }

    fn machine(&self, mem: &str, program: &[&str]) -> Machine {
        let base = format!("{} ticks", self.base);
        let program: Vec<_> = program.iter().map(|&word| word.to_owned()).collect();
        Machine {
            icount: true,
            ..Machine::direct(&self.built, &base, &program, self.smp, mem)
        }
    }
}

/// Runs a machine to its end; returns what it printed as well.
fn talk(
    machine: &Machine,
    input: impl Read + Send + 'static,
    limit: Duration,
) -> Result<(Ending, String)> {
    let mut output = Vec::new();
    let ending = machine.converse(input, &mut output, Some(limit))?;
    Ok((ending, String::from_utf8_lossy(&output).into_owned()))
}

/// An input that says nothing until the first value is dropped: not even that it has ended, which
/// would interrupt the guest at some time of the host's.
fn silence() -> (mpsc::Sender<()>, impl Read + Send + 'static) {
    struct Silence(mpsc::Receiver<()>);
    impl Read for Silence {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(0)
        }
    }
    let (sender, receiver) = mpsc::channel();
    (sender, Silence(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(filter: &str) -> Vec<String> {
        let subjects = Subject::ALL.iter();
        subjects
            .filter(|subject| subject.may_have(filter))
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn filters_choose_programs() {
        assert_eq!(chosen("").len(), Subject::ALL.len());
        assert_eq!(chosen("ipc_rtt/64w"), ["bench_ipc"]);
        assert_eq!(chosen("boot"), ["sh --ticks"]);
        assert_eq!(chosen("send_cow_per_page/256"), ["bench_memory"]);
        assert_eq!(chosen("send_cow_1GiB"), ["bench_large"]);
        assert_eq!(chosen("send_cow"), ["bench_memory", "bench_large"]);
        // Nobody knows: all are asked.
        assert_eq!(chosen("/64").len(), Subject::ALL.len());
    }
}
