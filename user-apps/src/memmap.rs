//! What lies where in a process's memory, drawn for people.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use elf::abi::{EI_NIDENT, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use elf::segment::SegmentTable;
use libipc::abi::{PAGE_SIZE, Perm, RangeKind, USER_END};
use libipc::fs::{File, Read};
use libipc::object::Range;
use libipc::services::Error;
use libipc::services::procd::ProcdClient;
use libipc::start::{self, STACK_LEN, STACK_TOP};

use crate::ps::{self, size};

/// How many times the process server is asked about one process: more than any but a malicious one takes.
const MAX_REQUESTS: usize = 1024;

/// Where `cargo xtask` links programs.
const PROGRAM: u64 = 0x6_0000;

/// The memory of a process.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// What is mapped, by address: neighbours that are alike are one.
    pub ranges: Vec<Range>,
    /// Where this ends, if that is not at the end of user memory.
    pub stopped_at: Option<u64>,
    /// Where the program ends, and what it has asked for begins; 0 if that is not known.
    pub program_end: u64,
    /// What the process is charged, in frames.
    pub commit: u64,
}

/// Pages by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Pages that only this process can reach.
    pub private: u64,
    /// Copy-on-write pages that others can reach too.
    pub cow: u64,
    /// Pages of shared memory.
    pub shared: u64,
    /// Demand-zero pages that nobody has touched.
    pub untouched: u64,
}

impl Map {
    /// Asks the process server, which tells a process about itself and its descendants.
    ///
    /// # Errors
    /// As for [`Procd::ranges`](libipc::services::procd::Procd::ranges).
    pub fn of(pid: u64) -> Result<Self, Error> {
        let procd = ProcdClient::borrow(start::procd());
        let mut map = Map::default();
        if let Ok(entry) = ps::entry(&procd, pid) {
            map.program_end = program_end(entry.name()).unwrap_or(0);
            map.commit = entry.commit;
        }
        let mut at = 0;
        for _ in 0..MAX_REQUESTS {
            let (entries, count) = procd.range_entries(pid, at)?;
            for entry in &entries[..count] {
                map.add(entry.0);
                at = entry.0.end;
            }
            if count == 0 || at == USER_END {
                return Ok(map);
            }
        }
        map.stopped_at = Some(at);
        Ok(map)
    }

    /// Adds a range behind the others, if there is something.
    fn add(&mut self, range: Range) {
        if range.kind == RangeKind::Empty {
            return;
        }
        let (before, behind) = cut(range, self.program_end);
        for part in [before, behind].into_iter().flatten() {
            let last = self.ranges.last_mut();
            let joins = part.start != self.program_end;
            if !(joins && last.is_some_and(|last| last.join(&part))) {
                self.ranges.push(part);
            }
        }
    }

    /// How many pages there are of each kind.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for range in &self.ranges {
            let sum = match range.kind {
                RangeKind::Empty => continue,
                RangeKind::Untouched => &mut sums.untouched,
                RangeKind::Private => &mut sums.private,
                RangeKind::CopyOnWrite => &mut sums.cow,
                RangeKind::Shared => &mut sums.shared,
            };
            *sum += range.nr_pages();
        }
        sums
    }

    /// What a range is, by where it is: programs are laid out alike.
    fn what(&self, range: &Range) -> &'static str {
        if (STACK_TOP - STACK_LEN..STACK_TOP).contains(&range.start) {
            return "stack";
        }
        match range.start {
            ..PROGRAM => "",
            start if start >= self.program_end => "heap",
            _ if range.perm == Perm::RX => "text",
            _ if range.perm == Perm::RW => "data",
            _ => "const",
        }
    }
}

/// What of a range lies before an address, and what behind it.
fn cut(range: Range, at: u64) -> (Option<Range>, Option<Range>) {
    let before = Range {
        end: range.end.min(at),
        ..range
    };
    let behind = Range {
        start: range.start.max(at),
        ..range
    };
    let is_some = |range: &Range| range.start < range.end;
    (Some(before).filter(is_some), Some(behind).filter(is_some))
}

/// Where a program ends, by its file, if that is one of the boot archive.
fn program_end(name: &str) -> Option<u64> {
    let mut file = File::open(&format!("/bin/{name}")).ok()?;
    let mut headers = [0; 1024];
    let len = file.read(&mut headers).ok()?;
    end_of_elf(&headers[..len])
}

/// The end of the last page that a 64-bit ELF file is loaded to, by its first bytes, which hold its program headers.
fn end_of_elf(bytes: &[u8]) -> Option<u64> {
    let (ident, rest) = bytes.split_at_checked(EI_NIDENT)?;
    let ident = parse_ident::<LittleEndian>(ident).ok()?;
    if ident.1 != Class::ELF64 {
        return None;
    }
    let tail = rest.get(..ELF64_EHDR_TAILSIZE)?;
    let header = FileHeader::parse_tail(ident, tail).ok()?;
    let len = usize::from(header.e_phentsize) * usize::from(header.e_phnum);
    let first = usize::try_from(header.e_phoff).ok()?;
    let table = bytes.get(first..)?.get(..len)?;
    let segments = SegmentTable::new(header.endianness, header.class, table);
    let loaded = segments.iter().filter(|segment| segment.p_type == PT_LOAD);
    let ends = loaded.filter_map(|segment| segment.p_vaddr.checked_add(segment.p_memsz));
    ends.max()?.checked_next_multiple_of(PAGE_SIZE as u64)
}

