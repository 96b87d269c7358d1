//! The smallest program: says hello, and who it is.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::{getpid, println, start};

libipc::program!(run);

fn run() {
    println!("hello from process {}", getpid());
    for arg in start::args().skip(1) {
        println!("argument: {arg}");
    }
}
