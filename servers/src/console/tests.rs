//! The console, seen through the terminal that hangs on its port.

use std::cell::RefCell;
use std::rc::Rc;

use libipc::fake;
use libipc::message::{Incoming, Message, ReplyToken};
use libipc::service::{Mismatch, mismatch};
use libipc::services::console::{ConsoleClient, MAX_LINE, SHORT};
use libipc::{Endpoint, ErrorCode, Handle};

use super::*;
use port::Port;

mod port;
mod writing;

fn read(token: u64) -> Incoming {
    Incoming {
        badge: 1,
        message: Message::new(ConsoleClient::READ_LINE),
        len: 0,
        true_len: 0,
        token: ReplyToken::from_raw(token),
    }
}

/// The server on a port.
type Served<R> = ConsoleServer<Console<R>>;

fn console<R: Registers>(port: R) -> Served<R> {
    ConsoleServer::new(Console::new(port, None))
}

/// Sends a request with these bytes.
fn ask<'a, R: Registers>(
    console: &'a mut Served<R>,
    incoming: Incoming,
    data: &[u8],
) -> Option<Answer<'a>> {
    let (len, true_len) = (data.len(), data.len());
    let incoming = Incoming {
        len,
        true_len,
        ..incoming
    };
    console.message(incoming, data)
}

/// The lines that readers get when this is typed.
fn lines(bytes: &[u8]) -> Vec<String> {
    let port = Port::default();
    let mut console = console(port.clone());
    let _ = fake::replies();
    for token in 1..=8 {
        assert!(ask(&mut console, read(token), &[]).is_none());
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
    let mut console = console(port.clone());
    let _ = ask(&mut console, read(1), &[]);
    port.type_(b"hello world\x1b[D\x1b[D\x17w0\x01>");
    port.interrupt(&mut console);
    assert_eq!(port.screen(), ">hello w0ld");
}

#[test]
fn long_lines_are_cut_not_lost() {
    let mut typed = vec![b'x'; 2000];
    typed.push(b'\r');
    let port = Port::default();
    let mut console = console(port.clone());
    let _ = fake::replies();
    let _ = ask(&mut console, read(1), &[]);
    port.type_(&typed);
    port.interrupt(&mut console);
    assert_eq!(fake::replies()[0].2.len(), MAX_LINE);
}

#[test]
fn input_waits_for_its_reader_without_echo() {
    let port = Port::default();
    let mut console = console(port.clone());
    port.type_(b"early\r");
    port.interrupt(&mut console);
    assert!(port.sent().is_empty());
    let _ = fake::replies();
    assert!(ask(&mut console, read(1), &[]).is_none());
    assert_eq!(fake::replies()[0].2, b"early\n");
    assert_eq!(port.sent(), b"early\r\n");
}

#[test]
fn too_much_input_stays_in_the_port() {
    let port = Port::default();
    let mut console = console(port.clone());
    port.type_(&b"0123456789abcde\r".repeat(100));
    port.interrupt(&mut console);
    assert_eq!(port.nr_received(), 1600 - INPUT);
    let _ = fake::replies();
    for token in 1..=100 {
        let _ = ask(&mut console, read(token), &[]);
    }
    assert_eq!(fake::replies().len(), 100);
}

#[test]
fn a_line_goes_past_readers_that_are_gone() {
    let port = Port::default();
    let mut console = console(port.clone());
    let _ = ask(&mut console, read(1), &[]);
    let _ = ask(&mut console, read(2), &[]);
    fake::fail(libipc::abi::Call::Reply, Some(libipc::Error::StaleToken));
    port.type_(b"lost\r");
    port.interrupt(&mut console);
    fake::fail(libipc::abi::Call::Reply, None);
    let _ = fake::replies();
    let _ = ask(&mut console, read(3), &[]);
    port.type_(b"kept\r");
    port.interrupt(&mut console);
    assert_eq!(fake::replies()[0].2, b"kept\n");
}

#[test]
fn interrupts_without_a_reader_leave_no_trace() {
    let port = Port::default();
    let interrupted = Endpoint::from_raw(Handle(8));
    let mut console = ConsoleServer::new(Console::new(port.clone(), Some(interrupted)));
    let _ = (fake::asked(), fake::replies());
    port.type_(b"stale\r\x03fresh\r");
    port.interrupt(&mut console);
    assert_eq!(port.sent(), b"^C\r\n");
    let notified = |asked: &fake::Asked| asked.call == libipc::abi::Call::Notify;
    assert_eq!(
        fake::asked().iter().filter(|asked| notified(asked)).count(),
        1
    );
    let _ = ask(&mut console, read(1), &[]);
    assert_eq!(fake::replies()[0].2, b"fresh\n");
}

#[test]
fn end_of_input_is_told() {
    let port = Port::default();
    let mut console = console(port.clone());
    let _ = fake::replies();
    let _ = ask(&mut console, read(1), &[]);
    port.type_(&[4]);
    port.interrupt(&mut console);
    assert_eq!(fake::replies()[0].1.words[0], 1);
}

#[test]
fn clients_write_through_the_protocol() {
    let port = Port::default();
    let console = Rc::new(RefCell::new(self::console(port.clone())));
    fake::serve(Handle(5), 1, console.clone());
    let client = ConsoleClient::borrow(Handle(5));
    client.write_all(b"short\n").unwrap();
    client.write_all("long ".repeat(20).as_bytes()).unwrap();
    port.settle(&mut console.borrow_mut());
    assert_eq!(
        port.sent(),
        format!("short\r\n{}", "long ".repeat(20)).as_bytes()
    );
    let label = |message| mismatch(client.as_endpoint().call(message).unwrap().label());
    assert_eq!(label(Message::new(99)), Some(Mismatch::Unknown));
    let bad = Message::new(ConsoleClient::WRITE_SHORT).with_words([SHORT as u64 + 1]);
    assert_eq!(label(bad), Some(Mismatch::Malformed));
}
