//! `cargo xtask bench --host`: the copy-on-write engine on this machine, in nanoseconds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::table::{grouped, ratio};
use crate::workspace::{cargo, output_dir, succeed};

/// What copying the same pages takes: of operations on memory that no cache holds, and of others.
const MEMCPY_COLD: &str = "memcpy_cold";
const MEMCPY: &str = "memcpy";

const EXPLANATION: &str = "\
Nanoseconds on this machine: medians by criterion, with half of their 95 % confidence interval. The engine works on simulated
physical memory: flushes of the TLB and changes of mode are not in them. Operations called cold go through 256 MiB.
ratio: to memcpy of as many pages; below 1 is better.";

/// Runs the benchmarks of operations whose name contains `filter`; returns the table.
pub(super) fn host(filter: &str) -> Result<String> {
    let home = output_dir()?.join("criterion");
    if home.exists() {
        std::fs::remove_dir_all(&home)
            .with_context(|| format!("cannot remove {}", home.display()))?;
    }
    let mut command = cargo();
    command
        .args([
            "bench",
            "--package",
            "kernel-benches",
            "--bench",
            "engine",
            "--",
        ])
        // What operations are compared with always runs.
        .args((!filter.is_empty()).then(|| format!("^memcpy|{filter}")))
        .env("CRITERION_HOME", &home)
        // The table is what this command says; the rest is how it goes.
        .stdout(Stdio::from(io::stderr()));
    succeed(&mut command)?;
    let timings = timings(&home)?;
    if !timings
        .keys()
        .any(|(operation, _)| operation.contains(filter))
    {
        bail!("no operation's name contains `{filter}`");
    }
    Ok(table(&timings))
}

/// What an operation on so many pages took, by name and number.
type Timings = BTreeMap<(String, u64), Timing>;

/// A median in nanoseconds, and the ends of its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Timing {
    ns: f64,
    low: f64,
    high: f64,
}

/// The part that matters of what criterion writes about a benchmark.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

impl Timing {
    fn parse(estimates: &str) -> Result<Timing> {
        let Estimates { median } = serde_json::from_str(estimates)?;
        Ok(Timing {
            ns: median.point_estimate,
            low: median.confidence_interval.lower_bound,
            high: median.confidence_interval.upper_bound,
        })
    }

    /// Half of the confidence interval, in percent.
    fn spread(self) -> f64 {
        (self.high - self.low) / 2.0 / self.ns * 100.0
    }
}

/// Reads `OPERATION/PAGES/new/estimates.json` below a folder.
fn timings(home: &Path) -> Result<Timings> {
    let mut timings = Timings::new();
    if !home.exists() {
        return Ok(timings);
    }
    for operation in names_in(home)? {
        for number in names_in(&home.join(&operation))? {
            let Ok(nr_pages) = number.parse() else {
                continue;
            };
            let path = home
                .join(&operation)
                .join(&number)
                .join("new/estimates.json");
            let timing = std::fs::read_to_string(&path)
                .map_err(Into::into)
                .and_then(|text| Timing::parse(&text))
                .with_context(|| format!("in {}", path.display()))?;
            timings.insert((operation.clone(), nr_pages), timing);
        }
    }
    Ok(timings)
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

fn table(timings: &Timings) -> String {
    let mut text = format!(
        "{:<16}{:>8}{:>14}{:>8}{:>14}{:>16}{:>8}\n",
        "operation", "pages", "ns", "+-", "ns a page", "memcpy a page", "ratio"
    );
    for ((operation, nr_pages), timing) in timings {
        let a_page = |timing: &Timing| timing.ns / *nr_pages as f64;
        let memcpy = match operation.as_str() {
            MEMCPY | MEMCPY_COLD => None,
            cold if cold.ends_with("_cold") => timings.get(&(MEMCPY_COLD.into(), *nr_pages)),
            _ => timings.get(&(MEMCPY.into(), *nr_pages)),
        };
        let shown = format!(
            "{operation:<16}{:>8}{:>14}{:>8}{:>14}{:>16}{:>8}",
            grouped(*nr_pages as f64),
            grouped(timing.ns),
            format!("{:.1} %", timing.spread()),
            grouped(a_page(timing)),
            memcpy.map_or(String::new(), |memcpy| grouped(a_page(memcpy))),
            memcpy.map_or(String::new(), |memcpy| ratio(timing.ns / memcpy.ns)),
        );
        text += shown.trim_end();
        text += "\n";
    }
    format!("{text}\n{EXPLANATION}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATES: &str = r#"{
        "mean": { "point_estimate": 9.0 },
        "median": {
            "confidence_interval": { "confidence_level": 0.95, "lower_bound": 95.0, "upper_bound": 105.0 },
            "point_estimate": 100.0,
            "standard_error": 1.0
        },
        "slope": null
    }"#;

    #[test]
    fn criterions_files_are_read() {
        let timing = Timing::parse(ESTIMATES).unwrap();
        assert_eq!((timing.ns, timing.spread()), (100.0, 5.0));
        assert!(Timing::parse("{}").is_err());
    }

    #[test]
    fn results_are_found_by_operation_and_pages() {
        let scratch = crate::machine::Scratch::new().unwrap();
        let folder = scratch.path().join("send/16/new");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(scratch.path().join("send/report")).unwrap();
        std::fs::write(folder.join("estimates.json"), ESTIMATES).unwrap();
        let timings = timings(scratch.path()).unwrap();
        assert_eq!(timings.len(), 1);
        assert_eq!(timings[&("send".into(), 16)].ns, 100.0);
    }

    #[test]
    fn memcpy_stands_beside_operations() {
        let timing = |ns| Timing {
            ns,
            low: ns,
            high: ns,
        };
        let timings = Timings::from([
            (("memcpy".into(), 16), timing(1600.0)),
            (("memcpy_cold".into(), 16), timing(6400.0)),
            (("send".into(), 16), timing(800.0)),
            (("send_cold".into(), 16), timing(640.0)),
        ]);
        let text = table(&timings);
        let words = |nth: usize| {
            let line = text.lines().nth(nth).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(1), "memcpy 16 1,600 0.0 % 100");
        assert_eq!(words(3), "send 16 800 0.0 % 50 100 0.50");
        assert_eq!(words(4), "send_cold 16 640 0.0 % 40 400 0.10");
    }
}
