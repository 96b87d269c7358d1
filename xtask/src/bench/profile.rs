//! `cargo xtask bench --profile OPERATION`: which functions the instructions of one round are in.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use addr2line::Loader;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::guest::{Guest, Subject};
use super::table::grouped;
use super::trace::{self, Histogram, Marks, Window};
use crate::archive::symbols_of;
use crate::machine::Scratch;
use crate::workspace::own_file;

/// Where the upper half of the address space begins: the kernel's.
const KERNEL: u64 = 1 << 63;

/// Profiles an operation; returns what is to be said about it.
pub(super) fn profile(guest: &Guest, operation: &str) -> Result<String> {
    let subject = Subject::ALL
        .iter()
        .find(|subject| subject.has(operation))
        .with_context(|| format!("no bench program has an operation `{operation}`"))?;
    let kernel = Code::read(guest.kernel())?;
    let user = Code::read(&guest.program(subject.name()))?;
    let marks = Marks {
        begin: user.function("user_apps::bench::trace_begin")?,
        end: user.function("user_apps::bench::trace_end")?,
    };
    let (measured, window) = trace(guest, subject, operation, marks)?;
    let (in_kernel, in_user): (Histogram, Histogram) = window
        .addresses
        .into_iter()
        .partition(|&(address, _)| address >= KERNEL);
    let mut text = format!(
        "{operation}: {} instructions, and {} around them\n",
        grouped(measured as f64),
        window.length - measured
    );
    text += &section("kernel", &kernel, &in_kernel);
    text += &section(subject.name(), &user, &in_user);
    text += "Functions that were inlined stand below the one that they are in. Attempts that fault count here.\n";
    if subject.name() == "bench_process" {
        text += "Servers have code at the same addresses: names in user mode may be wrong.\n";
    }
    Ok(text)
}

/// Runs one round under a trace; returns its length by the clock, and what was run.
fn trace(guest: &Guest, subject: &Subject, operation: &str, marks: Marks) -> Result<(u64, Window)> {
    let scratch = Scratch::new()?;
    let pipe = scratch.path().join("trace");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .context("cannot make a pipe")?;
    let (readings, windows) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| trace::windows(BufReader::new(File::open(&pipe)?), marks));
        let readings = guest.traced(subject, operation, &pipe);
        // A reader that still waits for a machine that never came finds the pipe's end.
        drop(File::options().read(true).write(true).open(&pipe));
        (readings, reader.join().expect("no panic"))
    });
    let readings = readings?;
    let Some(reading) = readings.iter().find(|reading| reading.name == operation) else {
        bail!("{} has no operation `{operation}`", subject.name());
    };
    let window = trace::of_length(windows?, reading.median)
        .with_context(|| format!("no round of {operation} is in the trace"))?;
    Ok((reading.median, window))
}

/// An executable with its names.
struct Code {
    loader: Loader,
    /// Lines of address and name.
    symbols: String,
}

impl Code {
    fn read(path: &Path) -> Result<Code> {
        let loader = Loader::new(path)
            .map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
        Ok(Code {
            loader,
            symbols: symbols_of(path)?,
        })
    }

    /// The address of a function.
    fn function(&self, name: &str) -> Result<u64> {
        let mut lines = self.symbols.lines().filter_map(|line| line.split_once(' '));
        let address = lines.find(|&(_, function)| function == name);
        let (address, _) =
            address.with_context(|| format!("the program has no function `{name}`"))?;
        Ok(u64::from_str_radix(address, 16)?)
    }

    /// The function at an address, and the one inlined into it that the instruction is from: the
    /// innermost of this project's own, with its file, for those of the standard library say little.
    fn names(&self, address: u64) -> (String, String) {
        let mut frames = Vec::new();
        if let Ok(mut found) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = found.next() {
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|name| name.demangle().ok());
                let file = frame.location.and_then(|location| location.file);
                frames.extend(name.map(|name| (short(&name), file.and_then(own_file))));
            }
        }
        let symbol = self.loader.find_symbol(address).map(|symbol| {
            let name = rustc_demangle::demangle(symbol);
            short(&format!("{name:#}"))
        });
        let outer = symbol.or_else(|| frames.last().map(|(name, _)| name.clone()));
        let outer = outer.unwrap_or_else(|| "?".into());
        // What is not inlined is the function itself.
        frames.pop();
        let inner = frames
            .into_iter()
            .find_map(|(name, file)| Some(format!("{name}  {}", file?)));
        let inner = inner.unwrap_or_else(|| outer.clone());
        (outer, inner)
    }
}

/// A function's name without the hash at its end.
fn short(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 => path.to_owned(),
        _ => name.to_owned(),
    }
}

fn section(title: &str, code: &Code, histogram: &Histogram) -> String {
    let mut functions: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (&address, &count) in histogram {
        let (outer, inner) = code.names(address);
        *functions
            .entry(outer)
            .or_default()
            .entry(inner)
            .or_default() += count;
    }
    listing(title, &functions)
}

/// Functions by what is in them, most first.
fn listing(title: &str, functions: &BTreeMap<String, BTreeMap<String, u64>>) -> String {
    let sum = |parts: &BTreeMap<String, u64>| parts.values().sum::<u64>();
    let total: u64 = functions.values().map(sum).sum();
    let mut text = format!("{:>12}  {title}\n", grouped(total as f64));
    let mut ordered: Vec<_> = functions.iter().collect();
    ordered.sort_by_key(|(name, parts)| (u64::MAX - sum(parts), *name));
    for (name, parts) in ordered {
        let _ = writeln!(text, "{:>12}    {name}", grouped(sum(parts) as f64));
        let mut parts: Vec<_> = parts.iter().filter(|(part, _)| *part != name).collect();
        parts.sort_by_key(|&(part, count)| (u64::MAX - count, part));
        for (part, &count) in parts {
            let _ = writeln!(text, "{:>20}  {part}", grouped(count as f64));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_no_names() {
        assert_eq!(short("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(short("a::hello"), "a::hello");
    }

    #[test]
    fn most_comes_first() {
        let parts = |parts: &[(&str, u64)]| {
            parts
                .iter()
                .map(|&(name, count)| (name.to_owned(), count))
                .collect()
        };
        let functions = BTreeMap::from([
            ("few".to_owned(), parts(&[("few", 5)])),
            ("many".to_owned(), parts(&[("many", 10), ("inlined", 20)])),
        ]);
        let expected = "          35  kernel\n          30    many\n                  20  inlined\n           5    few\n";
        assert_eq!(listing("kernel", &functions), expected);
    }
}
