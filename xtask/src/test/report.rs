//! Collects verdicts, shows them as they come, and sums up.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};

/// What became of one test.
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// What it printed.
    pub(super) output: String,
}

/// Whether a test passed.
pub(super) enum Verdict {
    Passed,
    /// With what is to be said about it.
    Failed(String),
    /// It could not be run, for this reason.
    Skipped(String),
}

/// The sum of all outcomes.
pub(super) struct Report {
    nocapture: bool,
    colour: bool,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    /// Failures that were explained where they happened, and are only counted here.
    failed_elsewhere: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Report {
    /// An empty report; with `nocapture`, it shows the output of passing tests as well.
    pub(super) fn new(nocapture: bool) -> Report {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Report {
            nocapture,
            colour,
            tally: Mutex::default(),
        }
    }

    /// Adds the outcome of one test, and shows it.
    pub(super) fn add(&self, outcome: Outcome) {
        let mut tally = self.tally();
        let Outcome {
            name,
            verdict,
            output,
        } = outcome;
        if self.nocapture && !output.is_empty() {
            print!("{output}");
        }
        match verdict {
            Verdict::Passed => {
                println!("test {name} ... {}", self.painted("ok", 32));
                tally.passed += 1;
            }
            Verdict::Failed(why) => {
                println!("test {name} ... {}", self.painted("FAILED", 31));
                tally.failed.push((name, why));
            }
            Verdict::Skipped(why) => {
                println!("test {name} ... {}: {why}", self.painted("skipped", 33));
                tally.skipped.push((name, why));
            }
        }
    }

    /// Adds numbers of tests whose verdicts have been shown already.
    pub(super) fn count(&self, passed: usize, failed: usize) {
        let mut tally = self.tally();
        tally.passed += passed;
        tally.failed_elsewhere += failed;
    }

    /// Adds a test that was skipped, and shows nothing.
    pub(super) fn skip(&self, name: &str, why: &str) {
        self.tally().skipped.push((name.to_owned(), why.to_owned()));
    }

    /// Explains the failures, lists what was skipped, and ends with the line that counts.
    pub(super) fn finish(self) -> ExitCode {
        let tally = self.tally();
        if !tally.failed.is_empty() {
            println!("\nfailures:");
            for (name, why) in &tally.failed {
                println!("\n---- {name} ----\n{}", why.trim_end());
            }
            println!("\nfailures:");
            tally
                .failed
                .iter()
                .for_each(|(name, _)| println!("    {name}"));
        }
        println!();
        if !tally.skipped.is_empty() {
            let each = tally
                .skipped
                .iter()
                .map(|(name, why)| format!("{name} ({why})"));
            println!("skipped: {}", each.collect::<Vec<_>>().join(", "));
        }
        let failed = tally.failed.len() + tally.failed_elsewhere;
        println!("{} passed, {failed} failed", tally.passed);
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn painted(&self, word: &str, colour: u8) -> String {
        if self.colour {
            format!("\x1b[{colour}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nothing panics while it counts")
    }
}
