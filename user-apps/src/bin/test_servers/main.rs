//! The servers: what they promise, and that nonsense gets a refusal and hurts nobody.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod file_cases;
mod nonsense;

use libipc::abi::{Error as KernelError, Handle};
use libipc::services::{Error, Refusal, console, files, memstat, names, pack_name, procd};
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

fn open(path: &str) -> files::File {
    files::open(&server(start::files()), path).expect("open")
}

fn read_all(path: &str) -> PageBuffer {
    let file = open(path);
    let mut buffer = PageBuffer::new(file.size).expect("buffer");
    let len = files::read(&server(start::files()), file, 0, &mut buffer);
    assert_eq!(len, Ok(file.size));
    buffer
}

const OWN_PATH: &str = "/bin/test_servers";

fn names_are_registered_and_found() {
    let names = server(start::names());
    let endpoint = Endpoint::create().expect("endpoint");
    names::register(&names, "scenario", &endpoint, 77).expect("register");
    assert_err(
        names::register(&names, "scenario", &endpoint, 1),
        Error::Refused(Refusal::Taken),
    );
    let found = names::lookup(&names, "scenario").expect("lookup");
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
    let found = names::lookup(&names, "scenario").expect("lookup");
    assert_err(found.try_recv(&mut []).map(|_| ()), KernelError::Denied);
    expect_status(0, || {
        i32::from(names::lookup(&server(start::names()), "scenario").is_err())
    });
}

fn names_end_with_their_process() {
    expect_status(0, || {
        let endpoint = Endpoint::create().expect("endpoint");
        let names = server(start::names());
        i32::from(names::register(&names, "fleeting", &endpoint, 0).is_err())
    });
    let names = server(start::names());
    assert_err(
        names::lookup(&names, "fleeting"),
        Error::Refused(Refusal::NotFound),
    );
    let endpoint = Endpoint::create().expect("endpoint");
    names::register(&names, "fleeting", &endpoint, 0).expect("the name is free");
}

fn bad_names_are_refused() {
    let names = server(start::names());
    let endpoint = Endpoint::create().expect("endpoint");
    for name in ["", "seventeen letters", "a\0b"] {
        let bad = Error::Refused(Refusal::BadRequest);
        assert_err(names::lookup(&names, name), bad);
        assert_err(names::register(&names, name, &endpoint, 0), bad);
    }
    assert_err(
        names::lookup(&names, "nobody has this"),
        Error::Refused(Refusal::NotFound),
    );
    assert_err(
        names::forget(&names, getpid()),
        Error::Refused(Refusal::Denied),
    );
    // A registration without a handle.
    let words = pack_name("empty").expect("a name");
    let reply = names
        .call(Message::new(names::REGISTER).with_words(words))
        .expect("send");
    assert_eq!(
        Refusal::from_label(reply.label()),
        Some(Refusal::BadRequest)
    );
    // A full table is told, and its owner's end empties it.
    expect_status(0, || {
        let names = server(start::names());
        let endpoint = Endpoint::create().expect("endpoint");
        for index in 0..200_u8 {
            let name = [
                b'n',
                b'0' + index / 100,
                b'0' + index / 10 % 10,
                b'0' + index % 10,
            ];
            let name = core::str::from_utf8(&name).expect("ASCII");
            if names::register(&names, name, &endpoint, 0) == Err(Error::Refused(Refusal::Full)) {
                return 0;
            }
        }
        1
    });
    names::register(&names, "room again", &endpoint, 0).expect("register");
}

/// Blank lines of many lengths: what they look like does not disturb the report.
fn text_of_any_length_is_written() {
    let console = server(start::console());
    let blanks = [b' '; 600];
    for len in [0, 1, 23, 24, 25, 100, 511, 600] {
        console::write(&console, &blanks[..len]).expect("write");
        console::write(&console, b"\n").expect("write");
    }
    console::flush(&console).expect("flush");
    let bad = Message::new(console::WRITE_SHORT).with_words([25]);
    let reply = console.call(bad).expect("send");
    assert_eq!(
        Refusal::from_label(reply.label()),
        Some(Refusal::BadRequest)
    );
}

fn the_counters_are_consistent() {
    let mut last = counters();
    for _ in 0..50 {
        let memory = counters();
        assert_eq!(memory.total, last.total);
        assert!(memory.free + memory.counts < memory.total);
        assert_eq!(memory.used() + memory.available(), memory.total);
        let since_boot = |memory: memstat::Memory| {
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
    let direct = memstat::Memory::from_words(words);
    let served = counters();
    assert_eq!(
        (direct.total, direct.available()),
        (served.total, served.available())
    );
    let mut short = [0; 79];
    let sent = server(start::memstat()).send(Message::new(memstat::QUERY), &[], &mut short);
    assert!(sent.expect("send").reply.tag.truncated());
}

fn debug_builds_are_audited() {
    let audit = memstat::audit(&server(start::memstat()));
    if cfg!(debug_assertions) {
        assert_eq!(audit, Ok(None));
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
    let procd = server(start::procd());
    let pid = child(|| {
        let _ = Endpoint::borrow(start::inbox()).recv(&mut []);
        0
    });
    let mut after = 0;
    let mut found = 0;
    loop {
        let (entries, count) = procd::list(&procd, after).expect("list");
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
    let (entries, count) = procd::list(&procd, pid - 1).expect("list");
    assert!(
        entries[..count]
            .iter()
            .any(|entry| entry.pid == pid && entry.ended == 1)
    );
    assert_eq!(status_of(pid), procd::Reason::Killed.status());
}

fn relatives_talk_and_strangers_do_not() {
    let procd = server(start::procd());
    let stranger = start::ppid();
    // The grandparent of the case is a stranger to the case's child.
    expect_status(0, || {
        let procd = server(start::procd());
        assert_err(
            procd::endpoint(&procd, stranger),
            Error::Refused(Refusal::Denied),
        );
        assert!(procd::endpoint(&procd, libipc::getppid()).is_ok());
        0
    });
    assert_err(
        procd::endpoint(&procd, u64::MAX),
        Error::Refused(Refusal::NotFound),
    );
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
    let procd = server(start::procd());
    for pid in [1, getpid(), u64::MAX] {
        assert_err(
            procd::foreground(&procd, pid),
            Error::Refused(Refusal::Denied),
        );
    }
}
