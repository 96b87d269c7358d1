//! The inline part: labels, words, handles, badges; order, and who is told of which error.

use libipc::abi::{Call, Error, Handle, Tag, ThreadState};
use libipc::thread::Running;
use libipc::{Endpoint, Incoming, Message, Received, ReplyToken, Rights, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::memory::{PAGE, SCRATCH};
use user_apps::scenario::peer::{join, thread, until_state};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::syscall::{NOTHING, call};
use user_apps::scenario::twin::{Gift, Twin, system};

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

/// A twin that echoes labels and words, turned around, until its endpoint dies.
fn echo(endpoint: &Endpoint) -> Twin {
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    Twin::start(&system(), &[gift], |[from, ..]| {
        loop {
            let incoming = receive(&Endpoint::borrow(from));
            let label = incoming.message.label();
            let mut words = incoming.message.words;
            words.reverse();
            let reply = Message::new(!label).with_words(words);
            incoming.token.reply(reply, &[]).expect("reply");
            if label == u32::MAX {
                return;
            }
        }
    })
}

pub(crate) fn labels_and_words_arrive() {
    let endpoint = endpoint();
    let twin = echo(&endpoint);
    let mut rng = Rng::new(5);
    for label in [0, 1, 0x8000_0000, 0xffff_fffe, u32::MAX] {
        let words: [u64; 4] = core::array::from_fn(|_| rng.word());
        let reply = endpoint
            .call(Message::new(label).with_words(words))
            .expect("send");
        assert_eq!(reply.label(), !label);
        assert!(reply.words.iter().rev().eq(&words));
        assert_eq!(reply.tag.handles(), 0);
    }
    twin.join();
}

pub(crate) fn badges_say_which_handle_was_used() {
    let endpoint = endpoint();
    for badge in [0, 1, 0xdead_beef, u64::MAX] {
        let copy = endpoint.copy(Rights::SEND, badge).expect("copy");
        let to = copy.handle();
        let sender = thread(move || {
            Endpoint::borrow(to).call(Message::new(0)).expect("send");
        });
        let incoming = receive(&endpoint);
        assert_eq!(incoming.badge, badge);
        incoming.token.reply(Message::new(0), &[]).expect("reply");
        join(sender);
    }
}

/// A twin that uses the handles of one message, and answers whether notifying by each worked.
fn user(endpoint: &Endpoint) -> Twin {
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    Twin::start(&system(), &[gift], |[from, ..]| {
        let incoming = receive(&Endpoint::borrow(from));
        let words =
            incoming
                .message
                .handles()
                .map(|handle| match Endpoint::from_raw(handle).notify() {
                    Ok(()) => 0,
                    Err(error) => error as u64,
                });
        incoming
            .token
            .reply(Message::new(0).with_words(words), &[])
            .expect("reply");
    })
}

pub(crate) fn handles_are_copied() {
    let (carrier, target) = (endpoint(), endpoint());
    let twin = user(&carrier);
    let gift = target
        .copy(Rights::NOTIFY | Rights::COPY, 0b10)
        .expect("copy");
    let weak = target
        .copy(Rights::SEND | Rights::COPY, 0b100)
        .expect("copy");
    let message = Message::new(0).with_handles(&[gift.handle(), weak.handle()]);
    let reply = carrier.call(message).expect("send");
    assert_eq!(
        reply.words[..2],
        [0, Error::Denied as u64],
        "rights travel unchanged"
    );
    assert!(matches!(
        target.try_recv(&mut []),
        Ok(Received::Notification(0b10))
    ));
    gift.notify()
        .expect("the sender's own handle is still there");
    twin.join();
}

pub(crate) fn handles_move() {
    let (carrier, target) = (endpoint(), endpoint());
    let twin = user(&carrier);
    let gift = target
        .copy(Rights::NOTIFY | Rights::COPY, 0b1)
        .expect("copy");
    let number = gift.handle();
    let message = Message::new(0).with_handles(&[number]).moving_handles();
    let reply = carrier.call(message).expect("send");
    assert_eq!(reply.words[0], 0);
    assert_err(gift.notify(), Error::BadHandle);
    assert!(matches!(
        target.try_recv(&mut []),
        Ok(Received::Notification(0b1))
    ));
    twin.join();
}

pub(crate) fn four_handles_travel_both_ways() {
    let carrier = endpoint();
    let gift = Gift(carrier.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let incoming = receive(&Endpoint::borrow(from));
        assert_eq!(incoming.message.tag.handles(), 4);
        let back = Message::new(0)
            .with_words([7, 8])
            .with_handles(&incoming.message.handles());
        incoming
            .token
            .reply(back.moving_handles(), &[])
            .expect("reply");
        for handle in incoming.message.handles() {
            assert_err(call(Call::HandleClose, handle, NOTHING), Error::BadHandle);
        }
    });
    let targets = [(); 4].map(|()| endpoint());
    let sent = [0, 1, 2, 3].map(|index| targets[index].handle());
    let before = Space::own().info().expect("info").handles;
    let reply = carrier
        .call(Message::new(0).with_words([1, 2]).with_handles(&sent))
        .expect("send");
    assert_eq!(reply.words[..2], [7, 8]);
    assert_eq!(reply.tag.handles(), 4);
    assert_eq!(Space::own().info().expect("info").handles, before + 4);
    for (target, came) in targets.iter().zip(reply.handles()) {
        assert_ne!(target.handle(), came);
        let came = Endpoint::from_raw(came);
        came.copy(Rights::NOTIFY, 1)
            .expect("copy")
            .notify()
            .expect("notify");
        assert!(matches!(
            target.try_recv(&mut []),
            Ok(Received::Notification(1))
        ));
    }
    twin.join();
}

