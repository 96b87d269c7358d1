//! `cargo xtask bench --scale`: how much more two CPUs do than one, by the clock.
//!
//! QEMU runs each CPU as a thread of the host then, and nothing is counted: what one CPU does in half a second is the
//! host's speed, but how much more two do in the same time says what they wait for each other. That is a
//! ratio of times, so it needs a host that has nothing else to do, and CPUs for both.
//!
//! Two threads of a host also share its caches, and whatever else its owner gives to others. So the same is done by two
//! machines at the same time, of one CPU each, which have nothing but the host in common: beyond that no kernel comes.

use std::fmt::Write;
use std::thread;

use anyhow::{Context, Result, bail};

use super::guest::Guest;
use super::table::{grouped, ratio};

/// How much more two CPUs shall do than one.
const GOAL: f64 = 1.8;

/// Operations per second, in one measurement.
#[derive(Debug, PartialEq)]
struct Rate {
    work: String,
    nr_cpus: u32,
    per_second: u64,
}

/// What was measured of one work.
struct Row {
    work: String,
    /// Operations per second of one CPU, and of two.
    per_second: [f64; 2],
    /// How much more two do than one.
    ratio: f64,
    /// Operations per second of two machines.
    of_two_machines: f64,
}

/// Measures, and returns the table.
pub(super) fn scale(guest: &Guest) -> Result<String> {
    let rates = rates(&guest.scale(None)?)?;
    let works = works(&rates);
    if works.is_empty() {
        bail!("nothing was measured");
    }
    let mut rows = Vec::new();
    for work in works {
        rows.push(row(&rates, work, two_machines(guest, work)?)?);
    }
    Ok(table(&rows))
}

/// Operations per second of two machines that do this work on one CPU each, at the same time.
fn two_machines(guest: &Guest, work: &str) -> Result<f64> {
    let one = || -> Result<f64> {
        let rates = rates(&guest.scale(Some(work))?)?;
        let per_second = rates.iter().map(|rate| rate.per_second as f64).collect();
        median(per_second).with_context(|| format!("{work} was not measured alone"))
    };
    thread::scope(|scope| {
        let other = scope.spawn(one);
        let here = one()?;
        let there = other.join().expect("it returns its errors")?;
        Ok(here + there)
    })
}

/// The names of the works, each once.
fn works(rates: &[Rate]) -> Vec<&str> {
    let mut works = Vec::new();
    for rate in rates {
        if !works.contains(&rate.work.as_str()) {
            works.push(&rate.work);
        }
    }
    works
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

/// The medians of a work, and the median of the ratios of neighbouring measurements, as a host gets slower and faster.
fn row(rates: &[Rate], work: &str, of_two_machines: f64) -> Result<Row> {
    let of = |nr_cpus| {
        let wanted = rates
            .iter()
            .filter(move |rate| rate.work == work && rate.nr_cpus == nr_cpus);
        wanted.map(|rate| rate.per_second as f64).collect()
    };
    let (one, two): (Vec<f64>, Vec<f64>) = (of(1), of(2));
    let ratios = one.iter().zip(&two).map(|(one, two)| two / one).collect();
    let medians = [ratios, one, two].map(median);
    let [Some(ratio), Some(one), Some(two)] = medians else {
        bail!("no ratio of {work}");
    };
    Ok(Row {
        work: work.to_owned(),
        per_second: [one, two],
        ratio,
        of_two_machines,
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<10}  {:>12}  {:>12}  {:>5}  {:>15}  {:>5}  {:>4}\n",
        "work", "1 CPU, 1/s", "2 CPUs, 1/s", "ratio", "2 machines, 1/s", "ratio", "goal"
    );
    for row in rows {
        let [one, two] = row.per_second;
        let met = if row.ratio >= GOAL { "met" } else { "NOT MET" };
        let most = row.of_two_machines;
        let _ = writeln!(
            text,
            "{:<10}  {:>12}  {:>12}  {:>5}  {:>15}  {:>5}  {GOAL:>4}  {met}",
            row.work,
            grouped(one.round()),
            grouped(two.round()),
            ratio(row.ratio),
            grouped(most.round()),
            ratio(most / one),
        );
    }
    text += "\nThis is time on this host, which must have nothing else to do: compare the ratios, and nothing else. Two machines\n\
        have nothing but the host in common, so theirs is the most that it has for two.\n";
    text
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
            scale b 1 10\nscale b 2 10\n\
            scale a 1 200\nscale a 2 380\n";
        let rates = rates(output).unwrap();
        assert_eq!(works(&rates), ["a", "b"]);
        let rows = [
            row(&rates, "a", 195.0).unwrap(),
            row(&rates, "b", 19.0).unwrap(),
        ];
        let text = table(&rows);
        let lines: Vec<_> = text.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(
            words(1),
            ["a", "100", "190", "1.90", "195", "1.95", "1.8", "met"]
        );
        assert_eq!(
            words(2),
            ["b", "10", "10", "1.00", "19", "1.90", "1.8", "NOT", "MET"]
        );
    }

    #[test]
    fn nothing_is_no_result() {
        assert!(works(&rates("hello\n").unwrap()).is_empty());
        assert!(row(&rates("scale a 1 100\n").unwrap(), "a", 200.0).is_err());
        assert!(rates("scale a 1\n").is_err());
        assert!(rates("scale a one 7\n").is_err());
    }
}
