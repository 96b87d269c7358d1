//! `cargo xtask trace`: what a program does with messages and memory, as pictures.
//!
//! A kernel that records boots and runs the program. Its records are in the machine's memory, which is a file here; so recording costs
//! the guest some instructions an event, and no time of a device.
//!
//! | module | |
//! | --- | --- |
//! | [`recording`] | memory to records |
//! | [`story`] | records to who did what |
//! | [`chrome`], [`page`], [`summary`] | that as a trace, as a page, as a few lines |
//! | [`labels`] | the names of what is a number |

mod chrome;
mod labels;
mod page;
mod recording;
mod story;
mod summary;
#[cfg(test)]
mod tests;
mod valid;

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use self::story::{Passed, Story};
use crate::build::{BuildArgs, Built, build, shown};
use crate::ending::Ending;
use crate::limine_conf;
use crate::machine::{Machine, Scratch};
use crate::setup::{self, Purpose};
use crate::workspace::target_dir;
use recording::Recording;

/// What to trace, and on what machine.
#[derive(clap::Args)]
pub(crate) struct TraceArgs {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    smp: u32,
    /// Amount of memory, of which the records have 64 MiB
    #[arg(long, value_name = "SIZE", default_value = "1344M")]
    mem: String,
    /// Stop the machine after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Put further programs into the boot archive, as bin/ and their names: those of a crate in a folder, or an ELF file; may
    /// be repeated
    #[arg(long = "app", value_name = "PATH")]
    apps: Vec<PathBuf>,
    /// The folder for the files that are written
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// The program to run, with its arguments
    #[arg(last = true, value_name = "PROGRAM [ARGS]", required = true)]
    program: Vec<String>,
}

/// A machine to trace programs on.
#[derive(Clone, Debug)]
pub(crate) struct Traced<'a> {
    /// The number of CPUs.
    pub(crate) smp: u32,
    /// The amount of memory.
    pub(crate) mem: &'a str,
    /// How long it may run.
    pub(crate) limit: Option<Duration>,
}

/// Runs the task.
pub(crate) fn main(args: &TraceArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Run)?;
    let built = build_traced(args.apps.clone())?;
    let traced = Traced {
        smp: args.smp,
        mem: &args.mem,
        limit: args.timeout.map(Duration::from_secs),
    };
    if std::io::stdin().is_terminal() {
        eprintln!("xtask: Ctrl-C stops the machine");
    }
    let run = traced.run(&built, &args.program, std::io::stdin(), std::io::stdout());
    built.discard_own_archive();
    let (ending, recording) = run?;
    let story = Story::of(&recording);
    let folder = args
        .output
        .clone()
        .unwrap_or_else(|| target_dir().join("trace"));
    let files = write(&story, &folder, &args.program)?;
    tell(&recording, &story, &files);
    if ending != Ending::Exit(0) {
        eprintln!("xtask: {ending}");
    }
    Ok(ExitCode::from(ending.status()))
}

/// Builds a kernel that records, servers that tell it names, and the other programs as they always are.
pub(crate) fn build_traced(apps: Vec<PathBuf>) -> Result<Built> {
    build(&BuildArgs {
        traced: true,
        apps,
        ..BuildArgs::default()
    })
}

impl Traced<'_> {
    /// Boots, runs a program, and reads what was recorded.
    pub(crate) fn run(
        &self,
        built: &Built,
        program: &[String],
        input: impl Read + Send + 'static,
        output: impl Write + Send,
    ) -> Result<(Ending, Recording)> {
        let scratch = Scratch::new()?;
        let memory = scratch.path().join("memory");
        let base = limine_conf::entry()?.cmdline;
        let machine = Machine {
            memory: Some(memory.clone()),
            ..Machine::direct(built, &base, program, self.smp, self.mem)
        };
        let ending = machine.converse(input, output, self.limit)?;
        let recording = Recording::read(&built.kernel, &memory)
            .with_context(|| format!("there is nothing to tell: {ending}"))?;
        Ok((ending, recording))
    }
}

/// The files that show a story.
struct Files {
    json: PathBuf,
    html: PathBuf,
}

fn write(story: &Story, folder: &Path, program: &[String]) -> Result<Files> {
    let Some(name) = program.first().map(|path| libipc::fs::file_name(path)) else {
        bail!("there is no program to trace");
    };
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let [json, html] = ["json", "html"].map(|ending| folder.join(format!("{name}.{ending}")));
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    chrome::write(story, create(&json)?)?;
    page::write(story, program, create(&html)?)?;
    Ok(Files { json, html })
}

/// What is wrong with the files that show a story, if anything is: for tests.
pub(crate) fn flaw_of_files(story: &Story, program: &[String]) -> Result<()> {
    let scratch = Scratch::new()?;
    let files = write(story, scratch.path(), program)?;
    let trace = serde_json::from_reader(BufReader::new(File::open(files.json)?))?;
    match valid::flaw(&trace) {
        Some(flaw) => bail!("{flaw}"),
        None => Ok(()),
    }
}

/// So many of something.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Says on stderr what there is: stdout is the program's.
fn tell(recording: &Recording, story: &Story, files: &Files) {
    let nr_records = recording.records.len();
    let ms = story.end_ns as f64 / 1e6;
    let cpus = counted(story.nr_cpus as u64, "CPU", "CPUs");
    eprintln!("\n{nr_records} records of {cpus}, {ms:.1} ms");
    if recording.nr_lost > 0 {
        eprintln!(
            "{} later ones are lost, as there was no room",
            recording.nr_lost
        );
    }
    eprint!("{}", summary::text(story));
    eprintln!("{}   for https://ui.perfetto.dev", shown(&files.json));
    eprintln!("{}   for any browser", shown(&files.html));
}
