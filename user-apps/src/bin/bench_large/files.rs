//! A file of 64 MiB, read by one request.
//!
//! Two files, all pages of which were written, are read in turn into the same buffer: what arrives replaces what came before. What
//! came is looked at outside of what is measured, after each round: a word of every 2 MiB; and after the last one, of every page.

use libipc::PageBuffer;
use libipc::fs::{self, File};
use libipc::services::Error;
use libipc::services::files::MAX_WRITE;
use user_apps::bench::{Rounds, measure_with, rounds_of};
use user_apps::scenario::memory::{PAGE, poke};

use crate::messages::{MIB, TABLE, places, sum};

const NAME: &str = "file_read_64MiB";
const LEN: u64 = 64 * MIB;
const PATHS: [&str; 2] = ["/bench_0", "/bench_1"];

pub(crate) fn run() -> Result<(), Error> {
    let rounds = Rounds {
        warm_up: 4,
        counted: 20,
    };
    if rounds_of(NAME, rounds).is_none() {
        return Ok(());
    }
    let sums = [write(0)?, write(1)?];
    let files = [File::open(PATHS[0])?, File::open(PATHS[1])?];
    let mut buffer = PageBuffer::new(LEN as usize)?;
    let mut turn = 0;
    let at = buffer.addr();
    measure_with(
        NAME,
        rounds,
        || {
            turn += 1;
            turn % 2
        },
        |which| (which, files[which].read_at(0, &mut buffer)),
        |(which, len)| {
            assert_eq!(len, Ok(LEN as usize), "{NAME}");
            assert_eq!(sum(at, LEN, TABLE), sums[which].0, "{NAME}: what arrived");
        },
    );
    assert_eq!(files[1].read_at(0, &mut buffer), Ok(LEN as usize));
    assert_eq!(sum(at, LEN, PAGE), sums[1].1, "{NAME}: all pages");
    PATHS.into_iter().try_for_each(fs::remove)
}

/// Writes a file; returns the sums of a word of every 2 MiB, and of every page.
fn write(which: usize) -> Result<(u64, u64), Error> {
    let file = File::create(PATHS[which])?;
    let mut sums = (0_u64, 0_u64);
    let piece = PageBuffer::new(MAX_WRITE)?;
    let len = MAX_WRITE as u64;
    for offset in (0..LEN).step_by(MAX_WRITE) {
        for page in places(piece.addr(), len, PAGE) {
            poke(page, ((which as u64 + 1) << 56) + page * (offset + 3));
        }
        file.write_at(offset, &piece)?;
        let more = [TABLE, PAGE].map(|step| sum(piece.addr(), len, step));
        sums = (sums.0.wrapping_add(more[0]), sums.1.wrapping_add(more[1]));
    }
    Ok(sums)
}
