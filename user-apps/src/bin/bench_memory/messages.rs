//! What messages of many pages cost, in each way that the kernel can move a page.
//!
//! A round is a request of N pages and a reply of words. The receiver reads a word of every page,
//! and its reply carries the sum, which must be the sender's: a page of the message before would be
//! noticed. After the last round the receiver looks at every byte.

use alloc::{format, vec::Vec};

use libipc::abi::{Call, PAGE_SIZE, Tag};
use libipc::raw::message_call;
use libipc::services::Error;
use libipc::{Endpoint, Handle, PageBuffer, Rights};
use user_apps::bench::{Rounds, measure_with, rounds_of};
use user_apps::scenario::memory::{PAGE, peek, poke};
use user_apps::scenario::twin::{Gift, Twin, system};

/// A way to send pages.
#[derive(Clone, Copy)]
struct Mode {
    name: &'static str,
    tag: Tag,
    /// How far messages lie off the page boundary.
    shift: usize,
    before: Before,
}

/// What the sender does before each round, outside of what is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It takes the other one of two buffers, whose pages all differ.
    Alternate,
    /// It writes to every page of one buffer.
    Write,
}

const PLAIN: Tag = Tag::new(0);

/// All ways. A mode after which the pages are no longer the sender's needs [`Before::Write`].
const MODES: &[Mode] = &[
    mode("send_cow", PLAIN, 0, Before::Alternate),
    mode("send_cow_fresh", PLAIN, 0, Before::Write),
    mode("send_copy", PLAIN, 64, Before::Alternate),
    mode("send_move", PLAIN.moving_pages(), 0, Before::Write),
];

/// The ways that are measured with a receiver that writes.
const WRITTEN: [&str; 3] = ["send_cow", "send_copy", "send_move"];

/// Message lengths in pages.
const NR_PAGES: [usize; 6] = [1, 4, 16, 64, 256, LARGEST];
/// Around what one page table covers: for the way that differs there.
const TABLE: [usize; 2] = [511, 512];
const LARGEST: usize = 1024;

/// Which part of the pages the receiver writes to, in percent.
const SHARES: [usize; 6] = [0, 10, 25, 50, 75, 100];

const fn mode(name: &'static str, tag: Tag, shift: usize, before: Before) -> Mode {
    Mode {
        name,
        tag,
        shift,
        before,
    }
}

pub(crate) fn run() -> Result<(), Error> {
    // All memory is there before any is freed: what a row costs does not hang on the rows before.
    let mut receivers = Vec::new();
    for &mode in MODES {
        receivers.push(Receiver::start(mode)?);
    }
    let mut sender = Sender::new()?;
    for receiver in &receivers {
        let around_table = TABLE.iter().filter(|_| receiver.mode.name == "send_cow");
        let (small, large) = NR_PAGES.split_at(NR_PAGES.len() - 1);
        for &nr_pages in small.iter().chain(around_table).chain(large) {
            let name = format!("{}/{nr_pages}", receiver.mode.name);
            sender.measure(&name, receiver, nr_pages, 0);
        }
    }
    let written = |receiver: &&Receiver| WRITTEN.contains(&receiver.mode.name);
    for receiver in receivers.iter().filter(written) {
        for nr_pages in NR_PAGES {
            for share in SHARES {
                if let Some(nr_written) = part(nr_pages, share) {
                    let name = format!("{}_written/{nr_pages}/{share}", receiver.mode.name);
                    sender.measure(&name, receiver, nr_pages, nr_written);
                }
            }
        }
    }
    receivers
        .into_iter()
        .for_each(|receiver| receiver.twin.kill());
    Ok(())
}

/// So many percent of a number of pages, if that comes out to within one percent.
fn part(nr_pages: usize, percent: usize) -> Option<usize> {
    let part = (nr_pages * percent + 50) / 100;
    ((part * 100).abs_diff(nr_pages * percent) <= nr_pages).then_some(part)
}

/// The sender's memory.
struct Sender {
    /// Written once, each differently.
    constant: [PageBuffer; 2],
    /// Written before each message that is taken from it.
    changing: PageBuffer,
    generation: u64,
}

impl Sender {
    fn new() -> Result<Self, Error> {
        // Room for messages that are off the page boundary.
        let buffer = || PageBuffer::new((LARGEST + 1) * PAGE_SIZE);
        let sender = Sender {
            constant: [buffer()?, buffer()?],
            changing: buffer()?,
            generation: 0,
        };
        for (seed, buffer) in (1..).zip(sender.buffers()) {
            fill(buffer, seed);
        }
        Ok(sender)
    }

    fn buffers(&self) -> [&PageBuffer; 3] {
        let [first, second] = &self.constant;
        [first, second, &self.changing]
    }

