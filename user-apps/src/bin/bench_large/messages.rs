//! Large messages between buffers that are congruent modulo what a page table covers.
//!
//! A round is a request with bytes and a reply without any. The sender takes two buffers in turn, all
//! pages of which it has written, each differently. What came is looked at outside of what is
//! measured, after each round: a word of every 2 MiB; and after the last one, of every page.

use libipc::abi::Call;
use libipc::raw::message_call;
use libipc::services::Error;
use libipc::{Endpoint, Handle, PageBuffer, Rights};
use user_apps::bench::{Rounds, measure_with, rounds_of};
use user_apps::scenario::memory::{PAGE, peek, poke};
use user_apps::scenario::twin::{Gift, Twin, system};

pub(crate) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a lowest-level page table covers.
pub(crate) const TABLE: u64 = 2 * MIB;

/// An operation.
struct Operation {
    name: &'static str,
    len: u64,
    /// Where messages begin in the sender's buffers: those begin where 1 GiB does, like the receiver's.
    offset: u64,
}

const OPERATIONS: [Operation; 4] = [
    // Not congruent modulo 1 GiB: the tables of 2 MiB go over one by one.
    Operation {
        name: "send_cow_2MiB",
        len: TABLE,
        offset: TABLE,
    },
    Operation {
        name: "send_cow_32MiB",
        len: 32 * MIB,
        offset: TABLE,
    },
    // What `file_read_64MiB` is to be compared with.
    Operation {
        name: "send_cow_64MiB",
        len: 64 * MIB,
        offset: TABLE,
    },
    Operation {
        name: "send_cow_1GiB",
        len: GIB,
        offset: 0,
    },
];

pub(crate) fn run() -> Result<(), Error> {
    let rounds = Rounds {
        warm_up: 4,
        counted: 20,
    };
    let is_asked_for = |operation: &&Operation| rounds_of(operation.name, rounds).is_some();
    if OPERATIONS.iter().filter(is_asked_for).count() == 0 {
        return Ok(());
    }
    // Before the memory is written: the receiver shall get it by messages alone.
    let receiver = Receiver::start()?;
    let buffers = [1, 2].map(written_buffer);
    for operation in OPERATIONS.iter().filter(is_asked_for) {
        measure(operation, rounds, &receiver, &buffers);
    }
    receiver.twin.kill();
    Ok(())
}

fn measure(operation: &Operation, rounds: Rounds, receiver: &Receiver, buffers: &[PageBuffer; 2]) {
    let &Operation { name, len, offset } = operation;
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        buffers[turn % 2].addr() + offset
    };
    measure_with(
        name,
        rounds,
        &mut next,
        |from| (from, receiver.send(from, len)),
        |(from, code)| {
            assert_eq!(code, 0, "{name}");
            let arrived = receiver.ask(len, TABLE);
            assert_eq!(arrived, sum(from, len, TABLE), "{name}: what arrived");
        },
    );
    let from = next();
    assert_eq!(receiver.send(from, len), 0, "{name}");
    let arrived = receiver.ask(len, PAGE);
    assert_eq!(arrived, sum(from, len, PAGE), "{name}: all pages");
}

/// 1 GiB, of which every page has been written.
fn written_buffer(seed: u64) -> PageBuffer {
    let buffer = PageBuffer::new(GIB as usize).expect("buffer");
    for page in places(buffer.addr(), GIB, PAGE) {
        poke(page, (seed << 56) + page * (seed + 2));
    }
    buffer
}

/// Another space that gets messages.
struct Receiver {
    endpoint: Endpoint,
    twin: Twin,
}

impl Receiver {
    fn start() -> Result<Receiver, Error> {
        let endpoint = Endpoint::create()?;
        let gift = Gift(endpoint.handle(), Rights::RECV | Rights::COPY, 0);
        let twin = Twin::start(&system(), &[gift], |[endpoint, ..]| {
            let buffer = PageBuffer::new(GIB as usize).expect("buffer");
            serve(endpoint, &buffer);
        });
        let receiver = Receiver { endpoint, twin };
        // Its answer says that it is there.
        assert_eq!(receiver.ask(PAGE, PAGE), 0);
        Ok(receiver)
    }

    /// Sends a message with bytes; returns the call's result.
    #[inline]
    fn send(&self, from: u64, len: u64) -> u64 {
        let args = [0, 0, from, len, 0, 0];
        message_call(Call::Send as u32, self.endpoint.handle(), args, [0; 4]).0
    }

    /// Asks for the sum of a word of every `step` of the first `len` bytes.
    fn ask(&self, len: u64, step: u64) -> u64 {
        let words = [len, step, 0, 0];
        let to = self.endpoint.handle();
        let (code, _, words) = message_call(Call::Send as u32, to, [0; 6], words);
        assert_eq!(code, 0);
        words[0]
    }
}

/// A server that takes what has bytes, and answers what has none.
fn serve(endpoint: Handle, buffer: &PageBuffer) {
    let (at, capacity) = (buffer.addr(), buffer.mapped_len() as u64);
    let args = [0, 0, 0, 0, at, capacity];
    let (mut code, mut got, mut words) = message_call(Call::Recv as u32, endpoint, args, [0; 4]);
    while code == 0 {
        let answer = match (got[2], words) {
            (0, [len, step, ..]) => sum(at, len, step),
            _ => 0,
        };
        let args = [got[3], 0, 0, 0, at, capacity];
        (code, got, words) =
            message_call(Call::ReplyRecv as u32, endpoint, args, [answer, 0, 0, 0]);
    }
}

/// The sum of a word of every `step` bytes.
pub(crate) fn sum(at: u64, len: u64, step: u64) -> u64 {
    places(at, len, step).map(peek).fold(0, u64::wrapping_add)
}

pub(crate) fn places(at: u64, len: u64, step: u64) -> impl Iterator<Item = u64> {
    (at..at + len).step_by(step as usize)
}
