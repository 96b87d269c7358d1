//! Messages between a parent and its child, timed: `pingpong [ROUNDS]`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::{PageBuffer, course, fork, object, println, process, start};

libipc::program!(run);

/// Message lengths in bytes.
const LENGTHS: [usize; 5] = [0, 64, 4096, 65_536, 1 << 20];

fn run() -> Result<(), Error> {
    let rounds = start::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(1000);
    let longest = LENGTHS[LENGTHS.len() - 1];
    let (mut ping, mut pong) = (PageBuffer::new(longest)?, PageBuffer::new(longest)?);
    ping.fill(1);
    let child = fork()?;
    if child == 0 {
        return answer(&mut pong);
    }
    println!("{rounds} round trips with replies of the same length");
    println!("{:>9} {:>12} {:>14}", "bytes", "ns each", "bytes per us");
    for len in LENGTHS {
        let start = object::clock()?.0;
        for _ in 0..rounds {
            course::send(child, &ping[..len], &mut pong[..len])?;
        }
        let ns = (object::clock()?.0 - start).max(1);
        let each = ns / rounds.max(1);
        println!(
            "{len:>9} {each:>12} {:>14}",
            2 * len as u64 * rounds * 1000 / ns
        );
    }
    process::kill(child)?;
    process::wait(child)?;
    Ok(())
}

/// Sends everything back, until it is killed.
fn answer(buffer: &mut [u8]) -> Result<(), Error> {
    loop {
        let letter = course::recv(buffer)?;
        let len = letter.len;
        letter.reply(&buffer[..len])?;
    }
}
