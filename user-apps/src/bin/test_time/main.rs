//! Time: sleep, calls that give up, intervals.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use libipc::abi::{Call, Error, Handle, Tag, ThreadState};
use libipc::server::Interval;
use libipc::thread::Running;
use libipc::time::{Duration, Instant, sleep, sleep_until};
use libipc::{Endpoint, Message, PageBuffer, Received, Rights};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::memory::{fill, mismatch};
use user_apps::scenario::peer::{join, rest_until, status_of, thread, until, until_state};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::syscall::{call, refused};

user_apps::scenarios![
    who_sleeps_wakes_not_before_its_time,
    who_sleeps_takes_no_cpu,
    each_sleeper_wakes_at_its_own_time,
    who_sleeps_can_be_killed,
    a_time_that_has_passed_is_no_reason_to_wait,
    a_send_that_nobody_receives_gives_up,
    a_send_that_nobody_answers_gives_up_and_its_token_is_stale,
    an_expired_send_leaves_no_trace_at_the_server,
    a_send_that_is_answered_in_time_knows_nothing_of_its_deadline,
    a_receive_gives_up,
    a_receive_gets_what_comes_in_time,
    a_reply_has_no_deadline,
    messages_are_given_up_at_any_moment,
    an_interval_keeps_its_beat,
    a_program_sleeps,
];

const MS: Duration = Duration::from_millis(1);
/// Long enough for an answer on a busy host.
const SECOND: Duration = Duration::from_secs(1);
/// No wait in a test takes as long.
const FOREVER: Duration = Duration::from_secs(3_600);

fn now() -> Instant {
    Instant::now().expect("clock")
}

fn endpoint() -> Endpoint {
    Endpoint::create().expect("endpoint")
}

fn who_sleeps_wakes_not_before_its_time() {
    for us in [0, 50, 1_000, 20_000] {
        let wake = now() + Duration::from_micros(us);
        sleep_until(wake);
        assert!(now() >= wake, "{us} us were too short");
    }
    let before = now();
    sleep(5 * MS).expect("clock");
    assert!(now().since(before) >= 5 * MS);
}

fn who_sleeps_takes_no_cpu() {
    let sleeper = thread(|| sleep_until(now() + FOREVER));
    until_state(sleeper.thread(), ThreadState::Sleeping);
    let ran = || sleeper.thread().info().expect("info").run_ns;
    let before = ran();
    sleep(20 * MS).expect("clock");
    assert_eq!(ran(), before);
}

fn each_sleeper_wakes_at_its_own_time() {
    const NR_SLEEPERS: usize = 24;
    static NR_AWAKE: AtomicU64 = AtomicU64::new(0);
    static NR_EARLY: AtomicU64 = AtomicU64::new(0);
    assert_exact(|| {
        NR_AWAKE.store(0, SeqCst);
        let start = now();
        let sleepers: [Running; NR_SLEEPERS] = core::array::from_fn(|i| {
            // In no order, and every second one for longer than this takes.
            let number = (i * 7 % NR_SLEEPERS) as u32;
            let time = if i % 2 == 0 { MS * number } else { FOREVER };
            thread(move || {
                sleep_until(start + time);
                NR_EARLY.fetch_add(u64::from(now() < start + time), SeqCst);
                NR_AWAKE.fetch_add(1, SeqCst);
            })
        });
        let half = NR_SLEEPERS as u64 / 2;
        until("those that sleep for a moment", || {
            NR_AWAKE.load(SeqCst) == half
        });
        for (i, sleeper) in sleepers.into_iter().enumerate() {
            if i % 2 == 1 {
                until_state(sleeper.thread(), ThreadState::Sleeping);
                sleeper.thread().kill().expect("kill");
            }
            join(sleeper);
        }
        assert_eq!(NR_AWAKE.load(SeqCst), half);
    });
    assert_eq!(NR_EARLY.load(SeqCst), 0);
}

fn who_sleeps_can_be_killed() {
    let sleepers = [FOREVER, MS, 2 * FOREVER].map(|time| thread(move || sleep_until(now() + time)));
    for sleeper in [&sleepers[2], &sleepers[0]] {
        until_state(sleeper.thread(), ThreadState::Sleeping);
        sleeper.thread().kill().expect("kill");
    }
    until("ends", || sleepers.iter().all(Running::is_finished));
    // The clock goes on.
    sleep(2 * MS).expect("clock");
}

fn a_time_that_has_passed_is_no_reason_to_wait() {
    let endpoint = endpoint();
    let past = Instant::from_nanos(0);
    sleep_until(past);
    assert_err(
        endpoint.recv_until(past, &mut []).map(|_| ()),
        Error::TimedOut,
    );
    let sent = endpoint.send_until(past, Message::new(0), &[], &mut []);
    assert_err(sent, Error::TimedOut);
    // What is there is received whatever the time.
    let notify = endpoint.copy(Rights::NOTIFY, 4).expect("copy");
    notify.notify().expect("notify");
    assert!(matches!(
        endpoint.recv_until(past, &mut []),
        Ok(Received::Notification(4))
    ));
}

