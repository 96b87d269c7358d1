//! `cargo xtask bench --scale`: how much more two CPUs do than one, by the clock.
//!
//! QEMU runs each CPU as a thread of the host then, and nothing is counted: what one CPU does in half a second is the
//! host's speed, but how much more two do in the same time says what they wait for each other. That is a
//! ratio of times, so it needs a host that has nothing else to do, and CPUs for both.
//!
//! Two threads of a host also share its caches, and whatever else its owner gives to others, which changes from one tenth of a second to the
//! next. So all is done in many short windows of time, and what counts is what the [calm] ones come to: whatever else
//! a host does makes a window slower, and none faster.
//!
//! What two CPUs could do at most is measured in two ways. Each round also has the same done by two machines at the same time, with one CPU at work
//! each, which have nothing but the host in common: beyond that no kernel comes. And one work is calls that do not exist, which share
//! nothing in the kernel: what two CPUs of one machine lack there is QEMU's, or the host's.

use std::fmt::Write;
use std::thread;

use anyhow::{Context, Result, bail};

use super::guest::Guest;
use super::table::{grouped, ratio};

/// How much more two CPUs shall do than one.
const GOAL: f64 = 1.8;

/// The work that shares nothing in the kernel: it has no goal, and says what the machine has for two CPUs.
const MACHINE: &str = "null_syscall";

/// How many times all is measured, in some windows each time.
const ROUNDS: usize = 11;

/// Operations per second of a work with so many workers, in each window.
#[derive(Debug, PartialEq)]
struct Rates {
    work: String,
    nr_cpus: u32,
    per_second: Vec<f64>,
}

/// What was measured of one work, in operations per second, in each window.
#[derive(Debug, Default)]
struct Measured {
    one_cpu: Vec<f64>,
    two_cpus: Vec<f64>,
    two_machines: Vec<f64>,
}

/// Measures, and returns the table.
pub(super) fn scale(guest: &Guest) -> Result<String> {
    let mut works: Vec<(String, Measured)> = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("xtask: round {round} of {ROUNDS}");
        let rates = rates(&guest.scale(None)?)?;
        for work in names(&rates) {
            let known = works.iter().position(|(name, _)| name == work);
            let at = known.unwrap_or_else(|| {
                works.push((work.to_owned(), Measured::default()));
                works.len() - 1
            });
            let (_, measured) = &mut works[at];
            measured.one_cpu.extend(rates_of(&rates, work, 1)?);
            measured.two_cpus.extend(rates_of(&rates, work, 2)?);
            measured.two_machines.extend(two_machines(guest, work)?);
        }
    }
    if works.is_empty() {
        bail!("nothing was measured");
    }
    Ok(table(&works))
}

/// Operations per second of two machines that do this work on one CPU each, at the same time.
fn two_machines(guest: &Guest, work: &str) -> Result<Vec<f64>> {
    let one = || -> Result<Vec<f64>> {
        let rates = rates(&guest.scale(Some(work))?)?;
        Ok(rates_of(&rates, work, 1)?.to_vec())
    };
    thread::scope(|scope| {
        let other = scope.spawn(one);
        let here = one()?;
        let there = other.join().expect("it returns its errors")?;
        Ok(here.iter().zip(there).map(|(a, b)| a + b).collect())
    })
}

/// The names of the works, each once.
fn names(rates: &[Rates]) -> Vec<&str> {
    let alone = rates.iter().filter(|rate| rate.nr_cpus == 1);
    alone.map(|rate| rate.work.as_str()).collect()
}

/// Operations per second of so many workers.
fn rates_of<'r>(rates: &'r [Rates], work: &str, nr_cpus: u32) -> Result<&'r [f64]> {
    let found = rates
        .iter()
        .find(|rates| rates.work == work && rates.nr_cpus == nr_cpus);
    let found = found.with_context(|| format!("{work} was not measured with {nr_cpus}"))?;
    Ok(&found.per_second)
}

/// The rates in a machine's output, one line each: `scale WORK CPUS OPERATIONS_PER_SECOND ...`.
fn rates(output: &str) -> Result<Vec<Rates>> {
    let lines = output
        .lines()
        .filter_map(|line| line.strip_prefix("scale "));
    lines
        .map(|line| of_line(line).with_context(|| format!("not understood: `scale {line}`")))
        .collect()
}

