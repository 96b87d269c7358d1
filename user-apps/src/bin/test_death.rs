//! The end of threads, spaces and endpoints in every state: whoever waits for the dead is told,
//! and every frame comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Call, Error, FaultVerdict, Handle, ThreadState};
use libipc::message::ReplyToken;
use libipc::thread::{PRIORITY, Running, Supervisor};
use libipc::{Endpoint, Incoming, Message, PageBuffer, Perm, Received, Rights, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::memory::{PAGE, SCRATCH, fill, peek};
use user_apps::scenario::peer::{join, thread, thread_with, until, until_state};
use user_apps::scenario::syscall::refused;
use user_apps::scenario::twin::{Gift, Twin, system};

user_apps::scenarios![
    tokens_work_once,
    tokens_of_the_dead_are_stale,
    tokens_are_the_receivers_alone,
    an_unblocked_clients_next_request_has_another_token,
    a_client_killed_in_the_queue_leaves_it,
    a_client_killed_while_it_waits_for_the_reply,
    a_server_killed_while_it_waits,
    a_server_that_dies_with_messages_unanswered,
    a_servers_thread_may_die_while_the_others_answer,
    big_messages_to_and_from_the_dead,
    shared_frames_of_the_dead_live_on,
    kill_wins_against_a_server_that_never_replies,
    closing_the_last_receive_right_fails_the_queue,
    closing_the_last_receive_right_wakes_receivers,
    an_endpoint_carried_in_a_message_dies_with_its_holder,
    a_space_without_threads_dies_with_its_last_handle,
    spaces_die_with_their_creator,
    the_last_threads_end_is_the_spaces,
    a_dead_supervisor_lets_faulting_threads_die,
    a_supervisor_that_dies_with_a_fault_unanswered,
    every_state_gives_back_every_frame,
];

fn endpoint() -> Endpoint {
    Endpoint::create().expect("endpoint")
}

#[track_caller]
fn receive(endpoint: &Endpoint) -> Incoming {
    match endpoint.recv(&mut []) {
        Ok(Received::Message(incoming)) => incoming,
        other => panic!("no message, but {other:?}"),
    }
}

/// A thread that sends an inline message and must get this result.
fn client(to: &Endpoint, label: u32, expected: Result<u32, Error>) -> Running {
    let to = to.handle();
    thread(move || {
        let result = Endpoint::borrow(to).call(Message::new(label));
        assert_eq!(result.map(|reply| reply.label()), expected);
    })
}

/// A twin that sends inline messages until that fails.
fn client_twin(to: &Endpoint) -> Twin {
    Twin::start(
        &system(),
        &[Gift(to.handle(), Rights::SEND, 0)],
        |[to, ..]| {
            while Endpoint::borrow(to).call(Message::new(0)).is_ok() {}
        },
    )
}

#[track_caller]
fn stale(token: u64) {
    assert_err(
        ReplyToken::from_raw(token).reply(Message::new(0), &[]),
        Error::StaleToken,
    );
}

fn tokens_work_once() {
    let endpoint = endpoint();
    let client = client(&endpoint, 1, Ok(2));
    let incoming = receive(&endpoint);
    let token = incoming.token.into_raw();
    ReplyToken::from_raw(token)
        .reply(Message::new(2), &[])
        .expect("reply");
    stale(token);
    join(client);
    stale(token);
}

fn tokens_of_the_dead_are_stale() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let client = thread(move || {
        let _ = Endpoint::borrow(to).call(Message::new(0));
    });
    let token = receive(&endpoint).token.into_raw();
    client.thread().kill().expect("kill");
    stale(token);
    // The next thread may get the dead one's place, but not its token.
    let next = self::client(&endpoint, 5, Ok(6));
    let incoming = receive(&endpoint);
    let other = incoming.token.into_raw();
    assert_ne!(other, token);
    stale(token);
    ReplyToken::from_raw(other)
        .reply(Message::new(6), &[])
        .expect("reply");
    join(next);
}

fn tokens_are_the_receivers_alone() {
    let endpoint = endpoint();
    let report = self::endpoint();
    let waiting = client(&endpoint, 0, Ok(1));
    let token = receive(&endpoint).token.into_raw();
    // Another space that knows the number.
    let gift = Gift(report.handle(), Rights::NOTIFY, 1);
    Twin::start(&system(), &[gift], move |_| stale(token)).join();
    ReplyToken::from_raw(token)
        .reply(Message::new(1), &[])
        .expect("reply");
    join(waiting);
}

