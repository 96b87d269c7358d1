//! `rm [-r] PATH...`: removes files and empty directories; with `-r`, directories with all that is in them.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use libipc::fs::{self, Kind};
use libipc::services::Error;
use libipc::start;
use user_apps::tool::{for_each, usage};

libipc::program!(run);

fn run() -> i32 {
    let mut paths = start::args().skip(1).peekable();
    let is_recursive = paths.next_if_eq(&"-r").is_some();
    match paths.peek() {
        None => usage("[-r] PATH..."),
        Some(_) if is_recursive => for_each(paths, remove_all),
        Some(_) => for_each(paths, fs::remove),
    }
}

/// Removes what is in a directory before the directory. There are no links, so it is a tree.
fn remove_all(path: &str) -> Result<(), Error> {
    if fs::metadata(path)?.kind == Kind::Directory {
        let mut names = Vec::new();
        fs::read_dir(path, |entry| -> Result<(), Error> {
            names.push(String::from(entry.name));
            Ok(())
        })?;
        for name in names {
            remove_all(&format!("{path}/{name}"))?;
        }
    }
    fs::remove(path)
}