    /// Measures messages that all arrive at the same place, where the receiver then writes to so
    /// many pages.
    fn measure(&mut self, name: &str, receiver: &Receiver, nr_pages: usize, nr_written: usize) {
        // The first rounds are others: each buffer's first one, and each page's first write.
        let rounds = Rounds {
            warm_up: 4,
            counted: if nr_pages < 64 { 20 } else { 5 },
        };
        if rounds_of(name, rounds).is_none() {
            return;
        }
        let (mode, len) = (receiver.mode, nr_pages * PAGE_SIZE);
        let before = self.digests(len);
        measure_with(
            name,
            rounds,
            || {
                let from = self.next(mode, len);
                (from, sum(from, len))
            },
            |(from, expected)| (receiver.send(from, len, LOOK, nr_written), expected),
            |(reply, expected)| assert_eq!(reply, (0, expected), "{name}: what arrived"),
        );
        let from = self.next(mode, len);
        let expected = (0, digest(from, len));
        let arrived = receiver.send(from, len, EXAMINE, 0);
        assert_eq!(arrived, expected, "{name}: all bytes");
        // The sender's next writes are not seen there either.
        self.next(mode, len);
        let still = receiver.send(0, 0, EXAMINE, 0);
        assert_eq!(still, expected, "{name}: all bytes, later");
        assert_eq!(self.digests(len), before, "{name}: the receiver's writes");
    }

    /// Makes the next message; returns where it begins.
    fn next(&mut self, mode: Mode, len: usize) -> u64 {
        self.generation += 1;
        let start = match mode.before {
            Before::Alternate => self.constant[self.generation as usize % 2].addr(),
            Before::Write => {
                for page in pages(self.changing.addr(), len) {
                    poke(page, (self.generation << 32) + page);
                }
                self.changing.addr()
            }
        };
        start + mode.shift as u64
    }

    /// What of the constant buffers is in messages of this length.
    fn digests(&self, len: usize) -> [u64; 2] {
        let digest = |buffer: &PageBuffer| digest(buffer.addr(), len + PAGE_SIZE);
        self.constant.each_ref().map(digest)
    }
}

/// Gives every word another value.
fn fill(buffer: &PageBuffer, seed: u64) {
    for at in (buffer.addr()..buffer.addr() + buffer.len() as u64).step_by(8) {
        poke(at, (seed << 48) + at * 3);
    }
}

/// Another space that gets messages of one mode.
struct Receiver {
    mode: Mode,
    endpoint: Endpoint,
    twin: Twin,
}

impl Receiver {
    /// Returns when its memory is there.
    fn start(mode: Mode) -> Result<Receiver, Error> {
        let endpoint = Endpoint::create()?;
        let gift = Gift(endpoint.handle(), Rights::RECV | Rights::COPY, 0);
        let twin = Twin::start(&system(), &[gift], |[endpoint, ..]| {
            let buffer = PageBuffer::new(LARGEST * PAGE_SIZE).expect("buffer");
            fill(&buffer, 0);
            take_pages(endpoint, &buffer);
        });
        let receiver = Receiver {
            mode,
            endpoint,
            twin,
        };
        assert_eq!(receiver.send(0, 0, EXAMINE, 0), (0, 0));
        Ok(receiver)
    }

    /// Sends a message; returns the call's result and what the receiver made of it.
    #[inline]
    fn send(&self, from: u64, len: usize, order: u64, nr_written: usize) -> (u64, u64) {
        let args = [0, self.mode.tag.0, from, len as u64, 0, 0];
        let words = [order, nr_written as u64, 0, 0];
        let to = self.endpoint.handle();
        let (code, _, words) = message_call(Call::Send as u32, to, args, words);
        (code, words[0])
    }
}

/// First words of requests: a word of each page that comes is enough, or every byte that is there counts.
const LOOK: u64 = 0;
const EXAMINE: u64 = 1;

/// A server that looks at what it gets, and writes to as many pages as it is told.
fn take_pages(endpoint: Handle, buffer: &PageBuffer) {
    let (at, capacity) = (buffer.addr(), buffer.mapped_len() as u64);
    let args = [0, 0, 0, 0, at, capacity];
    let mut last = 0;
    let (mut code, mut got, mut words) = message_call(Call::Recv as u32, endpoint, args, [0; 4]);
    while code == 0 {
        let len = got[2] as usize;
        let [order, nr_written, ..] = words;
        // A message without bytes is about the one before.
        last = if len > 0 { len } else { last };
        let answer = match order {
            EXAMINE => digest(at, last),
            _ => sum(at, len),
        };
        write_to(at, len, nr_written);
        let args = [got[3], 0, 0, 0, at, capacity];
        let answer = [answer, 0, 0, 0];
        (code, got, words) = message_call(Call::ReplyRecv as u32, endpoint, args, answer);
    }
}

/// The sum of the first words of all pages' worth of bytes.
fn sum(at: u64, len: usize) -> u64 {
    pages(at, len).map(peek).fold(0, u64::wrapping_add)
}

/// A number that depends on every byte and its place.
fn digest(at: u64, len: usize) -> u64 {
    (at..at + len as u64)
        .step_by(8)
        .map(peek)
        .fold(0, |digest, word| {
            (digest ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(7)
        })
}

/// Writes to so many pages, evenly spread, where the next message is read first.
fn write_to(at: u64, len: usize, nr_written: u64) {
    let nr_pages = len as u64 / PAGE;
    for nth in 0..nr_written {
        poke(at + nth * nr_pages / nr_written * PAGE, nth);
    }
}

fn pages(at: u64, len: usize) -> impl Iterator<Item = u64> {
    (at..at + len as u64).step_by(PAGE_SIZE)
}
