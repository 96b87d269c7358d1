//! `cat [FILE]...`: files, or the standard input, one after the other.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::fs::File;
use libipc::{io, start};
use user_apps::tool::{for_each, for_each_chunk, put};

libipc::program!(run);

fn run() -> i32 {
    if start::args().nth(1).is_none() {
        return for_each(["standard input"], |_| {
            for_each_chunk(&mut io::stdin(), put)
        });
    }
    for_each(start::args().skip(1), |path| {
        for_each_chunk(&mut File::open(path)?, put)
    })
}