/// QNX's mistake: a client whose request ended early asks again, and gets the first one's answer.
fn an_unblocked_clients_next_request_has_another_token() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    // The first reply cannot be stored, so the first request ends with an error.
    let client = thread(move || {
        let args = [0, 0, 0, 0, SCRATCH, 8];
        let (code, _) = libipc::raw::call(Call::Send as u32, to, args);
        assert_eq!(Error::from_code(code), Some(Error::NotMapped));
        let second = Endpoint::borrow(to).call(Message::new(2)).expect("send");
        assert_eq!(second.label(), 22);
    });
    let first = receive(&endpoint).token.into_raw();
    ReplyToken::from_raw(first)
        .reply(Message::new(11), &[1; 8])
        .expect("the server is not to blame");
    let second = receive(&endpoint);
    assert_eq!(second.message.label(), 2);
    stale(first);
    second.token.reply(Message::new(22), &[]).expect("reply");
    join(client);
}

fn a_client_killed_in_the_queue_leaves_it() {
    let endpoint = endpoint();
    let clients = [1, 2, 3].map(|label| {
        let client = client(&endpoint, label, Ok(0));
        until_state(client.thread(), ThreadState::Sending);
        client
    });
    clients[1].thread().kill().expect("kill");
    for label in [1, 3] {
        let incoming = receive(&endpoint);
        assert_eq!(incoming.message.label(), label);
        incoming.token.reply(Message::new(0), &[]).expect("reply");
    }
    assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
    until("ends", || clients.iter().all(Running::is_finished));
}

fn a_client_killed_while_it_waits_for_the_reply() {
    let endpoint = endpoint();
    let twin = client_twin(&endpoint);
    let incoming = receive(&endpoint);
    twin.until_state(ThreadState::AwaitingReply);
    twin.kill();
    assert_err(
        incoming.token.reply(Message::new(0), &[]),
        Error::StaleToken,
    );
    assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
}

fn a_server_killed_while_it_waits() {
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let _ = Endpoint::borrow(from).recv(&mut []);
    });
    twin.until_state(ThreadState::Receiving);
    twin.kill();
    // This side's receive right keeps the endpoint alive.
    let client = client(&endpoint, 1, Ok(1));
    receive(&endpoint)
        .token
        .reply(Message::new(1), &[])
        .expect("reply");
    join(client);
}

fn a_server_that_dies_with_messages_unanswered() {
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        for _ in 0..3 {
            let _ = Endpoint::borrow(from).recv(&mut []);
        }
        let _ = endpoint_forever().recv(&mut []);
    });
    let clients = [1, 2, 3].map(|label| client(&endpoint, label, Err(Error::Died)));
    for client in &clients {
        until_state(client.thread(), ThreadState::AwaitingReply);
    }
    twin.until_state(ThreadState::Receiving);
    twin.kill();
    until("ends", || clients.iter().all(Running::is_finished));
}

/// An endpoint that nobody sends to.
fn endpoint_forever() -> Endpoint {
    endpoint()
}

/// The token belongs to the space: another thread answers what a dead one received.
fn a_servers_thread_may_die_while_the_others_answer() {
    let endpoint = endpoint();
    let from = endpoint.handle();
    let client = client(&endpoint, 1, Ok(7));
    let token = PageBuffer::new(8).expect("buffer");
    let at = token.addr();
    let receiver = thread(move || {
        let incoming = receive(&Endpoint::borrow(from));
        user_apps::scenario::memory::poke(at, incoming.token.into_raw());
        let _ = endpoint_forever().recv(&mut []);
    });
    until("token", || peek(at) != 0);
    receiver.thread().kill().expect("kill");
    ReplyToken::from_raw(peek(at))
        .reply(Message::new(7), &[])
        .expect("reply");
    join(client);
}