pub(crate) fn handles_without_copy_do_not_travel() {
    let (carrier, target) = (endpoint(), endpoint());
    let fixed = target.copy(Rights::SEND, 0).expect("copy");
    let good = target.handle();
    for handles in [
        &[fixed.handle()][..],
        &[good, fixed.handle()],
        &[good, good, good, fixed.handle()],
    ] {
        refused_sender(&carrier, handles, Error::Denied);
        refused_sender(&carrier, handles, Error::Denied);
    }
}

/// Sends a message with handles in a thread; nothing arrives, and the sender gets the error.
#[track_caller]
fn refused_sender(carrier: &Endpoint, handles: &[Handle], expected: Error) {
    let to = carrier.handle();
    let message = Message::new(0).with_handles(handles);
    let sender = thread(move || assert_err(Endpoint::borrow(to).call(message), expected));
    let before = Space::own().info().expect("info").handles;
    user_apps::scenario::peer::until("the sender's error", || {
        assert_err(carrier.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
        sender.is_finished()
    });
    assert_eq!(Space::own().info().expect("info").handles, before);
}

pub(crate) fn a_message_with_a_bad_handle_is_not_delivered() {
    let (carrier, target) = (endpoint(), endpoint());
    let good = target.handle();
    for bad in [
        Handle(0x7777_7777),
        Handle(u32::MAX),
        Handle(good.0 ^ 0x1000),
        Handle::NONE,
    ] {
        refused_sender(&carrier, &[bad], Error::BadHandle);
        refused_sender(&carrier, &[good, good, bad], Error::BadHandle);
    }
    target.notify().expect("still there");
}

pub(crate) fn a_full_table_refuses_a_message_with_handles() {
    let carrier = endpoint();
    let gifts = [Gift(carrier.handle(), Rights::SEND | Rights::COPY, 0)];
    let twin = Twin::start(&system(), &gifts, |[to, ..]| {
        let message = Message::new(0).with_handles(&[to, to]);
        assert_err(Endpoint::borrow(to).call(message), Error::TableFull);
        Endpoint::borrow(to).call(Message::new(1)).expect("send");
    });
    twin.until_state(ThreadState::Sending);
    let mut last = Handle::NONE;
    while let Ok(results) = call(Call::EndpointCreate, Handle::NONE, NOTHING) {
        last = Handle(results[0] as u32);
    }
    // Room for one of two.
    call(Call::HandleClose, last, NOTHING).expect("close");
    let incoming = receive(&carrier);
    assert_eq!(
        incoming.message.label(),
        1,
        "the first message was not delivered"
    );
    incoming.token.reply(Message::new(0), &[]).expect("reply");
    call(Call::EndpointCreate, Handle::NONE, NOTHING).expect("the room is still there");
    assert_err(
        call(Call::EndpointCreate, Handle::NONE, NOTHING),
        Error::TableFull,
    );
    twin.join();
}

pub(crate) fn messages_are_received_in_order() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let senders: [Running; 20] = core::array::from_fn(|index| {
        let sender = thread(move || {
            let reply = Endpoint::borrow(to)
                .call(Message::new(index as u32))
                .expect("send");
            assert_eq!(reply.label(), 100 + index as u32);
        });
        until_state(sender.thread(), ThreadState::Sending);
        sender
    });
    let mut tokens = [0; 20];
    for (index, token) in tokens.iter_mut().enumerate() {
        let incoming = receive(&endpoint);
        assert_eq!(incoming.message.label(), index as u32);
        *token = incoming.token.into_raw();
    }
    // Answers may come in any order.
    for (index, &token) in tokens.iter().enumerate().rev() {
        let reply = Message::new(100 + index as u32);
        ReplyToken::from_raw(token)
            .reply(reply, &[])
            .expect("reply");
    }
    senders.into_iter().for_each(join);
}

