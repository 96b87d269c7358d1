//! How much more two CPUs do than one: work that has nothing in common, with one worker on one CPU, and with
//! one on each of two. With the name of a work, that one with one worker only.
//!
//! This is about time, so the machine runs several CPUs at once and counts no instructions. One line a
//! measurement goes out for `cargo xtask bench --scale` to read:
//!
//! ```text
//! scale WORK CPUS OPERATIONS_PER_SECOND ...
//! ```
//!
//! with a number for each of some windows of time, one after the other.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::{string::ToString, vec::Vec};
use core::array;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::abi::{Call, Error as KernelError};
use libipc::object::clock;
use libipc::raw::message_call;
use libipc::rt::thread_exit;
use libipc::services::Error;
use libipc::start;
use libipc::{Endpoint, Handle, PAGE_SIZE, PageBuffer, Rights, System, println};
use user_apps::scenario::cpus;
use user_apps::scenario::peer::{rest, until};
use user_apps::scenario::twin::{Gift, Twin, fork_and_wait, system};

libipc::program!(run);

/// How many times the workers are looked at, and for how long each time, in nanoseconds: a host that also runs something else is
/// calm for tenths of a second at a time.
const NR_WINDOWS: usize = 10;
const WINDOW_NS: u64 = 50_000_000;

/// Pages that a process has written before it forks, or that it maps, writes and unmaps.
const PAGES: usize = 16;

/// What works on one CPU, until it is killed.
type Worker = fn(&System, cpu: u64, count: &'static AtomicU64) -> Vec<Twin>;

const WORKS: [(&str, Worker); 4] = [
    ("null_syscall", null_syscall),
    ("ping_pong", ping_pong),
    ("map_touch", map_touch),
    ("fork_exit", fork_exit),
];

fn run() -> Result<(), Error> {
    assert!(cpus::count() > 1, "there is one CPU only");
    let system = system();
    // A page for each counter, so that no two CPUs write to one line.
    let counters = PageBuffer::new(2 * PAGE_SIZE)?;
    counters.make_shared()?;
    let only = start::args().nth(1);
    for (name, worker) in WORKS {
        let most = match only {
            Some(only) => u64::from(only == name),
            None => 2,
        };
        for nr_cpus in 1..=most {
            let rates = rates(&system, worker, counters.addr(), nr_cpus);
            let words: Vec<_> = rates.iter().map(u64::to_string).collect();
            println!("scale {name} {nr_cpus} {}", words.join(" "));
        }
    }
    Ok(())
}

/// Operations per second of so many workers, each on a CPU of its own, in each window.
fn rates(system: &System, worker: Worker, counters: u64, nr_cpus: u64) -> [u64; NR_WINDOWS] {
    let counter = |cpu| -> &'static AtomicU64 {
        // SAFETY: the counters stay mapped until the program ends.
        unsafe { AtomicU64::from_ptr((counters + cpu * PAGE_SIZE as u64) as *mut u64) }
    };
    let total = || {
        (0..nr_cpus)
            .map(|cpu| counter(cpu).load(Relaxed))
            .sum::<u64>()
    };
    let now = || clock().expect("clock").0;
    (0..nr_cpus).for_each(|cpu| counter(cpu).store(0, Relaxed));
    let twins: Vec<_> = (0..nr_cpus)
        .flat_map(|cpu| worker(system, cpu, counter(cpu)))
        .collect();
    until("all work", || {
        (0..nr_cpus).all(|cpu| counter(cpu).load(Relaxed) > 100)
    });
    let rates = array::from_fn(|_| {
        let (begin, before) = (now(), total());
        rest(WINDOW_NS);
        let (nr_done, elapsed_ns) = (total() - before, now() - begin);
        (u128::from(nr_done) * 1_000_000_000 / u128::from(elapsed_ns)) as u64
    });
    twins.into_iter().for_each(Twin::kill);
    rates
}

