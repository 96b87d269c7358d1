//! The file server over the fake kernel: what clients see of it, and hostile ones.

use std::cell::RefCell;
use std::rc::Rc;

use libipc::abi::Tag;
use libipc::server::Service;
use libipc::service::{Mismatch, mismatch};
use libipc::services::Error;
use libipc::services::files::{FilesClient, FilesServer};
use libipc::{Borrowed, Handle, Message, fake};

use super::memory::{Machine, Mover};
use super::*;
use crate::archive::tests::tar;

/// The process server.
const PROCD: u64 = 0;
const A: u64 = 7;
const B: u64 = 8;

/// For reading and writing, and there afterwards.
const NEW: Options = Options::READ.union(Options::WRITE).union(Options::CREATE);

type Served = Rc<RefCell<FilesServer<Files>>>;

fn files_for(nr_frames: u64) -> Served {
    let big = vec![7; 5000];
    let archive = tar(&[("bin/a", b"one"), ("./bin/big", &big), ("boot/x", b"")]);
    let memory = Memory::new(Machine::new(Mover::start().unwrap()));
    let limits = Limits::of_machine(nr_frames);
    let files = Files::new(archive.leak(), memory, limits).unwrap();
    let served = Rc::new(RefCell::new(FilesServer::new(files)));
    for process in [PROCD, A, B] {
        fake::serve(handle(process), process, served.clone());
    }
    let _ = (fake::asked(), fake::replies());
    served
}

fn files() -> Served {
    files_for(1 << 20)
}

fn handle(process: u64) -> Handle {
    Handle(100 + process as u32)
}

fn client(process: u64) -> Borrowed<'static, FilesClient> {
    FilesClient::borrow(handle(process))
}

fn open(process: u64, path: &str) -> u32 {
    client(process).open(NEW, path).unwrap().id
}

fn read_at(process: u64, id: u32, offset: u64) -> Vec<u8> {
    let mut buffer = vec![0; 200];
    let len = client(process).read_at(id, offset, 200, &mut buffer);
    buffer.truncate(len.unwrap());
    buffer
}

