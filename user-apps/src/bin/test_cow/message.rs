//! Messages whose pages sender and receiver share until one of them writes.

use super::*;
use alloc::vec::Vec;
use libipc::abi::{Error, ThreadState};
use libipc::{Endpoint, Message, PageBuffer, Received, Rights};
use user_apps::scenario::assert_err;
use user_apps::scenario::memory::{PAGE, SCRATCH, fill, mismatch};
use user_apps::scenario::peer::{rest, until};
use user_apps::scenario::twin::{Gift, Twin, system};

/// Lesson of Dirty COW (Linux 19be0eaffa3a): the kernel's own writes, here a message received into
/// pages shared with a child, must not reach the child.
pub(crate) fn lesson_4_messages_break_sharing_as_writes_do() {
    for (offset, len) in [
        (0, PAGE),
        (0, 3 * PAGE),
        (100, 50),
        (100, 2 * PAGE),
        (PAGE - 1, 2),
    ] {
        let memory = filled(4, 9);
        let system = system();
        let endpoint = Endpoint::create().expect("endpoint");
        let ready = Endpoint::create().expect("endpoint");
        let gifts = [
            Gift(endpoint.handle(), Rights::SEND, 0),
            Gift(ready.handle(), Rights::RECV, 0),
        ];
        // The twin shares the buffer, sends to it, and then must not have seen it change.
        let twin = Twin::start(&system, &gifts, move |[endpoint, ..]| {
            let mut source = PageBuffer::new(4 * PAGE as usize).expect("buffer");
            fill(&mut source, 77);
            let data = &source[offset as usize..][..len as usize];
            Endpoint::borrow(endpoint)
                .send(Message::new(0), data, &mut [])
                .expect("send");
            check(SCRATCH, 4, 9);
        });
        let buffer = &mut memory.bytes()[offset as usize..][..len as usize];
        let Ok(Received::Message(incoming)) = endpoint.recv(buffer) else {
            panic!("no message")
        };
        let sent = &memory.bytes()[offset as usize..][..len as usize];
        let expected =
            |at: usize| user_apps::scenario::memory::pattern_byte(77, at + offset as usize);
        assert!(
            sent.iter()
                .enumerate()
                .all(|(at, &byte)| byte == expected(at))
        );
        incoming.token.reply(Message::new(0), &[]).expect("reply");
        twin.join();
    }
}

/// CVE-2020-29374: a message in flight is a reference. The sender's other thread writes the pages
/// while the message lies in the queue or has just arrived; what is received is what was there at
/// the moment of delivery, and does not change afterwards.
pub(crate) fn lesson_6_a_message_in_flight_keeps_its_contents() {
    let _source = filled(64, 1);
    let target = PageBuffer::new(64 * PAGE as usize).expect("buffer");
    let at = target.addr();
    let len = 64 * PAGE;
    let system = system();
    let endpoint = Endpoint::create().expect("endpoint");
    let twin = Twin::start(
        &system,
        &[Gift(endpoint.handle(), Rights::SEND, 0)],
        move |[to, ..]| {
            // Written here, the pages are the twin's own, and writable without a fault.
            write_all(SCRATCH, 64, 1);
            let sender = user_apps::scenario::peer::thread(move || {
                // SAFETY: the pages stay mapped; that their contents change meanwhile is the point.
                let data =
                    unsafe { core::slice::from_raw_parts(SCRATCH as *const u8, len as usize) };
                Endpoint::borrow(to)
                    .send(Message::new(1), data, &mut [])
                    .expect("send");
            });
            user_apps::scenario::peer::until_state(sender.thread(), ThreadState::AwaitingReply);
            write_all(SCRATCH, 64, 9000);
            Endpoint::borrow(to).call(Message::new(2)).expect("send");
            user_apps::scenario::peer::join(sender);
        },
    );
    let mut target = target;
    let Ok(Received::Message(first)) = endpoint.recv(&mut target) else {
        panic!("no message")
    };
    assert_eq!((first.message.label(), first.len as u64), (1, len));
    // The second message says that the sender has written.
    let Ok(Received::Message(second)) = endpoint.recv(&mut []) else {
        panic!("no message")
    };
    assert_eq!(second.message.label(), 2);
    check(at, 64, 1);
    write_all(at, 64, 5);
    second.token.reply(Message::new(0), &[]).expect("reply");
    first.token.reply(Message::new(0), &[]).expect("reply");
    twin.join();
    check(at, 64, 5);
}

