//! Backtraces of programs, with functions and lines: in what a machine says while it runs, and by `cargo xtask symbolize` in
//! the log of another one.
//!
//! A program prints `  #1 crash 0x61234` for each frame: it has neither names nor lines itself. The ELF file on the host has, so here
//! that becomes
//!
//! ```text
//!   #1 crash 0x61234 write at user-apps/src/bin/crash.rs:51
//!        in crash::run at user-apps/src/bin/crash.rs:24
//! ```
//!
//! where the second line says in which function the first was inlined.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use addr2line::Loader;
use anyhow::Result;

use crate::build::{BuildArgs, Built, build};
use crate::workspace::own_file;

/// How a frame's line begins.
const MARK: &str = "  #";

/// Which log.
#[derive(clap::Args)]
pub(crate) struct SymbolizeArgs {
    #[command(flatten)]
    build: BuildArgs,
}

/// Runs the task: from stdin to stdout.
pub(crate) fn main(args: &SymbolizeArgs) -> Result<ExitCode> {
    let built = build(&args.build)?;
    let mut output = Symbolized::new(std::io::stdout().lock(), &built);
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        output.write_all(&line)?;
        line.clear();
    }
    drop(output);
    built.discard_own_archive();
    Ok(ExitCode::SUCCESS)
}

/// Writes on what it is given, with functions and lines behind frames. Everything but what may become a frame's line is written at once.
pub(crate) struct Symbolized<'a, W: Write> {
    output: W,
    built: &'a Built,
    /// The beginning of a line that may be a frame's.
    line: Vec<u8>,
    /// Whether the line is none, and its rest goes on as it comes.
    passes: bool,
}

impl<'a, W: Write> Symbolized<'a, W> {
    /// Frames of programs of this build, before this output.
    pub(crate) fn new(output: W, built: &'a Built) -> Self {
        Symbolized {
            output,
            built,
            line: Vec::new(),
            passes: false,
        }
    }

    fn take(&mut self, byte: u8) -> std::io::Result<()> {
        self.line.push(byte);
        let len = self.line.len().min(MARK.len());
        self.passes |= self.line[..len] != MARK.as_bytes()[..len];
        if !self.passes && byte != b'\n' {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        match Frame::parse(text.trim_end_matches(['\r', '\n'])) {
            Some(frame) if !self.passes => {
                let end = if text.ends_with("\r\n") { "\r\n" } else { "\n" };
                let elf = self.built.program(frame.program);
                let lines = frame.explained(&places(&elf, frame.address));
                self.output.write_all((lines.join(end) + end).as_bytes())?;
            }
            _ => self.output.write_all(&line)?,
        }
        // With the next byte another line begins.
        self.passes &= byte != b'\n';
        Ok(())
    }
}

impl<W: Write> Write for Symbolized<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        bytes.iter().try_for_each(|&byte| self.take(byte))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// Writes what was held back.
impl<W: Write> Drop for Symbolized<'_, W> {
    fn drop(&mut self) {
        let written = self.output.write_all(&self.line);
        // Whoever reads may have gone.
        let _ = written.and_then(|()| self.output.flush());
    }
}

/// A frame as a program has printed it.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'t> {
    /// The line.
    text: &'t str,
    program: &'t str,
    address: u64,
}

impl<'t> Frame<'t> {
    /// `  #1 crash 0x61234`
    fn parse(text: &'t str) -> Option<Self> {
        let mut words = text.strip_prefix(MARK)?.split(' ');
        let (number, program, address) = (words.next()?, words.next()?, words.next()?);
        number.parse::<u32>().ok()?;
        let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        // A name, and no way to another file.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let is_good = words.next().is_none() && program.chars().all(is_name);
        is_good.then_some(Frame {
            text,
            program,
            address,
        })
    }

    /// The lines with the places that the address stands for.
    fn explained(&self, places: &[String]) -> Vec<String> {
        let [first, outer @ ..] = places else {
            return vec![self.text.to_owned()];
        };
        let outer = outer.iter().map(|place| format!("       in {place}"));
        std::iter::once(format!("{} {first}", self.text))
            .chain(outer)
            .collect()
    }
}

