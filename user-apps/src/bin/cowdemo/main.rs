//! What copy-on-write saves: copies beside forks and messages, from nothing to a gigabyte; and what
//! becomes of the gigabyte, step by step.
//!
//! It takes as much memory as the machine has room for, and says so if that is less. Times are the
//! host's; counted in instructions (`cargo xtask run --icount`), a nanosecond is an instruction.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod meter;
mod story;
mod table;

use libipc::services::Error;
use libipc::{PAGE_SIZE, PageBuffer, course, println};

libipc::program!(run);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// From nothing to the longest message.
const SIZES: [usize; 8] = [0, 4 * KIB, 64 * KIB, MIB, 2 * MIB, 16 * MIB, 128 * MIB, GIB];

fn run() -> Result<(), Error> {
    let largest = table::table()?;
    if largest >= story::LEAST {
        println!();
        story::story(largest)?;
    }
    if largest < GIB {
        println!();
        println!("This machine has no room for a gigabyte: `cargo xtask run --mem 1280M` has.");
    }
    Ok(())
}

/// Writes a byte in each page.
fn touch(memory: &mut [u8]) {
    for page in memory.chunks_mut(PAGE_SIZE) {
        page[0] = page[0].wrapping_add(1);
    }
}

/// Reads a byte of each page; returns what they sum up to.
fn look(memory: &[u8]) -> u64 {
    memory
        .chunks(PAGE_SIZE)
        .map(|page| u64::from(page[0]))
        .sum()
}

/// Memory of this length, all of it written.
fn written(len: usize) -> Result<PageBuffer, Error> {
    let mut memory = PageBuffer::new(len)?;
    touch(&mut memory[..len]);
    Ok(memory)
}

/// Receives a message without bytes, does something, and says that it is done.
fn when_asked(action: impl FnOnce()) -> Result<(), Error> {
    let letter = course::recv(&mut [])?;
    action();
    letter.reply(&[])
}

/// Asks a child to go on, and waits until it has.
fn ask(child: u64) -> Result<(), Error> {
    course::send(child, &[], &mut []).map(|_| ())
}
