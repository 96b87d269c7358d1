//! One service with everything in it, its client and its server over the fake kernel; and hostile clients and servers.

use std::cell::RefCell;
use std::rc::Rc;

use abi::{Call, Handle};
use serde::{Deserialize, Serialize};

use super::*;
use crate::message::{Fault, Incoming, Message};
use crate::object::Endpoint;
use crate::server::{Answer, Service};
use crate::time::Instant;
use crate::{Borrowed, PageBuffer, Shared, fake};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ErrorCode)]
enum Trouble {
    TooMuch,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
struct Key(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
enum Colour {
    Red = 7,
    Blue = 9,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Argument)]
struct Spot {
    key: Key,
    colour: Option<Colour>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    ratio: f32,
    name: [char; 3],
    limits: Option<(u64, u64)>,
}

impl Value for Settings {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Essay {
    chapters: [[u8; 32]; 20],
}

impl Value for Essay {}

/// Everything that a service can have.
#[crate::service(version = 3, max_bytes = 64)]
trait Sample {
    /// Words there and a word back.
    fn add(&self, a: u64, b: u64) -> Result<u64, Trouble>;
    /// Words of fewer bits.
    fn narrow(&self, key: Key, small: u8, on: bool) -> i32;
    /// Words that belong together.
    fn paint(&mut self, spot: Spot) -> Spot;
    /// Text.
    fn write(&mut self, text: &str) -> usize;
    /// Bytes back.
    fn read(&self, from: usize) -> Result<&[u8], Trouble>;
    /// Bytes and a word back.
    fn count(&self) -> (u64, &[u8]);
    /// A handle moves.
    fn keep(&mut self, endpoint: Endpoint);
    /// A handle is lent.
    fn number(&self, endpoint: &Endpoint) -> u32;
    /// A handle comes back, and stays.
    fn kept(&self) -> Result<&Endpoint, Trouble>;
    /// A handle comes back, and goes.
    fn give_up(&mut self) -> Result<Endpoint, Trouble>;
    /// Values.
    fn configure(&mut self, settings: &Settings, ratio: u64) -> Settings;
    /// A value that is too long.
    fn publish(&mut self, essay: &Essay);
    /// Pages that move.
    fn swallow(&mut self, pages: Moved<'_>) -> usize;
    /// A buffer goes there and back.
    fn turn(&mut self, pages: PageBuffer) -> Result<PageBuffer, Trouble>;
    /// A buffer comes back later.
    fn page(&mut self, reply: Reply<PageBuffer, Trouble>) -> Option<Answer<'_>>;
    /// Shared memory is lent, and its length goes along.
    fn share(&self, memory: &Shared) -> usize;
    /// Who asks?
    fn who(&self, caller: Caller) -> u64;
    /// Arguments with the names that generated code has inside.
    fn names(&self, room: u8, parcel: u8, message: u8, values: u8) -> (u8, u8, u8, u8);
    /// More of them.
    fn more_names(&self, incoming: u8, data: u8, contents: u8, sent: u8) -> (u8, u8, u8, u8);
    /// Answers at once or later.
    fn wait(&mut self, at_once: bool, reply: Reply<u64, Trouble>) -> Option<Answer<'_>>;
    /// Answers later, with bytes.
    fn line(&mut self, reply: Reply<bool, Trouble, WithBytes>) -> Option<Answer<'_>>;
}

#[derive(Default)]
struct State {
    text: String,
    endpoint: Option<Endpoint>,
    waiting: Option<Reply<u64, Trouble>>,
    reading: Option<Reply<bool, Trouble, WithBytes>>,
    bits: u64,
}

impl Sample for State {
    fn add(&self, a: u64, b: u64) -> Result<u64, Trouble> {
        a.checked_add(b).ok_or(Trouble::TooMuch)
    }

    fn narrow(&self, Key(key): Key, small: u8, on: bool) -> i32 {
        -(key as i32 + i32::from(small) + i32::from(on))
    }

    fn paint(&mut self, spot: Spot) -> Spot {
        spot
    }

    fn write(&mut self, text: &str) -> usize {
        self.text += text;
        self.text.len()
    }

