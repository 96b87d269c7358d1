//! `echo [WORD]...`: its arguments, and a line end.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::{print, println, start};

libipc::program!(run);

fn run() {
    for (i, word) in start::args().skip(1).enumerate() {
        print!("{}{word}", if i > 0 { " " } else { "" });
    }
    println!();
}
