//! One message of four pages, from `send` to the last reference to its frames: the book's tour, with the counters to prove it.

use super::*;
use libipc::abi::ThreadState;
use libipc::{Endpoint, Handle, Message, PageBuffer, Received, Rights};
use user_apps::scenario::twin::{Gift, Twin, system};

const LEN: usize = 4 * PAGE as usize;

/// Gets the pages, answers, and writes to the first of them when it is asked to.
fn receive_and_write(endpoint: Handle) {
    let endpoint = Endpoint::borrow(endpoint);
    let mut buffer = PageBuffer::new(LEN).expect("buffer");
    buffer.fill(0xee);
    let Ok(Received::Message(pages)) = endpoint.recv(&mut buffer) else {
        panic!("no message")
    };
    assert!(buffer.iter().all(|&byte| byte == 1));
    let answer = Message::new(0);
    let Ok(Received::Message(order)) = endpoint.reply_recv(pages.token, answer, &[], &mut [])
    else {
        panic!("no order")
    };
    buffer[0] = 2;
    // It is killed while it waits for more.
    let _ = endpoint.reply_recv(order.token, answer, &[], &mut []);
}

/// The frames are the sender's, both sides', and the sender's again; one page is copied, and only when it is written.
pub(crate) fn four_pages_from_send_to_the_last_reference() {
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = Gift(endpoint.handle(), Rights::RECV, 0);
    let receiver = Twin::start(&system(), &[gift], |[endpoint, ..]| {
        receive_and_write(endpoint);
    });
    let mut pages = PageBuffer::new(LEN).expect("buffer");
    pages.fill(1);
    receiver.until_state(ThreadState::Receiving);

    // To ask for the counters is a message too, whose answer is copied.
    let asked = counters();
    let before = counters();
    let message = Message::new(0);
    endpoint.send(message, &pages, &mut []).expect("send");
    let sent = counters();
    assert_eq!(sent.remapped - before.remapped, 4, "both name the frames");
    let by_asking = before.copied - asked.copied;
    assert_eq!(sent.copied - before.copied, by_asking, "no byte is copied");

    endpoint.call(message).expect("order");
    let written = counters();
    assert_eq!(
        written.broken - sent.broken,
        1,
        "the receiver's first write"
    );
    assert!(
        pages.iter().all(|&byte| byte == 1),
        "which the sender does not see"
    );

    receiver.kill();
    let ended = counters();
    pages.fill(3);
    let last = counters();
    assert_eq!(last.broken, ended.broken, "nobody else names the frames");
    assert_eq!(last.reclaimed - ended.reclaimed, 4, "the last owner");
}
