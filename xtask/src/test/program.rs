//! Test programs: one boot runs one program, and each of its cases gets a verdict.
//!
//! The program's ELF file says which cases it has. It prints `test CASE ... ok` or `test CASE ... FAILED`
//! for each, with explaining lines after it, and exits with 0 if and only if all are well. After a case that
//! failed it ends, as what is left of that could disturb others: those have another machine. A case that
//! ends the machine without a verdict has failed, whatever else the machine says.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use super::report::{Outcome, Report, Verdict};
use super::{last_lines, selected, with_cpus};
use crate::build::Built;
use crate::ending::Ending;
use crate::limine_conf;
use crate::machine::Machine;
use crate::symbolize::Symbolized;

/// How much of the machine's last words a failure shows.
const TAIL_LINES: usize = 40;

/// Programs that want a further word on the kernel's command line.
const WORDS: &[(&str, &str)] = &[("test_restarts", "mortal")];

/// One boot of a test program.
pub(super) struct ProgramRun {
    program: String,
    cases: Vec<String>,
    /// Whether these are all cases of the program.
    whole: bool,
    smp: u32,
}

impl ProgramRun {
    /// The boot that runs the selected cases of a program, if there are any.
    pub(super) fn new(
        program: String,
        all_cases: Vec<String>,
        smp: u32,
        filters: &[String],
    ) -> Option<ProgramRun> {
        let nr_all = all_cases.len();
        let wanted = |case: &String| selected(&full_name(&program, case, smp), filters);
        let cases: Vec<_> = all_cases.into_iter().filter(wanted).collect();
        let whole = cases.len() == nr_all;
        (!cases.is_empty()).then_some(ProgramRun {
            program,
            cases,
            whole,
            smp,
        })
    }

    /// How many CPUs the machine has.
    pub(super) fn smp(&self) -> u32 {
        self.smp
    }

    /// The names of the tests in this boot.
    pub(super) fn names(&self) -> Vec<String> {
        self.cases
            .iter()
            .map(|case| full_name(&self.program, case, self.smp))
            .collect()
    }

    /// Boots as often as it takes, and reports every case as its verdict comes.
    pub(super) fn run(&self, limit: Duration, built: &Built, report: &Report) -> Result<()> {
        let mut left = self.boot(limit, built, report)?;
        while let Some(run) = left {
            left = run.boot(limit, built, report)?;
        }
        Ok(())
    }

    /// Boots once; returns the cases that a failed one kept from running.
    fn boot(&self, limit: Duration, built: &Built, report: &Report) -> Result<Option<ProgramRun>> {
        let mut words = vec![self.program.clone()];
        if !self.whole {
            words.extend(self.cases.iter().cloned());
        }
        let mut base = limine_conf::entry()?.cmdline;
        for (_, word) in WORDS.iter().filter(|(program, _)| *program == self.program) {
            base += &format!(" {word}");
        }
        let machine = Machine::direct(built, &base, &words, self.smp, "128M");
        let mut reader = Reader::default();
        let feed = Feed {
            run: self,
            report,
            reader: &mut reader,
        };
        let output = Symbolized::new(feed, built);
        let ending = machine.converse(std::io::empty(), output, Some(limit))?;
        let (outcomes, left) = self.conclude(&mut reader, &ending);
        for outcome in outcomes {
            report.add(outcome);
        }
        Ok(left)
    }

    /// What is left to say, and to run, when the machine has ended.
    fn conclude(&self, reader: &mut Reader, ending: &Ending) -> (Vec<Outcome>, Option<ProgramRun>) {
        reader.end();
        let mut outcomes: Vec<_> = reader
            .pending
            .take()
            .map(|case| self.outcome(case))
            .into_iter()
            .collect();
        let is_missing = |case: &&String| !reader.seen.contains(case);
        let mut missing: VecDeque<_> = self.cases.iter().filter(is_missing).cloned().collect();
        let tail = last_lines(&reader.everything, TAIL_LINES);
        if missing.is_empty() {
            let good_ending = *ending == Ending::Exit(0);
            if good_ending == reader.any_failed {
                let what = if good_ending {
                    "cases failed, and yet"
                } else {
                    "all cases are well, but"
                };
                let why = format!("{what} {ending}; the machine's last words:\n{tail}\n");
                outcomes.push(self.failed("(end)", why));
            }
        } else if !(reader.any_failed && *ending == Ending::Exit(1)) {
            // Nobody but the first of them can be to blame, unless nothing runs at all.
            let nr_lost = if reader.seen.is_empty() {
                missing.len()
            } else {
                1
            };
            let mut why = format!("no verdict: {ending}; the machine's last words:\n{tail}\n");
            for case in missing.drain(..nr_lost) {
                outcomes.push(self.failed(&case, why));
                why = format!("no verdict: {ending}; see the first case without one\n");
            }
        }
        let left = (!missing.is_empty()).then(|| ProgramRun {
            program: self.program.clone(),
            cases: missing.into(),
            whole: false,
            smp: self.smp,
        });
        (outcomes, left)
    }

