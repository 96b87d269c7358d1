//! The largest memory, step by step: every line is one thing that a parent or its child does.

use alloc::format;

use libipc::services::Error;
use libipc::{PAGE_SIZE, PageBuffer, course, fork, println, process};

use super::meter::{Cost, free_frames, grouped, measured, size};
use super::{ask, look, when_asked, written};

/// How many pages the child writes to.
const SOME: usize = 1000;

/// What part of the memory is copied, to say what a copy of all would take.
const PART: usize = 16;

/// The least memory that there is something to tell of.
pub(crate) const LEAST: usize = 16 << 20;

/// Tells it with so much memory.
pub(crate) fn story(len: usize) -> Result<(), Error> {
    let free = free_frames()?;
    let nr_pages = len / PAGE_SIZE;
    let title = format!("{}, step by step", size(len));
    println!("{title:<48} {:>9} {:>12}", "frames", "time");
    let (cost, memory) = measured(|| written(len))?;
    line("write to each of its pages", cost);
    let (cost, child) = measured(fork)?;
    if child == 0 {
        process::exit(i32::from(serve(memory, len).is_err()));
    }
    line("fork: a child has it too", cost);
    for what in [
        "the child starts to run",
        "the child reads a byte of each page",
        "the child writes one byte",
        "the child writes to 1,000 pages",
    ] {
        let (cost, ()) = measured(|| ask(child))?;
        line(what, cost);
    }
    let (cost, _) = measured(|| course::send(child, &memory[..len], &mut []))?;
    line("send all of it to the child, as a message", cost);
    let (cost, ()) = measured(|| ask(child))?;
    line("the child reads a byte of each page of that", cost);
    let taken = free - free_frames()?;
    let (cost, ended) = measured(|| {
        course::send(child, &[], &mut [])?;
        process::wait(child)
    })?;
    line("the child ends", cost);
    let part = &memory[..len / PART];
    let (cost, copy) = measured(|| {
        let mut copy = PageBuffer::new(part.len())?;
        copy[..part.len()].copy_from_slice(part);
        Ok(copy)
    })?;
    drop(copy);
    line(
        &format!("for comparison: copy {} of it", size(part.len())),
        cost,
    );
    println!();
    println!(
        "Before the child ended, both together had three times {}: {} pages, in {} frames.",
        size(len),
        grouped(3 * nr_pages as u64),
        grouped(taken)
    );
    match ended.status {
        0 => Ok(()),
        _ => Err(libipc::Error::Died.into()),
    }
}

/// The child: what the parent has written is there, what it sends as well, and what was written here is
/// nowhere else.
fn serve(mut inherited: PageBuffer, len: usize) -> Result<(), Error> {
    let is_whole = |memory: &[u8]| assert_eq!(look(memory), (len / PAGE_SIZE) as u64);
    let mut received = PageBuffer::new(len)?;
    when_asked(|| ())?;
    when_asked(|| is_whole(&inherited[..len]))?;
    when_asked(|| inherited[len / 2] = 7)?;
    let distance = len / SOME / PAGE_SIZE * PAGE_SIZE;
    when_asked(|| {
        for nth in 0..SOME {
            inherited[nth * distance] = 7;
        }
    })?;
    course::recv(&mut received[..len])?.reply(&[])?;
    when_asked(|| is_whole(&received[..len]))?;
    when_asked(|| ())
}

fn line(what: &str, cost: Cost) {
    println!("  {what:<46} {:>9} {:>12}", cost.frames(), cost.time());
}
