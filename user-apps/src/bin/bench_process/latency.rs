//! How late an interrupt is served that comes while the kernel is busy.
//!
//! A thread of low priority sets a timer that runs out at once, and makes a call that takes long.
//! The timer's thread has a higher priority: it runs as soon as the kernel takes interrupts again.
//! How late it is by then is how long the call kept them off, and what an interrupt costs.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libipc::abi::{Call, ThreadField, ThreadState};
use libipc::object::clock;
use libipc::raw::{message_call, ticks};
use libipc::services::Error;
use libipc::thread::Supervisor;
use libipc::{
    Borrowed, Endpoint, Handle, Message, PAGE_SIZE, PageBuffer, Received, Rights, ShareMode, Space,
    System, Thread, start,
};
use user_apps::bench::{Rounds, begin, end, report, rounds_of};
use user_apps::scenario::memory::{PAGE, SCRATCH, peek, poke};
use user_apps::scenario::peer::{join, thread_with, until_state};
use user_apps::scenario::twin::{Gift, Twin, system};

const MIB: usize = 1 << 20;

/// The memory of the largest fork that is measured.
const LARGE: usize = 256 * MIB;

/// The longest message that there may be.
const LONGEST: u64 = 1 << 30;

/// A priority below that of processes.
const LOW: u8 = 8;

/// How long before its deadline a timer is set, in nanoseconds: so long that it does not run out
/// in the call that sets it.
const AHEAD_NS: u64 = 3000;

/// What is told when the timer has run out, and when all rounds are over.
const RANG: u64 = 1;
const ENDED: u64 = 2;

/// When the timer runs out.
static DEADLINE: AtomicU64 = AtomicU64::new(0);

pub(crate) fn run() -> Result<(), Error> {
    nothing()?;
    fork()?;
    exit()?;
    unmap()?;
    endpoint()?;
    message()
}

/// What the others are compared with: an interrupt in user mode.
fn nothing() -> Result<(), Error> {
    lateness("irq_late/user", |alarm| {
        alarm.set();
        // All in user mode.
        let over = ticks() + 10 * AHEAD_NS;
        while ticks() < over {}
        alarm.silence();
    })
}

/// A child that gets all of a large parent.
fn fork() -> Result<(), Error> {
    let (system, parent) = (system(), PageBuffer::new(LARGE)?);
    lateness("irq_late/fork_256", move |alarm| {
        write(parent.addr(), LARGE);
        let child = system.create_space(None).expect("space");
        alarm.set();
        share(&child, &parent);
        alarm.silence();
        assert_eq!(nr_shared(&child), LARGE / PAGE_SIZE);
        child.kill().expect("kill");
    })
}

/// The end of such a child.
fn exit() -> Result<(), Error> {
    let (system, parent) = (system(), PageBuffer::new(LARGE)?);
    lateness("irq_late/exit_256", move |alarm| {
        write(parent.addr(), LARGE);
        let child = child_of(&system, &parent);
        assert_eq!(nr_shared(&child), LARGE / PAGE_SIZE);
        alarm.set();
        child.kill().expect("kill");
        drop(child);
        alarm.silence();
    })
}

/// Memory of one's own that goes.
fn unmap() -> Result<(), Error> {
    lateness("irq_late/unmap_256", |alarm| {
        let memory = PageBuffer::new(LARGE).expect("memory");
        write(memory.addr(), LARGE);
        alarm.set();
        drop(memory);
        alarm.silence();
    })
}

/// An endpoint at which many wait.
fn endpoint() -> Result<(), Error> {
    lateness("irq_late/endpoint_400", |alarm| {
        let receiver = Endpoint::create().expect("endpoint");
        let to = receiver.copy(Rights::SEND, 0).expect("copy").into_raw();
        let senders = [(); 400].map(|()| {
            thread_with(LOW, Supervisor::Nobody, move || {
                let sent = Endpoint::borrow(to).call(Message::new(0));
                assert_eq!(sent, Err(libipc::Error::Died));
            })
        });
        for sender in &senders {
            until_state(sender.thread(), ThreadState::Sending);
        }
        alarm.set();
        drop(receiver);
        alarm.silence();
        senders.into_iter().for_each(join);
        drop(Endpoint::from_raw(to));
    })
}

