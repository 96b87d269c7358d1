//! The boot archive: a tar file with the user programs and the kernel's symbols.
//!
//! | entry | what |
//! | --- | --- |
//! | `bin/NAME` | a user program, without debug information and symbol table |
//! | `boot/kernel.sym` | the kernel's functions, `%016x NAME\n` by address, for backtraces |
//! | `boot/padding` | zeros |
//!
//! Programs begin at page boundaries, so that they can be mapped where they are. Zeros at the end of each see to that;
//! before the first, and after a program that is no ELF file, stands padding.
//!
//! The same programs give the same bytes: entries are sorted and have no owner and no time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::build::elf::Builder;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind, elf};

/// The section in which a test program names its cases, each ended by a zero byte.
const SCENARIOS: &str = ".cowslip.scenarios";

/// Where programs are.
const PROGRAMS: &str = "bin/";

/// A unit of the archive: headers are as long, and contents end with one.
const BLOCK: usize = 512;

/// What programs begin at a multiple of.
const PAGE: usize = 4096;

/// How the names of programs begin that nobody runs but to test or to measure.
const FOR_TESTS: [&str; 2] = ["test_", "bench_"];

/// Whether a program of this name is there to test or to measure.
pub(crate) fn is_for_tests(program: &str) -> bool {
    what_is_tested(program) != program
}

/// The name without what says that the program is there to test or to measure.
pub(crate) fn what_is_tested(program: &str) -> &str {
    let mut prefixes = FOR_TESTS.iter();
    prefixes
        .find_map(|prefix| program.strip_prefix(prefix))
        .unwrap_or(program)
}

/// Entries by name.
#[derive(Clone, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Vec<u8>>,
}

impl Archive {
    /// Adds a program as `bin/NAME`, stripped. A later one of the same name replaces it.
    pub(crate) fn add_program(&mut self, path: &Path) -> Result<()> {
        let bytes = read(path)?;
        let mut stripped =
            strip(&bytes).with_context(|| format!("cannot strip {}", path.display()))?;
        if is_elf(&stripped) {
            stripped.resize(padded(stripped.len()), 0);
        }
        let name = path
            .file_name()
            .context("a program needs a name")?
            .to_string_lossy();
        self.entries.insert(format!("{PROGRAMS}{name}"), stripped);
        Ok(())
    }

    /// Adds the kernel's symbols.
    pub(crate) fn add_symbols(&mut self, kernel: &Path) -> Result<()> {
        self.entries
            .insert("boot/kernel.sym".into(), symbols_of(kernel)?.into_bytes());
        Ok(())
    }

    /// The same without the programs that are there to test or to measure.
    pub(crate) fn without_tests(&self) -> Archive {
        let mut entries = self.entries.clone();
        entries.retain(|name, _| !name.strip_prefix(PROGRAMS).is_some_and(is_for_tests));
        Archive { entries }
    }

