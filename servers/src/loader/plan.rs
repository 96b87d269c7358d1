//! What to put where: an ELF file as a list of pages. Pure, and never trusts the file.

use core::fmt;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use libipc::Perm;
use libipc::abi::{MAX_RANGE, PAGE_SIZE};
use libipc::start::STACK_TOP;

const PAGE: u64 = PAGE_SIZE as u64;

/// Where programs may lie: above the stack, with some unmapped pages between, and with room left for the heap.
const IMAGE: core::ops::Range<u64> = STACK_TOP + 0x1_0000..0x1000_0000_0000;

/// Most groups of pages that a program has: up to three for each of ten segments.
const MAX_PAGES: usize = 30;

/// Why a file is not a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadElf {
    /// It is no ELF file for this machine, or one that needs relocating.
    Format,
    /// It has too many segments, or none.
    Segments,
    /// A segment lies outside of the file.
    Truncated,
    /// A segment lies where programs may not, or on the pages of another one.
    Address,
    /// A segment is writable and executable, or cannot be read.
    Rights,
    /// The entry point is not in an executable segment.
    Entry,
}

impl fmt::Display for BadElf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadElf::Format => "not a static x86-64 ELF program",
            BadElf::Segments => "no segments, or too many",
            BadElf::Truncated => "segment outside of the file",
            BadElf::Address => "segment at a bad address",
            BadElf::Rights => "segment with bad rights",
            BadElf::Entry => "entry point is not code",
        })
    }
}

/// Where the bytes of some pages come from. Offsets and counts are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file's own pages, from this offset on.
    File {
        /// A multiple of the page size.
        offset: usize,
    },
    /// Fresh pages with some of the file's bytes, zeros before and after.
    Built {
        /// Where the bytes are in the file.
        offset: usize,
        /// How many.
        count: usize,
        /// How far from the start of the pages they go.
        skip: usize,
    },
    /// Zeros, on demand.
    Zero,
}

/// Some adjacent pages of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Address, a multiple of the page size.
    pub at: u64,
    /// Length in bytes, likewise.
    pub len: u64,
    /// Rights.
    pub perm: Perm,
    /// Contents.
    pub source: Source,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it starts.
    pub entry: u64,
    /// Its pages, by ascending address.
    pub pages: heapless::Vec<Pages, MAX_PAGES>,
}

/// Plans the program in `file`.
///
/// # Errors
/// What is wrong with the file.
pub fn plan(file: &[u8]) -> Result<Plan, BadElf> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| BadElf::Format)?;
    let header = &elf.ehdr;
    if (header.class, header.e_type, header.e_machine) != (Class::ELF64, ET_EXEC, EM_X86_64) {
        return Err(BadElf::Format);
    }
    let mut pages = heapless::Vec::new();
    let segments = elf.segments().ok_or(BadElf::Segments)?;
    for segment in segments
        .iter()
        .filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0)
    {
        add_segment(&mut pages, &segment, file.len())?;
    }
    let code = |p: &Pages| p.perm == Perm::RX && (p.at..p.at + p.len).contains(&header.e_entry);
    if !pages.iter().any(code) {
        return Err(if pages.is_empty() {
            BadElf::Segments
        } else {
            BadElf::Entry
        });
    }
    Ok(Plan {
        entry: header.e_entry,
        pages,
    })
}

type List = heapless::Vec<Pages, MAX_PAGES>;

fn add_segment(list: &mut List, segment: &ProgramHeader, file_len: usize) -> Result<(), BadElf> {
    let perm = match segment.p_flags & (PF_R | PF_W | PF_X) {
        PF_R => Perm::R,
        flags if flags == PF_R | PF_W => Perm::RW,
        flags if flags == PF_R | PF_X => Perm::RX,
        _ => return Err(BadElf::Rights),
    };
    let &ProgramHeader {
        p_vaddr: at,
        p_memsz: mem,
        p_filesz: bytes,
        p_offset: offset,
        ..
    } = segment;
    let mem_end = at.checked_add(mem).ok_or(BadElf::Address)?;
    if at < IMAGE.start || mem_end > IMAGE.end || mem > MAX_RANGE {
        return Err(BadElf::Address);
    }
    if bytes > mem
        || offset
            .checked_add(bytes)
            .is_none_or(|end| end > file_len as u64)
    {
        return Err(BadElf::Truncated);
    }
    let start = at & !(PAGE - 1);
    let end = mem_end.next_multiple_of(PAGE);
    if list.last().is_some_and(|last| last.at + last.len > start) {
        return Err(BadElf::Address);
    }

    // Up to here the file's own pages, up to there built ones, then zeros.
    let file_end = at + bytes;
    let own_end = if !at.wrapping_sub(offset).is_multiple_of(PAGE) || bytes == 0 {
        start
    } else if perm == Perm::RW || bytes < mem {
        (file_end & !(PAGE - 1)).max(start)
    } else {
        end
    };
    let built_end = if bytes == 0 {
        start
    } else {
        file_end.next_multiple_of(PAGE)
    };

    let first = (offset & !(PAGE - 1)) as usize;
    push(list, start, own_end, perm, Source::File { offset: first })?;
    let from = own_end.max(at);
    let built = Source::Built {
        offset: (offset + (from - at)) as usize,
        count: file_end.saturating_sub(from) as usize,
        skip: (from - own_end) as usize,
    };
    push(list, own_end, built_end, perm, built)?;
    push(list, own_end.max(built_end), end, perm, Source::Zero)
}

fn push(list: &mut List, at: u64, end: u64, perm: Perm, source: Source) -> Result<(), BadElf> {
    if end <= at {
        return Ok(());
    }
    list.push(Pages {
        at,
        len: end - at,
        perm,
        source,
    })
    .map_err(|_| BadElf::Segments)
}

#[cfg(test)]
pub(crate) mod tests;