    fn read(&self, from: usize) -> Result<&[u8], Trouble> {
        self.text.as_bytes().get(from..).ok_or(Trouble::Missing)
    }

    fn count(&self) -> (u64, &[u8]) {
        (self.text.len() as u64, self.text.as_bytes())
    }

    fn keep(&mut self, endpoint: Endpoint) {
        self.endpoint = Some(endpoint);
    }

    fn number(&self, endpoint: &Endpoint) -> u32 {
        endpoint.handle().0
    }

    fn kept(&self) -> Result<&Endpoint, Trouble> {
        self.endpoint.as_ref().ok_or(Trouble::Missing)
    }

    fn give_up(&mut self) -> Result<Endpoint, Trouble> {
        self.endpoint.take().ok_or(Trouble::Missing)
    }

    fn configure(&mut self, settings: &Settings, ratio: u64) -> Settings {
        Settings {
            ratio: ratio as f32,
            ..settings.clone()
        }
    }

    fn publish(&mut self, _: &Essay) {}

    fn swallow(&mut self, pages: Moved<'_>) -> usize {
        pages.len()
    }

    fn turn(&mut self, mut pages: PageBuffer) -> Result<PageBuffer, Trouble> {
        pages.reverse();
        if pages.is_empty() {
            return Err(Trouble::Missing);
        }
        Ok(pages)
    }

    fn page(&mut self, reply: Reply<PageBuffer, Trouble>) -> Option<Answer<'_>> {
        let mut pages = PageBuffer::copy_of(b"later").unwrap();
        let _ = reply.send(Ok(&mut pages));
        None
    }

    fn share(&self, memory: &Shared) -> usize {
        memory.len()
    }

    fn who(&self, caller: Caller) -> u64 {
        caller.badge
    }

    fn names(&self, room: u8, parcel: u8, message: u8, values: u8) -> (u8, u8, u8, u8) {
        (room, parcel, message, values)
    }

    fn more_names(&self, incoming: u8, data: u8, contents: u8, sent: u8) -> (u8, u8, u8, u8) {
        (incoming, data, contents, sent)
    }

    fn wait(&mut self, at_once: bool, reply: Reply<u64, Trouble>) -> Option<Answer<'_>> {
        if at_once {
            return reply.now(Ok(1));
        }
        self.waiting = Some(reply);
        None
    }

    fn line(&mut self, reply: Reply<bool, Trouble, WithBytes>) -> Option<Answer<'_>> {
        self.reading = Some(reply);
        None
    }

    fn notification(&mut self, bits: u64) {
        self.bits |= bits;
    }
}

const SERVER: Handle = Handle(70);
const BADGE: u64 = 5;

type Served = Rc<RefCell<SampleServer<State>>>;

fn sample() -> (Served, Borrowed<'static, SampleClient>) {
    let server = Rc::new(RefCell::new(SampleServer::new(State::default())));
    fake::serve(SERVER, BADGE, server.clone());
    let _ = (fake::asked(), fake::replies());
    (server, SampleClient::borrow(SERVER))
}

/// The handles that were closed since the last time.
fn closed() -> Vec<u32> {
    let closes = fake::asked()
        .into_iter()
        .filter(|asked| asked.call == Call::HandleClose);
    closes.map(|asked| asked.handle.0).collect()
}

/// What a message is answered with.
fn reply_to(message: Message, data: &[u8]) -> Message {
    let server = Endpoint::borrow(SERVER);
    server.send(message, data, &mut []).unwrap().reply
}

fn label_of(message: Message, data: &[u8]) -> u32 {
    reply_to(message, data).label()
}

fn mismatch(mismatch: Mismatch) -> u32 {
    mismatch.message().label()
}

#[test]
fn words_go_there_and_back() {
    let (_, client) = sample();
    assert_eq!(client.add(2, 3), Ok(5));
    assert_eq!(client.narrow(Key(100), 255, true), Ok(-356));
    for colour in [None, Some(Colour::Red), Some(Colour::Blue)] {
        let spot = Spot {
            key: Key(u32::MAX),
            colour,
        };
        assert_eq!(client.paint(spot), Ok(spot));
    }
    assert_eq!(client.who(), Ok(BADGE));
}