fn a_send_that_nobody_receives_gives_up() {
    let endpoint = endpoint();
    let deadline = now() + 5 * MS;
    let sent = endpoint.send_until(deadline, Message::new(1), &[1; 100], &mut []);
    assert_err(sent, Error::TimedOut);
    assert!(now() >= deadline);
    assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
}

/// A thread whose send gives up after a time.
fn impatient(to: &Endpoint, patience: Duration) -> Running {
    let to = to.handle();
    thread(move || {
        let to = Endpoint::borrow(to);
        let sent = to.send_until(now() + patience, Message::new(1), &[], &mut []);
        assert_err(sent, Error::TimedOut);
    })
}

fn a_send_that_nobody_answers_gives_up_and_its_token_is_stale() {
    let endpoint = endpoint();
    let client = impatient(&endpoint, SECOND);
    let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
        panic!("no message");
    };
    join(client);
    assert_err(
        incoming.token.reply(Message::new(0), &[]),
        Error::StaleToken,
    );
}

fn an_expired_send_leaves_no_trace_at_the_server() {
    let endpoint = endpoint();
    assert_exact(|| {
        // Two are queued, of which the first gives up.
        let hasty = impatient(&endpoint, 20 * MS);
        let to = endpoint.handle();
        let patient = thread(move || {
            let reply = Endpoint::borrow(to).call(Message::new(2)).expect("call");
            assert_eq!(reply.label(), 3);
        });
        until_state(patient.thread(), ThreadState::Sending);
        join(hasty);
        let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
            panic!("no message");
        };
        assert_eq!(incoming.message.label(), 2);
        incoming.token.reply(Message::new(3), &[]).expect("reply");
        join(patient);
        assert_err(endpoint.try_recv(&mut []).map(|_| ()), Error::WouldBlock);
    });
}

fn a_send_that_is_answered_in_time_knows_nothing_of_its_deadline() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let client = thread(move || {
        let to = Endpoint::borrow(to);
        let message = Message::new(9).with_words([1, 2, 3, 4]);
        let deadline = now() + 2 * SECOND;
        let sent = to.send_until(now() + FOREVER, message, &[], &mut []);
        assert_eq!(sent.expect("send").reply.words, [4, 3, 2, 1]);
        let sent = to.send_until(deadline, message, &[], &mut []);
        assert_eq!(sent.expect("send").reply.words, [4, 3, 2, 1]);
        // The deadline of the last one passes in the middle of this one.
        let reply = to.call(message).expect("call");
        assert!(now() >= deadline);
        assert_eq!(reply.words, [4, 3, 2, 1]);
    });
    for round in 0..3 {
        let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
            panic!("no message");
        };
        assert_eq!(incoming.message, Message::new(9).with_words([1, 2, 3, 4]));
        if round == 2 {
            sleep(2 * SECOND).expect("clock");
        }
        let reply = Message::new(0).with_words([4, 3, 2, 1]);
        incoming.token.reply(reply, &[]).expect("reply");
    }
    join(client);
}

fn a_receive_gives_up() {
    let endpoint = endpoint();
    let deadline = now() + 5 * MS;
    let got = endpoint.recv_until(deadline, &mut []);
    assert_err(got.map(|_| ()), Error::TimedOut);
    assert!(now() >= deadline);
}

fn a_receive_gets_what_comes_in_time() {
    let endpoint = endpoint();
    let to = endpoint.handle();
    let client = thread(move || {
        let reply = Endpoint::borrow(to).call(Message::new(7)).expect("call");
        assert_eq!(reply.label(), 8);
    });
    let got = endpoint.recv_until(now() + FOREVER, &mut []);
    let Ok(Received::Message(incoming)) = got else {
        panic!("no message");
    };
    assert_eq!(incoming.message.label(), 7);
    incoming.token.reply(Message::new(8), &[]).expect("reply");
    join(client);

    let notify = endpoint.copy(Rights::NOTIFY, 2).expect("copy");
    let handle = notify.handle();
    let notifier = thread(move || {
        sleep(5 * MS).expect("clock");
        Endpoint::borrow(handle).notify().expect("notify");
    });
    assert!(matches!(
        endpoint.recv_until(now() + FOREVER, &mut []),
        Ok(Received::Notification(2))
    ));
    join(notifier);
}

