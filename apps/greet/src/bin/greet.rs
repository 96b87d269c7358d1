//! `greet NAME...` says hello to each.
#![cfg_attr(target_os = "none", no_std, no_main)]

use greet::Line;
use libipc::{println, start};

libipc::program!(run);

fn run() -> i32 {
    let mut status = 2;
    for name in start::args().skip(1) {
        println!("{}", Line(name));
        status = 0;
    }
    status
}
