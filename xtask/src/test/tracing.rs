//! Traces: what `cargo xtask trace` tells of programs is what they did, and viewers take the files.

use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Outcome, Report, Verdict};
use super::{selected, with_cpus};
use crate::build::Built;
use crate::ending::Ending;
use crate::trace::{Passed, Story, Traced, build_traced, flaw_of_files};

/// A program whose messages are known.
struct Case {
    name: &'static str,
    program: &'static [&'static str],
    check: fn(&Story) -> Result<(), String>,
}

const CASES: [Case; 2] = [
    Case {
        name: "hello_writes_a_line_and_exits",
        program: &["hello"],
        check: greeting,
    },
    Case {
        name: "messages_have_the_bytes_and_pages_that_were_sent",
        program: &["pingpong", "3"],
        check: echoes,
    },
];

/// The names of those that the filters ask for.
pub(super) fn names(cpus: &[u32], filters: &[String]) -> Vec<String> {
    let names = chosen(cpus, filters).map(|(case, smp)| case.full_name(smp));
    names.collect()
}

/// Runs those that the filters ask for, on machines with so many CPUs.
pub(super) fn run(
    cpus: &[u32],
    filters: &[String],
    limit: Duration,
    report: &Report,
) -> Result<()> {
    if chosen(cpus, filters).next().is_none() {
        return Ok(());
    }
    let built = build_traced(Vec::new())?;
    for (case, smp) in chosen(cpus, filters) {
        let verdict = match case.run(smp, limit, &built) {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}\n")),
        };
        report.add(Outcome {
            name: case.full_name(smp),
            verdict,
            output: String::new(),
        });
    }
    Ok(())
}

fn chosen<'a>(
    cpus: &'a [u32],
    filters: &'a [String],
) -> impl Iterator<Item = (&'static Case, u32)> + 'a {
    let all = cpus
        .iter()
        .flat_map(|&smp| CASES.iter().map(move |case| (case, smp)));
    all.filter(|(case, smp)| selected(&case.full_name(*smp), filters))
}

impl Case {
    fn full_name(&self, smp: u32) -> String {
        with_cpus(&format!("trace::{}", self.name), smp)
    }

    fn run(&self, smp: u32, limit: Duration, built: &Built) -> Result<()> {
        let program: Vec<_> = self.program.iter().map(|&word| word.to_owned()).collect();
        let traced = Traced {
            smp,
            mem: "192M",
            limit: Some(limit),
        };
        let mut output = Vec::new();
        let (ending, recording) = traced.run(built, &program, std::io::empty(), &mut output)?;
        let said = || format!("{ending}\n{}", String::from_utf8_lossy(&output));
        if ending != Ending::Exit(0) || recording.nr_lost > 0 {
            anyhow::bail!("{} lost, {}", recording.nr_lost, said());
        }
        let story = Story::of(&recording);
        flaw_of_files(&story, &program).with_context(said)?;
        (self.check)(&story).map_err(anyhow::Error::msg)
    }
}

/// The messages of a program: to whom, the label in words, bytes, pages remapped and copied.
fn messages_of(story: &Story, program: &str, kind: Passed) -> Vec<(String, String, [u64; 3])> {
    let base = |thread: usize| story.base_name(story.threads[thread].space);
    let own = story.messages.iter();
    let own = own.filter(|message| message.kind == kind && base(message.from) == program);
    own.map(|message| {
        let pages = message.pages;
        let counts = [message.nr_bytes, pages.remapped, pages.copied];
        (base(message.to), message.label(), counts)
    })
    .collect()
}

fn greeting(story: &Story) -> Result<(), String> {
    let sent = messages_of(story, "hello", Passed::Message);
    let expected = [("console", "console.write_short"), ("procd", "procd.exit")]
        .map(|(to, label)| (to.to_owned(), label.to_owned(), [0; 3]));
    equal(&sent, &expected)
}

/// Three of each length there and back: whole pages go by page table, and what is less is copied.
fn echoes(story: &Story) -> Result<(), String> {
    let counts = [
        [0, 0, 0],
        [64, 0, 1],
        [4096, 1, 0],
        [65_536, 16, 0],
        [1 << 20, 256, 0],
    ];
    let expected: Vec<_> = counts.iter().flat_map(|counts| [*counts; 3]).collect();
    for kind in [Passed::Message, Passed::Reply] {
        let mut passed = messages_of(story, "pingpong", kind);
        passed.retain(|(to, ..)| to == "pingpong");
        let counts: Vec<_> = passed.into_iter().map(|(_, _, counts)| counts).collect();
        equal(&counts, &expected)?;
    }
    Ok(())
}

fn equal<T: PartialEq + std::fmt::Debug>(is: &[T], should_be: &[T]) -> Result<(), String> {
    if is == should_be {
        Ok(())
    } else {
        Err(format!("{is:?}\ninstead of\n{should_be:?}\n"))
    }
}
