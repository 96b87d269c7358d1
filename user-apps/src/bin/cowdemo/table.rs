//! The table: a copy, a fork and a message of the same memory, and writes to all of it afterwards.
//!
//! | columns | frames and time to |
//! | --- | --- |
//! | copy | copy the memory into fresh pages |
//! | fork | fork with it; the constant part is what the row of no memory shows |
//! | send | send it to the child as a message |
//! | write | write a byte in each page, in the child: what was saved comes due |

use alloc::format;
use alloc::string::String;

use libipc::services::Error;
use libipc::{PageBuffer, course, fork, println, process};

use super::meter::{Cost, Meter, fits, measured, size};
use super::{SIZES, ask, touch, when_asked, written};

/// Prints it; returns the size of the last row: the largest that there is room for.
pub(crate) fn table() -> Result<usize, Error> {
    println!("         ------ copy ----- ------ fork ----- ------ send ----- ----- write -----");
    println!("  memory  frames      time  frames      time  frames      time  frames      time");
    let mut largest = 0;
    for len in SIZES {
        if !fits(len)? {
            break;
        }
        row(len)?;
        largest = len;
    }
    println!("  -: there is no room for that much memory a second time");
    Ok(largest)
}

fn row(len: usize) -> Result<(), Error> {
    let memory = written(len)?;
    let memory = &memory[..len];
    let has_room_twice = fits(len)?;
    let copy = match has_room_twice {
        true => Some(measured(|| copied(memory))?.0),
        false => None,
    };
    let [fork, send, write] = shared(memory, has_room_twice)?;
    let columns = [copy, fork, send, write].map(column);
    println!("{:>8}{}", size(len), columns.concat());
    Ok(())
}

fn column(cost: Option<Cost>) -> String {
    match cost {
        Some(cost) => format!(" {:>7} {:>9}", cost.frames(), cost.time()),
        None => format!(" {:>7} {:>9}", "-", "-"),
    }
}

fn copied(memory: &[u8]) -> Result<PageBuffer, Error> {
    let mut copy = PageBuffer::new(memory.len())?;
    copy[..memory.len()].copy_from_slice(memory);
    Ok(copy)
}

/// Costs of the fork, of a message to the child, and of the child's writes, if there is room for them.
fn shared(memory: &[u8], may_write: bool) -> Result<[Option<Cost>; 3], Error> {
    let meter = Meter::start()?;
    let child = fork()?;
    if child == 0 {
        process::exit(i32::from(serve(memory.len()).is_err()));
    }
    let ns = meter.elapsed()?;
    // The child's answer says that it is there, and has touched what it needs to live.
    ask(child)?;
    let frames = meter.frames()?;
    let (send, _) = measured(|| course::send(child, memory, &mut []))?;
    let write = if may_write {
        Some(measured(|| ask(child))?.0)
    } else {
        None
    };
    process::kill(child)?;
    process::wait(child)?;
    Ok([Some(Cost { frames, ns }), Some(send), write])
}

/// The child: is there, receives the memory as a message, writes to it, and waits to be killed.
fn serve(len: usize) -> Result<(), Error> {
    let mut received = PageBuffer::new(len)?;
    when_asked(|| ())?;
    course::recv(&mut received[..len])?.reply(&[])?;
    when_asked(|| touch(&mut received[..len]))?;
    when_asked(|| ())
}
