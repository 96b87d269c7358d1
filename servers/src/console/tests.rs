//! The console, seen through the terminal that hangs on its port.

use std::cell::RefCell;
use std::rc::Rc;

use libipc::fake;
use libipc::services::console as client;
use libipc::{Endpoint, Handle};

use super::*;
use port::Port;

mod port;
mod writing;

fn read(token: u64) -> Incoming {
    Incoming {
        badge: 1,
        message: Message::new(READ_LINE),
        len: 0,
        true_len: 0,
        token: ReplyToken::from_raw(token),
    }
}

/// The lines that readers get when this is typed.
fn lines(bytes: &[u8]) -> Vec<String> {
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    let _ = fake::replies();
    for token in 1..=8 {
        assert!(console.message(read(token), &[]).is_none());
    }
    port.type_(bytes);
    port.interrupt(&mut console);
    let text = |(_, _, data): (u64, Message, Vec<u8>)| String::from_utf8(data).unwrap();
    fake::replies().into_iter().map(text).collect()
}

#[test]
fn lines_arrive_with_their_end() {
    assert_eq!(
        lines(b"one\rtwo\nthree\r\nfour"),
        ["one\n", "two\n", "three\n"]
    );
    assert_eq!(lines(b"\r\r"), ["\n", "\n"]);
}

#[test]
fn keys_edit() {
    assert_eq!(lines(b"helo\x7flo\r"), ["hello\n"]);
    assert_eq!(lines(b"ab\x1b[D\x1b[Dx\x1b[Cy\r"), ["xayb\n"]);
    assert_eq!(lines(b"one two  \x17three\r"), ["one three\n"]);
    assert_eq!(lines(b"junk\x15ok\r"), ["ok\n"]);
    assert_eq!(lines(b"abc\x01\x0bx\r"), ["x\n"]);
    assert_eq!(lines(b"abc\x1b[H\x1b[3~\x1b[Fd\r"), ["bcd\n"]);
    assert_eq!(lines(b"\x7f\x1b[D\x1b[C\x17\x0b\r"), ["\n"]);
    assert_eq!(lines(b"lost\x03kept\r"), ["\n", "kept\n"]);
}

#[test]
fn history_walks() {
    let up = "\x1b[A";
    let down = "\x1b[B";
    let typed = format!("one\rtwo\r{up}{up}{up}\r{up}{up}{down}!\r{up}{down}\r");
    assert_eq!(
        lines(typed.as_bytes()),
        ["one\n", "two\n", "one\n", "one!\n", "\n"]
    );
}

#[test]
fn the_screen_shows_the_line() {
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    let _ = console.message(read(1), &[]);
    port.type_(b"hello world\x1b[D\x1b[D\x17w0\x01>");
    port.interrupt(&mut console);
    assert_eq!(port.screen(), ">hello w0ld");
}

#[test]
fn long_lines_are_cut_not_lost() {
    let mut typed = vec![b'x'; 2000];
    typed.push(b'\r');
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    let _ = fake::replies();
    let _ = console.message(read(1), &[]);
    port.type_(&typed);
    port.interrupt(&mut console);
    assert_eq!(fake::replies()[0].2.len(), client::MAX_LINE);
}

#[test]
fn input_waits_for_its_reader_without_echo() {
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    port.type_(b"early\r");
    port.interrupt(&mut console);
    assert!(port.sent().is_empty());
    let _ = fake::replies();
    assert!(console.message(read(1), &[]).is_none());
    assert_eq!(fake::replies()[0].2, b"early\n");
    assert_eq!(port.sent(), b"early\r\n");
}

#[test]
fn too_much_input_stays_in_the_port() {
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    port.type_(&b"0123456789abcde\r".repeat(100));
    port.interrupt(&mut console);
    assert_eq!(port.nr_received(), 1600 - INPUT);
    let _ = fake::replies();
    for token in 1..=100 {
        let _ = console.message(read(token), &[]);
    }
    assert_eq!(fake::replies().len(), 100);
}

#[test]
fn a_line_goes_past_readers_that_are_gone() {
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    let _ = console.message(read(1), &[]);
    let _ = console.message(read(2), &[]);
    fake::fail(libipc::abi::Call::Reply, Some(libipc::Error::StaleToken));
    port.type_(b"lost\r");
    port.interrupt(&mut console);
    fake::fail(libipc::abi::Call::Reply, None);
    let _ = fake::replies();
    let _ = console.message(read(3), &[]);
    port.type_(b"kept\r");
    port.interrupt(&mut console);
    assert_eq!(fake::replies()[0].2, b"kept\n");
}

#[test]
fn interrupts_without_a_reader_leave_no_trace() {
    let port = Port::default();
    let interrupted = Endpoint::from_raw(Handle(8));
    let mut console = Console::new(port.clone(), Some(interrupted));
    let _ = (fake::asked(), fake::replies());
    port.type_(b"stale\r\x03fresh\r");
    port.interrupt(&mut console);
    assert_eq!(port.sent(), b"^C\r\n");
    let notified = |asked: &fake::Asked| asked.call == libipc::abi::Call::Notify;
    assert_eq!(
        fake::asked().iter().filter(|asked| notified(asked)).count(),
        1
    );
    let _ = console.message(read(1), &[]);
    assert_eq!(fake::replies()[0].2, b"fresh\n");
}

#[test]
fn end_of_input_is_told() {
    let port = Port::default();
    let mut console = Console::new(port.clone(), None);
    let _ = fake::replies();
    let _ = console.message(read(1), &[]);
    port.type_(&[4]);
    port.interrupt(&mut console);
    assert_eq!(fake::replies()[0].1.words[0], 1);
}

#[test]
fn clients_write_through_the_protocol() {
    let port = Port::default();
    let console = Rc::new(RefCell::new(Console::new(port.clone(), None)));
    fake::serve(Handle(5), 1, console.clone());
    let endpoint = Endpoint::borrow(Handle(5));
    client::write(&endpoint, b"short\n").unwrap();
    client::write(&endpoint, "long ".repeat(20).as_bytes()).unwrap();
    port.settle(&mut console.borrow_mut());
    assert_eq!(
        port.sent(),
        format!("short\r\n{}", "long ".repeat(20)).as_bytes()
    );
    assert!(endpoint.call(Message::new(99)).unwrap().label() == Refusal::BadRequest as u32);
    let bad = Message::new(WRITE_SHORT).with_words([25]);
    assert!(endpoint.call(bad).unwrap().label() == Refusal::BadRequest as u32);
}
