//! Programs into address spaces: used by init for the servers and by procd for everything else.
//!
//! [`plan`](plan::plan) reads an ELF file and says which pages go where; it is pure and trusts
//! nothing. [`load`] does it. Pages that are the file's own go over copy-on-write, so that every
//! process of a program shares its text and constants, and data until they are written.

pub mod plan;

use core::fmt;

use libipc::abi::PAGE_SIZE;
use libipc::object::Entry;
use libipc::services::Refusal;
use libipc::start::{MAX_ARGS, STACK_LEN, STACK_TOP, START_ARGS, START_INFO, StartInfo};
use libipc::{Error, PageBuffer, Perm, ShareMode, Space};

use plan::{BadElf, Pages, Source};

/// Why a program could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file is at fault.
    Elf(BadElf),
    /// The kernel refused.
    Kernel(Error),
}

impl From<BadElf> for LoadError {
    fn from(error: BadElf) -> Self {
        LoadError::Elf(error)
    }
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        LoadError::Kernel(error)
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Elf(_) => Refusal::NotExecutable,
            LoadError::Kernel(error) => error.into(),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Elf(error) => error.fmt(f),
            LoadError::Kernel(error) => error.fmt(f),
        }
    }
}

/// Puts the program in `image` and a stack into an empty space; returns where it starts.
///
/// # Errors
/// Afterwards the space may be half full, and is good for nothing but being dropped.
pub fn load(image: &PageBuffer, space: &Space) -> Result<u64, LoadError> {
    let plan = plan::plan(image)?;
    for pages in &plan.pages {
        place(image, pages, space)?;
    }
    space.map(STACK_TOP - STACK_LEN, STACK_LEN, Perm::RW)?;
    Ok(plan.entry)
}

fn place(image: &PageBuffer, pages: &Pages, space: &Space) -> Result<(), Error> {
    let &Pages {
        at,
        len,
        perm,
        source,
    } = pages;
    match source {
        Source::File { offset } => {
            let from = image.addr() + offset as u64;
            space.share(
                &Space::own(),
                from,
                at,
                len,
                ShareMode::CopyOnWrite,
                Some(perm),
            )
        }
        Source::Built {
            offset,
            count,
            skip,
        } => {
            let mut built = PageBuffer::new(len as usize)?;
            built[skip..skip + count].copy_from_slice(&image[offset..offset + count]);
            give(&built, space, at, perm)
        }
        Source::Zero => space.map(at, len, perm),
    }
}

/// Moves a buffer's pages into a space.
fn give(buffer: &PageBuffer, space: &Space, at: u64, perm: Perm) -> Result<(), Error> {
    let len = buffer.mapped_len() as u64;
    space.share(
        &Space::own(),
        buffer.addr(),
        at,
        len,
        ShareMode::Move,
        Some(perm),
    )
}

/// Puts an argument page into a space; `args` is at most [`MAX_ARGS`] long.
///
/// # Errors
/// Those of the calls `map` and `share`.
pub fn place_args(space: &Space, args: &[u8]) -> Result<(), Error> {
    let mut page = PageBuffer::new(PAGE_SIZE)?;
    let args = &args[..args.len().min(MAX_ARGS)];
    page[..8].copy_from_slice(&(args.len() as u64).to_le_bytes());
    page[8..8 + args.len()].copy_from_slice(args);
    give(&page, space, START_ARGS, Perm::R)
}

/// Puts a start page into a space.
///
/// # Errors
/// Those of the calls `map` and `share`.
pub fn place_info(space: &Space, info: &StartInfo) -> Result<(), Error> {
    let mut page = PageBuffer::new(PAGE_SIZE)?;
    let bytes = info.as_bytes();
    page[..bytes.len()].copy_from_slice(bytes);
    give(&page, space, START_INFO, Perm::R)
}

/// Where a loaded program's first thread starts.
#[must_use]
pub const fn entry(ip: u64) -> Entry {
    Entry {
        ip,
        sp: STACK_TOP,
        args: [START_INFO, 0, 0],
        fs_base: 0,
    }
}