fn read(process: u64, id: u32, count: usize) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0; count];
    let len = client(process).read(id, count, &mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

fn refused<T>(refusal: Refusal) -> Result<T, Error> {
    Err(Error::Refused(refusal))
}

/// What the fake kernel says of a call whose answer comes later.
fn waits<T>() -> Result<T, Error> {
    Err(Error::Kernel(libipc::Error::WouldBlock))
}

/// What those who waited were told: the label, the first word, the bytes.
fn told() -> Vec<(u32, u64, Vec<u8>)> {
    let replies = fake::replies().into_iter();
    replies
        .map(|(_, message, bytes)| (message.label(), message.words[0], bytes))
        .collect()
}

fn label_of(refusal: Refusal) -> u32 {
    libipc::ErrorCode::to_label(&refusal)
}

/// Everything is given up: nothing is open, nothing is charged.
#[track_caller]
fn assert_clean(served: &Served) {
    let served = served.borrow();
    assert_eq!(served.state.clients.usage(), Usage::default());
    let Files { open, pipes, .. } = &served.state;
    assert!((0..100).all(|number| open.get(number).is_none() && pipes.get(number).is_none()));
}

#[test]
fn archived_files_are_read_in_pieces() {
    let _served = files();
    let files = client(A);
    let big = files.open(Options::READ, "/bin/big").unwrap();
    assert_eq!((big.size, big.is_constant), (5000, true));
    let mut buffer = [0; 3000];
    assert_eq!(files.read_at(big.id, 0, 3000, &mut buffer), Ok(3000));
    assert_eq!(files.read_at(big.id, 3000, 3000, &mut buffer), Ok(2000));
    assert!(buffer.iter().all(|&byte| byte == 7));
    for offset in [5000, u64::MAX] {
        assert_eq!(files.read_at(big.id, offset, 1, &mut buffer), Ok(0));
    }
}

#[test]
fn what_is_written_is_read() {
    let _served = files();
    let id = open(A, "/f");
    assert_eq!(client(A).write(id, b"hello world"), Ok(11));
    assert_eq!(read(A, id, 10), Ok(vec![]));
    assert_eq!(client(A).seek(id, Whence::Start, 6), Ok(6));
    assert_eq!(read(A, id, 3), Ok(b"wor".to_vec()));
    assert_eq!(read(A, id, 3), Ok(b"ld".to_vec()));
    client(A).write_at(id, 0, b"HE").unwrap();
    assert_eq!(read_at(A, id, 0), b"HEllo world");
    assert_eq!(client(A).seek(id, Whence::End, -5), Ok(6));
    assert_eq!(client(A).seek(id, Whence::Current, 1), Ok(7));
    assert_eq!(
        client(A).seek(id, Whence::Current, -8),
        refused(Refusal::BadRequest)
    );
}

#[test]
fn appending_goes_to_the_end_wherever_the_place_is() {
    let _served = files();
    let first = open(A, "/f");
    let options = Options::WRITE | Options::APPEND;
    let log = client(B).open(options, "/f").unwrap().id;
    client(A).write(first, b"abc").unwrap();
    client(B).write(log, b"1").unwrap();
    client(A).write(first, b"x").unwrap();
    client(B).write(log, b"2").unwrap();
    assert_eq!(read_at(A, first, 0), b"abcx2");
}

#[test]
fn files_are_opened_as_they_are_asked_for() {
    let _served = files();
    let files = client(A);
    let open = |options, path| files.open(options, path).map(|opened| opened.size);
    assert_eq!(open(Options::READ, "/f"), refused(Refusal::NotFound));
    assert_eq!(open(NEW, "/f"), Ok(0));
    assert_eq!(
        open(NEW | Options::EXCLUSIVE, "/f"),
        refused(Refusal::Taken)
    );
    assert_eq!(open(NEW | Options::EXCLUSIVE, "/g"), Ok(0));
    for path in ["/", "/bin", "/.."] {
        assert_eq!(open(NEW, path), refused(Refusal::IsDirectory));
    }
    assert_eq!(open(NEW, "/f/x"), refused(Refusal::NotDirectory));
    assert_eq!(open(NEW, "/none/x"), refused(Refusal::NotFound));
    assert_eq!(open(NEW, "/bin/a"), refused(Refusal::ReadOnly));
    assert_eq!(open(NEW, "/bin/new"), refused(Refusal::ReadOnly));
    let cut = Options::READ | Options::TRUNCATE;
    assert_eq!(open(cut, "/bin/a"), refused(Refusal::ReadOnly));
    assert_eq!(open(Options::READ, "/bin/a"), Ok(3));
    // What is open for one thing is not for the other.
    let reader = files.open(Options::READ, "/f").unwrap().id;
    let writer = files.open(Options::WRITE, "/f").unwrap().id;
    assert_eq!(files.write(reader, b"x"), refused(Refusal::Denied));
    assert_eq!(files.write_at(reader, 0, b"x"), refused(Refusal::Denied));
    assert_eq!(files.set_len(reader, 0), refused(Refusal::Denied));
    assert_eq!(read(A, writer, 1), refused(Refusal::Denied));
    // An empty file to begin with.
    files.write(writer, b"old").unwrap();
    assert_eq!(open(NEW | Options::TRUNCATE, "/f"), Ok(0));
    assert_eq!(files.metadata("/f").unwrap().size, 0);
}

#[test]
fn a_number_is_nothing_to_others() {
    let _served = files();
    let id = open(A, "/f");
    assert_eq!(client(B).write(id, b"x"), refused(Refusal::NotOpen));
    assert_eq!(client(B).close(id), refused(Refusal::NotOpen));
    for number in [0, 1, 2, id + 1, u32::MAX] {
        assert_eq!(client(A).close(number), refused(Refusal::NotOpen));
        assert_eq!(read(A, number, 1), refused(Refusal::NotOpen));
    }
    assert_eq!(client(B).forget(A), refused(Refusal::Denied));
    let forged = client(B).hand_down(A, B, id, id);
    assert_eq!(forged, refused(Refusal::Denied));
    assert_eq!(client(A).close(id), Ok(()));
    assert_eq!(client(A).close(id), refused(Refusal::NotOpen));
}

#[test]
fn a_process_that_has_ended_leaves_nothing_open() {
    let served = files();
    open(A, "/f");
    let (reader, _) = client(A).pipe().unwrap();
    assert_eq!(read(A, reader, 1), waits());
    client(PROCD).forget(A).unwrap();
    assert!(told().is_empty());
    assert_eq!(read(A, reader, 1), refused(Refusal::NotOpen));
    client(B).remove("/f").unwrap();
    assert_clean(&served);
}

#[test]
fn a_removed_file_lives_until_it_is_closed() {
    let served = files();
    let [first, second] = [open(A, "/f"), open(B, "/f")];
    client(A).write(first, b"still here").unwrap();
    client(B).remove("/f").unwrap();
    assert_eq!(client(A).metadata("/f"), refused(Refusal::NotFound));
    // The name is free for another one.
    let other = open(A, "/f");
    assert_eq!(read_at(B, second, 0), b"still here");
    client(A).close(first).unwrap();
    assert_eq!(read_at(B, second, 0), b"still here");
    client(B).close(second).unwrap();
    assert_eq!(served.borrow().state.clients.usage(), Usage::of_len(0));
    client(A).close(other).unwrap();
    client(A).remove("/f").unwrap();
    assert_clean(&served);
}

#[test]
fn a_replaced_file_is_given_up() {
    let served = files();
    let [old, new] = [open(A, "/old"), open(A, "/new")];
    client(A).write(old, &[1; 9000]).unwrap();
    client(A).write(new, b"new").unwrap();
    client(A).close(old).unwrap();
    client(A).rename("/new\0/old").unwrap();
    assert_eq!(served.borrow().state.clients.usage(), Usage::of_len(3));
    assert_eq!(client(A).metadata("/old").unwrap().size, 3);
    assert_eq!(client(A).rename("/old"), refused(Refusal::BadRequest));
    assert_eq!(client(A).rename("/old\0a\0b"), refused(Refusal::BadRequest));
}

#[test]
fn directories_are_listed_in_pieces() {
    let _served = files();
    client(A).create_dir("/dir").unwrap();
    for name in ["c", "a", "b"] {
        open(A, &format!("/dir/{name}"));
    }
    let list = |directory, skip, room| {
        let mut bytes = vec![0; room];
        let (count, len) = client(A).list(directory, skip, room, &mut bytes).unwrap();
        let mut names = Vec::new();
        let mut rest = &bytes[..len];
        while let Some((entry, next)) = Entry::split(rest) {
            names.push(entry.name.to_owned());
            rest = next;
        }
        assert_eq!(names.len(), count);
        names.join(" ")
    };
    assert_eq!(list("/", 0, 500), "bin boot dir");
    assert_eq!(list("/dir", 0, 500), "a b c");
    assert_eq!(list("/dir", 0, 25), "a b");
    assert_eq!(list("/dir", 2, 25), "c");
    assert_eq!(list("/dir", 3, 500), "");
    assert_eq!(list("/dir", usize::MAX, 500), "");
    let all = client(A).list("/dir", 0, usize::MAX, &mut [0; 500]);
    assert_eq!(all, Ok((3, 33)));
    let list = |path| client(A).list(path, 0, 9, &mut [0; 9]);
    assert_eq!(list("/none"), refused(Refusal::NotFound));
    assert_eq!(list("/dir/a"), refused(Refusal::NotDirectory));
    assert_eq!(client(A).remove("/dir"), refused(Refusal::NotEmpty));
}

#[test]
fn bytes_go_through_a_pipe_in_order() {
    let served = files();
    let (reader, writer) = client(A).pipe().unwrap();
    let mut sent = 0..100_000_u32;
    let mut received = Vec::new();
    // Pieces of odd sizes, so that they go round the ring.
    for size in (1..).step_by(517).take(70) {
        let piece: Vec<u8> = sent.by_ref().take(size % 9001).map(|n| n as u8).collect();
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match client(A).write(writer, rest) {
                Ok(len) => rest = &rest[len..],
                full => {
                    assert_eq!(full, waits());
                    received.extend(read(A, reader, 5003).unwrap());
                    assert_eq!(told(), [(0, 0, vec![])]);
                }
            }
        }
    }
    client(A).close(writer).unwrap();
    loop {
        let bytes = read(A, reader, 70_000).unwrap();
        if bytes.is_empty() {
            break;
        }
        received.extend(bytes);
    }
    assert!(received.len() > pipe::CAPACITY);
    let expected = (0..received.len()).map(|n| n as u8);
    assert!(received.iter().copied().eq(expected));
    client(A).close(reader).unwrap();
    assert_clean(&served);
}

