//! What memory costs: mapping, faults, and messages of many pages.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use libipc::abi::{Call, FaultVerdict};
use libipc::raw::{Args, Words, call, message_call};
use libipc::services::Error;
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Endpoint, Handle, PageBuffer, Perm, Rights, ShareMode, Space, start};
use user_apps::bench::{Rounds, measure_with};
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer;
use user_apps::scenario::twin::{Gift, Twin, system};

libipc::program!(run);

const NO_WORDS: Words = [0; 4];

/// The page that operations are about. Its neighbours stay mapped, so that its page table is there.
const HERE: u64 = SCRATCH + PAGE;
/// A second one, far away.
const THERE: u64 = SCRATCH + (1 << 30) + PAGE;

/// Message lengths in pages.
const NR_PAGES: [usize; 6] = [1, 4, 16, 64, 256, 1024];

/// How far the buffer of a message that is to be copied lies off the page boundary.
const SHIFT: usize = 64;

fn run() -> Result<(), Error> {
    let neighbours = [map(HERE - PAGE, 1), map(THERE - PAGE, 1)];
    for neighbour in &neighbours {
        poke(neighbour.addr(), 1);
    }
    mappings();
    faults();
    pager()?;
    for nr_pages in NR_PAGES {
        messages(nr_pages)?;
    }
    Ok(())
}

fn mappings() {
    let own = start::space();
    let unmap = || call(Call::Unmap as u32, own, [HERE, PAGE, 0, 0, 0, 0]).0;
    let map = || {
        let args = [HERE, PAGE, Perm::RW.bits(), 0, 0, 0];
        call(Call::Map as u32, own, args).0
    };
    let undo_map = |code| {
        succeeded(code);
        succeeded(unmap());
    };
    measure_with("map", Rounds::MANY, || (), |()| map(), undo_map);
    let mapped_and_written = || {
        succeeded(map());
        poke(HERE, 1);
    };
    measure_with(
        "unmap",
        Rounds::MANY,
        mapped_and_written,
        |()| unmap(),
        succeeded,
    );
}

/// Write faults that the kernel resolves by itself.
fn faults() {
    let write = |_: &_| poke(HERE, 2);
    measure_with(
        "zero_fault",
        Rounds::MANY,
        || map(HERE, 1),
        |page| {
            write(&page);
            page
        },
        drop,
    );
    measure_with(
        "cow_fault_copy",
        Rounds::MANY,
        || (written(), alias()),
        |pages| {
            poke(HERE, 2);
            pages
        },
        |pages| {
            assert_eq!((peek(HERE), peek(THERE)), (2, 1));
            drop(pages);
        },
    );
    measure_with(
        "cow_fault_reuse",
        Rounds::MANY,
        || {
            let page = written();
            drop(alias());
            page
        },
        |page| {
            poke(HERE, 2);
            page
        },
        drop,
    );
}

/// A page with a frame of its own.
fn written() -> user_apps::scenario::memory::Mapped {
    let page = map(HERE, 1);
    poke(HERE, 1);
    page
}

/// Names the page a second time, copy-on-write.
fn alias() -> impl Drop {
    struct Alias;
    impl Drop for Alias {
        fn drop(&mut self) {
            let _ = Space::own().unmap(THERE, PAGE);
        }
    }
    let own = Space::own();
    own.share(&own, HERE, THERE, PAGE, ShareMode::CopyOnWrite, None)
        .expect("share");
    Alias
}

