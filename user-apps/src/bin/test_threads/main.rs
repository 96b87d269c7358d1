//! Threads: their lives, their turns on the CPU, what is kept for each, and notifications.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod events;
mod lending;
mod state;

use events::*;
use lending::*;
use libipc::abi::{Call, Error, Handle, ThreadField, ThreadState};
use libipc::object::{Entry, clock, yield_now};
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Endpoint, Message, Received, Rights, Space, Thread, start};
use state::*;
use user_apps::scenario::assert_err;
use user_apps::scenario::cpus;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{join, rest_until, thread, thread_with, until, until_state};
use user_apps::scenario::syscall::refused;
use user_apps::scenario::twin::system;

user_apps::scenarios![
    threads_come_and_go_without_a_trace,
    arguments_arrive_and_other_registers_are_zero,
    a_stopped_thread_does_not_run,
    a_killed_thread_stops,
    information_tells_what_a_thread_does,
    yielding_lets_others_of_the_same_priority_run,
    a_spinning_thread_does_not_stop_its_equals,
    a_higher_priority_runs_first,
    a_lower_priority_waits,
    lowering_ones_priority_lets_others_run,
    senders_lend_their_priority,
    a_queued_sender_lends_its_priority_to_the_busy_server,
    a_priority_is_lent_along_a_chain_of_servers,
    a_killed_sender_takes_its_priority_along,
    vector_registers_are_kept_for_each_thread,
    wide_vector_registers_are_kept_for_each_thread,
    vector_registers_survive_fork,
    the_base_of_fs_is_kept_for_each_thread,
    timers_raise_their_bits_not_before_their_time,
    a_new_timer_replaces_the_old,
    notifications_gather_bits,
    notifications_come_before_messages,
    notifications_wake_one_receiver,
    devices_need_their_handles,
];

/// A page that threads write to.
fn board() -> Mapped {
    map(SCRATCH, 1)
}

const fn slot(index: u64) -> u64 {
    SCRATCH + 8 * index
}

fn threads_come_and_go_without_a_trace() {
    let _board = board();
    poke(slot(0), 0);
    assert_exact(|| {
        for round in 0..100 {
            poke(slot(0), 0);
            join(thread(move || poke(slot(0), round + 1)));
            assert_eq!(peek(slot(0)), round + 1);
        }
        let many: [_; 40] =
            core::array::from_fn(|index| thread(move || poke(slot(index as u64), index as u64)));
        until("ends", || {
            many.iter().all(libipc::thread::Running::is_finished)
        });
        for index in 0..40 {
            assert_eq!(peek(slot(index)), index);
        }
    });
}

fn arguments_arrive_and_other_registers_are_zero() {
    let memory = map(SCRATCH, 2);
    let thread = Space::own().create_thread(None, PRIORITY).expect("thread");
    let entry = Entry {
        ip: report_registers as *const () as u64,
        sp: SCRATCH + 2 * PAGE,
        args: [SCRATCH, 22, 33],
        fs_base: 0,
    };
    thread.start(entry).expect("start");
    until("end", || {
        thread
            .info()
            .is_ok_and(|info| info.state == ThreadState::Dead)
    });
    assert_eq!([0, 1, 2].map(|index| peek(slot(index))), [SCRATCH, 22, 33]);
    for index in 3..15 {
        assert_eq!(peek(slot(index)), 0, "register {index}");
    }
    assert_eq!(peek(slot(15)), SCRATCH + 2 * PAGE);
    drop(memory);
}

fn a_stopped_thread_does_not_run() {
    let thread = Space::own().create_thread(None, PRIORITY).expect("thread");
    for _ in 0..10 {
        yield_now();
        assert_eq!(thread.info().expect("info").state, ThreadState::Stopped);
    }
    assert_eq!(thread.info().expect("info").run_ns, 0);
    thread.kill().expect("kill");
    assert_err(thread.start(Entry::default()), Error::Died);
    assert_err(thread.kill(), Error::Died);
}

fn a_killed_thread_stops() {
    let _board = board();
    poke(slot(0), 0);
    let counter = thread(|| {
        loop {
            poke(slot(0), peek(slot(0)) + 1);
        }
    });
    until("a first turn", || peek(slot(0)) > 0);
    counter.thread().kill().expect("kill");
    let last = peek(slot(0));
    for _ in 0..10 {
        yield_now();
    }
    assert_eq!(peek(slot(0)), last);
}

fn information_tells_what_a_thread_does() {
    let own = Thread::borrow(start::thread());
    let info = own.info().expect("info");
    assert_eq!(
        (info.state, info.base_priority),
        (ThreadState::Runnable, PRIORITY.into())
    );
    let endpoint = Endpoint::create().expect("endpoint");
    let handle = endpoint.handle();
    let sender = thread(move || {
        let _ = Endpoint::borrow(handle).call(Message::new(0));
    });
    until_state(sender.thread(), ThreadState::Sending);
    let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
        panic!("no message")
    };
    until_state(sender.thread(), ThreadState::AwaitingReply);
    incoming.token.reply(Message::new(0), &[]).expect("reply");
    join(sender);
    let receiver = thread(move || {
        let _ = Endpoint::borrow(handle).recv(&mut []);
    });
    until_state(receiver.thread(), ThreadState::Receiving);
    let space = Space::own().info().expect("info");
    assert_eq!(space.threads, 2);
    let (then, _) = clock().expect("clock");
    let run_ns = || own.info().expect("info").run_ns;
    let (before, mut ran) = (run_ns(), 0);
    until("running time", || {
        ran = run_ns() - before;
        ran >= 1_000_000
    });
    let elapsed = clock().expect("clock").0 - then;
    assert!(ran <= elapsed, "{ran} ns in {elapsed} ns");
}