    /// The archive's bytes.
    pub(crate) fn into_tar(self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.entries {
            if name.starts_with(PROGRAMS) {
                align(&mut tar)?;
            }
            append(&mut tar, name, bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// Appends an entry.
fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(name)
        .with_context(|| format!("{name} is too long for an archive"))?;
    header.set_size(bytes.len() as u64);
    header.set_mode(if name.starts_with(PROGRAMS) {
        0o755
    } else {
        0o644
    });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(tar.append(&header, bytes)?)
}

/// The length of a program with zeros behind it, as many as make the next header's end a page's end.
fn padded(len: usize) -> usize {
    (len + BLOCK).next_multiple_of(PAGE) - BLOCK
}

/// Appends padding, if it takes some, so that the contents of the next entry begin at a page boundary.
fn align(tar: &mut tar::Builder<Vec<u8>>) -> Result<()> {
    match padded(tar.get_ref().len()) - tar.get_ref().len() {
        0 => Ok(()),
        // Padding has a header too.
        room => append(tar, "boot/padding", &vec![0; room - BLOCK]),
    }
}

/// The functions of an executable, `%016x NAME\n` by address.
pub(crate) fn symbols_of(program: &Path) -> Result<String> {
    symbols(&read(program)?)
        .with_context(|| format!("cannot read the symbols of {}", program.display()))
}

/// The names of the test cases that a program says it has.
pub(crate) fn scenarios(program: &Path) -> Result<Vec<String>> {
    let bytes = read(program)?;
    let elf = ElfFile64::<object::Endianness>::parse(&bytes[..])?;
    match elf.section_by_name(SCENARIOS) {
        Some(section) => Ok(zero_separated(section.data()?)),
        None => Ok(Vec::new()),
    }
}

/// Names ended by zero bytes; padding between them counts for nothing.
fn zero_separated(data: &[u8]) -> Vec<String> {
    data.split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// Whether this is a 64-bit ELF file.
fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02")
}

/// Drops what only a debugger needs. Anything but a 64-bit ELF file is left as it is.
fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    if !is_elf(bytes) {
        return Ok(bytes.to_vec());
    }
    let mut builder = Builder::read(bytes)?;
    for section in &mut builder.sections {
        let loaded = section.sh_flags & elf::SHF_ALLOC == elf::SHF_ALLOC;
        let kept = loaded || *section.name == *SCENARIOS.as_bytes();
        section.delete = !kept && section.sh_type != elf::SHT_STRTAB;
        section.delete |= *section.name == *b".strtab";
    }
    for symbol in &mut builder.symbols {
        symbol.delete = true;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// The functions of an ELF file, one line each, by address.
fn symbols(bytes: &[u8]) -> Result<String> {
    let file = ElfFile64::<object::Endianness>::parse(bytes)?;
    let mut functions = BTreeMap::new();
    for symbol in file.symbols() {
        let code = matches!(symbol.kind(), SymbolKind::Text) && symbol.is_definition();
        if let (true, Ok(name)) = (code, symbol.name()) {
            functions.entry(symbol.address()).or_insert(name);
        }
    }
    if functions.is_empty() {
        bail!("it has no function symbols");
    }
    let mut text = String::new();
    for (address, name) in functions {
        writeln!(text, "{address:016x} {:#}", rustc_demangle::demangle(name))?;
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_sorted_and_timeless() {
        let mut archive = Archive::default();
        archive
            .entries
            .insert("boot/kernel.sym".into(), b"text".to_vec());
        archive.entries.insert("bin/init".into(), vec![0; 1000]);
        let bytes = archive.into_tar().unwrap();
        let mut tar = tar::Archive::new(&bytes[..]);
        let entries: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (
                    entry.path().unwrap().display().to_string(),
                    header.mtime().unwrap(),
                    entry.size(),
                )
            })
            .collect();
        assert_eq!(
            entries,
            [
                ("boot/padding".into(), 0, 3072),
                ("bin/init".into(), 0, 1000),
                ("boot/kernel.sym".into(), 0, 4)
            ]
        );
    }

    #[test]
    fn programs_begin_at_page_boundaries() {
        let mut archive = Archive::default();
        archive
            .add_program(&std::env::current_exe().unwrap())
            .unwrap();
        for (name, len) in [
            ("bin/a", 1),
            ("bin/b", 4096),
            ("bin/c", 3000),
            ("bin/d", 3072),
        ] {
            archive.entries.insert(name.into(), vec![0x5a; len]);
        }
        let bytes = archive.into_tar().unwrap();
        let mut tar = tar::Archive::new(&bytes[..]);
        let entries = tar.entries().unwrap().map(Result::unwrap);
        let programs: Vec<_> = entries
            .filter(|entry| entry.path().unwrap().starts_with(PROGRAMS))
            .collect();
        assert_eq!(programs.len(), 5);
        for program in programs {
            assert_eq!(program.raw_file_position() % PAGE as u64, 0);
        }
    }

    #[test]
    fn test_programs_can_be_left_out() {
        let mut archive = Archive::default();
        for name in ["bin/bench_x", "bin/sh", "bin/test_x", "boot/test_x"] {
            archive.entries.insert(name.into(), Vec::new());
        }
        let left: Vec<_> = archive.without_tests().entries.into_keys().collect();
        assert_eq!(left, ["bin/sh", "boot/test_x"]);
    }

    #[test]
    fn scenario_names_are_split_at_zero_bytes() {
        assert_eq!(
            zero_separated(b"one\0two\0\0\0three"),
            ["one", "two", "three"]
        );
        assert!(zero_separated(b"").is_empty());
    }

    #[test]
    fn scripts_are_not_stripped() {
        assert_eq!(strip(b"#!/bin/sh\n").unwrap(), b"#!/bin/sh\n");
    }

    #[test]
    fn stripping_keeps_what_is_loaded() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let stripped = strip(&own).unwrap();
        let file = ElfFile64::<object::Endianness>::parse(&stripped[..]).unwrap();
        assert!(file.section_by_name(".text").is_some());
        assert!(file.section_by_name(".debug_info").is_none());
        assert_eq!(file.symbols().count(), 0);
        assert!(stripped.len() < own.len());
    }

    #[test]
    fn symbols_are_demangled_and_sorted() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let text = symbols(&own).unwrap();
        let addresses: Vec<_> = text.lines().map(|line| &line[..16]).collect();
        assert!(addresses.is_sorted());
        assert!(text.contains("xtask::archive::symbols\n"));
    }
}
