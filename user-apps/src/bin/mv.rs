//! `mv FROM TO`: another path for a file or a directory, or the same name in another directory.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::{fs, start};
use user_apps::tool::{destination, for_each, usage};

libipc::program!(run);

fn run() -> i32 {
    let args: [_; 4] = core::array::from_fn(|i| start::args().nth(i));
    match args {
        [_, Some(from), Some(to), None] => {
            for_each([from], |from| fs::rename(from, &destination(from, to)))
        }
        _ => usage("FROM TO"),
    }
}