fn big_messages_to_and_from_the_dead() {
    const LEN: usize = 16 << 20;
    let system = system();
    assert_exact(|| {
        let endpoint = endpoint();
        let gift = Gift(endpoint.handle(), Rights::SEND, 0);
        let twin = Twin::start(&system, &[gift], |[to, ..]| {
            let mut data = PageBuffer::new(LEN).expect("buffer");
            for page in (0..LEN).step_by(PAGE as usize) {
                data[page] = 1;
            }
            let mut reply = PageBuffer::new(LEN).expect("buffer");
            let _ = Endpoint::borrow(to).send(Message::new(0), &data, &mut reply);
        });
        // Killed while queued.
        twin.until_state(ThreadState::Sending);
        twin.kill();
        assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);

        // Killed after delivery, its pages in this side's buffer, which goes next.
        let gift = Gift(endpoint.handle(), Rights::SEND, 0);
        let twin = Twin::start(&system, &[gift], |[to, ..]| {
            let mut data = PageBuffer::new(LEN).expect("buffer");
            for page in (0..LEN).step_by(PAGE as usize) {
                data[page] = 2;
            }
            let _ = Endpoint::borrow(to).send(Message::new(0), &data[1..], &mut []);
        });
        let mut buffer = PageBuffer::new(LEN).expect("buffer");
        let received = endpoint.recv(&mut buffer).expect("recv");
        twin.kill();
        assert_eq!(buffer[PAGE as usize - 1], 2);
        drop((received, buffer));
    });
}

fn shared_frames_of_the_dead_live_on() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let mut buffer = PageBuffer::new(8 * PAGE as usize).expect("buffer");
    fill(&mut buffer, 1);
    let len = 8 * PAGE;
    let mode = libipc::ShareMode::CopyOnWrite;
    space
        .share(&own, buffer.addr(), SCRATCH, len, mode, None)
        .expect("share");
    own.share(&space, SCRATCH, SCRATCH, len, mode, Some(Perm::R))
        .expect("share");
    drop(buffer);
    space.kill().expect("kill");
    // SAFETY: the pages were mapped just before.
    let bytes = unsafe { core::slice::from_raw_parts(SCRATCH as *const u8, len as usize) };
    assert_eq!(user_apps::scenario::memory::mismatch(bytes, 1), None);
    own.unmap(SCRATCH, len).expect("unmap");
}

/// A server that received and does nothing cannot keep its client alive.
fn kill_wins_against_a_server_that_never_replies() {
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let server = Twin::start(&system(), &[gift], |[from, ..]| {
        let _received = Endpoint::borrow(from).recv(&mut []);
        loop {
            libipc::object::yield_now();
        }
    });
    let client = client_twin(&endpoint);
    client.until_state(ThreadState::AwaitingReply);
    client.kill();
    server.kill();
}

fn closing_the_last_receive_right_fails_the_queue() {
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

/// A thread waits with a handle that another thread closes.
fn closing_the_last_receive_right_wakes_receivers() {
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
fn an_endpoint_carried_in_a_message_dies_with_its_holder() {
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

fn a_space_without_threads_dies_with_its_last_handle() {
    let system = system();
    let death = endpoint();
    let notify = death.copy(Rights::NOTIFY, 4).expect("copy");
    let space = system.create_space(Some(&notify)).expect("space");
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
fn spaces_die_with_their_creator() {
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
                .create_space(Some(&Endpoint::borrow(death)))
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

fn the_last_threads_end_is_the_spaces() {
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

fn a_dead_supervisor_lets_faulting_threads_die() {
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

fn a_supervisor_that_dies_with_a_fault_unanswered() {
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

fn every_state_gives_back_every_frame() {
    let system = system();
    let endpoint = endpoint();
    let gifts = [Gift(endpoint.handle(), Rights::SEND, 0)];
    type Body = fn([Handle; 8]);
    let states: [(ThreadState, Body); 4] = [
        (ThreadState::Runnable, |_| {
            loop {
                libipc::object::yield_now();
            }
        }),
        (ThreadState::Sending, |[to, ..]| {
            let _ = Endpoint::borrow(to).call(Message::new(0));
        }),
        (ThreadState::Receiving, |_| {
            let _ = endpoint_forever().recv(&mut []);
        }),
        (ThreadState::AwaitingReply, |[to, ..]| {
            let _ = Endpoint::borrow(to).call(Message::new(0));
        }),
    ];
    for (state, body) in states {
        assert_exact(|| {
            let twin = Twin::start(&system, &gifts, body);
            if state == ThreadState::AwaitingReply {
                let incoming = receive(&endpoint);
                twin.until_state(state);
                twin.kill();
                assert_err(
                    incoming.token.reply(Message::new(0), &[]),
                    Error::StaleToken,
                );
            } else {
                twin.until_state(state);
                twin.kill();
            }
        });
    }
    // Never started.
    assert_exact(|| {
        let space = system.create_space(None).expect("space");
        let thread = space.create_thread(None, 1).expect("thread");
        space.map(SCRATCH, 64 * PAGE, Perm::RW).expect("map");
        drop(thread);
        space.kill().expect("kill");
    });
}