fn yielding_lets_others_of_the_same_priority_run() {
    cpus::stay_on_one();
    let _board = board();
    poke(slot(0), 0);
    let others = [1, 2, 3].map(|who| {
        thread(move || {
            for _ in 0..50 {
                poke(slot(who), peek(slot(who)) + 1);
                yield_now();
            }
        })
    });
    for _ in 0..1000 {
        yield_now();
    }
    assert_eq!([1, 2, 3].map(|who| peek(slot(who))), [50; 3]);
    drop(others);
}

/// Two threads that never enter the kernel both get on.
fn a_spinning_thread_does_not_stop_its_equals() {
    let _board = board();
    let spinners = [0, 1].map(|who| {
        thread(move || {
            loop {
                poke(slot(who), peek(slot(who)) + 1);
            }
        })
    });
    for _ in 0..3 {
        let before = [0, 1].map(|who| peek(slot(who)));
        until("both", || {
            (0..2).all(|who| peek(slot(who as u64)) > before[who])
        });
    }
    drop(spinners);
}

/// A thread of a higher priority preempts one that spins, as soon as it can run.
fn a_higher_priority_runs_first() {
    cpus::stay_on_one();
    let _board = board();
    let endpoint = Endpoint::create().expect("endpoint");
    let notify = endpoint.copy(Rights::NOTIFY, 1).expect("copy");
    let from = endpoint.handle();
    // The highest that this process may give is its own: the others go below.
    let own = Thread::borrow(start::thread());
    own.set(ThreadField::Priority, 10).expect("lower");
    assert_err(own.set(ThreadField::Priority, 11), Error::Denied);
    let high = thread_with(10, Supervisor::Process, move || {
        for round in 1.. {
            let _ = Endpoint::borrow(from).recv(&mut []);
            poke(slot(0), round);
        }
    });
    until_state(high.thread(), ThreadState::Receiving);
    own.set(ThreadField::Priority, 5).expect("lower");
    for round in 1..20 {
        notify.notify().expect("notify");
        assert_eq!(
            peek(slot(0)),
            round,
            "the notified thread has a higher priority"
        );
    }
    drop(high);
}

fn a_lower_priority_waits() {
    cpus::stay_on_one();
    let _board = board();
    poke(slot(0), 0);
    let low = thread_with(3, Supervisor::Process, || poke(slot(0), 1));
    for _ in 0..100 {
        yield_now();
        assert_eq!(
            peek(slot(0)),
            0,
            "a lower priority ran while a higher one could"
        );
    }
    rest_until("the lower priority's turn", || peek(slot(0)) == 1);
    drop(low);
}

fn lowering_ones_priority_lets_others_run() {
    cpus::stay_on_one();
    let _board = board();
    let middle = thread_with(8, Supervisor::Process, || {
        for count in 1..=1000 {
            poke(slot(0), count);
        }
    });
    Thread::borrow(start::thread())
        .set(ThreadField::Priority, 4)
        .expect("lower");
    assert_eq!(peek(slot(0)), 1000);
    assert!(middle.is_finished());
}

/// A server of low priority that works for a sender of a higher one runs at the sender's.
fn senders_lend_their_priority() {
    let endpoint = Endpoint::create().expect("endpoint");
    let from = endpoint.handle();
    let server = thread_with(2, Supervisor::Process, move || {
        let endpoint = Endpoint::borrow(from);
        while let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) {
            let words = [0, 1].map(|_| {
                yield_now();
                0
            });
            let _ = incoming.token.reply(Message::new(0).with_words(words), &[]);
        }
    });
    rest_until("the server", || {
        server
            .thread()
            .info()
            .is_ok_and(|info| info.state == ThreadState::Receiving)
    });
    // It would never run again with this one spinning above it.
    let spinner = thread_with(9, Supervisor::Process, || {
        loop {
            core::hint::spin_loop();
        }
    });
    endpoint.call(Message::new(0)).expect("send");
    let info = server.thread().info().expect("info");
    assert_eq!(info.base_priority, 2);
    drop((server, spinner));
}

/// A process has no handle to a device; nothing that it has passes for one.
fn devices_need_their_handles() {
    let endpoint = Endpoint::create().expect("endpoint");
    let handles = [
        endpoint.handle(),
        start::space(),
        start::thread(),
        system().into_raw(),
    ];
    for call in [Call::InterruptBind, Call::InterruptAck, Call::PortIo] {
        for handle in handles {
            let args = [endpoint.handle().0.into(), 0, 1, 0, 0, 0];
            refused(call, handle, args, Error::WrongType);
        }
        refused(call, Handle::NONE, [0; 6], Error::BadHandle);
    }
}
