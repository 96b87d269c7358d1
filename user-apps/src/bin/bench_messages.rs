//! What messages of many pages cost, in each way that the kernel can move a page.
//!
//! A round is a request of N pages and a reply of words. The receiver reads a word of every page,
//! and its reply carries the sum, which must be the sender's: a page of the message before would be
//! noticed. After the last round the receiver looks at every byte.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;

use libipc::abi::{Call, PAGE_SIZE, Tag};
use libipc::raw::message_call;
use libipc::services::Error;
use libipc::{Endpoint, Handle, PageBuffer, Rights, Space};
use user_apps::bench::{Rounds, measure_with, rounds_of};
use user_apps::scenario::memory::{PAGE, peek, poke};
use user_apps::scenario::twin::{Gift, Twin, system};

libipc::program!(run);

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
const MODES: [Mode; 3] = [
    mode("send_cow", PLAIN, 0, Before::Alternate),
    mode("send_cow_fresh", PLAIN, 0, Before::Write),
    mode("send_copy", PLAIN, 64, Before::Alternate),
];

/// The ways that are measured with a receiver that writes.
const WRITTEN: [&str; 3] = ["send_cow", "send_copy", "send_move"];

/// Message lengths in pages.
const NR_PAGES: [usize; 6] = [1, 4, 16, 64, 256, LARGEST];
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

fn run() -> Result<(), Error> {
    // One memory for all rows, from before anything was freed: what a row costs does not hang on
    // the rows before it.
    let mut sender = Sender::new()?;
    for mode in MODES {
        for nr_pages in NR_PAGES {
            let name = format!("{}/{nr_pages}", mode.name);
            sender.measure(&name, mode, nr_pages, 0)?;
        }
    }
    for mode in MODES.iter().filter(|mode| WRITTEN.contains(&mode.name)) {
        for nr_pages in NR_PAGES {
            for share in SHARES {
                if let Some(nr_written) = part(nr_pages, share) {
                    let name = format!("{}_written/{nr_pages}/{share}", mode.name);
                    sender.measure(&name, *mode, nr_pages, nr_written)?;
                }
            }
        }
    }
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
    fn measure(
        &mut self,
        name: &str,
        mode: Mode,
        nr_pages: usize,
        nr_written: usize,
    ) -> Result<(), Error> {
        // The first rounds are others: each buffer's first one, and each page's first write.
        let rounds = Rounds {
            warm_up: 4,
            counted: if nr_pages < 64 { 20 } else { 5 },
        };
        if rounds_of(name, rounds).is_none() {
            return Ok(());
        }
        let len = nr_pages * PAGE_SIZE;
        let (twin, endpoint) = self.receiver(len)?;
        let (to, tag) = (endpoint.handle(), mode.tag.0);
        let send = |from: u64, len: usize, order: [u64; 2]| {
            let args = [0, tag, from, len as u64, 0, 0];
            let words = [order[0], order[1], 0, 0];
            let (code, _, words) = message_call(Call::Send as u32, to, args, words);
            (code, words[0])
        };
        let before = self.digests(len);
        measure_with(
            name,
            rounds,
            || {
                let from = self.next(mode, len);
                (from, sum(from, len))
            },
            |(from, expected)| (send(from, len, [nr_written as u64, LOOK]), expected),
            |(reply, expected)| assert_eq!(reply, (0, expected), "{name}: what arrived"),
        );
        let from = self.next(mode, len);
        let expected = (0, digest(from, len));
        let arrived = send(from, len, [0, EXAMINE]);
        assert_eq!(arrived, expected, "{name}: all bytes");
        // The sender's next writes are not seen there either.
        self.next(mode, len);
        let still = send(0, 0, [0, EXAMINE]);
        assert_eq!(still, expected, "{name}: all bytes, later");
        assert_eq!(self.digests(len), before, "{name}: the receiver's writes");
        twin.kill();
        Ok(())
    }

    /// Another space, with a buffer for messages and nothing of this memory, and the way to it.
    fn receiver(&self, len: usize) -> Result<(Twin, Endpoint), Error> {
        let endpoint = Endpoint::create()?;
        let gift = Gift(endpoint.handle(), Rights::RECV | Rights::COPY, 0);
        let inherited = self
            .buffers()
            .map(|buffer| (buffer.addr(), buffer.mapped_len() as u64));
        let twin = Twin::start(&system(), &[gift], move |[endpoint, ..]| {
            for (addr, len) in inherited {
                Space::own().unmap(addr, len).expect("unmap");
            }
            take_pages(endpoint, &PageBuffer::new(len).expect("buffer"));
        });
        Ok((twin, endpoint))
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

/// Second words of requests: a word of each page that comes is enough, or every byte that is there counts.
const LOOK: u64 = 0;
const EXAMINE: u64 = 1;

/// A server that looks at what it gets, and writes to as many pages as it is told.
fn take_pages(endpoint: Handle, buffer: &PageBuffer) {
    let (at, capacity) = (buffer.addr(), buffer.mapped_len() as u64);
    let args = [0, 0, 0, 0, at, capacity];
    let (mut code, mut got, mut words) = message_call(Call::Recv as u32, endpoint, args, [0; 4]);
    while code == 0 {
        let len = got[2] as usize;
        let [nr_written, order, ..] = words;
        let answer = if order == EXAMINE {
            digest(at, capacity as usize)
        } else {
            sum(at, len)
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