/// Into the kernel and out again, with a call that does not exist: nothing is shared there.
fn null_syscall(system: &System, cpu: u64, count: &'static AtomicU64) -> Vec<Twin> {
    let twin = Twin::start(system, &[], move |_| {
        stay_on(cpu);
        loop {
            let (code, ..) = message_call(u32::MAX, Handle::NONE, [0; 6], [0; 4]);
            assert_eq!(code, KernelError::UnknownCall as u64);
            count.fetch_add(1, Relaxed);
        }
    });
    [twin].into()
}

/// A client calls a server in another space, four words there and back.
fn ping_pong(system: &System, cpu: u64, count: &'static AtomicU64) -> Vec<Twin> {
    let endpoint = Endpoint::create().expect("endpoint");
    let receive = Gift(endpoint.handle(), Rights::RECV | Rights::COPY, 0);
    let send = Gift(endpoint.handle(), Rights::SEND, 0);
    let server = Twin::start(system, &[receive], move |[from, ..]| {
        stay_on(cpu);
        echo(from);
    });
    let client = Twin::start(system, &[send], move |[to, ..]| {
        stay_on(cpu);
        let mut words = [1, 2, 3, 4];
        loop {
            let (code, _, reply) = message_call(Call::Send as u32, to, [0; 6], words);
            assert_eq!(code, 0);
            words = reply;
            count.fetch_add(1, Relaxed);
        }
    });
    // In this order they are killed: no client sees its server die.
    [client, server].into()
}

/// Answers with the words it got, for ever: a client may be killed before it has its answer.
fn echo(endpoint: Handle) {
    loop {
        let (mut code, mut got, mut words) =
            message_call(Call::Recv as u32, endpoint, [0; 6], [0; 4]);
        while code == 0 {
            let args = [got[3], 0, 0, 0, 0, 0];
            (code, got, words) = message_call(Call::ReplyRecv as u32, endpoint, args, words);
        }
        assert_eq!(code, KernelError::StaleToken as u64);
    }
}

/// A process maps memory, writes to each page, and unmaps it.
fn map_touch(system: &System, cpu: u64, count: &'static AtomicU64) -> Vec<Twin> {
    let twin = Twin::start(system, &[], move |_| {
        stay_on(cpu);
        loop {
            let mut pages = PageBuffer::new(PAGES * PAGE_SIZE).expect("memory");
            pages.chunks_mut(PAGE_SIZE).for_each(|page| page[0] = 1);
            drop(pages);
            count.fetch_add(1, Relaxed);
        }
    });
    [twin].into()
}

/// A process forks children that end at once: the calls that the process server makes for that, without it, as there
/// is one of it.
fn fork_exit(system: &System, cpu: u64, count: &'static AtomicU64) -> Vec<Twin> {
    let gift = Gift(system.handle(), Rights::CREATE, 0);
    let twin = Twin::start(system, &[gift], move |[system, ..]| {
        stay_on(cpu);
        fork_on(&System::borrow(system), count).expect("a fork");
    });
    [twin].into()
}

fn fork_on(system: &System, count: &AtomicU64) -> Result<(), libipc::Error> {
    let end = Endpoint::create()?;
    let stack = PageBuffer::new(PAGE_SIZE)?;
    let mut pages = PageBuffer::new(PAGES * PAGE_SIZE)?;
    loop {
        pages
            .chunks_mut(PAGE_SIZE)
            .for_each(|page| page[0] = page[0].wrapping_add(1));
        fork_and_wait(system, &end, &stack, end_at_once, 0)?;
        count.fetch_add(1, Relaxed);
    }
}

extern "C" fn end_at_once(_: u64) -> ! {
    thread_exit()
}

/// Lets the calling thread run on this CPU only.
fn stay_on(cpu: u64) {
    let own = libipc::Thread::borrow(libipc::start::thread());
    cpus::bind(&own, 1 << cpu).expect("the CPU is there");
}
