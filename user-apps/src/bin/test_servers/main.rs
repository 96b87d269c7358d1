//! The servers: what they promise, and that nonsense gets a refusal and hurts nobody.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod file_cases;
mod nonsense;

use libipc::abi::{Error as KernelError, Handle};
use libipc::fs::File;
use libipc::service::{Mismatch, mismatch};
use libipc::services::console::{ConsoleClient, SHORT};
use libipc::services::memstat::{Memory, MemstatClient};
use libipc::services::names::NamesClient;
use libipc::services::procd::{ProcdClient, Reason};
use libipc::services::{Error, Refusal};
use libipc::{
    Borrowed, Endpoint, Message, PAGE_SIZE, PageBuffer, Received, getpid, process, start,
};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::counters;
use user_apps::scenario::memory::{SCRATCH, map};
use user_apps::scenario::peer::{child, expect_status, join, status_of, thread};

use file_cases::*;
use nonsense::*;

user_apps::scenarios![
    files_are_found_and_read,
    files_are_read_from_any_offset,
    files_that_are_not_there_are_refused,
    directories_are_listed,
    the_programs_text_is_what_the_file_says,
    writing_to_a_read_file_changes_no_file,
    names_are_registered_and_found,
    names_end_with_their_process,
    bad_names_are_refused,
    text_of_any_length_is_written,
    the_counters_are_consistent,
    the_counters_count_sharing,
    debug_builds_are_audited,
    processes_are_listed,
    relatives_talk_and_strangers_do_not,
    the_foreground_is_a_child,
    nonsense_for_the_process_server,
    nonsense_for_every_server,
    unwanted_handles_are_closed,
    a_client_that_dies_while_a_server_works,
];

fn server(handle: Handle) -> Borrowed<'static, Endpoint> {
    assert!(!handle.is_none(), "a process has a handle to each server");
    Endpoint::borrow(handle)
}

fn read_all(path: &str) -> PageBuffer {
    let file = File::open(path).expect("open");
    let size = file.metadata().expect("metadata").size as usize;
    let mut buffer = PageBuffer::new(size).expect("buffer");
    assert_eq!(file.read_at(0, &mut buffer), Ok(size));
    buffer
}

const OWN_PATH: &str = "/bin/test_servers";

fn names_are_registered_and_found() {
    let names = NamesClient::borrow(start::names());
    let endpoint = Endpoint::create().expect("endpoint");
    names.publish("scenario", &endpoint, 77).expect("register");
    assert_err(
        names.publish("scenario", &endpoint, 1),
        Error::Refused(Refusal::Taken),
    );
    let found = names.find("scenario").expect("lookup");
    let client = thread(move || {
        found.call(Message::new(3)).expect("send");
    });
    let Ok(Received::Message(incoming)) = endpoint.recv(&mut []) else {
        panic!("no message")
    };
    assert_eq!((incoming.badge, incoming.message.label()), (77, 3));
    incoming.token.reply(Message::new(0), &[]).expect("reply");
    join(client);
    // The handle that others get cannot receive.
    let found = names.find("scenario").expect("lookup");
    assert_err(found.try_recv(&mut []).map(|_| ()), KernelError::Denied);
    expect_status(0, || {
        i32::from(
            NamesClient::borrow(start::names())
                .find("scenario")
                .is_err(),
        )
    });
}

fn names_end_with_their_process() {
    expect_status(0, || {
        let endpoint = Endpoint::create().expect("endpoint");
        let names = NamesClient::borrow(start::names());
        i32::from(names.publish("fleeting", &endpoint, 0).is_err())
    });
    let names = NamesClient::borrow(start::names());
    assert_err(names.find("fleeting"), Error::Refused(Refusal::NotFound));
    let endpoint = Endpoint::create().expect("endpoint");
    names
        .publish("fleeting", &endpoint, 0)
        .expect("the name is free");
}

fn bad_names_are_refused() {
    let names = NamesClient::borrow(start::names());
    let endpoint = Endpoint::create().expect("endpoint");
    for name in ["", "seventeen letters", "a\0b"] {
        let bad = Error::Refused(Refusal::BadRequest);
        assert_err(names.find(name), bad);
        assert_err(names.publish(name, &endpoint, 0), bad);
    }
    assert_err(
        names.find("nobody has this"),
        Error::Refused(Refusal::NotFound),
    );
    assert_err(names.forget(getpid()), Error::Refused(Refusal::Denied));
    // A registration without a handle.
    let reply = names
        .as_endpoint()
        .call(Message::new(NamesClient::REGISTER).with_words([1, 0]))
        .expect("send");
    assert_eq!(mismatch(reply.label()), Some(Mismatch::Malformed));
    // A full table is told, and its owner's end empties it.
    expect_status(0, || {
        let names = NamesClient::borrow(start::names());
        let endpoint = Endpoint::create().expect("endpoint");
        for index in 0..200_u8 {
            let name = [
                b'n',
                b'0' + index / 100,
                b'0' + index / 10 % 10,
                b'0' + index % 10,
            ];
            let name = core::str::from_utf8(&name).expect("ASCII");
            if names.publish(name, &endpoint, 0) == Err(Error::Refused(Refusal::Full)) {
                return 0;
            }
        }
        1
    });
    names.publish("room again", &endpoint, 0).expect("register");
}

