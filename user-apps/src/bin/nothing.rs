//! Ends at once: what starting a program costs without the program.
#![cfg_attr(target_os = "none", no_std, no_main)]

libipc::program!(run);

fn run() {}
