//! Reply tokens: good for one answer, by one space, to one request.

use super::*;
use libipc::abi::{Call, Error};
use libipc::message::ReplyToken;
use libipc::{Endpoint, Message, Rights};
use user_apps::scenario::assert_err;
use user_apps::scenario::memory::SCRATCH;
use user_apps::scenario::peer::{join, thread};
use user_apps::scenario::twin::{Gift, Twin, system};

#[track_caller]
pub(crate) fn stale(token: u64) {
    assert_err(
        ReplyToken::from_raw(token).reply(Message::new(0), &[]),
        Error::StaleToken,
    );
}

pub(crate) fn lesson_16_tokens_work_once() {
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

pub(crate) fn lesson_16_tokens_of_the_dead_are_stale() {
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

pub(crate) fn lesson_16_tokens_are_the_receivers_alone() {
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
pub(crate) fn lesson_16_an_unblocked_clients_next_request_has_another_token() {
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
