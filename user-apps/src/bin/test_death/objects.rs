//! The ends of endpoints, spaces and supervisors, and whom they take along.

use super::*;
use libipc::abi::{Call, Error, FaultVerdict, ThreadState};
use libipc::object::Entry;
use libipc::thread::{PRIORITY, Running, Supervisor};
use libipc::{Endpoint, Message, Perm, Received, Rights};
use user_apps::scenario::assert_err;
use user_apps::scenario::memory::{PAGE, SCRATCH, peek};
use user_apps::scenario::peer::{join, thread, thread_with, until, until_state};
use user_apps::scenario::syscall::refused;
use user_apps::scenario::twin::{Gift, Twin, system};

pub(crate) fn closing_the_last_receive_right_fails_the_queue() {
    let receiver = endpoint();
    let send = receiver.copy(Rights::SEND | Rights::COPY, 0).expect("copy");
    let clients = [1, 2, 3].map(|label| client(&send, label, Err(Error::Died)));
    for client in &clients {
        until_state(client.thread(), ThreadState::Sending);
    }
    drop(receiver);
    until("ends", || clients.iter().all(Running::is_finished));
    assert_err(send.call(Message::new(0)), Error::Died);
}

/// More than the kernel fails in one go.
pub(crate) fn a_queue_of_two_hundred_is_failed_to_the_last() {
    let receiver = endpoint();
    let send = receiver.copy(Rights::SEND | Rights::COPY, 0).expect("copy");
    let clients = [(); 200].map(|()| client(&send, 1, Err(Error::Died)));
    for client in &clients {
        until_state(client.thread(), ThreadState::Sending);
    }
    drop(receiver);
    // Whether it has been told by then or not; if so, it may have ended.
    let killed = clients[199].thread().kill();
    assert!(matches!(killed, Ok(()) | Err(Error::Died)), "{killed:?}");
    until("ends", || clients.iter().all(Running::is_finished));
}

/// A thread waits with a handle that another thread closes.
pub(crate) fn closing_the_last_receive_right_wakes_receivers() {
    let endpoint = endpoint();
    let handle = endpoint.handle();
    let receivers = [(); 3].map(|()| {
        let receiver = thread(move || {
            assert_err(
                Endpoint::borrow(handle).recv(&mut []).map(|_| ()),
                Error::Died,
            );
        });
        until_state(receiver.thread(), ThreadState::Receiving);
        receiver
    });
    drop(endpoint);
    until("ends", || receivers.iter().all(Running::is_finished));
}

/// The only receive right lies in a message that nobody receives, or with a space that dies.
pub(crate) fn an_endpoint_carried_in_a_message_dies_with_its_holder() {
    let carrier = endpoint();
    let cargo = endpoint();
    let send = cargo.copy(Rights::SEND, 0).expect("copy");
    let gift = Gift(carrier.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let incoming = receive(&Endpoint::borrow(from));
        assert!(!incoming.message.handles()[0].is_none());
        incoming.token.reply(Message::new(0), &[]).expect("reply");
        let _ = endpoint_forever().recv(&mut []);
    });
    let message = Message::new(0)
        .with_handles(&[cargo.into_raw()])
        .moving_handles();
    carrier.call(message).expect("send");
    let client = client(&send, 1, Err(Error::Died));
    until_state(client.thread(), ThreadState::Sending);
    twin.kill();
    join(client);
}