#[test]
fn arguments_may_have_any_name() {
    let (_, client) = sample();
    assert_eq!(client.names(1, 2, 3, 4), Ok((1, 2, 3, 4)));
    assert_eq!(client.more_names(1, 2, 3, 4), Ok((1, 2, 3, 4)));
}

#[test]
fn errors_have_the_service_s_own_type() {
    let (_, client) = sample();
    assert_eq!(
        client.add(u64::MAX, 1),
        Err(Error::Refused(Trouble::TooMuch))
    );
    assert_eq!(
        client.read(1, &mut []),
        Err(Error::Refused(Trouble::Missing))
    );
    let nobody = SampleClient::borrow(Handle(999));
    assert_eq!(nobody.add(1, 1), Err(Error::Kernel(abi::Error::BadHandle)));
}

#[test]
fn bytes_go_into_the_client_s_buffer() {
    let (_, client) = sample();
    assert_eq!(client.write("hello "), Ok(6));
    assert_eq!(client.write("wörld"), Ok(12));
    let mut into = [0; 20];
    assert_eq!(client.read(6, &mut into), Ok(6));
    assert_eq!(into[..6], *"wörld".as_bytes());
    assert_eq!(client.count(&mut into[..5]), Ok((12, 5)));
    assert_eq!(into[..5], *b"hello");
    assert_eq!(client.swallow(Moved::out_of(&mut [1; 64])), Ok(64));
}

#[test]
fn buffers_go_there_and_back() {
    let (_, client) = sample();
    let buffer = |text: &[u8]| PageBuffer::copy_of(text).unwrap();
    let back = client.turn(buffer(b"abc")).unwrap();
    assert_eq!(back[..], *b"cba");
    let missing = client.turn(buffer(b"")).map(|_| ());
    assert_eq!(missing, Err(Error::Refused(Trouble::Missing)));
    // Requests are not cut off here; but more comes back than a client of this service has room for.
    let too_long = client.turn(buffer(&[0; 65])).map(|_| ());
    assert_eq!(too_long, Err(Error::Mismatch(Mismatch::Reply)));
    // Nobody waits in a single thread, but the answer is there.
    assert!(client.page().is_err());
    let [(_, message, bytes)] = &fake::replies()[..] else {
        panic!("one reply");
    };
    assert_eq!(bytes, b"later");
    assert!(message.tag.moves_pages());
}

#[test]
fn values_go_there_and_back() {
    let (_, client) = sample();
    let settings = Settings {
        ratio: 0.5,
        name: ['a', 'ß', '☃'],
        limits: Some((1, u64::MAX)),
    };
    let answer = client.configure(&settings, 4).unwrap();
    assert_eq!(
        answer,
        Settings {
            ratio: 4.0,
            ..settings
        }
    );
    let essay = Essay {
        chapters: [[200; 32]; 20],
    };
    assert_eq!(
        client.publish(&essay),
        Err(Error::Kernel(abi::Error::TooLong))
    );
}

#[test]
fn a_given_handle_is_the_server_s_and_a_lent_one_the_client_s() {
    let (server, client) = sample();
    let lent = Endpoint::borrow(Handle(30));
    assert_eq!(client.number(&lent), Ok(30));
    // The server's copy, which has the same number here.
    assert_eq!(closed(), [30]);
    client.keep(Endpoint::from_raw(Handle(31))).unwrap();
    assert_eq!(closed(), []);
    let copy = client.kept().unwrap();
    assert_eq!(copy.handle(), Handle(31));
    drop(copy);
    assert_eq!(closed(), [31]);
    let given = client.give_up().unwrap();
    assert_eq!(given.handle(), Handle(31));
    assert!(server.borrow().state.endpoint.is_none());
    assert_eq!(closed(), []);
    assert_eq!(
        client.kept().map(|_| ()),
        Err(Error::Refused(Trouble::Missing))
    );
}

