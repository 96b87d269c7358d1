//! Timers and notifications.

use super::*;
use libipc::abi::{Error, ThreadState};
use libipc::object::{clock, yield_now};
use libipc::{Endpoint, Message, Received, Rights};
use user_apps::scenario::assert_err;
use user_apps::scenario::memory::{peek, poke};
use user_apps::scenario::peer::{join, thread, until, until_state};
use user_apps::scenario::twin::{Gift, Twin, system};

pub(crate) fn timers_raise_their_bits_not_before_their_time() {
    let endpoint = Endpoint::create().expect("endpoint");
    let notify = endpoint.copy(Rights::NOTIFY, 0b100).expect("copy");
    let mut last = 0;
    for delay_us in [0, 100, 1000, 5000, 20_000] {
        let (now, _) = clock().expect("clock");
        assert!(now >= last, "the clock went back");
        let deadline = now + delay_us * 1000;
        notify.timer(deadline).expect("timer");
        assert!(matches!(
            endpoint.recv(&mut []),
            Ok(Received::Notification(0b100))
        ));
        last = clock().expect("clock").0;
        assert!(last >= deadline, "{} ns early", deadline - last);
    }
    // In the past, and never.
    notify.timer(1).expect("timer");
    assert!(matches!(
        endpoint.recv(&mut []),
        Ok(Received::Notification(0b100))
    ));
    notify.timer(u64::MAX).expect("timer");
    assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
    notify.timer(0).expect("cancel");
}

pub(crate) fn a_new_timer_replaces_the_old() {
    let endpoint = Endpoint::create().expect("endpoint");
    let [one, two] = [1, 2].map(|bit| endpoint.copy(Rights::NOTIFY, bit).expect("copy"));
    let now = || clock().expect("clock").0;
    one.timer(now() + 50_000_000).expect("timer");
    two.timer(now() + 100_000_000).expect("timer");
    assert!(matches!(
        endpoint.recv(&mut []),
        Ok(Received::Notification(2))
    ));
    one.timer(now() + 50_000_000).expect("timer");
    one.timer(0).expect("cancel");
    two.timer(now() + 100_000_000).expect("timer");
    assert!(matches!(
        endpoint.recv(&mut []),
        Ok(Received::Notification(2))
    ));
    // The end of the thread that set it cancels a timer.
    let handle = one.handle();
    join(thread(move || {
        let at = clock().expect("clock").0 + 50_000_000;
        Endpoint::borrow(handle).timer(at).expect("timer");
    }));
    two.timer(now() + 100_000_000).expect("timer");
    assert!(matches!(
        endpoint.recv(&mut []),
        Ok(Received::Notification(2))
    ));
}

pub(crate) fn notifications_gather_bits() {
    let endpoint = Endpoint::create().expect("endpoint");
    for bit in [0, 3, 63, 3, 17] {
        endpoint
            .copy(Rights::NOTIFY, 1 << bit)
            .expect("copy")
            .notify()
            .expect("notify");
    }
    let expected = 1 | 1 << 3 | 1 << 17 | 1 << 63;
    assert!(matches!(endpoint.recv(&mut []), Ok(Received::Notification(bits)) if bits == expected));
    assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
    // Across spaces.
    let gifts = [Gift(endpoint.handle(), Rights::NOTIFY, 6)];
    Twin::start(&system(), &gifts, |[to, ..]| {
        Endpoint::borrow(to).notify().expect("notify")
    })
    .join();
    assert!(matches!(
        endpoint.try_recv(&mut []),
        Ok(Received::Notification(6))
    ));
}

pub(crate) fn notifications_come_before_messages() {
    let endpoint = Endpoint::create().expect("endpoint");
    let notify = endpoint.copy(Rights::NOTIFY, 1).expect("copy");
    let to = endpoint.handle();
    let sender = thread(move || {
        Endpoint::borrow(to).call(Message::new(0)).expect("send");
    });
    until_state(sender.thread(), ThreadState::Sending);
    notify.notify().expect("notify");
    assert!(matches!(
        endpoint.recv(&mut []),
        Ok(Received::Notification(1))
    ));
    let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
        panic!("no message")
    };
    incoming.token.reply(Message::new(0), &[]).expect("reply");
    join(sender);
}

pub(crate) fn notifications_wake_one_receiver() {
    let _board = board();
    let endpoint = Endpoint::create().expect("endpoint");
    let notify = endpoint.copy(Rights::NOTIFY, 1).expect("copy");
    let from = endpoint.handle();
    let receivers = [0, 1, 2].map(|who| {
        let receiver = thread(move || {
            let received = Endpoint::borrow(from).recv(&mut []);
            assert!(matches!(received, Ok(Received::Notification(1))));
            poke(slot(who), 1);
        });
        until_state(receiver.thread(), ThreadState::Receiving);
        receiver
    });
    for expected in 1..=3 {
        notify.notify().expect("notify");
        until("one more", || {
            (0..3).map(|who| peek(slot(who))).sum::<u64>() == expected
        });
        for _ in 0..10 {
            yield_now();
        }
        assert_eq!((0..3).map(|who| peek(slot(who))).sum::<u64>(), expected);
    }
    drop(receivers);
}
