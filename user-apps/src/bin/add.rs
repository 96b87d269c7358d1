//! The smallest server's client: `add 2 3`, while `adder &` runs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::{Message, names, println, start};

libipc::program!(run);

fn run() -> Result<(), Error> {
    let mut numbers = start::args()
        .skip(1)
        .map(|arg| arg.parse::<u64>().unwrap_or(0));
    let words = [0; 2].map(|zero| numbers.next().unwrap_or(zero));
    let reply = names::lookup("adder")?.call(Message::new(0).with_words(words))?;
    println!("{}", reply.words[0]);
    Ok(())
}
