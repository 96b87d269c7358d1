//! `cargo xtask bench --scale`: how much more two CPUs do than one, by the clock.
//!
//! QEMU runs each CPU as a thread of the host then, and nothing is counted: what one CPU does in half a second is the
//! host's speed, but how much more two do in the same time says what they wait for each other. That is a
//! ratio of times, so it needs a host that has nothing else to do, and CPUs for both.

use std::fmt::Write;

use anyhow::{Context, Result, bail};

use super::guest::Guest;
use super::table::{grouped, ratio};

/// How much more two CPUs shall do than one.
const GOAL: f64 = 1.8;

/// The work that calls no kernel.
const CEILING: &str = "compute";

/// Operations per second, in one measurement.
#[derive(Debug, PartialEq)]
struct Rate {
    work: String,
    nr_cpus: u32,
    per_second: u64,
}

/// Measures, and returns the table.
pub(super) fn scale(guest: &Guest) -> Result<String> {
    table(&rates(&guest.scale()?)?)
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

/// A line for each work: the medians, and the median of the ratios of neighbouring measurements, as a host
/// gets slower and faster.
fn table(rates: &[Rate]) -> Result<String> {
    let mut works = Vec::new();
    for rate in rates {
        if !works.contains(&&rate.work) {
            works.push(&rate.work);
        }
    }
    if works.is_empty() {
        bail!("nothing was measured");
    }
    let mut text = format!(
        "{:<10}  {:>12}  {:>12}  {:>5}  {:>4}\n",
        "work", "1 CPU, 1/s", "2 CPUs, 1/s", "ratio", "goal"
    );
    for work in works {
        let of = |nr_cpus| {
            let wanted = rates
                .iter()
                .filter(move |rate| rate.work == *work && rate.nr_cpus == nr_cpus);
            wanted.map(|rate| rate.per_second as f64).collect()
        };
        let (one, two): (Vec<f64>, Vec<f64>) = (of(1), of(2));
        let ratios: Vec<_> = one.iter().zip(&two).map(|(one, two)| two / one).collect();
        let times = median(ratios).with_context(|| format!("no ratio of {work}"))?;
        let [one, two] = [one, two].map(|rates| grouped(median(rates).unwrap_or(0.0).round()));
        let verdict = match work.as_str() {
            CEILING => "     what this host has for two".to_owned(),
            _ if times >= GOAL => format!("{GOAL:>4}  met"),
            _ => format!("{GOAL:>4}  NOT MET"),
        };
        let times = ratio(times);
        writeln!(
            text,
            "{work:<10}  {one:>12}  {two:>12}  {times:>5}  {verdict}"
        )?;
    }
    text += "\nThis is time on this host, which must have nothing else to do: compare the ratios, and nothing else.\n";
    Ok(text)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbours() {
        // The host is twice as fast in the end.
        let output = "hello\n\
            scale a 1 100\nscale a 2 190\n\
            scale a 1 100\nscale a 2 180\n\
            scale compute 1 10\nscale compute 2 10\n\
            scale b 1 10\nscale b 2 10\n\
            scale a 1 200\nscale a 2 380\n";
        let text = table(&rates(output).unwrap()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(1), ["a", "100", "190", "1.90", "1.8", "met"]);
        assert_eq!(words(2)[..5], ["compute", "10", "10", "1.00", "what"]);
        assert_eq!(words(3), ["b", "10", "10", "1.00", "1.8", "NOT", "MET"]);
    }

    #[test]
    fn nothing_is_no_result() {
        assert!(table(&rates("hello\n").unwrap()).is_err());
        assert!(table(&rates("scale a 1 100\n").unwrap()).is_err());
        assert!(rates("scale a 1\n").is_err());
        assert!(rates("scale a one 7\n").is_err());
    }
}