fn a_reply_has_no_deadline() {
    let endpoint = endpoint();
    let tag = Tag::new(0).with_deadline().0;
    let args = [1, tag, 0, 0, 0, 0];
    refused(Call::Reply, Handle::NONE, args, Error::BadArgument);
    refused(Call::ReplyRecv, endpoint.handle(), args, Error::BadArgument);
    refused(
        Call::Recv,
        endpoint.handle(),
        [0, 4, 0, 0, 0, 0],
        Error::BadArgument,
    );
    // At the end of all time, somebody may still be killed.
    let sleeper = thread(|| {
        let _ = call(Call::Yield, Handle::NONE, [u64::MAX, 0, 0, 0, 0, 0]);
    });
    until_state(sleeper.thread(), ThreadState::Sleeping);
    sleeper.thread().kill().expect("kill");
    join(sleeper);
}

/// Clients whose patience ends anywhere between the call and the reply, with messages that take several steps, against
/// a server whose patience does as well.
fn messages_are_given_up_at_any_moment() {
    const NR_CLIENTS: u64 = 3;
    const NR_ROUNDS: u64 = 60;
    const LEN: usize = 300 * 1024;
    static NR_DONE: AtomicU64 = AtomicU64::new(0);
    static NR_GOOD: AtomicU64 = AtomicU64::new(0);
    let endpoint = endpoint();
    let to = endpoint.handle();
    let clients: [Running; NR_CLIENTS as usize] = core::array::from_fn(|seed| {
        thread(move || {
            let mut rng = Rng::new(seed as u64 + 1);
            let mut buffer = PageBuffer::new(LEN).expect("buffer");
            fill(&mut buffer, 5);
            for _ in 0..NR_ROUNDS {
                let patience = Duration::from_micros(rng.below(3_000));
                // Off the page boundary all bytes are copied, else pages are shared.
                let data = &buffer[rng.below(2) as usize..][..LEN - 1];
                let offset = data.as_ptr() as u64 % 2;
                let message = Message::new(1).with_words([offset]);
                let sent =
                    Endpoint::borrow(to).send_until(now() + patience, message, data, &mut []);
                match sent {
                    Ok(_) => NR_GOOD.fetch_add(1, SeqCst),
                    Err(error) => {
                        assert_eq!(error, Error::TimedOut);
                        0
                    }
                };
            }
            NR_DONE.fetch_add(1, SeqCst);
        })
    });
    let mut rng = Rng::new(99);
    let mut buffer = PageBuffer::new(LEN).expect("buffer");
    let mut expected = PageBuffer::new(LEN).expect("buffer");
    fill(&mut expected, 5);
    let mut nr_answered = 0;
    while NR_DONE.load(SeqCst) < NR_CLIENTS {
        let patience = Duration::from_micros(rng.below(3_000));
        match endpoint.recv_until(now() + patience, &mut buffer) {
            Ok(Received::Message(incoming)) => {
                let offset = incoming.message.words[0] as usize;
                assert_eq!(incoming.len, LEN - 1);
                assert!(buffer[..LEN - 1] == expected[offset..][..LEN - 1]);
                match incoming.token.reply(Message::new(0), &[]) {
                    Ok(_) => nr_answered += 1,
                    Err(error) => assert_eq!(error, Error::StaleToken),
                }
            }
            Ok(_) => panic!("no message"),
            Err(error) => assert_eq!(error, Error::TimedOut),
        }
    }
    clients.into_iter().for_each(join);
    assert_eq!(NR_GOOD.load(SeqCst), nr_answered);
    assert_eq!(mismatch(&expected, 5), None);
}

fn an_interval_keeps_its_beat() {
    let endpoint = endpoint();
    let start = now();
    let mut interval = Interval::new(&endpoint, 0b10, 4 * MS).expect("interval");
    let mut beats = 0;
    while beats < 20 {
        let Ok(Received::Notification(0b10)) = endpoint.recv(&mut []) else {
            panic!("no beat");
        };
        beats += interval.go_on().expect("interval");
        assert!(now() >= start + 4 * MS * beats as u32, "early");
        if beats == 10 {
            // Late for some.
            sleep(10 * MS).expect("clock");
        }
    }
    assert_err(
        Interval::new(&endpoint, 1, Duration::ZERO).map(|_| ()),
        Error::BadArgument,
    );
    drop(interval);
    rest_until("quiet", || {
        matches!(endpoint.try_recv(&mut []), Err(Error::WouldBlock))
    });
}

fn a_program_sleeps() {
    let before = now();
    let pid = libipc::process::spawn("/bin/sleep", &["0.02"]).expect("spawn");
    assert_eq!(status_of(pid), 0);
    assert!(now().since(before) >= 20 * MS);
    for bad in [&[][..], &["x"], &["-1"], &["1", "2"]] {
        let pid = libipc::process::spawn("/bin/sleep", bad).expect("spawn");
        assert_eq!(status_of(pid), 2, "{bad:?}");
    }
}
