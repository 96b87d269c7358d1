//! What memory costs: messages of many pages, mappings and faults.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod messages;

use libipc::abi::{Call, FaultVerdict};
use libipc::raw::{Args, Words, call, message_call};
use libipc::services::Error;
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Endpoint, Handle, PageBuffer, Perm, Rights, ShareMode, Space, start};
use user_apps::bench::{Rounds, measure_with};
use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer;
use user_apps::scenario::twin::{Gift, Twin, system};

libipc::program!(run);

const NO_WORDS: Words = [0; 4];

/// The page that operations are about. Its neighbours stay mapped, so that its page table is there.
const HERE: u64 = SCRATCH + PAGE;
/// A second one, far away.
const THERE: u64 = SCRATCH + (1 << 30) + PAGE;

fn run() -> Result<(), Error> {
    messages::run()?;
    let neighbours = [map(HERE - PAGE, 1), map(THERE - PAGE, 1)];
    for neighbour in &neighbours {
        poke(neighbour.addr(), 1);
    }
    mappings();
    faults();
    pager()?;
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
    measure_with(
        "zero_fault",
        Rounds::MANY,
        || map(HERE, 1),
        |page| {
            poke(HERE, 2);
            page
        },
        drop,
    );
    measure_with(
        "cow_fault_copy",
        Rounds::MANY,
        || (written(1), alias(1)),
        |pages| {
            poke(HERE, 2);
            pages
        },
        |pages| {
            assert_eq!((peek(HERE), peek(THERE)), (2, 1));
            drop(pages);
        },
    );
    reuse("cow_fault_reuse", 1, || poke(HERE, 2));
    reuse("cow_fault_reuse_run/16", 16, || write(16, 2));
}

/// Writes to pages that were copy-on-write, and that nobody else names any more.
fn reuse(name: &str, nr_pages: u64, write_again: impl Fn()) {
    measure_with(
        name,
        Rounds::MANY,
        || {
            let pages = written(nr_pages);
            drop(alias(nr_pages));
            pages
        },
        |pages| {
            write_again();
            pages
        },
        drop,
    );
}

/// Pages with frames of their own.
fn written(nr_pages: u64) -> Mapped {
    let pages = map(HERE, nr_pages);
    write(nr_pages, 1);
    pages
}

/// Writes to each of so many pages, in order.
fn write(nr_pages: u64, value: u64) {
    (0..nr_pages).for_each(|page| poke(HERE + page * PAGE, value));
}

/// Names so many pages a second time, copy-on-write.
fn alias(nr_pages: u64) -> impl Drop {
    struct Alias(u64);
    impl Drop for Alias {
        fn drop(&mut self) {
            let _ = Space::own().unmap(THERE, self.0);
        }
    }
    let (own, len) = (Space::own(), nr_pages * PAGE);
    own.share(&own, HERE, THERE, len, ShareMode::CopyOnWrite, None)
        .expect("share");
    Alias(len)
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

/// Checks a call's result, outside of what is measured.
fn succeeded(code: u64) {
    assert_eq!(code, 0, "a call failed");
}
