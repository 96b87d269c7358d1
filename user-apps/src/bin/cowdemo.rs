//! What copy-on-write saves: a fork beside a copy of the same memory, for 1 to 4,096 pages.
//!
//! | columns | meaning |
//! | --- | --- |
//! | copy | frames and microseconds to copy the memory into fresh pages |
//! | fork | frames and microseconds to fork with it; a fork's constant part is what the row of 0 pages shows |
//! | write | frames and microseconds for the child to write one byte in each page afterwards |
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::{Error, memstat};
use libipc::{
    Endpoint, PAGE_SIZE, PageBuffer, course, fork, getppid, object, println, process, start,
};

libipc::program!(run);

fn run() -> Result<(), Error> {
    println!("           ------ copy ------  ------ fork ------  ------ write -----");
    println!("    pages     frames       us     frames       us     frames       us");
    row(0)?;
    let mut pages = 1;
    while pages <= 4096 {
        row(pages)?;
        pages *= 4;
    }
    Ok(())
}

/// What something cost.
#[derive(Clone, Copy)]
struct Cost {
    frames: u64,
    ns: u64,
}

fn row(pages: usize) -> Result<(), Error> {
    let mut memory = PageBuffer::new(pages.max(1) * PAGE_SIZE)?;
    let memory = &mut memory[..pages * PAGE_SIZE];
    touch(memory);
    let copy = copy(memory)?;
    let (fork, write) = forked(memory)?;
    let columns = |Cost { frames, ns }| (frames, ns / 1000);
    let ((a, b), (c, d), (e, f)) = (columns(copy), columns(fork), columns(write));
    println!("{pages:>9}  {a:>9} {b:>8}  {c:>9} {d:>8}  {e:>9} {f:>8}");
    Ok(())
}

fn copy(memory: &[u8]) -> Result<Cost, Error> {
    let meter = Meter::start()?;
    let mut copy = PageBuffer::new(memory.len())?;
    copy[..memory.len()].copy_from_slice(memory);
    meter.read()
}

/// Costs of the fork, and of the child's writes.
fn forked(memory: &mut [u8]) -> Result<(Cost, Cost), Error> {
    let meter = Meter::start()?;
    let child = fork()?;
    if child == 0 {
        return Err(write_when_asked(memory)
            .err()
            .unwrap_or(libipc::Error::Died.into()));
    }
    let ns = meter.elapsed()?;
    // The child's answer says that it is there, and has touched what it needs to live.
    course::send(child, &[], &mut [])?;
    let frames = meter.frames()?;

    let meter = Meter::start()?;
    course::send(child, &[], &mut [])?;
    let write = meter.read()?;
    process::kill(child)?;
    process::wait(child)?;
    Ok((Cost { frames, ns }, write))
}

/// The child: answers once, then writes before each answer, until it is killed.
fn write_when_asked(memory: &mut [u8]) -> Result<(), Error> {
    debug_assert!(getppid() != 0);
    course::recv(&mut [])?.reply(&[])?;
    loop {
        let letter = course::recv(&mut [])?;
        touch(memory);
        letter.reply(&[])?;
    }
}

/// Writes a byte in each page.
fn touch(memory: &mut [u8]) {
    for page in memory.chunks_mut(PAGE_SIZE) {
        page[0] = page[0].wrapping_add(1);
    }
}

/// Free frames and the clock at some moment.
struct Meter {
    frames: u64,
    ns: u64,
}

impl Meter {
    fn start() -> Result<Self, Error> {
        let frames = free_frames()?;
        Ok(Meter {
            frames,
            ns: object::clock()?.0,
        })
    }

    fn elapsed(&self) -> Result<u64, Error> {
        Ok(object::clock()?.0.saturating_sub(self.ns))
    }

    fn frames(&self) -> Result<u64, Error> {
        Ok(self.frames.saturating_sub(free_frames()?))
    }

    fn read(&self) -> Result<Cost, Error> {
        let ns = self.elapsed()?;
        Ok(Cost {
            frames: self.frames()?,
            ns,
        })
    }
}

fn free_frames() -> Result<u64, Error> {
    memstat::query(&Endpoint::borrow(start::memstat())).map(|memory| memory.free)
}