/// Read faults that a handler in another space resolves with a page that it has.
fn pager() -> Result<(), Error> {
    let (faults, finished) = (Endpoint::create()?, Endpoint::create()?);
    let gifts = [
        Gift(faults.handle(), Rights::RECV | Rights::COPY, 0),
        Gift(start::space(), Rights::MAP, 0),
    ];
    let twin = Twin::start(&system(), &gifts, |[faults, space, ..]| {
        handle_faults(faults, space);
    });
    let raise = finished.copy(Rights::NOTIFY, 1)?.into_raw();
    let thread = peer::thread_with(PRIORITY, Supervisor::Endpoint(&faults), move || {
        let unmap = |_| Space::own().unmap(HERE, PAGE).expect("unmap");
        measure_with("pager_fault", Rounds::MANY, || (), |()| peek(HERE), unmap);
        let _ = Endpoint::from_raw(raise).notify();
    });
    finished.recv(&mut [])?;
    peer::join(thread);
    twin.kill();
    Ok(())
}

/// Maps its one page wherever a fault is reported.
fn handle_faults(endpoint: Handle, space: Handle) {
    let page = PageBuffer::new(PAGE as usize).expect("page");
    poke(page.addr(), 7);
    let nothing: Args = [0; 6];
    let (mut code, mut got, mut words) =
        message_call(Call::Recv as u32, endpoint, nothing, NO_WORDS);
    while code == 0 {
        let own = u64::from(start::space().0);
        let at = words[0] & !(PAGE - 1);
        let mode = ShareMode::Shared as u64;
        let args = [own, page.addr(), at, PAGE, mode, Perm::R.bits()];
        succeeded(call(Call::Share as u32, space, args).0);
        let verdict = FaultVerdict::Resume as u64;
        let args = [got[3], verdict, 0, 0, 0, 0];
        (code, got, words) = message_call(Call::ReplyRecv as u32, endpoint, args, NO_WORDS);
    }
}

/// Requests of many pages with a short reply; the receiver reads one word of each page.
fn messages(nr_pages: usize) -> Result<(), Error> {
    let endpoint = Endpoint::create()?;
    let gift = Gift(endpoint.handle(), Rights::RECV | Rights::COPY, 0);
    let len = nr_pages * PAGE as usize;
    let mut buffer = PageBuffer::new(len + PAGE as usize)?;
    let twin = Twin::start(&system(), &[gift], move |[endpoint, ..]| {
        let buffer = PageBuffer::new(len).expect("buffer");
        take_pages(endpoint, &buffer);
    });
    let rounds = if nr_pages < 64 {
        Rounds::MANY
    } else {
        Rounds::FEW
    };
    let (to, start) = (endpoint.handle(), buffer.addr());
    let mut generation = 0;
    let mut renew = |buffer: &mut PageBuffer| {
        generation += 1;
        for page in buffer.chunks_mut(PAGE as usize) {
            page[SHIFT] = generation;
        }
    };
    let send = |from: u64| {
        let args = [0, 0, from, len as u64, 0, 0];
        message_call(Call::Send as u32, to, args, NO_WORDS).0
    };
    // Each message has pages that nobody else has: the ones before were written anew.
    for (name, from) in [("send_cow", start), ("send_copy", start + SHIFT as u64)] {
        measure_with(
            &alloc::format!("{name}/{nr_pages}"),
            rounds,
            || renew(&mut buffer),
            |()| send(from),
            succeeded,
        );
    }
    twin.kill();
    Ok(())
}

/// A server that looks at each page of what it gets.
fn take_pages(endpoint: Handle, buffer: &PageBuffer) {
    let (at, capacity) = (buffer.addr(), buffer.mapped_len() as u64);
    let args = [0, 0, 0, 0, at, capacity];
    let (mut code, mut got, _) = message_call(Call::Recv as u32, endpoint, args, NO_WORDS);
    while code == 0 {
        let end = at + got[2];
        let sum = (at..end).step_by(PAGE as usize).map(peek).sum();
        let args = [got[3], 0, 0, 0, at, capacity];
        (code, got, _) = message_call(Call::ReplyRecv as u32, endpoint, args, [sum, 0, 0, 0]);
    }
}

/// Checks a call's result, outside of what is measured.
fn succeeded(code: u64) {
    assert_eq!(code, 0, "a call failed");
}