/// The functions that an address of an executable is in, with file and line: the innermost first, each inlined in the next.
///
/// Line tables have no more of an inlined function's name than its last part; the symbol table has all of the outermost's.
pub(crate) fn places(elf: &Path, address: u64) -> Vec<String> {
    let Ok(loader) = Loader::new(elf) else {
        return Vec::new();
    };
    let (mut names, mut lines) = (Vec::new(), Vec::new());
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref();
            let name = name.and_then(|name| name.raw_name().ok());
            names.push(without_types(&name.unwrap_or("?".into())).to_owned());
            let line = frame
                .location
                .and_then(|location| location.file.zip(location.line));
            lines.push(line.map(|(file, line)| format!(" at {}:{line}", shown(file))));
        }
    }
    if let Some(symbol) = loader.find_symbol(address) {
        names.pop();
        names.push(format!("{:#}", rustc_demangle::demangle(symbol)));
    }
    let lines = lines.into_iter().map(Option::unwrap_or_default);
    let lines = lines.chain(std::iter::repeat(String::new()));
    names
        .into_iter()
        .zip(lines)
        .map(|(name, line)| name + &line)
        .collect()
}

/// The name of a function without those of the types that it was made for.
fn without_types(name: &str) -> &str {
    match name.find('<') {
        None | Some(0) => name,
        Some(at) => &name[..at],
    }
}

/// A source file from the workspace's root on, or from the standard library's.
fn shown(file: &str) -> String {
    if let Some(own) = own_file(file) {
        return own.to_owned();
    }
    match file.split_once("/library/") {
        Some((_, rest)) => format!("library/{rest}"),
        None => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a text, whole and byte by byte, which must not differ.
    fn symbolized(text: &str) -> String {
        let built = Built::default();
        let [whole, pieces] = [text.len().max(1), 1].map(|len| {
            let mut output = Vec::new();
            let mut writer = Symbolized::new(&mut output, &built);
            for piece in text.as_bytes().chunks(len) {
                writer.write_all(piece).unwrap();
            }
            drop(writer);
            String::from_utf8(output).unwrap()
        });
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn what_is_no_frame_stays_as_it_is() {
        for text in [
            "",
            "\n\n",
            "hello\r\n",
            " #1 a 0x1\n",
            "  #",
            "  #x a 0x1\n",
            "  #1 a 0x1 b\n",
            "  #1 a/../b 0x1\n",
            "  #1 nobody 0x10\r\n",
            "$ ",
        ] {
            assert_eq!(symbolized(text), text);
        }
    }

    #[test]
    fn a_prompt_is_not_held_back() {
        let built = Built::default();
        let mut writer = Symbolized::new(Vec::new(), &built);
        writer.write_all(b"  two\nx$ ").unwrap();
        assert_eq!(writer.output, b"  two\nx$ ");
    }

    #[test]
    fn frames_are_understood() {
        let text = "  #12 crash 0x61234";
        let frame = Frame::parse(text).unwrap();
        assert_eq!((frame.program, frame.address), ("crash", 0x6_1234));
        let places = ["a at b.rs:1".to_owned(), "c at d.rs:2".to_owned()];
        let lines = ["  #12 crash 0x61234 a at b.rs:1", "       in c at d.rs:2"];
        assert_eq!(frame.explained(&places), lines);
        assert_eq!(frame.explained(&[]), [text]);
    }

    #[test]
    fn the_types_of_a_function_are_left_out() {
        assert_eq!(without_types("serve<a::B<C>, D>"), "serve");
        assert_eq!(without_types("<impl A>::b"), "<impl A>::b");
        assert_eq!(without_types("run"), "run");
    }

    #[test]
    fn an_address_has_its_function_and_line() {
        let own = std::env::current_exe().unwrap();
        let here = places as *const () as u64;
        let base = std::fs::read_to_string("/proc/self/maps").unwrap();
        let base = u64::from_str_radix(base.split('-').next().unwrap(), 16).unwrap();
        let found = places(&own, here - base);
        let outermost = found.last().expect("a function");
        assert!(
            outermost.starts_with("xtask::symbolize::places at xtask/src/symbolize.rs:"),
            "{outermost}"
        );
    }
}
