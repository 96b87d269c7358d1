//! Requests that no client of libipc makes, and clients that do not wait for the answer.

use super::*;
use libipc::service::{Mismatch, NONE, mismatch};
use libipc::services::Refusal;
use libipc::services::files::FilesClient;
use libipc::services::procd::{ProcdClient, Reason};
use libipc::{Endpoint, ErrorCode, Message, Rights, process, start};
use user_apps::scenario::frames::{assert_exact, counters};
use user_apps::scenario::peer::{child, expect_status, status_of};
use user_apps::scenario::rng::Rng;

/// Requests that no client of libipc makes: unknown labels, absurd numbers, blocks without an end.
pub(crate) fn nonsense_for_the_process_server() {
    let procd = server(start::procd());
    for label in [
        1,
        12,
        255,
        ProcdClient::SPAWN - 1,
        ProcdClient::HANDLE + 1,
        u32::MAX,
    ] {
        let reply = procd
            .call(Message::new(label).with_words([u64::MAX; 4]))
            .expect("send");
        let mismatch = mismatch(reply.label());
        assert_eq!(mismatch, Some(Mismatch::Unknown), "label {label}");
    }
    let block = [b'/'; 5000];
    for label in [ProcdClient::SPAWN, ProcdClient::EXEC] {
        for len in [0, 1, 2, 3071, 3072, 3073, 4095, 4096, 4097, 5000] {
            let sent = procd
                .send(Message::new(label), &block[..len], &mut [])
                .expect("send");
            assert_ne!(sent.reply.label(), NONE, "label {label}, length {len}");
        }
        for bytes in [
            &b"\0"[..],
            b"\0\0\0",
            b"/bin/hello",
            b"\xff\xfe\0",
            b"/boot/kernel.sym\0",
        ] {
            let sent = procd
                .send(Message::new(label), bytes, &mut [])
                .expect("send");
            let label = sent.reply.label();
            // Without an end the path may still count: then there is a child.
            if label == 0 {
                process::wait(sent.reply.words[0]).expect("wait");
            }
        }
    }
    for label in [
        ProcdClient::WAIT,
        ProcdClient::KILL,
        ProcdClient::ENDPOINT,
        ProcdClient::FOREGROUND,
    ] {
        for number in [u64::MAX, 1 << 63, 1 << 32] {
            let reply = procd
                .call(Message::new(label).with_words([number, 1]))
                .expect("send");
            let refusal = Refusal::from_label(reply.label());
            assert!(refusal.is_some(), "label {label}");
        }
    }
    // A child that starts nowhere, on no stack.
    for (ip, sp) in [(0, 0), (8, 8), (0x7fff_ffff_e000, 16)] {
        let reply = procd
            .call(Message::new(ProcdClient::FORK).with_words([ip, sp]))
            .expect("send");
        assert_eq!(reply.label(), 0);
        assert_eq!(status_of(reply.words[0]), Reason::BadAccess.status());
    }
    for ip in [u64::MAX, 1 << 63, 1 << 47] {
        let reply = procd
            .call(Message::new(ProcdClient::FORK).with_words([ip, 0]))
            .expect("send");
        assert!(Refusal::from_label(reply.label()).is_some());
    }
    expect_status(5, || 5);
}

/// Random labels, words and bytes for all of them; afterwards they do their work.
pub(crate) fn nonsense_for_every_server() {
    let mut rng = Rng::new(99);
    let mut bytes = [0; 5000];
    for handle in [
        start::procd(),
        start::names(),
        start::files(),
        start::memstat(),
        start::console(),
    ] {
        let server = server(handle);
        for _ in 0..500 {
            // Labels that end, wait, print or start something are asked for by other cases.
            let label = rng.pick(&[1, 12, 14, 99, 1 << 16, u32::MAX]);
            for byte in &mut bytes {
                *byte = rng.word() as u8;
            }
            let len = rng.below(5001) as usize;
            let words = core::array::from_fn::<u64, 4, _>(|_| rng.word());
            let message = Message::new(label).with_words(words);
            let reply = server.send(message, &bytes[..len], &mut []).expect("send");
            let mismatch = mismatch(reply.reply.label());
            assert_eq!(mismatch, Some(Mismatch::Unknown));
        }
    }
    // Known labels with unknown numbers.
    for label in [FilesClient::READ, FilesClient::LIST, FilesClient::OPEN] {
        for _ in 0..200 {
            let words = core::array::from_fn::<u64, 4, _>(|_| rng.word());
            let message = Message::new(label).with_words(words);
            server(start::files())
                .send(message, &[0xff; 3], &mut [])
                .expect("send");
        }
    }
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
    assert!(counters().free > 0);
    expect_status(0, || 0);
}

/// Handles that a server did not ask for must not fill its table.
pub(crate) fn unwanted_handles_are_closed() {
    let endpoint = Endpoint::create().expect("endpoint");
    let gift = endpoint.copy(Rights::COPY, 0).expect("copy");
    let handles = [gift.handle(); 4];
    assert_exact(|| {
        for handle in [
            start::procd(),
            start::names(),
            start::files(),
            start::memstat(),
            start::console(),
        ] {
            for _ in 0..1500 {
                let message = Message::new(99).with_handles(&handles);
                server(handle)
                    .call(message)
                    .expect("a server's table is full");
            }
        }
    });
}

/// The servers reply to the dead and go on.
pub(crate) fn a_client_that_dies_while_a_server_works() {
    for _ in 0..30 {
        let pid = child(|| {
            loop {
                let _ = read_all(OWN_PATH);
                let _ = counters();
                let _ = process::wait_any();
            }
        });
        for _ in 0..5 {
            libipc::object::yield_now();
        }
        process::kill(pid).expect("kill");
        assert_eq!(status_of(pid), Reason::Killed.status());
    }
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
}
