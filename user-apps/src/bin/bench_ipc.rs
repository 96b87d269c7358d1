//! What messages cost: round trips between two address spaces, handles, notifications.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use libipc::abi::{Call, Tag, pack_handles};
use libipc::raw::{Args, Words, message_call};
use libipc::services::Error;
use libipc::{Endpoint, Handle, Rights, Space, server};
use user_apps::adding::{AddError, Adder, AdderClient, AdderServer};
use user_apps::bench::{Rounds, measure, measure_with};
use user_apps::scenario::twin::{Gift, Twin, system};

libipc::program!(run);

const ROUNDS: Rounds = Rounds::MANY;
const NOTHING: Args = [0; 6];
const NO_WORDS: Words = [0; 4];

/// The right to receive, and nothing else.
const RECEIVE: Rights = Rights::RECV.union(Rights::COPY);

fn run() -> Result<(), Error> {
    inline()?;
    service()?;
    buffers()?;
    handles()?;
    notifications()?;
    Ok(())
}

/// Checks a call's result, outside of what is measured.
fn succeeded(code: u64) {
    assert_eq!(code, 0, "a call failed");
}

/// A server that answers with the words it got.
fn echo(endpoint: Handle, buffer: &mut [u8], reply_len: usize) {
    let (address, capacity) = (buffer.as_mut_ptr() as u64, buffer.len() as u64);
    let args = [0, 0, 0, 0, address, capacity];
    let (mut code, mut got, mut words) = message_call(Call::Recv as u32, endpoint, args, NO_WORDS);
    while code == 0 {
        let token = got[3];
        let args = [token, 0, address, reply_len as u64, address, capacity];
        (code, got, words) = message_call(Call::ReplyRecv as u32, endpoint, args, words);
    }
}

fn inline() -> Result<(), Error> {
    let endpoint = Endpoint::create()?;
    let gift = Gift(endpoint.handle(), RECEIVE, 0);
    let twin = Twin::start(&system(), &[gift], |[receive, ..]| {
        echo(receive, &mut [], 0)
    });
    let to = endpoint.handle();
    measure("null_syscall", ROUNDS, || {
        // A reply to nobody fails after the least work that any call does.
        message_call(u32::MAX, Handle::NONE, NOTHING, NO_WORDS);
    });
    measure_with(
        "ipc_rtt/0w",
        ROUNDS,
        || (),
        |()| message_call(Call::Send as u32, to, NOTHING, NO_WORDS).0,
        succeeded,
    );
    measure_with(
        "ipc_rtt/4w",
        ROUNDS,
        || (),
        |()| message_call(Call::Send as u32, to, NOTHING, [1, 2, 3, 4]).2,
        |words| assert_eq!(words, [1, 2, 3, 4]),
    );
    twin.kill();
    Ok(())
}

/// Adds, without looking at what comes of it.
struct Sum;

impl Adder for Sum {
    fn add(&self, a: u64, b: u64) -> Result<u64, AddError> {
        Ok(a.wrapping_add(b))
    }
}

/// A generated client calls a generated server: two words there, one back.
#[inline(never)] // with registers of its own, whatever the others need
fn service() -> Result<(), Error> {
    let endpoint = Endpoint::create()?;
    let gift = Gift(endpoint.handle(), RECEIVE, 0);
    let twin = Twin::start(&system(), &[gift], |[receive, ..]| {
        let served = server::serve_on(&Endpoint::borrow(receive), &mut AdderServer::new(Sum));
        assert!(served.is_ok(), "the server has ended");
    });
    let adder = AdderClient::new(endpoint);
    measure_with(
        "service_call/2w",
        ROUNDS,
        || (2, 3),
        |(a, b)| adder.add(a, b),
        |sum| assert_eq!(sum, Ok(5)),
    );
    twin.kill();
    Ok(())
}

fn buffers() -> Result<(), Error> {
    for (name, reply_len) in [("ipc_rtt/64w", 0), ("ipc_rtt/64w_both", 512)] {
        let endpoint = Endpoint::create()?;
        let gift = Gift(endpoint.handle(), RECEIVE, 0);
        let twin = Twin::start(&system(), &[gift], move |[receive, ..]| {
            echo(receive, &mut [0; 512], reply_len);
        });
        let (request, mut reply) = ([1u64; 64], [0u64; 64]);
        let (from, into) = (request.as_ptr() as u64, reply.as_mut_ptr() as u64);
        let to = endpoint.handle();
        measure_with(
            name,
            ROUNDS,
            || (),
            |()| {
                let args = [0, 0, from, 512, into, 512];
                message_call(Call::Send as u32, to, args, NO_WORDS).0
            },
            succeeded,
        );
        twin.kill();
    }
    Ok(())
}

/// One handle moves to the server and back.
fn handles() -> Result<(), Error> {
    let endpoint = Endpoint::create()?;
    let gift = Gift(endpoint.handle(), RECEIVE, 0);
    let twin = Twin::start(&system(), &[gift], |[endpoint, ..]| {
        let (mut code, mut got, mut words) =
            message_call(Call::Recv as u32, endpoint, NOTHING, NO_WORDS);
        while code == 0 {
            let tag = Tag::new(0).with_handles(1).moving_handles().0;
            let args = [got[3], tag, 0, 0, 0, 0];
            (code, got, words) = message_call(Call::ReplyRecv as u32, endpoint, args, words);
        }
    });
    let mut travelling = Space::own()
        .copy(Rights::READ | Rights::COPY, 0)?
        .into_raw();
    let tag = Tag::new(0).with_handles(1).moving_handles().0;
    let to = endpoint.handle();
    measure("ipc_handle_rtt", ROUNDS, || {
        let [w2, w3] = pack_handles([travelling, Handle::NONE, Handle::NONE, Handle::NONE]);
        let args = [0, tag, 0, 0, 0, 0];
        let (_, _, words) = message_call(Call::Send as u32, to, args, [0, 0, w2, w3]);
        travelling = Handle(words[2] as u32);
    });
    assert!(Space::borrow(travelling).info().is_ok());
    drop(Space::from_raw(travelling));
    twin.kill();
    Ok(())
}

fn notifications() -> Result<(), Error> {
    let nobody = Endpoint::create()?.copy(Rights::NOTIFY | Rights::RECV, 1)?;
    measure_with(
        "notify",
        ROUNDS,
        || (),
        |()| message_call(Call::Notify as u32, nobody.handle(), NOTHING, NO_WORDS).0,
        succeeded,
    );
    // Bits that are raised already would let every other round end early.
    let (ping, pong) = (Endpoint::create()?, Endpoint::create()?);
    let there = ping.copy(Rights::NOTIFY, 1)?;
    let (to, from) = (there.handle(), pong.handle());
    let gifts = [
        Gift(ping.handle(), RECEIVE, 0),
        Gift(pong.handle(), Rights::NOTIFY, 1),
    ];
    let twin = Twin::start(&system(), &gifts, |[receive, back, ..]| {
        loop {
            message_call(Call::Recv as u32, receive, NOTHING, NO_WORDS);
            message_call(Call::Notify as u32, back, NOTHING, NO_WORDS);
        }
    });
    measure_with(
        "notify_rtt",
        ROUNDS,
        || (),
        |()| {
            message_call(Call::Notify as u32, to, NOTHING, NO_WORDS);
            message_call(Call::Recv as u32, from, NOTHING, NO_WORDS).0
        },
        succeeded,
    );
    twin.kill();
    Ok(())
}
