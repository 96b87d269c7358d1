//! What processes and threads cost: fork, spawn, exec, a thread from its creation to its end, and
//! how long the largest of these keep interrupts waiting.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod latency;

use libipc::object::Entry;
use libipc::services::Error;
use libipc::thread::PRIORITY;
use libipc::{Endpoint, PAGE_SIZE, PageBuffer, Rights, Space, Thread, process, rt};
use user_apps::bench::{Rounds, begin, end, measure_with, report, rounds_of};
use user_apps::scenario::frames;

libipc::program!(run);

/// Sizes of a parent's written memory in MiB.
const SIZES: [usize; 5] = [0, 1, 16, 64, 256];

/// A program that does nothing.
const NOTHING: &str = "/bin/quit";

fn run() -> Result<(), Error> {
    threads()?;
    let some = Rounds {
        warm_up: 2,
        counted: 20,
    };
    let wait = |pid| process::wait(pid).expect("wait").status;
    let well = |status| assert_eq!(status, 0);
    let spawn_wait = || wait(process::spawn(NOTHING, &[]).expect("spawn"));
    measure_with("spawn_wait", some, || (), |()| spawn_wait(), well);
    let fork_exec_wait = || {
        let pid = process::fork().expect("fork");
        if pid == 0 {
            let _ = process::exec(NOTHING, &[]);
            process::exit(1);
        }
        wait(pid)
    };
    measure_with("fork_exec_wait", some, || (), |()| fork_exec_wait(), well);
    for mib in SIZES {
        forks(mib)?;
    }
    latency::run()
}

/// Forks a parent that has written so much: until it goes on, and until the child has ended.
fn forks(mib: usize) -> Result<(), Error> {
    let [name_call, name_whole] =
        ["fork_call", "fork_exit_wait"].map(|name| alloc::format!("{name}/{mib}"));
    let usual = if mib < 16 { Rounds::MANY } else { Rounds::FEW };
    // Both come from the same rounds.
    let [of_call, of_whole] = [&name_call, &name_whole].map(|name| rounds_of(name, usual));
    let Some(rounds) = of_call.or(of_whole) else {
        return Ok(());
    };
    let mut memory = PageBuffer::new((mib << 20).max(1))?;
    let (mut call, mut whole) = (alloc::vec![], alloc::vec![]);
    call.reserve(rounds.counted);
    whole.reserve(rounds.counted);
    for round in 0..rounds.warm_up + rounds.counted {
        for page in memory.chunks_mut(PAGE_SIZE) {
            page[0] = round as u8;
        }
        let begin = begin();
        let pid = process::fork()?;
        if pid == 0 {
            process::exit(0);
        }
        let forked = end();
        let ended = process::wait(pid)?;
        let end = end();
        assert_eq!(ended.status, 0);
        if round >= rounds.warm_up {
            call.push(forked - begin);
            whole.push(end - begin);
        }
    }
    if of_call.is_some() {
        report(&name_call, &mut call);
    }
    if of_whole.is_some() {
        report(&name_whole, &mut whole);
    }
    drop(memory);
    // Memory is given back piece by piece, by whoever calls the kernel next: not by the next row. Who
    // asks how much is free waits for all of it.
    let _ = frames::available();
    Ok(())
}

/// A thread that says that it is there and ends, on a stack that is there already.
fn threads() -> Result<(), Error> {
    let ended = Endpoint::create()?;
    let tell = ended.copy(Rights::NOTIFY, 1)?;
    let stack = PageBuffer::new(4 * PAGE_SIZE)?;
    let entry = Entry {
        ip: tell_and_end as *const () as u64,
        sp: stack.addr() + stack.mapped_len() as u64 - 8,
        args: [tell.handle().0.into(), 0, 0],
        fs_base: 0,
    };
    let create_and_join = || -> Result<Thread, Error> {
        let thread = Space::own().create_thread(None, PRIORITY)?;
        thread.start(entry)?;
        ended.recv(&mut [])?;
        Ok(thread)
    };
    measure_with(
        "thread_create_join",
        Rounds::MANY,
        || (),
        |()| create_and_join(),
        |thread| {
            let info = thread
                .and_then(|thread| Ok(thread.info()?))
                .expect("thread");
            assert_eq!(info.state, libipc::abi::ThreadState::Dead);
        },
    );
    Ok(())
}

extern "C" fn tell_and_end(tell: u64) -> ! {
    let _ = Endpoint::borrow(libipc::Handle(tell as u32)).notify();
    rt::thread_exit()
}
