//! The course's test of fork and messages, with the memory that they cost.
//!
//! Two forks make four processes. Each of them forks a child, which sends 4,097 bytes to its
//! parent: a page that goes by page table, and one byte that is copied. The parent changes what it
//! received and replies; the child prints a line whose two letters are equal if every byte went
//! where it should, and no other byte anywhere.
//!
//! ```text
//!            child                          parent
//! sbuf[0]    3         -- 4,097 bytes -->   rbuf[0]     3
//! sbuf[8192] ppid                           rbuf[8192]  its own id, set before: not reached
//! sbuf[8193] 1                              rbuf[0]    += rbuf[8192]
//! rbuf[0]    3 + ppid  <-- of 8,193 ------  rbuf[8193]  7
//! ```
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::services::memstat::MemstatClient;
use libipc::{PageBuffer, course, fork, getpid, getppid, println, process, start};

libipc::program!(run);

/// Two pages and two bytes.
const BUFFER: usize = 8194;

/// What the child sends, and takes back.
const SENT: usize = 4097;

/// What the parent takes, and replies.
const REPLIED: usize = 8193;

fn run() -> Result<i32, Error> {
    fork()?;
    fork()?;
    let mut status = pair()?;
    // The first process ends last: with it ends the program.
    while let Ok(ended) = process::wait_any() {
        status |= ended.status;
    }
    Ok(status)
}

/// Forks, and lets parent and child talk. Returns the exit status.
fn pair() -> Result<i32, Error> {
    let mut sbuf = PageBuffer::new(BUFFER)?;
    let mut rbuf = PageBuffer::new(BUFFER)?;
    let before = free_frames()?;
    if fork()? == 0 {
        return child(&mut sbuf, &mut rbuf);
    }
    let forked = free_frames()?;

    let own = getpid() as u8;
    rbuf[8192] = own;
    let letter = course::recv(&mut rbuf[..REPLIED])?;
    let received = free_frames()?;
    rbuf[0] = rbuf[0].wrapping_add(rbuf[8192]);
    rbuf[8193] = 7;
    let written = free_frames()?;
    letter.reply(&rbuf[..REPLIED])?;

    println!(
        "process {own}: free frames {before} before the fork, {forked} after it, \
         {received} after the message, {written} after the writes"
    );
    Ok(i32::from(rbuf[8192] != own))
}

fn child(sbuf: &mut [u8], rbuf: &mut [u8]) -> Result<i32, Error> {
    let parent = getppid();
    sbuf[0] = 3;
    sbuf[8192] = parent as u8;
    sbuf[8193] = 1;
    course::send(parent, &sbuf[..SENT], &mut rbuf[..SENT])?;
    let got = letter(rbuf[0].wrapping_add(sbuf[8193]));
    let expected = letter(4u8.wrapping_add(parent as u8));
    println!("REPLY: {got}{expected}");
    Ok(i32::from(got != expected))
}

/// The letter A, raised by this much, round the alphabet.
fn letter(raised: u8) -> char {
    char::from(b'A' + raised % 26)
}

fn free_frames() -> Result<u64, Error> {
    MemstatClient::borrow(start::memstat())
        .query()
        .map(|memory| memory.free)
}
