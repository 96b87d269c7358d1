//! `rm PATH...`: removes files and empty directories.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::{fs, start};
use user_apps::tool::{for_each, usage};

libipc::program!(run);

fn run() -> i32 {
    match start::args().nth(1) {
        None => usage("PATH..."),
        Some(_) => for_each(start::args().skip(1), fs::remove),
    }
}