#[test]
fn handles_that_are_given_move_and_others_do_not() {
    let (server, _) = sample();
    server.borrow_mut().state.endpoint = Some(Endpoint::from_raw(Handle(31)));
    let moves = |label| reply_to(Message::new(label), &[]).tag.moves_handles();
    assert!(!moves(SampleClient::KEPT));
    assert!(moves(SampleClient::GIVE_UP));
}

#[test]
fn a_handle_that_does_not_get_through_is_closed() {
    let _ = sample();
    let nobody = SampleClient::borrow(Handle(999));
    assert!(nobody.keep(Endpoint::from_raw(Handle(31))).is_err());
    assert_eq!(closed(), [31]);
}

#[test]
fn a_reply_may_come_later() {
    let (server, client) = sample();
    assert_eq!(client.wait(true), Ok(1));
    // The fake kernel does not wait.
    let blocked = Err(Error::Kernel(abi::Error::WouldBlock));
    assert_eq!(client.wait(false), blocked);
    let waiting = server.borrow_mut().state.waiting.take().unwrap();
    waiting.send(Ok(7)).unwrap();
    let [(_, message, data)] = &fake::replies()[..] else {
        panic!("one reply");
    };
    assert_eq!((message.label(), message.words[0]), (NONE, 7));
    assert!(data.is_empty());

    assert!(client.line(&mut []).is_err());
    let reading = server.borrow_mut().state.reading.take().unwrap();
    reading.send(Ok(true), b"a line\n").unwrap();
    let [(_, message, data)] = &fake::replies()[..] else {
        panic!("one reply");
    };
    assert_eq!((message.words[0], &data[..]), (1, &b"a line\n"[..]));
}

#[test]
fn a_call_may_have_a_deadline() {
    let (server, client) = sample();
    let patient = client.until(Instant::from_nanos(1_000));
    assert_eq!(patient.add(2, 3), Ok(5));
    assert_eq!(patient.wait(true), Ok(1));
    let late = Err(Error::Kernel(abi::Error::TimedOut));
    assert_eq!(patient.wait(false), late);
    // The server does not know.
    let waiting = server.borrow_mut().state.waiting.take().unwrap();
    waiting.send(Ok(7)).unwrap();
    assert_eq!(fake::replies().len(), 1);
}

#[test]
fn who_waits_is_told_when_the_answer_finds_no_room() {
    let (server, client) = sample();
    let _ = client.wait(false);
    let waiting = server.borrow_mut().state.waiting.take().unwrap();
    fake::fail_once(Call::Reply, abi::Error::NoMemory);
    assert_eq!(waiting.send(Ok(7)), Err(abi::Error::NoMemory));
    let [(_, message, _)] = &fake::replies()[..] else {
        panic!("one reply");
    };
    assert_eq!(
        super::error::refused::<Trouble>(message.label()),
        Error::Kernel(abi::Error::NoMemory)
    );
}

#[test]
fn strange_labels_are_unknown_and_their_handles_closed() {
    let _ = sample();
    let [add, line] = [SampleClient::ADD, SampleClient::LINE];
    for label in [1, 255, add - 1, line + 1, add ^ 1 << 31, u32::MAX] {
        let message = Message::new(label).with_handles(&[Handle(40), Handle(41)]);
        assert_eq!(label_of(message, &[1; 9]), mismatch(Mismatch::Unknown));
        assert_eq!(closed(), [40, 41]);
    }
}

#[test]
fn words_out_of_range_are_malformed() {
    let _ = sample();
    let narrow = Message::new(SampleClient::NARROW);
    for words in [[1 << 32, 0, 0], [0, 256, 0], [0, 0, 2], [u64::MAX; 3]] {
        assert_eq!(
            label_of(narrow.with_words(words), &[]),
            mismatch(Mismatch::Malformed)
        );
    }
    let paint = Message::new(SampleClient::PAINT);
    for words in [[0, 2, 7], [0, 1, 8], [0, 1, 0]] {
        assert_eq!(
            label_of(paint.with_words(words), &[]),
            mismatch(Mismatch::Malformed)
        );
    }
}

