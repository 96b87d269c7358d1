//! `wc [FILE]...`: lines, words and bytes of files, or of the standard input.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::fs::{File, Read};
use libipc::services::Error;
use libipc::{io, println, start};
use user_apps::tool::{for_each, for_each_chunk};

libipc::program!(run);

fn run() -> i32 {
    if start::args().nth(1).is_none() {
        return for_each(["standard input"], |_| count(&mut io::stdin(), ""));
    }
    for_each(start::args().skip(1), |path| {
        count(&mut File::open(path)?, path)
    })
}

fn count(from: &mut impl Read<Error = Error>, name: &str) -> Result<(), Error> {
    let (mut lines, mut words, mut bytes) = (0, 0, 0);
    let mut is_blank = true;
    for_each_chunk(from, |chunk| {
        bytes += chunk.len();
        for byte in chunk {
            lines += usize::from(*byte == b'\n');
            words += usize::from(is_blank && !byte.is_ascii_whitespace());
            is_blank = byte.is_ascii_whitespace();
        }
        Ok(())
    })?;
    println!("{lines:>8} {words:>8} {bytes:>8} {name}");
    Ok(())
}
