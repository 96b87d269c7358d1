//! Standard streams, and pipes between processes.

use super::*;
use libipc::services::procd::{Reason, Streams};
use libipc::{Commit, PageBuffer, println};
use user_apps::scenario::memory::{fill, mismatch};

/// Starts a program between two files.
#[track_caller]
fn spawn(stdin: Option<&File>, stdout: Option<&File>, path: &str, args: &[&str]) -> u64 {
    let streams = fs::streams(stdin, stdout);
    process::spawn_between(Commit::Overcommit, streams, path, args).expect("spawn")
}

/// All that can be read, up to some hundred bytes.
#[track_caller]
fn text_of<'a>(file: &mut File, room: &'a mut [u8]) -> &'a str {
    let mut len = 0;
    loop {
        match file.read(&mut room[len..]).expect("read") {
            0 => return core::str::from_utf8(&room[..len]).expect("text"),
            more => len += more,
        }
    }
}

pub(crate) fn a_program_prints_into_a_pipe() {
    let (mut reader, writer) = fs::pipe().expect("pipe");
    let pid = spawn(None, Some(&writer), "/bin/echo", &["hello", "pipe"]);
    drop(writer);
    assert_eq!(text_of(&mut reader, &mut [0; 100]), "hello pipe\n");
    assert_eq!(status_of(pid), 0);
    // What it complains about goes to the console, and what is not open is no stream.
    let streams = Streams {
        stdin: 0,
        stdout: 60,
    };
    let spawned = process::spawn_between(Commit::Overcommit, streams, "/bin/echo", &[]);
    assert_err(spawned, refused(Refusal::NotOpen));
}

pub(crate) fn a_program_reads_what_it_was_given() {
    let (_scratch, mut input) = Scratch::new("/in");
    input.write_all(b"three words here\nand\n").expect("write");
    input.seek(SeekFrom::Start(0)).expect("seek");
    let (mut reader, writer) = fs::pipe().expect("pipe");
    let (mut counts, counted) = fs::pipe().expect("pipe");
    // A chain: the file, a program, a pipe, another program, a pipe.
    let first = spawn(Some(&input), Some(&writer), "/bin/cat", &[]);
    drop(writer);
    let second = spawn(Some(&reader), Some(&counted), "/bin/wc", &[]);
    drop(counted);
    let mut room = [0; 100];
    let text = text_of(&mut counts, &mut room);
    let mut words = text.split_ascii_whitespace();
    assert!(words.by_ref().eq(["2", "4", "21"]), "{text}");
    assert_eq!((status_of(first), status_of(second)), (0, 0));
    assert_eq!(reader.read(&mut [0; 8]), Ok(0));
}

/// All of a file.
#[track_caller]
fn whole(path: &str) -> PageBuffer {
    let file = File::open(path).expect("open");
    let size = file.metadata().expect("metadata").size as usize;
    let mut buffer = PageBuffer::new(size).expect("buffer");
    assert_eq!(file.read_at(0, &mut buffer), Ok(size));
    buffer
}

/// Starts a shell that prints to a file.
#[track_caller]
fn shell(script: &str, stdout: &File) -> u64 {
    let (reader, mut writer) = fs::pipe().expect("pipe");
    let pid = spawn(Some(&reader), Some(stdout), "/bin/sh", &[]);
    writer.write_all(script.as_bytes()).expect("write");
    pid
}

pub(crate) fn children_print_to_the_same_file() {
    let (_scratch, file) = Scratch::new("/out");
    let end = File::append("/out").expect("append");
    let pid = shell("echo one\nforkapp > /forked\necho two\nexit 5\n", &end);
    assert_eq!(status_of(pid), 5);
    let mut room = [0; 100];
    let len = file.read_at(0, &mut room).expect("read");
    assert_eq!(room[..len], *b"one\ntwo\n");
    let _forked = Scratch("/forked");
    let forked = fs::metadata("/forked").expect("metadata");
    assert!(forked.size > 100, "what four processes have printed");
}

/// What the next case looks at from outside.
pub(crate) fn who_becomes_another_program_prints_on() {
    println!("before");
    let failed = process::exec("/bin/echo", &["after"]);
    panic!("exec: {failed:?}");
}

pub(crate) fn an_exec_keeps_the_standard_streams() {
    let (mut reader, writer) = fs::pipe().expect("pipe");
    let case = "who_becomes_another_program_prints_on";
    let pid = spawn(None, Some(&writer), "/bin/test_files", &[case]);
    drop(writer);
    let mut room = [0; 500];
    let text = text_of(&mut reader, &mut room);
    assert!(text.contains("before\nafter\n"), "{text}");
    assert_eq!(status_of(pid), 0);
}

pub(crate) fn a_pipe_ends_with_its_writer() {
    let (input, mut feed) = fs::pipe().expect("pipe");
    let (mut reader, writer) = fs::pipe().expect("pipe");
    let pid = spawn(Some(&input), Some(&writer), "/bin/cat", &[]);
    drop((input, writer));
    feed.write_all(b"x").expect("write");
    assert_eq!(reader.read(&mut [0; 8]), Ok(1));
    process::kill(pid).expect("kill");
    assert_eq!(reader.read(&mut [0; 8]), Ok(0));
    assert_err(feed.write(b"x"), refused(Refusal::ReaderGone));
    assert_eq!(status_of(pid), Reason::Killed.status());
}

pub(crate) fn who_prints_for_nobody_ends() {
    for (program, arg) in [("/bin/ls", "/bin"), ("/bin/cat", "/bin/cat")] {
        let (reader, mut writer) = fs::pipe().expect("pipe");
        drop(reader);
        let pid = spawn(None, Some(&writer), program, &[arg]);
        assert_eq!(status_of(pid), Reason::ReaderGone.status());
        assert_err(writer.write(b"x"), refused(Refusal::ReaderGone));
    }
}

pub(crate) fn much_goes_through_a_pipe() {
    const LEN: usize = 1 << 20;
    let (mut reader, writer) = fs::pipe().expect("pipe");
    let (_scratch, input) = Scratch::new("/much");
    let mut buffer = PageBuffer::new(LEN).expect("buffer");
    fill(&mut buffer, 5);
    input.write_at(0, &buffer).expect("write");
    let pid = spawn(Some(&input), Some(&writer), "/bin/cat", &[]);
    drop(writer);
    buffer.fill(0);
    let mut len = 0;
    // Pieces that do not fit what the other side writes.
    while let more @ 1.. = reader
        .read(&mut buffer[len..(len + 50_001).min(LEN)])
        .expect("read")
    {
        len += more;
    }
    assert_eq!(len, LEN);
    assert_eq!(mismatch(&buffer, 5), None);
    assert_eq!(status_of(pid), 0);
}

pub(crate) fn a_program_of_one_s_own_is_never_an_old_one() {
    let (_scratch, file) = Scratch::new("/own");
    let mut room = [0; 100];
    for (program, prints) in [("/bin/echo", "x y\n"), ("/bin/wc", "")] {
        let (mut reader, writer) = fs::pipe().expect("pipe");
        let image = whole(program);
        file.set_len(0).expect("set_len");
        file.write_at(0, &image).expect("write");
        let pid = spawn(None, Some(&writer), "/own", &["x", "y"]);
        drop(writer);
        assert_eq!(text_of(&mut reader, &mut room), prints);
        assert_eq!(status_of(pid), i32::from(prints.is_empty()));
    }
}
