//! The end of threads, spaces and endpoints in every state: whoever waits for the dead is told,
//! and every frame comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod objects;
mod steps;
mod tokens;

use libipc::abi::{Error, Handle, ThreadState};
use libipc::message::ReplyToken;
use libipc::thread::Running;
use libipc::{Endpoint, Incoming, Message, PageBuffer, Perm, Received, Rights, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::memory::{PAGE, SCRATCH, fill, peek};
use user_apps::scenario::peer::{join, thread, until, until_state};
use user_apps::scenario::twin::{Gift, Twin, system};

use objects::*;
use steps::*;
use tokens::*;

user_apps::scenarios![
    lesson_16_tokens_work_once,
    lesson_16_tokens_of_the_dead_are_stale,
    lesson_16_tokens_are_the_receivers_alone,
    lesson_16_an_unblocked_clients_next_request_has_another_token,
    lesson_17_a_client_killed_in_the_queue_leaves_it,
    lesson_17_a_client_killed_while_it_waits_for_the_reply,
    lesson_17_a_server_killed_while_it_waits,
    lesson_17_a_server_that_dies_with_messages_unanswered,
    a_servers_thread_may_die_while_the_others_answer,
    lesson_17_big_messages_to_and_from_the_dead,
    lesson_20_a_long_message_lets_others_run_and_kill_wins,
    shared_frames_of_the_dead_live_on,
    lesson_18_kill_wins_against_a_server_that_never_replies,
    closing_the_last_receive_right_fails_the_queue,
    a_queue_of_two_hundred_is_failed_to_the_last,
    closing_the_last_receive_right_wakes_receivers,
    an_endpoint_carried_in_a_message_dies_with_its_holder,
    a_space_without_threads_dies_with_its_last_handle,
    spaces_die_with_their_creator,
    the_last_threads_end_is_the_spaces,
    a_dead_supervisor_lets_faulting_threads_die,
    a_supervisor_that_dies_with_a_fault_unanswered,
    faults_and_deaths_arrive_under_the_badges_that_were_chosen,
    lesson_17_every_state_gives_back_every_frame,
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

fn lesson_17_a_client_killed_in_the_queue_leaves_it() {
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

fn lesson_17_a_client_killed_while_it_waits_for_the_reply() {
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

fn lesson_17_a_server_killed_while_it_waits() {
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

fn lesson_17_a_server_that_dies_with_messages_unanswered() {
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

fn lesson_17_big_messages_to_and_from_the_dead() {
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
fn lesson_18_kill_wins_against_a_server_that_never_replies() {
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

fn lesson_17_every_state_gives_back_every_frame() {
    let system = system();
    let endpoint = endpoint();
    let gifts = [Gift(endpoint.handle(), Rights::SEND, 0)];
    type Body = fn([Handle; libipc::start::MAX_EXTRA]);
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
