//! Text on its way out: nothing lost, nothing mixed, whoever dies.

use super::*;

fn write(token: u64) -> Incoming {
    Incoming {
        message: Message::new(ConsoleClient::WRITE),
        ..read(token)
    }
}

fn flush(token: u64) -> Incoming {
    Incoming {
        message: Message::new(ConsoleClient::FLUSH),
        ..read(token)
    }
}

/// Writes lines of this length until one has to wait; returns how many fit.
fn fill(console: &mut Served<Port>, len: usize) -> usize {
    for nr in 0.. {
        if ask(console, write(nr as u64), &line(nr, len)).is_none() {
            return nr;
        }
    }
    unreachable!()
}

/// A line that no other is like.
fn line(nr: usize, len: usize) -> Vec<u8> {
    let mut line = format!("{nr} ").into_bytes();
    line.resize(len - 1, b'a' + (nr % 26) as u8);
    line.push(b'\n');
    line
}

fn on_the_wire(lines: std::ops::Range<usize>, len: usize) -> Vec<u8> {
    let text: Vec<u8> = lines.flat_map(|nr| line(nr, len)).collect();
    String::from_utf8(text)
        .unwrap()
        .replace('\n', "\r\n")
        .into_bytes()
}

fn tokens() -> Vec<u64> {
    fake::replies().into_iter().map(|reply| reply.0).collect()
}

#[test]
fn short_text_needs_no_interrupt() {
    let port = Port::default();
    let mut console = console(port.clone());
    assert!(ask(&mut console, write(1), b"short text\n").is_some());
    assert_eq!(port.sent(), b"short text\r\n");
    assert_eq!(port.interrupt(&mut console), 0);
}

#[test]
fn long_text_leaves_by_interrupts() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let text = line(0, 1000);
    let answer = ask(&mut console, write(1), &text).unwrap();
    assert_eq!(answer.message.words[0], 1000);
    let mut nr_interrupts = 0;
    for _ in 0..1001_usize.div_ceil(15) {
        port.take();
        nr_interrupts += port.interrupt(&mut console);
    }
    // One for each batch but the first, which found the port idle.
    assert_eq!(nr_interrupts, 66);
    assert_eq!(port.sent(), on_the_wire(0..1, 1000));
}

#[test]
fn a_text_without_room_is_answered_when_it_has_some() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = fake::replies();
    let held = fill(&mut console, 500);
    assert!(console.state.is_full());
    assert!(held * 500 >= 4096, "{held} lines fit");
    // Who asks all the same is refused, and nothing is mixed up.
    let refused = ask(&mut console, write(99), b"x").unwrap();
    assert_eq!(
        Refusal::from_label(refused.message.label()),
        Some(Refusal::Full)
    );
    assert_eq!(tokens(), []);
    while console.state.is_full() {
        port.take();
        port.interrupt(&mut console);
    }
    assert_eq!(tokens(), [held as u64]);
    assert!(port.nr_sent() < 1100, "answered as soon as there is room");
    port.settle(&mut console);
    assert_eq!(port.sent(), on_the_wire(0..held + 1, 500));
}

#[test]
fn the_queue_wraps_around() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = fake::replies();
    let mut sent = Vec::new();
    // Lengths that share no factor with the queue's.
    let len = 331;
    for nr in 0..500 {
        let _ = ask(&mut console, write(nr as u64), &line(nr, len));
        while console.state.is_full() {
            port.take();
            port.interrupt(&mut console);
        }
        sent.extend(port.sent());
    }
    port.settle(&mut console);
    sent.extend(port.sent());
    assert!(sent == on_the_wire(0..500, len));
}

#[test]
fn the_text_of_a_killed_writer_stays_in_its_place() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let held = fill(&mut console, 400);
    fake::fail(libipc::abi::Call::Reply, Some(libipc::Error::StaleToken));
    port.settle(&mut console);
    fake::fail(libipc::abi::Call::Reply, None);
    assert!(!console.state.is_full());
    assert_eq!(port.sent(), on_the_wire(0..held + 1, 400));
    assert!(ask(&mut console, write(1000), b"next\n").is_some());
    port.settle(&mut console);
    assert_eq!(port.sent(), b"next\r\n");
}

