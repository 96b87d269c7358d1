//! The smallest server: adds two numbers. `adder &` starts it, `add 2 3` asks it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use user_apps::adding::{AddError, Adder, AdderServer};

libipc::program!(run);

struct MyAdder;

impl Adder for MyAdder {
    fn add(&self, a: u64, b: u64) -> Result<u64, AddError> {
        a.checked_add(b).ok_or(AddError::Overflow)
    }
}

fn run() -> Result<(), libipc::services::Error> {
    libipc::serve("adder", AdderServer::new(MyAdder))
}
