//! The servers: what they promise, and that nonsense gets a refusal and hurts nobody.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::{Error as KernelError, Handle};
use libipc::services::{Error, Refusal, console, files, memstat, names, pack_name, procd};
use libipc::{
    Borrowed, Endpoint, Message, PAGE_SIZE, PageBuffer, Received, Rights, getpid, process, start,
};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::{assert_exact, counters};
use user_apps::scenario::memory::{SCRATCH, map};
use user_apps::scenario::peer::{child, expect_status, join, status_of, thread};
use user_apps::scenario::rng::Rng;

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

fn files_are_found_and_read() {
    let own = read_all(OWN_PATH);
    assert_eq!(own[..4], *b"\x7fELF");
    assert!(own.len() > 10_000);
    for spelling in [
        "bin/test_servers",
        "//bin//test_servers",
        "/bin/./test_servers",
    ] {
        assert_eq!(open(spelling), open(OWN_PATH));
    }
    let symbols = read_all("/boot/kernel.sym");
    assert!(symbols.starts_with(b"ffffffff8"), "kernel symbols");
}

fn files_are_read_from_any_offset() {
    let whole = read_all(OWN_PATH);
    let file = open(OWN_PATH);
    let files = server(start::files());
    let mut rng = Rng::new(2);
    let mut buffer = PageBuffer::new(5 * PAGE_SIZE).expect("buffer");
    for _ in 0..200 {
        let offset = rng.below(file.size as u64 + 100) as usize;
        let wanted = rng.below(5 * PAGE_SIZE as u64) as usize;
        let expected = wanted.min(file.size.saturating_sub(offset));
        buffer.fill(0xee);
        assert_eq!(
            files::read(&files, file, offset, &mut buffer[..wanted]),
            Ok(expected)
        );
        assert!(expected == 0 || buffer[..expected] == whole[offset..offset + expected]);
        assert!(buffer[expected..].iter().all(|&byte| byte == 0xee));
    }
    assert_eq!(files::read(&files, file, usize::MAX, &mut buffer), Ok(0));
}

fn files_that_are_not_there_are_refused() {
    let files = server(start::files());
    for path in [
        "/bin/nothing",
        "",
        "/",
        "/bin",
        "/bin/test_servers/x",
        "/bin/test_server",
    ] {
        assert_err(files::open(&files, path), Error::Refused(Refusal::NotFound));
    }
    let long = [b'x'; 200];
    let long = core::str::from_utf8(&long).expect("ASCII");
    for path in ["/bin/../bin/test_servers", long] {
        assert_err(
            files::open(&files, path),
            Error::Refused(Refusal::BadRequest),
        );
    }
    let mut buffer = [0; 8];
    for number in [100_000, u64::MAX] {
        let file = files::File { number, size: 8 };
        let read = files::read(&files, file, 0, &mut buffer);
        assert_err(read, Error::Refused(Refusal::NotFound));
    }
}

fn directories_are_listed() {
    let files = server(start::files());
    let mut buffer = [0; 64];
    let mut skip = 0;
    let mut found = 0;
    loop {
        let (count, len) = files::list(&files, "/bin", skip, &mut buffer).expect("list");
        if count == 0 {
            break;
        }
        let names = buffer[..len]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty());
        for name in names {
            skip += 1;
            found += usize::from(name == b"test_servers" || name == b"hello");
        }
    }
    assert_eq!(found, 2);
    assert_eq!(files::list(&files, "/nothing", 0, &mut buffer), Ok((0, 0)));
}

/// Text that runs and text in the file are the same bytes.
fn the_programs_text_is_what_the_file_says() {
    let file = read_all(OWN_PATH);
    let here = the_programs_text_is_what_the_file_says as *const () as usize;
    // SAFETY: the function's first bytes are mapped and readable.
    let text = unsafe { core::slice::from_raw_parts(here as *const u8, 64) };
    assert!(file.windows(text.len()).any(|window| window == text));
}

fn writing_to_a_read_file_changes_no_file() {
    let mut first = read_all(OWN_PATH);
    first.fill(0);
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
    expect_status(0, || {
        read_all(OWN_PATH).fill(1);
        0
    });
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
    drop(first);
}

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

/// Requests that no client of libipc makes: unknown labels, absurd numbers, blocks without an end.
fn nonsense_for_the_process_server() {
    let procd = server(start::procd());
    for label in [0, 12, 13, 255, 0xffff, u32::MAX] {
        let reply = procd
            .call(Message::new(label).with_words([u64::MAX; 4]))
            .expect("send");
        assert_eq!(
            Refusal::from_label(reply.label()),
            Some(Refusal::BadRequest),
            "label {label}"
        );
    }
    let block = [b'/'; 5000];
    for label in [procd::SPAWN, procd::EXEC] {
        for len in [0, 1, 2, 3071, 3072, 3073, 4095, 4096, 4097, 5000] {
            let sent = procd
                .send(Message::new(label), &block[..len], &mut [])
                .expect("send");
            let refusal = Refusal::from_label(sent.reply.label());
            assert!(refusal.is_some(), "label {label}, length {len}");
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
    for label in [procd::WAIT, procd::KILL, procd::ENDPOINT, procd::FOREGROUND] {
        for number in [u64::MAX, 1 << 63, 1 << 32] {
            let reply = procd
                .call(Message::new(label).with_words([number, 1]))
                .expect("send");
            assert!(
                Refusal::from_label(reply.label()).is_some(),
                "label {label}"
            );
        }
    }
    // A child that starts nowhere, on no stack.
    for (ip, sp) in [(0, 0), (8, 8), (0x7fff_ffff_e000, 16)] {
        let reply = procd
            .call(Message::new(procd::FORK).with_words([ip, sp]))
            .expect("send");
        assert_eq!(reply.label(), 0);
        assert_eq!(status_of(reply.words[0]), procd::Reason::BadAccess.status());
    }
    for ip in [u64::MAX, 1 << 63, 1 << 47] {
        let reply = procd
            .call(Message::new(procd::FORK).with_words([ip, 0]))
            .expect("send");
        assert!(Refusal::from_label(reply.label()).is_some());
    }
    expect_status(5, || 5);
}

/// Random labels, words and bytes for all of them; afterwards they do their work.
fn nonsense_for_every_server() {
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
            let label = rng.pick(&[0, 12, 14, 99, 1 << 16, u32::MAX]);
            for byte in &mut bytes {
                *byte = rng.word() as u8;
            }
            let len = rng.below(5001) as usize;
            let words = core::array::from_fn::<u64, 4, _>(|_| rng.word());
            let message = Message::new(label).with_words(words);
            let reply = server.send(message, &bytes[..len], &mut []).expect("send");
            assert!(Refusal::from_label(reply.reply.label()).is_some());
        }
    }
    // Known labels with unknown numbers.
    for label in [files::READ, files::LIST, files::OPEN] {
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
fn unwanted_handles_are_closed() {
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
fn a_client_that_dies_while_a_server_works() {
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
        assert_eq!(status_of(pid), procd::Reason::Killed.status());
    }
    assert_eq!(read_all(OWN_PATH)[..4], *b"\x7fELF");
}