    fn failed(&self, case: &str, why: String) -> Outcome {
        Outcome {
            name: full_name(&self.program, case, self.smp),
            verdict: Verdict::Failed(why),
            output: String::new(),
        }
    }

    fn outcome(&self, case: Case) -> Outcome {
        let verdict = if case.passed {
            Verdict::Passed
        } else if case.output.is_empty() {
            Verdict::Failed("(the program says no more)\n".into())
        } else {
            Verdict::Failed(case.output.clone())
        };
        Outcome {
            name: full_name(&self.program, &case.name, self.smp),
            verdict,
            output: case.output,
        }
    }
}

fn full_name(program: &str, case: &str, smp: u32) -> String {
    with_cpus(&format!("{program}::{case}"), smp)
}

/// Feeds a boot's output to a reader and reports complete cases.
struct Feed<'a> {
    run: &'a ProgramRun,
    report: &'a Report,
    reader: &'a mut Reader,
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for case in self.reader.feed(bytes) {
            self.report.add(self.run.outcome(case));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One case's verdict, and the lines that belong to it.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    passed: bool,
    output: String,
}

/// Reads a test program's output.
#[derive(Default)]
struct Reader {
    /// The line that is not complete.
    line: Vec<u8>,
    /// Lines since the last verdict.
    between: String,
    /// A failed case whose explanation is still coming.
    pending: Option<Case>,
    seen: Vec<String>,
    any_failed: bool,
    everything: String,
}

impl Reader {
    /// Takes a piece of output; returns the cases that are complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Case> {
        let mut complete = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.take_line(&line, &mut complete);
            } else {
                self.line.push(byte);
            }
        }
        complete
    }

    fn take_line(&mut self, line: &str, complete: &mut Vec<Case>) {
        self.everything += &format!("{line}\n");
        let Some((name, passed)) = verdict(line) else {
            // After a failure, lines explain it; after a success, they belong to the next case.
            let owner = self
                .pending
                .as_mut()
                .map_or(&mut self.between, |case| &mut case.output);
            *owner += &format!("{line}\n");
            return;
        };
        complete.extend(self.pending.take());
        let output = std::mem::take(&mut self.between);
        if self.seen.iter().any(|seen| seen == name) {
            return;
        }
        self.seen.push(name.to_owned());
        self.any_failed |= !passed;
        let case = Case {
            name: name.to_owned(),
            passed,
            output,
        };
        if passed {
            complete.push(case);
        } else {
            self.pending = Some(case);
        }
    }

    /// Takes a last line that has no end.
    fn end(&mut self) {
        if !self.line.is_empty() {
            // It is no verdict: a verdict's line is whole.
            let rest = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned() + "\n";
            self.everything += &rest;
            if let Some(case) = &mut self.pending {
                case.output += &rest;
            }
        }
    }
}