fn of_line(line: &str) -> Option<Rates> {
    let mut words = line.split_whitespace();
    let (work, nr_cpus) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let per_second: Option<Vec<_>> = words.map(|word| word.parse().ok()).collect();
    Some(Rates {
        work,
        nr_cpus,
        per_second: per_second.filter(|rates| !rates.is_empty())?,
    })
}

fn table(works: &[(String, Measured)]) -> String {
    let mut text = format!(
        "{:<12}  {:>12}  {:>12}  {:>5}  {:>15}  {:>5}  {:>4}\n",
        "work", "1 CPU, 1/s", "2 CPUs, 1/s", "ratio", "2 machines, 1/s", "ratio", "goal"
    );
    for (work, measured) in works {
        let [one_cpu, two_cpus, two_machines] = [
            &measured.one_cpu,
            &measured.two_cpus,
            &measured.two_machines,
        ]
        .map(|rates| calm(rates));
        let goal = match two_cpus / one_cpu {
            _ if work == MACHINE => String::new(),
            ratio if ratio >= GOAL => format!("  {GOAL:>4}  met"),
            _ => format!("  {GOAL:>4}  NOT MET"),
        };
        let _ = writeln!(
            text,
            "{work:<12}  {:>12}  {:>12}  {:>5}  {:>15}  {:>5}{goal}",
            grouped(one_cpu),
            grouped(two_cpus),
            ratio(two_cpus / one_cpu),
            grouped(two_machines),
            ratio(two_machines / one_cpu),
        );
    }
    text += "\nThis is time on this host, which must have nothing else to do: compare the ratios, and nothing else. One window of time in ten was\n\
        faster. Two machines have nothing but the host in common, so theirs is the most that it has for two; and a null_syscall\n\
        shares nothing in the kernel: if one of these is far below 2, so is what the host has for two CPUs now.\n";
    text
}

/// What the calm windows come to: one in ten was faster.
fn calm(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[(rates.len() - 1) * 9 / 10]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_what_calm_windows_come_to() {
        // In half of the windows the host had less for it.
        let windows = |calm: f64| {
            (0..110)
                .map(|i| if i % 2 == 0 { calm } else { calm / 2.0 })
                .collect()
        };
        let measured = |two_cpus: f64| Measured {
            one_cpu: windows(100.0),
            two_cpus: windows(two_cpus),
            two_machines: windows(195.0),
        };
        let works = [("a", 190.0), ("b", 100.0), (MACHINE, 100.0)];
        let text = table(&works.map(|(work, two_cpus)| (work.to_owned(), measured(two_cpus))));
        let lines: Vec<_> = text.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        let met = ["a", "100", "190", "1.90", "195", "1.95", "1.8", "met"];
        assert_eq!(words(1), met);
        let not_met = [
            "b", "100", "100", "1.00", "195", "1.95", "1.8", "NOT", "MET",
        ];
        assert_eq!(words(2), not_met);
        assert_eq!(words(3), [MACHINE, "100", "100", "1.00", "195", "1.95"]);
    }

    #[test]
    fn a_few_fast_windows_do_not_count() {
        let mut rates = vec![100.0; 11];
        rates[3] = 1000.0;
        assert_eq!(calm(&rates), 100.0);
        assert_eq!(calm(&[7.0]), 7.0);
    }

    #[test]
    fn rates_are_found_by_work_and_cpus() {
        let output = "hello\nscale a 1 100 101\nscale a 2 190 191\nscale b 1 10 10\n";
        let rates = rates(output).unwrap();
        assert_eq!(names(&rates), ["a", "b"]);
        assert_eq!(rates_of(&rates, "a", 2).unwrap(), [190.0, 191.0]);
        assert!(rates_of(&rates, "b", 2).is_err());
    }

    #[test]
    fn nothing_is_no_result() {
        assert!(names(&rates("hello\n").unwrap()).is_empty());
        assert!(rates("scale a 1\n").is_err());
        assert!(rates("scale a one 7\n").is_err());
    }
}