pub(crate) fn a_space_without_threads_dies_with_its_last_handle() {
    let system = system();
    let death = endpoint();
    let space = system.create_space(Some((&death, 4))).expect("space");
    space.map(SCRATCH, PAGE, Perm::RW).expect("map");
    let second = space.copy(Rights::READ, 0).expect("copy");
    drop(space);
    assert_err(death.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
    drop(second);
    assert!(matches!(
        death.try_recv(&mut []),
        Ok(Received::Notification(4))
    ));
}

/// A twin makes spaces; their deaths are heard here, when the twin has died.
pub(crate) fn spaces_die_with_their_creator() {
    let death = endpoint();
    let system = system();
    let gifts = [
        Gift(death.handle(), Rights::NOTIFY, 1),
        Gift(death.handle(), Rights::NOTIFY, 2),
        Gift(system.handle(), Rights::CREATE, 0),
        Gift(death.handle(), Rights::NOTIFY, 8),
    ];
    let twin = Twin::start(&system, &gifts, |[one, two, system, ready, ..]| {
        let system = libipc::System::borrow(system);
        let create = |death| {
            system
                .create_space(Some((&Endpoint::borrow(death), 0)))
                .expect("space")
        };
        let spaces = [create(one), create(two)];
        Endpoint::borrow(ready).notify().expect("notify");
        let _ = endpoint_forever().recv(&mut []);
        drop(spaces);
    });
    assert!(matches!(death.recv(&mut []), Ok(Received::Notification(8))));
    twin.kill();
    assert!(matches!(death.recv(&mut []), Ok(Received::Notification(3))));
}

pub(crate) fn the_last_threads_end_is_the_spaces() {
    let twin = Twin::start(&system(), &[], |_| {
        let other = thread(|| {
            let _ = endpoint_forever().recv(&mut []);
        });
        until_state(other.thread(), ThreadState::Receiving);
        // This thread ends without ending the other one.
        core::mem::forget(other);
    });
    until("first thread's end", || {
        twin.thread
            .info()
            .is_ok_and(|info| info.state == ThreadState::Dead)
    });
    let info = twin.space.info().expect("info");
    assert!(info.alive && info.threads == 1, "{info:?}");
    twin.space.kill().expect("kill");
    assert!(!twin.space.info().expect("info").alive);
    refused(Call::Kill, twin.space.handle(), [0; 6], Error::Died);
}

pub(crate) fn a_dead_supervisor_lets_faulting_threads_die() {
    let supervisor = endpoint();
    let start = endpoint();
    let from = start.handle();
    let faulting = thread_with(PRIORITY, Supervisor::Endpoint(&supervisor), move || {
        receive(&Endpoint::borrow(from))
            .token
            .reply(Message::new(0), &[])
            .expect("reply");
        let _ = peek(8);
    });
    drop(supervisor);
    start.call(Message::new(0)).expect("send");
    join(faulting);
}

/// One handle stands for all whom a supervisor looks after.
pub(crate) fn faults_and_deaths_arrive_under_the_badges_that_were_chosen() {
    let supervisor = endpoint();
    let system = system();
    let starts_nowhere = Entry {
        ip: SCRATCH,
        ..Entry::default()
    };
    for (badge, bits) in [(1, 1 << 63), (u64::MAX, 0b11)] {
        let space = system.create_space(Some((&supervisor, bits)));
        let space = space.expect("space");
        let thread = space.create_thread(Some((&supervisor, badge)), 1);
        thread
            .expect("thread")
            .start(starts_nowhere)
            .expect("start");
        let Ok(Received::Fault(fault)) = supervisor.recv(&mut []) else {
            panic!("no fault")
        };
        assert_eq!((fault.badge, fault.address), (badge, SCRATCH));
        fault.decide(FaultVerdict::Kill).expect("verdict");
        let death = supervisor.recv(&mut []);
        assert!(matches!(death, Ok(Received::Notification(raised)) if raised == bits));
    }
}

pub(crate) fn a_supervisor_that_dies_with_a_fault_unanswered() {
    let supervisor = endpoint();
    // In the queue.
    let waiting = thread_with(PRIORITY, Supervisor::Endpoint(&supervisor), || {
        let _ = peek(8);
    });
    until_state(waiting.thread(), ThreadState::Faulted);
    drop(supervisor);
    join(waiting);

    // Received by a space that dies.
    let supervisor = endpoint();
    let gift = Gift(supervisor.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let received = Endpoint::borrow(from).recv(&mut []);
        assert!(matches!(received, Ok(Received::Fault(_))));
        let _ = endpoint_forever().recv(&mut []);
    });
    twin.until_state(ThreadState::Receiving);
    let waiting = thread_with(PRIORITY, Supervisor::Endpoint(&supervisor), || {
        let _ = peek(8);
    });
    until_state(waiting.thread(), ThreadState::Faulted);
    twin.until_state(ThreadState::Receiving);
    twin.kill();
    join(waiting);

    // A verdict on a thread that was killed meanwhile.
    let waiting = thread_with(PRIORITY, Supervisor::Endpoint(&supervisor), || {
        let _ = peek(8);
    });
    let Ok(Received::Fault(fault)) = supervisor.recv(&mut []) else {
        panic!("no fault")
    };
    waiting.thread().kill().expect("kill");
    assert_err(fault.decide(FaultVerdict::Resume), Error::StaleToken);
}