/// Blank lines of many lengths: what they look like does not disturb the report.
fn text_of_any_length_is_written() {
    let console = ConsoleClient::borrow(start::console());
    let blanks = [b' '; 600];
    for len in [0, 1, 23, 24, 25, 100, 511, 600] {
        console.write_all(&blanks[..len]).expect("write");
        console.write_all(b"\n").expect("write");
    }
    console.flush().expect("flush");
    let bad = Message::new(ConsoleClient::WRITE_SHORT).with_words([SHORT as u64 + 1]);
    let reply = console.as_endpoint().call(bad).expect("send");
    assert_eq!(mismatch(reply.label()), Some(Mismatch::Malformed));
}

fn the_counters_are_consistent() {
    let mut last = counters();
    for _ in 0..50 {
        let memory = counters();
        assert_eq!(memory.total, last.total);
        assert!(memory.free + memory.counts < memory.total);
        assert_eq!(memory.used() + memory.available(), memory.total);
        let since_boot = |memory: Memory| {
            [
                memory.copied,
                memory.remapped,
                memory.broken,
                memory.reclaimed,
                memory.zeroed,
                memory.freed,
            ]
        };
        assert!(
            since_boot(memory)
                .iter()
                .zip(since_boot(last))
                .all(|(&now, then)| now >= then)
        );
        last = memory;
    }
    // The same numbers as the kernel's own.
    let words = user_apps::scenario::twin::system()
        .memory()
        .expect("memory");
    let direct = Memory::from_words(words);
    let served = counters();
    assert_eq!(
        (direct.total, direct.available()),
        (served.total, served.available())
    );
    let mut short = [0; 5];
    let query = Message::new(MemstatClient::QUERY);
    let sent = server(start::memstat()).send(query, &[], &mut short);
    assert!(sent.expect("send").reply.tag.truncated());
}

fn debug_builds_are_audited() {
    let audit = MemstatClient::borrow(start::memstat()).audit();
    if cfg!(debug_assertions) {
        assert!(matches!(audit, Ok([0, ..])));
    } else {
        assert_eq!(audit, Err(Error::Refused(Refusal::NotFound)));
    }
}

fn the_counters_count_sharing() {
    let memory = map(SCRATCH, 100);
    memory.bytes().fill(1);
    let before = counters();
    let (own, len) = (libipc::Space::own(), 100 * PAGE_SIZE as u64);
    let mode = libipc::ShareMode::CopyOnWrite;
    own.share(&own, SCRATCH, SCRATCH + (1 << 32), len, mode, None)
        .expect("share");
    let after = counters();
    assert_eq!(after.shared - before.shared, 100);
    assert!(before.available() - after.available() < 5);
    memory.bytes().fill(2);
    let written = counters();
    assert_eq!(written.shared, before.shared);
    assert!(written.broken - after.broken >= 100);
    assert!(after.available() - written.available() >= 100);
    own.unmap(SCRATCH + (1 << 32), len).expect("unmap");
}

fn processes_are_listed() {
    let procd = ProcdClient::borrow(start::procd());
    let pid = child(|| {
        let _ = Endpoint::borrow(start::inbox()).recv(&mut []);
        0
    });
    let mut after = 0;
    let mut found = 0;
    loop {
        let (entries, count) = procd.entries(after).expect("list");
        for entry in &entries[..count] {
            assert!(entry.pid > after);
            after = entry.pid;
            if entry.pid == pid {
                assert_eq!((entry.ppid, entry.ended), (getpid(), 0));
                assert!(entry.name().ends_with("test_servers"));
            }
            found += usize::from(entry.pid == pid || entry.pid == getpid());
        }
        if count == 0 {
            break;
        }
    }
    assert_eq!(found, 2);
    process::kill(pid).expect("kill");
    let (entries, count) = procd.entries(pid - 1).expect("list");
    assert!(
        entries[..count]
            .iter()
            .any(|entry| entry.pid == pid && entry.ended == 1)
    );
    assert_eq!(status_of(pid), Reason::Killed.status());
}

fn relatives_talk_and_strangers_do_not() {
    let procd = ProcdClient::borrow(start::procd());
    let stranger = start::ppid();
    // The grandparent of the case is a stranger to the case's child.
    expect_status(0, || {
        let procd = ProcdClient::borrow(start::procd());
        assert_err(procd.endpoint(stranger), Error::Refused(Refusal::Denied));
        assert!(procd.endpoint(libipc::getppid()).is_ok());
        0
    });
    assert_err(procd.endpoint(u64::MAX), Error::Refused(Refusal::NotFound));
    // Send, receive and reply by number.
    let parent = getpid();
    let pid = child(move || {
        let mut reply = [0; 5];
        let len = libipc::course::send(parent, b"question", &mut reply);
        i32::from(len != Ok(5) || reply != *b"reply")
    });
    let mut buffer = [0; 8];
    let letter = libipc::course::recv(&mut buffer).expect("recv");
    assert_eq!((letter.from, letter.len, &buffer), (pid, 8, b"question"));
    letter.reply(b"reply").expect("reply");
    assert_eq!(status_of(pid), 0);
    assert!(libipc::course::send(pid, b"late", &mut []).is_err());
}

fn the_foreground_is_a_child() {
    let procd = ProcdClient::borrow(start::procd());
    for pid in [1, getpid(), u64::MAX] {
        assert_err(procd.foreground(pid), Error::Refused(Refusal::Denied));
    }
}
