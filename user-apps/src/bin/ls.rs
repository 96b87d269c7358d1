//! `ls [PATH]...`: what is in directories, or how large files are; without a path, in the root.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::fs::{self, Entry, Kind};
use libipc::services::Error;
use libipc::{println, start};
use user_apps::tool::for_each;

libipc::program!(run);

fn run() -> i32 {
    match start::args().nth(1) {
        None => for_each(["/"], list),
        Some(_) => for_each(start::args().skip(1), list),
    }
}

fn list(path: &str) -> Result<(), Error> {
    let found = fs::metadata(path)?;
    if found.kind == Kind::Directory {
        return fs::read_dir(path, |entry| {
            show(entry);
            Ok(())
        });
    }
    let (kind, size) = (found.kind, found.size);
    show(Entry {
        kind,
        size,
        name: path,
    });
    Ok(())
}

fn show(entry: Entry<'_>) {
    let Entry { size, name, .. } = entry;
    match entry.kind {
        Kind::Directory => println!("{:>10}  {name}/", ""),
        _ => println!("{size:>10}  {name}"),
    }
}