#[test]
fn a_reader_waits_for_bytes_and_is_told_of_the_end() {
    let _served = files();
    let (reader, writer) = client(A).pipe().unwrap();
    assert_eq!(read(A, reader, 3), waits());
    assert_eq!(read(A, reader, 10), waits());
    assert_eq!(client(A).write(writer, b"abcde"), Ok(5));
    assert_eq!(told(), [(0, 0, b"abc".to_vec()), (0, 0, b"de".to_vec())]);
    assert_eq!(read(A, reader, 10), waits());
    client(A).close(writer).unwrap();
    assert_eq!(told(), [(0, 0, vec![])]);
    assert_eq!(read(A, reader, 10), Ok(vec![]));
}

#[test]
fn a_writer_waits_for_room_and_is_told_that_the_reader_is_gone() {
    let _served = files();
    let (reader, writer) = client(A).pipe().unwrap();
    let much = vec![1; pipe::CAPACITY + 1];
    assert_eq!(client(A).write(writer, &much), Ok(pipe::CAPACITY));
    assert_eq!(client(A).write(writer, b"x"), waits());
    assert_eq!(read(A, reader, 1), Ok(vec![1]));
    assert_eq!(told(), [(0, 0, vec![])]);
    assert_eq!(client(A).write(writer, b"xyz"), Ok(1));
    assert_eq!(client(A).write(writer, b"x"), waits());
    client(A).close(reader).unwrap();
    assert_eq!(told(), [(label_of(Refusal::ReaderGone), 0, vec![])]);
    assert_eq!(client(A).write(writer, b"x"), refused(Refusal::ReaderGone));
}