#[test]
fn bytes_that_are_none_of_the_request_s_are_malformed() {
    let _ = sample();
    let malformed = mismatch(Mismatch::Malformed);
    // Bytes for a request without, text that is none, a value that is none, that is cut off, with something behind.
    assert_eq!(label_of(Message::new(SampleClient::ADD), &[0]), malformed);
    assert_eq!(
        label_of(Message::new(SampleClient::WRITE), &[0xff]),
        malformed
    );
    let configure = Message::new(SampleClient::CONFIGURE);
    assert_eq!(label_of(configure, &[]), malformed);
    assert_eq!(label_of(configure, &[0xff; 30]), malformed);
    let settings = Settings {
        ratio: 1.0,
        name: ['x'; 3],
        limits: None,
    };
    let mut room = [0; 64];
    let bytes = postcard::to_slice(&settings, &mut room).unwrap();
    assert_eq!(label_of(configure, bytes), NONE);
    assert_eq!(label_of(configure, &bytes[..bytes.len() - 1]), malformed);
    assert_eq!(label_of(configure, &[&*bytes, &[0]].concat()), malformed);
    assert_eq!(closed(), []);
}

#[test]
fn a_request_that_was_cut_off_is_malformed() {
    let (server, _) = sample();
    let incoming = Incoming {
        badge: 0,
        message: Message::new(SampleClient::WRITE),
        len: 64,
        true_len: 65,
        token: crate::ReplyToken::from_raw(1),
    };
    let mut server = server.borrow_mut();
    let answer = server.message(incoming, &[b'x'; 64]).unwrap();
    assert_eq!(answer.message.label(), mismatch(Mismatch::Malformed));
    assert_eq!(server.state.text, "");
}

#[test]
fn missing_and_excess_handles_are_malformed_and_none_is_lost() {
    let (server, _) = sample();
    let malformed = mismatch(Mismatch::Malformed);
    let handles = [Handle(40), Handle(41), Handle(42), Handle(43)];
    for label in [SampleClient::KEEP, SampleClient::NUMBER] {
        for count in [0, 2, 3, 4] {
            let message = Message::new(label).with_handles(&handles[..count]);
            assert_eq!(label_of(message, &[]), malformed);
            assert_eq!(closed(), [40, 41, 42, 43][..count]);
        }
        // The right number, and bytes that nobody asked for: the handle was taken already.
        let message = Message::new(label).with_handles(&handles[..1]);
        assert_eq!(label_of(message, &[1]), malformed);
        assert_eq!(closed(), [40]);
    }
    let message = Message::new(SampleClient::ADD).with_handles(&handles);
    assert_eq!(label_of(message, &[]), malformed);
    assert_eq!(closed(), [40, 41, 42, 43]);
    assert!(server.borrow().state.endpoint.is_none());
}

/// A server that answers with whatever the test wants.
struct Liar(Message, Vec<u8>);

impl Service for Liar {
    fn message(&mut self, incoming: Incoming, _: &[u8]) -> Option<Answer<'_>> {
        incoming.token.answer_with(self.0, &self.1)
    }
}

fn liar(message: Message, data: &[u8]) -> Borrowed<'static, SampleClient> {
    let handle = Handle(71);
    let liar = Liar(message, data.to_vec());
    fake::serve(handle, 0, Rc::new(RefCell::new(liar)));
    SampleClient::borrow(handle)
}

#[test]
fn replies_that_make_no_sense_are_errors_and_lose_no_handle() {
    let _ = sample();
    let senseless = Mismatch::Reply;
    let two = Message::new(NONE).with_handles(&[Handle(40), Handle(41)]);
    assert_eq!(liar(two, &[]).add(1, 2), Err(senseless.into()));
    assert_eq!(closed(), [40, 41]);
    assert_eq!(liar(two, &[]).kept().map(|_| ()), Err(senseless.into()));
    assert_eq!(closed(), [40, 41]);
    let none = Message::new(NONE);
    assert_eq!(liar(none, &[]).kept().map(|_| ()), Err(senseless.into()));
    let huge = none.with_words([1 << 40]);
    assert_eq!(
        liar(huge, &[]).narrow(Key(1), 2, true),
        Err(senseless.into())
    );
    assert_eq!(liar(none, &[1]).add(1, 2), Err(senseless.into()));
    let settings = Settings {
        ratio: 1.0,
        name: ['x'; 3],
        limits: None,
    };
    for bytes in [&[][..], &[0xff; 40], &[0; 600]] {
        assert_eq!(
            liar(none, bytes).configure(&settings, 1),
            Err(senseless.into())
        );
    }
    // An error that the service does not have, and one with a handle.
    let strange = Message::new(3).with_handles(&[Handle(40)]);
    assert_eq!(liar(strange, &[]).add(1, 2), Err(senseless.into()));
    assert_eq!(closed(), [40]);
}

