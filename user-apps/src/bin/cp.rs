//! `cp FROM TO`: a file's bytes to another file, or to one of the same name in a directory.
//!
//! Whole pages are shared, not copied: on the way here, and on the way back.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::fs::{File, Options};
use libipc::services::Error;
use libipc::services::files::MAX_WRITE;
use libipc::{PageBuffer, start};
use user_apps::tool::{destination, for_each, usage};

libipc::program!(run);

fn run() -> i32 {
    let args: [_; 4] = core::array::from_fn(|i| start::args().nth(i));
    match args {
        [_, Some(from), Some(to), None] => for_each([from], |from| copy(from, to)),
        _ => usage("FROM TO"),
    }
}

fn copy(from: &str, to: &str) -> Result<(), Error> {
    let from_file = File::open(from)?;
    // Made empty only in the end: it may be the same file.
    let options = Options::WRITE | Options::CREATE;
    let to_file = File::open_with(&destination(from, to), options)?;
    let mut buffer = PageBuffer::new(MAX_WRITE)?;
    let mut at = 0;
    loop {
        let len = from_file.read_at(at, &mut buffer)?;
        if len == 0 {
            return to_file.set_len(at);
        }
        to_file.write_at(at, &buffer[..len])?;
        at += len as u64;
    }
}