#[test]
fn bytes_whose_reader_was_killed_are_the_next_one_s() {
    let _served = files();
    let (reader, writer) = client(A).pipe().unwrap();
    assert_eq!(read(A, reader, 3), waits());
    fake::fail_once(libipc::abi::Call::Reply, libipc::Error::StaleToken);
    assert_eq!(client(A).write(writer, b"abc"), Ok(3));
    assert_eq!(read(A, reader, 10), Ok(b"abc".to_vec()));
}

#[test]
fn so_many_wait_at_a_pipe_and_no_more() {
    let _served = files();
    let (reader, _writer) = client(A).pipe().unwrap();
    for _ in 0..16 {
        assert_eq!(read(A, reader, 1), waits());
    }
    assert_eq!(read(A, reader, 1), refused(Refusal::Full));
}

#[test]
fn pipes_have_no_places() {
    let _served = files();
    let (reader, writer) = client(A).pipe().unwrap();
    let denied = refused(Refusal::Denied);
    for id in [reader, writer] {
        assert_eq!(
            client(A).seek(id, Whence::Start, 0),
            refused(Refusal::Denied)
        );
        assert_eq!(client(A).set_len(id, 0), denied);
        assert_eq!(client(A).write_at(id, 0, b"x"), denied);
        let read = client(A).read_at(id, 0, 1, &mut [0]);
        assert_eq!(read, refused(Refusal::Denied));
        assert_eq!(client(A).stat(id).unwrap().kind, Kind::Pipe);
    }
    assert_eq!(read(A, writer, 1), refused(Refusal::Denied));
    assert_eq!(client(A).write(reader, b"x"), refused(Refusal::Denied));
}

#[test]
fn a_child_has_what_it_was_handed_down() {
    let served = files();
    let file = open(A, "/f");
    let (reader, writer) = client(A).pipe().unwrap();
    client(A).write(file, b"one\n").unwrap();
    client(PROCD).hand_down(A, B, reader, file).unwrap();
    // The place is theirs together.
    client(B).write(STDOUT, b"two\n").unwrap();
    client(A).write(file, b"three\n").unwrap();
    assert_eq!(read_at(A, file, 0), b"one\ntwo\nthree\n");
    client(A).write(writer, b"in").unwrap();
    assert_eq!(read(B, STDIN, 9), Ok(b"in".to_vec()));
    // It lives as long as either has it.
    client(A).close(reader).unwrap();
    assert_eq!(client(A).write(writer, b"in"), Ok(2));
    client(PROCD).forget(B).unwrap();
    assert_eq!(client(A).write(writer, b"in"), refused(Refusal::ReaderGone));
    client(PROCD).forget(A).unwrap();
    client(B).remove("/f").unwrap();
    served.borrow_mut().state.clients.forget(B);
    assert_clean(&served);
}

#[test]
fn an_exec_closes_all_but_the_standard_streams() {
    let _served = files();
    let file = open(A, "/f");
    client(PROCD).hand_down(A, B, 0, file).unwrap();
    let other = open(B, "/g");
    client(PROCD).hand_down(B, B, 0, STDOUT).unwrap();
    assert_eq!(client(B).write(other, b"x"), refused(Refusal::NotOpen));
    assert_eq!(client(B).write(STDOUT, b"x"), Ok(1));
    assert_eq!(read_at(A, file, 0), b"x");
}