/// Letters of the bar: one for each kind.
const fn letter(kind: RangeKind) -> char {
    match kind {
        RangeKind::Empty => ' ',
        RangeKind::Untouched => '.',
        RangeKind::Private => '#',
        RangeKind::CopyOnWrite => '=',
        RangeKind::Shared => '~',
    }
}

/// A bar one letter longer for each time that the range is eight times as large.
fn bar(range: &Range) -> String {
    let len = range.nr_pages().max(1).ilog2() / 3 + 1;
    (0..len).map(|_| letter(range.kind)).collect()
}

const fn word(kind: RangeKind) -> &'static str {
    match kind {
        RangeKind::Empty => "",
        RangeKind::Untouched => "untouched",
        RangeKind::Private => "private",
        RangeKind::CopyOnWrite => "cow",
        RangeKind::Shared => "shared",
    }
}

fn rights(perm: Perm) -> String {
    let letter = |right, letter| if perm.contains(right) { letter } else { '-' };
    [(Perm::R, 'r'), (Perm::WRITE, 'w'), (Perm::EXECUTE, 'x')]
        .into_iter()
        .map(|(right, name)| letter(right, name))
        .collect()
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>12} {:>12}  {:>5} {:<3} {:<9} {:>5} {:>5} WHAT",
            "FROM", "TO", "SIZE", "", "KIND", "REFS", "TABLE"
        )?;
        for range in &self.ranges {
            let sharers = match range.sharers {
                0 => String::from("-"),
                sharers => format!("{sharers}"),
            };
            let line = format!(
                "{:>12x} {:>12x}  {:>5} {} {:<9} {sharers:>5} {:>5} {:<6} {}",
                range.start,
                range.end,
                size(range.nr_pages()),
                rights(range.perm),
                word(range.kind),
                table(range.shared_table),
                self.what(range),
                bar(range)
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        if let Some(at) = self.stopped_at {
            writeln!(f, "there is more from {at:x} on")?;
        }
        let Sums {
            private,
            cow,
            shared,
            untouched,
        } = self.sums();
        writeln!(
            f,
            "private {}, shared {}, copy-on-write {}, untouched {}; commit {}",
            size(private),
            size(shared),
            size(cow),
            size(untouched),
            size(self.commit)
        )
    }
}

/// What the largest shared table covers.
fn table(bytes: u64) -> String {
    match bytes {
        0 => "-".into(),
        bytes => {
            let mib = bytes / (256 * PAGE_SIZE as u64);
            if mib < 1024 {
                format!("{mib}M")
            } else {
                format!("{}G", mib / 1024)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64, kind: RangeKind, perm: Perm) -> Range {
        Range {
            start,
            end,
            kind,
            perm,
            sharers: u64::from(kind == RangeKind::CopyOnWrite) * 3,
            shared_table: 0,
        }
    }

    fn map(all: &[Range]) -> Map {
        let mut map = Map {
            program_end: 0x8_0000,
            ..Map::default()
        };
        all.iter().for_each(|&range| map.add(range));
        map
    }

    #[test]
    fn a_program_is_drawn_with_what_its_ranges_are() {
        let mut text = range(0x6_0000, 0x7_0000, RangeKind::CopyOnWrite, Perm::RX);
        text.shared_table = 1 << 21;
        let drawn = map(&[
            range(0x1_0000, 0x4_f000, RangeKind::Untouched, Perm::RW),
            range(0x4_f000, 0x5_0000, RangeKind::Private, Perm::RW),
            text,
            range(0x7_0000, 0x7_1000, RangeKind::Private, Perm::RW),
            range(0x7_1000, 0x8_2000, RangeKind::Shared, Perm::RW),
        ]);
        let expected = "        \
        FROM           TO   SIZE     KIND       REFS TABLE WHAT
       10000        4f000   252K rw- untouched     -     - stack  ..
       4f000        50000     4K rw- private       -     - stack  #
       60000        70000    64K r-x cow           3    2M text   ==
       70000        71000     4K rw- private       -     - data   #
       71000        80000    60K rw- shared        -     - data   ~~
       80000        82000     8K rw- shared        -     - heap   ~
private 8K, shared 68K, copy-on-write 64K, untouched 252K; commit -
";
        assert_eq!(drawn.to_string(), expected);
    }

    #[test]
    fn neighbours_that_are_alike_are_one_and_holes_none() {
        let rw = |start, end, kind| range(start, end, kind, Perm::RW);
        let joined = map(&[
            rw(0, 4096, RangeKind::Private),
            rw(4096, 8192, RangeKind::Private),
            rw(8192, 12288, RangeKind::Empty),
            rw(12288, 16384, RangeKind::Private),
        ]);
        assert_eq!(joined.ranges.len(), 2);
        assert_eq!(joined.sums().private, 3);
    }

    #[test]
    fn the_end_of_a_program_is_that_of_its_last_page() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let end = end_of_elf(&own[..1024]).unwrap();
        assert!(end.is_multiple_of(4096) && end > 4096);
        for len in 0..200 {
            let _ = end_of_elf(&own[..len]);
        }
        assert_eq!(end_of_elf(b"#!/bin/sh"), None);
        let mut hostile = own[..64].to_vec();
        hostile[32..64].fill(0xff);
        assert_eq!(end_of_elf(&hostile), None);
    }

    #[test]
    fn the_largest_range_fits_a_line() {
        let mut all = range(0, USER_END, RangeKind::CopyOnWrite, Perm::RW);
        (all.sharers, all.shared_table) = (99_999, 512 << 30);
        let text = map(&[all]).to_string();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
