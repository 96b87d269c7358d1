//! Programs into address spaces: used by init for the servers and by procd for everything else.
//!
//! [`plan`](plan::plan) reads an ELF file and says which pages go where; it is pure and trusts
//! nothing. [`load`] does it. Pages that are the file's own go over copy-on-write, so that every
//! process of a program shares its text and constants, and data until they are written.

pub mod plan;
mod stage;

use core::fmt;
use core::ops::Range;

use libipc::abi::PAGE_SIZE;
use libipc::object::Entry;
use libipc::services::Refusal;
use libipc::start::{MAX_ARGS, STACK_LEN, STACK_TOP, START_INFO, StartInfo};
use libipc::{Error, Perm, ShareMode, Space};

use plan::{BadElf, Pages, Source};
pub use stage::Stage;

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

/// The stack's first page.
const START_PAGE: u64 = STACK_TOP - PAGE_SIZE as u64;

/// What has been put into a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where the program starts.
    pub entry: u64,
    /// From its first page to its last.
    pub memory: Range<u64>,
}

/// Puts the program in `image`, which begins at the beginning of a page, into an empty space. What lies behind it on
/// its last page may come along.
///
/// # Errors
/// Afterwards the space may be half full, and is good for nothing but being dropped.
pub fn load(image: &[u8], space: &Space, stage: &mut Stage) -> Result<Loaded, LoadError> {
    let plan = plan::plan(image)?;
    for pages in &plan.pages {
        place(image, pages, space, stage)?;
    }
    let start = plan.pages.first().map_or(0, |first| first.at);
    let end = plan.pages.last().map_or(0, |last| last.at + last.len);
    Ok(Loaded {
        entry: plan.entry,
        memory: start..end,
    })
}

fn place(image: &[u8], pages: &Pages, space: &Space, stage: &mut Stage) -> Result<(), Error> {
    let &Pages {
        at,
        len,
        perm,
        source,
    } = pages;
    match source {
        Source::File { offset } => {
            let from = (image.as_ptr().addr() + offset) as u64;
            let mode = ShareMode::CopyOnWrite;
            space.share(&Space::own(), from, at, len, mode, Some(perm))
        }
        Source::Built {
            offset,
            count,
            skip,
        } => {
            let bytes = &image[offset..offset + count];
            for page in (0..len as usize).step_by(PAGE_SIZE) {
                let (skip, bytes) = part(page, skip, bytes);
                stage.place(&[(skip, bytes)], space, at + page as u64, perm)?;
            }
            Ok(())
        }
        Source::Zero => space.map(at, len, perm),
    }
}

/// What of `bytes`, which begin `skip` bytes into some pages, is on the page at `page`, and how far into it.
fn part(page: usize, skip: usize, bytes: &[u8]) -> (usize, &[u8]) {
    let from = page.saturating_sub(skip).min(bytes.len());
    let to = (page + PAGE_SIZE).saturating_sub(skip).min(bytes.len());
    (skip.saturating_sub(page), &bytes[from..to])
}

/// Puts a stack into a space, with arguments and `info`, which is told where they are; returns how the first thread
/// starts at `ip`. `args` is at most [`MAX_ARGS`] long.
///
/// # Errors
/// Those of the calls `map` and `share`.
pub fn place_stack(
    space: &Space,
    info: &mut StartInfo,
    args: &[u8],
    ip: u64,
    stage: &mut Stage,
) -> Result<Entry, Error> {
    let args = &args[..args.len().min(MAX_ARGS)];
    info.args = START_INFO - args.len() as u64;
    info.args_len = args.len() as u64;
    let parts = [info.args, START_INFO].map(|address| (address - START_PAGE) as usize);
    let parts = [(parts[0], args), (parts[1], info.as_bytes())];
    stage.place(&parts, space, START_PAGE, Perm::RW)?;
    let rest = STACK_TOP - STACK_LEN..START_PAGE;
    space.map(rest.start, rest.end - rest.start, Perm::RW)?;
    Ok(Entry {
        ip,
        sp: info.args & !15,
        args: [START_INFO, 0, 0],
        fs_base: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_at_pages() {
        let bytes = [7; 5000];
        let lens = |skip| {
            [0, 4096, 8192]
                .map(|page| (part(page, skip, &bytes).0, part(page, skip, &bytes).1.len()))
        };
        assert_eq!(lens(0), [(0, 4096), (0, 904), (0, 0)]);
        assert_eq!(lens(4000), [(4000, 96), (0, 4096), (0, 808)]);
        assert_eq!(part(0, 100, &bytes[..8]), (100, &bytes[..8]));
    }
}