pub(crate) fn reply_and_receive_in_one_entry() {
    let endpoint = endpoint();
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let endpoint = Endpoint::borrow(from);
        let mut incoming = receive(&endpoint);
        while incoming.message.label() != 0 {
            let reply = Message::new(incoming.message.label() + 1);
            incoming = match endpoint.reply_recv(incoming.token, reply, &[], &mut []) {
                Ok(Received::Message(incoming)) => incoming,
                other => panic!("no message, but {other:?}"),
            };
        }
        incoming.token.reply(Message::new(0), &[]).expect("reply");
    });
    for label in 1..500 {
        assert_eq!(
            endpoint.call(Message::new(label)).expect("send").label(),
            label + 1
        );
    }
    endpoint.call(Message::new(0)).expect("send");
    twin.join();
}

/// An error of the reply returns at once; a message that waits goes on waiting.
pub(crate) fn errors_of_the_reply_half_receive_nothing() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let senders = [1, 2].map(|label| {
        let sender = thread(move || {
            let mut reply = [0; 8];
            let sent = Endpoint::borrow(to).send(Message::new(label), &[], &mut reply);
            assert_eq!(sent.expect("send").reply.label(), 0);
        });
        until_state(sender.thread(), ThreadState::Sending);
        sender
    });
    let token = receive(&endpoint).token.into_raw();
    let reply_recv = |token, tag, data, len, buffer, cap| {
        let args = [token, tag, data, len, buffer, cap];
        let (code, results) = libipc::raw::call(Call::ReplyRecv as u32, endpoint.handle(), args);
        Error::from_code(code).map_or(Ok(results), Err)
    };
    let own_stack = core::ptr::from_ref(&token) as u64;
    for (args, error) in [
        ((token ^ 1 << 40, 0, 0, 0), Error::StaleToken),
        ((token, 1 << 40, 0, 0), Error::BadArgument),
        ((token, 0, SCRATCH, 8), Error::NotMapped),
        ((token, 0, own_stack, u64::MAX), Error::Wraps),
    ] {
        let (token, tag, data, len) = args;
        assert_eq!(reply_recv(token, tag, data, len, 0, 0), Err(error));
        let states = [0, 1].map(|index| senders[index].thread().info().expect("info").state);
        assert_eq!(states, [ThreadState::AwaitingReply, ThreadState::Sending]);
    }
    assert_eq!(
        reply_recv(token, 0, 0, 0, 0xffff_8000_0000_0000, 8),
        Err(Error::KernelAddress)
    );
    let results = reply_recv(token, 0, own_stack, 8, 0, 0).expect("reply_recv");
    assert_eq!(Tag(results[1]).label(), 2);
    ReplyToken::from_raw(results[3])
        .reply(Message::new(0), &[])
        .expect("reply");
    senders.into_iter().for_each(join);
}

/// What the sender's reply buffer cannot take is cut, and both sides know.
pub(crate) fn a_reply_longer_than_its_buffer_is_cut() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let sender = thread(move || {
        let mut reply = [0; 10];
        let sent = Endpoint::borrow(to)
            .send(Message::new(0), &[1, 2, 3], &mut reply)
            .expect("send");
        assert_eq!((sent.reply_len, sent.accepted), (20, 2));
        assert!(sent.reply.tag.truncated() && sent.reply.tag.peer_truncated());
        assert_eq!(reply, [7; 10]);
        let sent = Endpoint::borrow(to)
            .send(Message::new(0), &[], &mut reply)
            .expect("send");
        assert!(!sent.reply.tag.truncated() && !sent.reply.tag.peer_truncated());
    });
    let mut buffer = [0; 2];
    let Ok(Received::Message(incoming)) = endpoint.recv(&mut buffer) else {
        panic!("no message")
    };
    assert_eq!((incoming.len, incoming.true_len), (2, 3));
    assert!(incoming.message.tag.truncated() && !incoming.message.tag.peer_truncated());
    assert!(
        incoming
            .token
            .reply(Message::new(0), &[7; 20])
            .expect("reply"),
        "told of the cut"
    );
    assert!(
        !receive(&endpoint)
            .token
            .reply(Message::new(0), &[8; 10])
            .expect("reply")
    );
    join(sender);
}

pub(crate) fn a_bad_reply_buffer_is_the_senders_fault() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let own = Space::own();
    own.map(SCRATCH, PAGE, libipc::Perm::R).expect("map");
    for (addr, expected) in [
        (SCRATCH, Error::NotWritable),
        (SCRATCH + PAGE, Error::NotMapped),
    ] {
        let sender = thread(move || {
            let args = [0, 0, 0, 0, addr, 8];
            let (code, _) = libipc::raw::call(Call::Send as u32, to, args);
            assert_eq!(Error::from_code(code), Some(expected));
            // Without bytes in the reply the buffer does not matter.
            let (code, _) = libipc::raw::call(Call::Send as u32, to, args);
            assert_eq!(code, 0);
        });
        receive(&endpoint)
            .token
            .reply(Message::new(0), &[1; 8])
            .expect("the server is not to blame");
        receive(&endpoint)
            .token
            .reply(Message::new(0), &[])
            .expect("reply");
        join(sender);
    }
    own.unmap(SCRATCH, PAGE).expect("unmap");
}