#[test]
fn a_moved_handle_whose_client_is_gone_is_closed_by_the_loop() {
    let (server, _) = sample();
    server.borrow_mut().state.endpoint = Some(Endpoint::from_raw(Handle(31)));
    let mut server = server.borrow_mut();
    let request = Incoming {
        badge: 0,
        message: Message::new(SampleClient::GIVE_UP),
        len: 0,
        true_len: 0,
        token: crate::ReplyToken::from_raw(1),
    };
    let endpoint = Endpoint::borrow(Handle(60));
    fake::deliver(Handle(60), request);
    fake::fail_once(Call::ReplyRecv, abi::Error::StaleToken);
    let end = crate::server::serve_into(&endpoint, &mut [0; 64], &mut *server);
    assert_eq!(end, Err(abi::Error::Died));
    assert_eq!(closed(), [31]);
}

/// The same service, two versions later.
#[allow(dead_code, reason = "nobody serves it")]
mod later {
    use super::Trouble;

    #[crate::service(version = 5)]
    pub(super) trait Sample {
        /// Words there and a word back.
        fn add(&self, a: u64, b: u64) -> Result<u64, Trouble>;
    }

    /// The same version with another signature.
    pub(super) mod other {
        use super::Trouble;

        #[crate::service(version = 5)]
        pub(in super::super) trait Sample {
            /// Words there and a word back.
            fn add(&self, a: u64, b: u32) -> Result<u64, Trouble>;
        }
    }

    /// The same version, seen from a server that wants to know more.
    pub(super) mod same {
        use super::super::{Caller, Trouble};

        #[crate::service(version = 5)]
        pub(in super::super) trait Sample {
            /// The sum.
            fn add(&mut self, left: u64, right: u64, caller: Caller) -> Result<u64, Trouble>;
        }
    }
}

#[test]
fn another_version_is_another_protocol() {
    let _ = sample();
    let old = later::SampleClient::borrow(SERVER);
    assert_eq!(old.add(1, 2), Err(Mismatch::Unknown.into()));
    let [now, other] = [
        later::SampleClient::PROTOCOL,
        later::other::SampleClient::PROTOCOL,
    ];
    assert_eq!(now.version, other.version);
    assert_ne!(now.fingerprint, other.fingerprint);
}

#[test]
fn what_the_client_does_not_see_is_no_part_of_the_protocol() {
    assert_eq!(
        later::SampleClient::PROTOCOL,
        later::same::SampleClient::PROTOCOL
    );
}

#[test]
fn every_server_says_what_it_speaks() {
    let _ = sample();
    let reply = reply_to(Message::new(IDENTIFY), &[]);
    assert_eq!(reply.label(), NONE);
    assert_eq!(
        Protocol::from_words(reply.words),
        Some(SampleClient::PROTOCOL)
    );
    // What any other server may answer.
    assert_eq!(Protocol::from_words([3, 1, 4, 1]), None);
}

#[test]
fn notifications_and_faults_reach_the_state() {
    let (server, _) = sample();
    server.borrow_mut().notification(6);
    assert_eq!(server.borrow().state.bits, 6);
    let fault = Fault {
        badge: 0,
        kind: None,
        address: 0,
        ip: 0,
        access: abi::Access::Read,
        found: abi::FoundEntry::Empty,
        sp: 0,
        token: crate::ReplyToken::from_raw(9),
    };
    server.borrow_mut().fault(fault);
    let [(9, verdict, _)] = &fake::replies()[..] else {
        panic!("one verdict");
    };
    assert_eq!(verdict.label(), abi::FaultVerdict::Kill as u32);
}