/// The longest message. Its pages share few frames: to the kernel all pages are alike.
fn message() -> Result<(), Error> {
    let endpoint = Endpoint::create()?;
    let gift = Gift(endpoint.handle(), Rights::RECV | Rights::COPY, 0);
    // The server has a low priority too, as it lends it to who works on a message for it.
    let twin = Twin::start(&system(), &[gift], |[endpoint, ..]| {
        let _server = thread_with(LOW, Supervisor::Nobody, move || take(endpoint));
        let forever = Endpoint::create().expect("endpoint");
        let _ = forever.recv(&mut []);
    });
    let frames = PageBuffer::new(MIB)?;
    write(frames.addr(), MIB);
    let own = Space::own();
    let share = |to, len| own.share(&own, SCRATCH, to, len, ShareMode::CopyOnWrite, None);
    own.share(
        &own,
        frames.addr(),
        SCRATCH,
        MIB as u64,
        ShareMode::CopyOnWrite,
        None,
    )?;
    let mut len = MIB as u64;
    while len < LONGEST {
        share(SCRATCH + len, len)?;
        len *= 2;
    }
    let (to, expected) = (endpoint.handle(), sum(SCRATCH, LONGEST));
    lateness("irq_late/message_1024", move |alarm| {
        let args = [0, 0, SCRATCH, LONGEST, 0, 0];
        alarm.set();
        let (code, _, words) = message_call(Call::Send as u32, to, args, [0; 4]);
        alarm.silence();
        assert_eq!((code, words[0]), (0, expected));
    })?;
    twin.kill();
    Ok(own.unmap(SCRATCH, LONGEST)?)
}

/// A server that adds up the first words of all pages that it gets.
fn take(endpoint: Handle) {
    let buffer = PageBuffer::new(LONGEST as usize).expect("buffer");
    let args = [0, 0, 0, 0, buffer.addr(), LONGEST];
    let (mut code, mut got, _) = message_call(Call::Recv as u32, endpoint, args, [0; 4]);
    while code == 0 {
        let answer = [sum(buffer.addr(), got[2]), 0, 0, 0];
        let args = [got[3], 0, 0, 0, buffer.addr(), LONGEST];
        (code, got, _) = message_call(Call::ReplyRecv as u32, endpoint, args, answer);
    }
}

/// Measures how late a timer is that a round sets before it makes a long call.
fn lateness(name: &str, mut round: impl FnMut(&Alarm) + 'static) -> Result<(), Error> {
    let some = Rounds {
        warm_up: 1,
        counted: 3,
    };
    let Some(rounds) = rounds_of(name, some) else {
        return Ok(());
    };
    let total = rounds.warm_up + rounds.counted;
    let endpoint = Endpoint::create()?;
    let (bell, end) = (
        endpoint.copy(Rights::NOTIFY, RANG)?,
        endpoint.copy(Rights::NOTIFY, ENDED)?,
    );
    let handles = (bell.handle(), end.handle());
    // The two are to get in each other's way: on one CPU.
    let own = Thread::borrow(start::thread());
    own.set(ThreadField::Affinity, 1)?;
    let worker = thread_with(LOW, Supervisor::Process, move || {
        let alarm = Alarm(Endpoint::borrow(handles.0));
        (0..total).for_each(|_| round(&alarm));
        drop(round);
        Endpoint::borrow(handles.1).notify().expect("notify");
    });
    let (_, ticks_per_s) = clock()?;
    let mut samples = Vec::with_capacity(rounds.counted);
    for round in 0..total {
        let received = endpoint.recv(&mut [])?;
        let late_ns = now() - DEADLINE.load(Relaxed);
        assert!(matches!(received, Received::Notification(RANG)));
        if round >= rounds.warm_up {
            samples.push((u128::from(late_ns) * u128::from(ticks_per_s) / 1_000_000_000) as u64);
        }
    }
    let received = endpoint.recv(&mut [])?;
    assert!(matches!(received, Received::Notification(ENDED)));
    drop(worker);
    own.set(ThreadField::Affinity, u64::MAX)?;
    report(name, &mut samples);
    Ok(())
}

/// The timer of a thread of low priority.
struct Alarm(Borrowed<'static, Endpoint>);

impl Alarm {
    /// Sets it to run out in a moment.
    fn set(&self) {
        let deadline = now() + AHEAD_NS;
        DEADLINE.store(deadline, Relaxed);
        begin();
        self.0.timer(deadline).expect("timer");
    }

    /// Ends a round: by now it must have run out.
    fn silence(&self) {
        end();
        assert!(now() > DEADLINE.load(Relaxed), "the call took no time");
    }
}

fn now() -> u64 {
    clock().expect("clock").0
}

fn child_of(system: &System, parent: &PageBuffer) -> Space {
    let child = system.create_space(None).expect("space");
    share(&child, parent);
    child
}

fn share(child: &Space, parent: &PageBuffer) {
    let (addr, len) = (parent.addr(), parent.mapped_len() as u64);
    child
        .share(&Space::own(), addr, addr, len, ShareMode::CopyOnWrite, None)
        .expect("share");
}

fn nr_shared(space: &Space) -> usize {
    space.info().expect("info").shared_cow as usize
}

fn write(addr: u64, len: usize) {
    for page in (addr..addr + len as u64).step_by(PAGE_SIZE) {
        poke(page, page);
    }
}

fn sum(addr: u64, len: u64) -> u64 {
    let pages = (addr..addr + len).step_by(PAGE as usize);
    pages.map(peek).fold(0, u64::wrapping_add)
}