#[test]
fn what_is_not_open_is_not_handed_down() {
    let served = files();
    let file = open(A, "/f");
    let handed = |stdin, stdout| client(PROCD).hand_down(A, B, stdin, stdout);
    assert_eq!(handed(file, 60), refused(Refusal::NotOpen));
    assert_eq!(handed(60, file), refused(Refusal::NotOpen));
    assert_eq!(client(B).write(STDIN, b"x"), refused(Refusal::NotOpen));
    client(A).close(file).unwrap();
    client(A).remove("/f").unwrap();
    assert_clean(&served);
}

#[test]
fn one_process_does_not_take_all_the_room() {
    // Half of the frames for all, half of that for one.
    let served = files_for(40);
    let id = open(A, "/a");
    let page = libipc::PAGE_SIZE as u64;
    assert_eq!(client(A).set_len(id, 11 * page), refused(Refusal::NoSpace));
    client(A).set_len(id, 10 * page).unwrap();
    assert_eq!(
        client(A).write_at(id, 10 * page, b"x"),
        refused(Refusal::NoSpace)
    );
    assert_eq!(client(A).pipe(), refused(Refusal::NoSpace));
    assert_eq!(client(A).stat(id).unwrap().size, 10 * page);
    // Who makes it longer pays for all of it: that would be too much.
    let same = open(B, "/a");
    assert_eq!(
        client(B).write_at(same, 10 * page, b"x"),
        refused(Refusal::NoSpace)
    );
    client(B).write_at(same, 0, b"free of charge").unwrap();
    client(A).set_len(id, page).unwrap();
    client(B).set_len(same, 2 * page).unwrap();
    let other = open(A, "/b");
    client(A).set_len(other, 10 * page).unwrap();
    for process in [A, B] {
        client(PROCD).forget(process).unwrap();
    }
    client(A).remove("/a").unwrap();
    client(A).remove("/b").unwrap();
    assert_clean(&served);
}

#[test]
fn requests_that_find_no_memory_change_nothing() {
    let served = files();
    let id = open(A, "/f");
    client(A).write(id, b"abc").unwrap();
    let before = served.borrow().state.clients.usage();
    let long = vec![1; 70_000];
    for nr_calls in 0..3 {
        served.borrow_mut().state.memory.fail_after(nr_calls);
        let no_memory = refused(Refusal::NoMemory);
        assert_eq!(client(A).write_at(id, 0, &long), no_memory);
        if nr_calls < 2 {
            assert_eq!(client(A).pipe(), refused(Refusal::NoMemory));
        }
        served.borrow_mut().state.memory.fail_after(usize::MAX);
        assert_eq!(served.borrow().state.clients.usage(), before);
        assert_eq!(read_at(A, id, 0), b"abc");
    }
}

#[test]
fn hostile_requests_are_errors() {
    let served = files();
    let files = client(A);
    let bad = refused(Refusal::BadRequest);
    assert_eq!(
        files.metadata(&"x".repeat(300)),
        refused(Refusal::BadRequest)
    );
    assert_eq!(files.create_dir("a\0b"), bad);
    let id = open(A, "/f");
    assert_eq!(
        files.write_at(id, u64::MAX, b"x"),
        refused(Refusal::NoSpace)
    );
    assert_eq!(files.set_len(id, u64::MAX), refused(Refusal::NoSpace));
    files.seek(id, Whence::Start, i64::MAX).unwrap();
    assert_eq!(files.write(id, b"x"), refused(Refusal::NoSpace));
    assert_eq!(files.write(id, b""), Ok(0));
    assert_eq!(read(A, id, 9), Ok(vec![]));
    let open = Message::new(FilesClient::OPEN).with_words([1]);
    let malformed = |message: Message, bytes: &[u8]| {
        let reply = files.as_endpoint().send(message, bytes, &mut []).unwrap();
        mismatch(reply.reply.label()) == Some(Mismatch::Malformed)
    };
    assert!(malformed(open, &[0xff]));
    assert!(malformed(open.with_words([1 << 20]), b"/f"));
    // Only writes bring more than paths: others are not looked at.
    let mut guarded = room::Guarded(FilesServer::new(
        Files::new(
            &[],
            Memory::new(Machine::new(Mover::start().unwrap())),
            Limits::of_machine(9),
        )
        .unwrap(),
    ));
    let incoming = libipc::Incoming {
        badge: A,
        message: open,
        len: 4096,
        true_len: 4096,
        token: libipc::ReplyToken::from_raw(1),
    };
    let answer = guarded.message(incoming, &[0; 4096]).unwrap();
    assert_eq!(mismatch(answer.message.label()), Some(Mismatch::Malformed));
    assert_eq!(answer.message.tag, Tag::new(answer.message.label()));
    drop(served);
}