/// Parses `test NAME ... ok` and `test NAME ... FAILED`.
fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, word) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match word {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(cases: &[&str]) -> ProgramRun {
        let cases = cases.iter().map(|&case| case.to_owned()).collect();
        ProgramRun::new("prog".into(), cases, 1, &[]).unwrap()
    }

    /// Names of passed cases, and names and explanations of failed ones.
    fn judge(cases: &[&str], output: &str, ending: Ending) -> (Vec<String>, Vec<(String, String)>) {
        let (passed, failed, left) = judge_boot(cases, output, ending);
        assert!(left.is_empty(), "{left:?} have to be run");
        (passed, failed)
    }

    /// The same, and the names of those that another machine has to run.
    fn judge_boot(
        cases: &[&str],
        output: &str,
        ending: Ending,
    ) -> (Vec<String>, Vec<(String, String)>, Vec<String>) {
        let run = run_of(cases);
        let mut reader = Reader::default();
        let complete = reader.feed(output.as_bytes());
        let mut outcomes: Vec<_> = complete.into_iter().map(|case| run.outcome(case)).collect();
        let (last, left) = run.conclude(&mut reader, &ending);
        outcomes.extend(last);
        let (mut passed, mut failed) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Passed => passed.push(outcome.name),
                Verdict::Failed(why) => failed.push((outcome.name, why)),
                Verdict::Skipped(_) => unreachable!(),
            }
        }
        (passed, failed, left.map_or(Vec::new(), |run| run.cases))
    }

    #[test]
    fn all_is_well() {
        let output = "starting\ntest a ... ok\ntest b ... ok\n";
        let (passed, failed) = judge(&["a", "b"], output, Ending::Exit(0));
        assert_eq!(passed, ["prog::a", "prog::b"]);
        assert!(failed.is_empty());
    }

    #[test]
    fn failure_has_the_lines_around_it() {
        let output = "test a ... ok\nbefore\ntest b ... FAILED\nwhy\ntest c ... ok\n";
        let (passed, failed) = judge(&["a", "b", "c"], output, Ending::Exit(1));
        assert_eq!(passed, ["prog::a", "prog::c"]);
        assert_eq!(failed, [("prog::b".into(), "before\nwhy\n".into())]);
    }

    #[test]
    fn case_without_a_verdict_fails_with_the_last_words() {
        let output = "test a ... ok\npanic: oh no\ntest b ... o";
        let (passed, failed, left) = judge_boot(&["a", "b", "c"], output, Ending::Panic);
        assert_eq!(passed, ["prog::a"]);
        assert_eq!(failed.len(), 1);
        assert!(failed[0].1.contains("the kernel panicked"));
        assert!(failed[0].1.contains("panic: oh no\ntest b ... o\n"));
        assert_eq!(left, ["c"]);
    }

    #[test]
    fn a_machine_that_runs_no_case_is_not_started_again() {
        let (passed, failed) = judge(&["a", "b"], "panic: oh no\n", Ending::Panic);
        assert!(passed.is_empty());
        assert_eq!(failed.len(), 2);
        assert!(failed[0].1.contains("oh no"));
        assert!(!failed[1].1.contains("oh no"));
    }

    #[test]
    fn cases_after_a_failed_one_have_a_machine_of_their_own() {
        let output = "test a ... ok\ntest b ... FAILED\nwhy\n";
        let (passed, failed, left) = judge_boot(&["a", "b", "c", "d"], output, Ending::Exit(1));
        assert_eq!(passed, ["prog::a"]);
        assert_eq!(failed, [("prog::b".into(), "why\n".into())]);
        assert_eq!(left, ["c", "d"]);
    }

    #[test]
    fn exit_status_must_agree_with_the_verdicts() {
        let (_, failed) = judge(&["a"], "test a ... ok\n", Ending::Exit(1));
        assert_eq!(failed[0].0, "prog::(end)");
        let (_, failed) = judge(&["a"], "test a ... FAILED\n", Ending::Exit(0));
        assert_eq!(failed.len(), 2);
    }

    #[test]
    fn second_verdict_of_a_case_does_not_count() {
        let output = "test a ... FAILED\ntest a ... ok\n";
        let (passed, failed) = judge(&["a"], output, Ending::Exit(1));
        assert!(passed.is_empty());
        assert_eq!(failed.len(), 1);
    }

    #[test]
    fn filters_choose_cases() {
        let cases = || vec!["fork".to_owned(), "send".to_owned()];
        let run = ProgramRun::new("prog".into(), cases(), 1, &["::se".into()]).unwrap();
        assert_eq!(run.names(), ["prog::send"]);
        assert!(!run.whole);
        assert!(
            ProgramRun::new("prog".into(), cases(), 4, &["prog".into()])
                .unwrap()
                .whole
        );
        assert!(ProgramRun::new("prog".into(), cases(), 1, &["x".into()]).is_none());
    }
}
