//! `cargo xtask bench --scale`: how much more two CPUs do than one, by the clock.
//!
//! QEMU runs each CPU as a thread of the host then, and nothing is counted: what one CPU does in half a second is the
//! host's speed, but how much more two do in the same time says what they wait for each other. That is a
//! ratio of times, so it needs a host that has nothing else to do, and CPUs for both.
//!
//! Two threads of a host also share its caches, and whatever else its owner gives to others, which changes from minute to minute. So
//! each round also has the same done by two machines at the same time, with one CPU at work each, which have nothing but the host in common:
//! beyond that no kernel comes. And one work is calls that do not exist, which share nothing in the kernel: what two CPUs
//! of one machine lack there is QEMU's, or the host's.

use std::fmt::Write;
use std::thread;

use anyhow::{Context, Result, bail};

use super::guest::Guest;
use super::table::{grouped, ratio};

/// How much more two CPUs shall do than one.
const GOAL: f64 = 1.8;

/// The work that shares nothing in the kernel: it has no goal, and says what the machine has for two CPUs.
const MACHINE: &str = "null_syscall";

/// How many times all is measured.
const ROUNDS: usize = 11;

/// Operations per second, in one measurement.
#[derive(Debug, PartialEq)]
struct Rate {
    work: String,
    nr_cpus: u32,
    per_second: u64,
}

/// What was measured of one work in one round, in operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    one_cpu: f64,
    two_cpus: f64,
    two_machines: f64,
}

impl Measured {
    /// How much more two CPUs do than one.
    fn ratio(self) -> f64 {
        self.two_cpus / self.one_cpu
    }

    /// How much more two machines do than one.
    fn most(self) -> f64 {
        self.two_machines / self.one_cpu
    }
}

/// Measures, and returns the table.
pub(super) fn scale(guest: &Guest) -> Result<String> {
    let mut works: Vec<(String, Vec<Measured>)> = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("xtask: round {round} of {ROUNDS}");
        let rates = rates(&guest.scale(None)?)?;
        for work in names(&rates) {
            let measured = Measured {
                one_cpu: rate_of(&rates, work, 1)?,
                two_cpus: rate_of(&rates, work, 2)?,
                two_machines: two_machines(guest, work)?,
            };
            match works.iter_mut().find(|(name, _)| name == work) {
                Some((_, rounds)) => rounds.push(measured),
                None => works.push((work.to_owned(), vec![measured])),
            }
        }
    }
    if works.is_empty() {
        bail!("nothing was measured");
    }
    Ok(table(&works))
}

/// Operations per second of two machines that do this work on one CPU each, at the same time.
fn two_machines(guest: &Guest, work: &str) -> Result<f64> {
    let one = || rate_of(&rates(&guest.scale(Some(work))?)?, work, 1);
    thread::scope(|scope| {
        let other = scope.spawn(one);
        let here = one()?;
        let there = other.join().expect("it returns its errors")?;
        Ok(here + there)
    })
}

/// The names of the works, each once.
fn names(rates: &[Rate]) -> Vec<&str> {
    let alone = rates.iter().filter(|rate| rate.nr_cpus == 1);
    alone.map(|rate| rate.work.as_str()).collect()
}

/// Operations per second of so many workers.
fn rate_of(rates: &[Rate], work: &str, nr_cpus: u32) -> Result<f64> {
    let rate = rates
        .iter()
        .find(|rate| rate.work == work && rate.nr_cpus == nr_cpus);
    let rate = rate.with_context(|| format!("{work} was not measured with {nr_cpus}"))?;
    Ok(rate.per_second as f64)
}

/// The rates in a machine's output, one line each: `scale WORK CPUS OPERATIONS_PER_SECOND`.
fn rates(output: &str) -> Result<Vec<Rate>> {
    let lines = output
        .lines()
        .filter_map(|line| line.strip_prefix("scale "));
    lines
        .map(|line| rate(line).with_context(|| format!("not understood: `scale {line}`")))
        .collect()
}

fn rate(line: &str) -> Option<Rate> {
    let [work, nr_cpus, per_second] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    Some(Rate {
        work: work.to_owned(),
        nr_cpus: nr_cpus.parse().ok()?,
        per_second: per_second.parse().ok()?,
    })
}

fn table(works: &[(String, Vec<Measured>)]) -> String {
    let mut text = format!(
        "{:<12}  {:>12}  {:>12}  {:>5}  {:>15}  {:>5}  {:>4}\n",
        "work", "1 CPU, 1/s", "2 CPUs, 1/s", "ratio", "2 machines, 1/s", "ratio", "goal"
    );
    for (work, rounds) in works {
        let of = |value: fn(Measured) -> f64| median(rounds.iter().copied().map(value));
        let goal = match of(Measured::ratio) {
            _ if work == MACHINE => String::new(),
            ratio if ratio >= GOAL => format!("  {GOAL:>4}  met"),
            _ => format!("  {GOAL:>4}  NOT MET"),
        };
        let _ = writeln!(
            text,
            "{work:<12}  {:>12}  {:>12}  {:>5}  {:>15}  {:>5}{goal}",
            grouped(of(|measured| measured.one_cpu)),
            grouped(of(|measured| measured.two_cpus)),
            ratio(of(Measured::ratio)),
            grouped(of(|measured| measured.two_machines)),
            ratio(of(Measured::most)),
        );
    }
    text += "\nThis is time on this host, which must have nothing else to do: compare the ratios, and nothing else. Two machines\n\
        have nothing but the host in common, so theirs is the most that it has for two: if it is far below 2, so is the host.\n\
        A null_syscall shares nothing in the kernel: if its ratio is far below 2, the machine has no more for two CPUs now.\n";
    text
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_one_round() {
        let measured = |host: f64, two_cpus: f64, two_machines: f64| Measured {
            one_cpu: 100.0 * host,
            two_cpus: two_cpus * host,
            two_machines: two_machines * host,
        };
        // The host is twice as fast in the end.
        let rounds = vec![
            measured(1.0, 190.0, 195.0),
            measured(1.0, 180.0, 190.0),
            measured(2.0, 195.0, 196.0),
        ];
        let slow = vec![measured(1.0, 100.0, 190.0)];
        let text = table(&[
            ("a".to_owned(), rounds),
            ("b".to_owned(), slow.clone()),
            (MACHINE.to_owned(), slow),
        ]);
        let lines: Vec<_> = text.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(
            words(1),
            ["a", "100", "190", "1.90", "195", "1.95", "1.8", "met"]
        );
        assert_eq!(
            words(2),
            [
                "b", "100", "100", "1.00", "190", "1.90", "1.8", "NOT", "MET"
            ]
        );
        assert_eq!(words(3), [MACHINE, "100", "100", "1.00", "190", "1.90"]);
    }

    #[test]
    fn rates_are_found_by_work_and_cpus() {
        let output = "hello\nscale a 1 100\nscale a 2 190\nscale b 1 10\n";
        let rates = rates(output).unwrap();
        assert_eq!(names(&rates), ["a", "b"]);
        assert_eq!(rate_of(&rates, "a", 2).unwrap(), 190.0);
        assert!(rate_of(&rates, "b", 2).is_err());
    }

    #[test]
    fn nothing_is_no_result() {
        assert!(names(&rates("hello\n").unwrap()).is_empty());
        assert!(rates("scale a 1\n").is_err());
        assert!(rates("scale a one 7\n").is_err());
    }
}