#[test]
fn flush_waits_for_what_was_there_and_no_longer() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = fake::replies();
    assert!(ask(&mut console, flush(1), &[]).is_none());
    assert_eq!(tokens(), [1], "nothing to wait for");
    let _ = ask(&mut console, write(2), &line(0, 100));
    assert!(ask(&mut console, flush(3), &[]).is_none());
    let mut after_flush = 0;
    while tokens().is_empty() {
        // More text does not keep the flush waiting.
        let _ = ask(&mut console, write(4), b"more text, and more\n");
        port.take();
        port.interrupt(&mut console);
        after_flush += 1;
        assert!(after_flush < 10);
    }
    assert!(port.sent().starts_with(&on_the_wire(0..1, 100)));
    port.settle(&mut console);
}

#[test]
fn flush_of_an_empty_queue_waits_for_the_port() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = fake::replies();
    let _ = ask(&mut console, write(1), b"short\n");
    assert!(ask(&mut console, flush(2), &[]).is_none());
    port.interrupt(&mut console);
    assert_eq!(tokens(), []);
    port.take();
    assert_eq!(port.interrupt(&mut console), 1);
    assert_eq!(tokens(), [2]);
}

#[test]
fn too_many_flushes_are_refused_and_dead_ones_make_room() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = ask(&mut console, write(1), b"text\n");
    let waiting = (0..100).take_while(|&token| ask(&mut console, flush(token), &[]).is_none());
    assert_eq!(waiting.count(), 16);
    fake::fail(libipc::abi::Call::Reply, Some(libipc::Error::StaleToken));
    port.settle(&mut console);
    fake::fail(libipc::abi::Call::Reply, None);
    let _ = fake::replies();
    assert!(ask(&mut console, flush(200), &[]).is_none());
    assert_eq!(tokens(), [200]);
}

#[test]
fn keys_are_echoed_while_text_waits() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = ask(&mut console, read(1), &[]);
    let _ = fake::replies();
    let held = fill(&mut console, 2000);
    port.type_(b"key\r");
    port.interrupt(&mut console);
    assert_eq!(tokens(), [1], "the line is there before the text has room");
    assert!(console.state.is_full());
    port.settle(&mut console);
    let mut expected = on_the_wire(0..held, 2000);
    expected.extend(b"key\r\n");
    expected.extend(on_the_wire(held..held + 1, 2000));
    assert!(port.sent() == expected);
}

#[test]
fn input_and_output_at_once_lose_nothing() {
    let port = Port::slow();
    let mut console = console(port.clone());
    let _ = fake::replies();
    let mut sent = Vec::new();
    for nr in 0..200 {
        let _ = ask(&mut console, read(10_000 + nr), &[]);
        port.type_(b"some words\r");
        let _ = ask(&mut console, write(nr), &line(nr as usize, 90));
        while console.state.is_full() {
            port.take();
            port.interrupt(&mut console);
        }
        port.take();
        port.interrupt(&mut console);
        sent.extend(port.sent());
    }
    port.settle(&mut console);
    sent.extend(port.sent());
    let text = String::from_utf8(sent).unwrap();
    let nr_echoes = text.matches("some words\r\n").count();
    assert_eq!(nr_echoes, 200);
    for nr in 0..200 {
        let line = String::from_utf8(line(nr, 90)).unwrap();
        assert!(text.contains(line.trim_end()), "line {nr}");
    }
    let lines_read = fake::replies()
        .into_iter()
        .filter(|reply| reply.0 >= 10_000);
    assert_eq!(lines_read.count(), 200);
}

/// A port that is not there: all ones.
struct NoPort;

impl Registers for NoPort {
    fn read(&mut self, _: u16) -> u8 {
        0xff
    }

    fn write(&mut self, _: u16, _: u8) {}
}

#[test]
fn without_a_port_text_goes_nowhere_at_once() {
    let mut console = console(NoPort);
    let _ = fake::replies();
    for nr in 0..100 {
        assert!(ask(&mut console, write(nr), &[b'x'; 2048]).is_some());
    }
    assert!(ask(&mut console, flush(1), &[]).is_none());
    assert_eq!(tokens(), [1]);
    assert!(ask(&mut console, read(2), &[]).is_none());
    assert_eq!(tokens(), []);
}