/// XNU's out-of-line messages were checked, changed, and then used. A thread of the sender writes all the time, before, while
/// and after its pages go over: the receiver finds in each what it found there the first time.
pub(crate) fn lesson_11_what_has_arrived_does_not_change() {
    const NR_PAGES: u64 = 64;
    const ROUNDS: u64 = 20;
    let mut target = PageBuffer::new((NR_PAGES * PAGE) as usize).expect("buffer");
    let at = target.addr();
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    let twin = Twin::start(&system(), &[gift], move |[to, ..]| {
        let source = map(SCRATCH, NR_PAGES);
        let writer = user_apps::scenario::peer::thread(|| {
            for number in 1.. {
                write_all(SCRATCH, NR_PAGES, number);
            }
        });
        for _ in 0..ROUNDS {
            let before = peek(SCRATCH);
            until("a write", || peek(SCRATCH) != before);
            let to = Endpoint::borrow(to);
            to.send(Message::new(0), source.bytes(), &mut [])
                .expect("send");
        }
        // It goes on writing until then.
        drop(writer);
    });
    let read = || (0..NR_PAGES).map(|page| peek(at + page * PAGE));
    let mut last = 0;
    for round in 0..ROUNDS {
        let Ok(Received::Message(incoming)) = endpoint.recv(&mut target) else {
            panic!("no message")
        };
        let first: Vec<_> = read().collect();
        assert!(first[0] > last, "round {round}: the sender has written");
        last = first[0];
        // The writer has its turn.
        rest(1_000_000);
        assert!(read().eq(first), "round {round}");
        incoming.token.reply(Message::new(0), &[]).expect("reply");
    }
    twin.join();
}

/// A twin that fills 16 pages with `seed`, sends them and waits for the answer.
pub(crate) fn sender(endpoint: &Endpoint, seed: u64) -> Twin {
    let gift = Gift(endpoint.handle(), Rights::SEND, 0);
    Twin::start(&system(), &[gift], move |[to, ..]| {
        let mut data = PageBuffer::new(16 * PAGE as usize).expect("buffer");
        fill(&mut data, seed);
        let _ = Endpoint::borrow(to).send(Message::new(0), &data, &mut []);
    })
}

pub(crate) fn a_received_page_outlives_its_sender() {
    let endpoint = Endpoint::create().expect("endpoint");
    let mut buffer = PageBuffer::new(16 * PAGE as usize).expect("buffer");
    let twin = sender(&endpoint, 3);
    let received = endpoint.recv(&mut buffer).expect("recv");
    twin.kill();
    assert_eq!(mismatch(&buffer, 3), None);
    fill(&mut buffer, 4);
    assert_eq!(mismatch(&buffer, 4), None);
    let Received::Message(incoming) = received else {
        panic!("no message")
    };
    assert_err(
        incoming.token.reply(Message::new(0), &[]),
        Error::StaleToken,
    );
}

pub(crate) fn a_sent_page_outlives_its_receiver() {
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let twin = Twin::start(&system(), &[gift], |[from, ..]| {
        let mut buffer = PageBuffer::new(16 * PAGE as usize).expect("buffer");
        let received = Endpoint::borrow(from).recv(&mut buffer);
        assert_eq!(mismatch(&buffer, 8), None);
        buffer.fill(0xee);
        // Ends without an answer.
        drop(received);
    });
    let mut data = PageBuffer::new(16 * PAGE as usize).expect("buffer");
    fill(&mut data, 8);
    assert_err(endpoint.send(Message::new(0), &data, &mut []), Error::Died);
    twin.join();
    assert_eq!(mismatch(&data, 8), None);
    data.fill(1);
}
