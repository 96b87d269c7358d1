//! Two sides for messages with bytes: this space, which sends, and a twin, which receives where it
//! is told to, checks what came and what lies around it, and answers with a pattern.

use libipc::abi::Handle;
use libipc::{Endpoint, Incoming, Message, PageBuffer, Received, Rights, Sent};
use user_apps::scenario::memory::{GUARD, MARGIN, Window, fill, mismatch};
use user_apps::scenario::twin::{Gift, Twin, system};

/// Announces where the next message is to be received: start, length; and what to answer: seed.
const SETUP: u32 = 1;
/// A message with bytes. Words: seed of the pattern, start and length of the answer.
const DATA: u32 = 2;
/// The end.
const STOP: u32 = 3;

/// Room for each side's buffers.
pub(crate) const ROOM: usize = 512 * 1024;

/// One message and its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What is sent, in this side's buffer.
    pub(crate) data: Window,
    /// Where it is received, in the twin's.
    pub(crate) target: Window,
    /// What the twin answers with, in its buffer of answers.
    pub(crate) answer: Window,
    /// Where the answer is received, in this side's second buffer.
    pub(crate) reply: Window,
    /// Seed of the patterns.
    pub(crate) seed: u64,
}

/// The two sides.
pub(crate) struct Rig {
    endpoint: Endpoint,
    source: PageBuffer,
    reply: PageBuffer,
    twin: Twin,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let endpoint = Endpoint::create().expect("endpoint");
        let gift = Gift(endpoint.handle(), Rights::RECV, 0);
        let twin = Twin::start(&system(), &[gift], |[from, ..]| serve(from));
        let buffer = || PageBuffer::new(ROOM).expect("buffer");
        Rig {
            endpoint,
            source: buffer(),
            reply: buffer(),
            twin,
        }
    }

    /// Sends a message as planned, and checks everything about it on both sides.
    #[track_caller]
    pub(crate) fn exchange(&mut self, plan: Plan) {
        let Plan {
            data,
            target,
            answer,
            reply,
            seed,
        } = plan;
        self.setup(target);
        data.set_guards(&mut self.source);
        fill(data.of(&mut self.source), seed);
        reply.set_guards(&mut self.reply);
        reply.of(&mut self.reply).fill(GUARD);

        let words = [seed, answer.start as u64, answer.len as u64, 0];
        let message = Message::new(DATA).with_words(words);
        let sent = self
            .endpoint
            .send(
                message,
                data.of(&mut self.source),
                reply.of(&mut self.reply),
            )
            .unwrap_or_else(|error| panic!("{error}: {plan:?}"));
        check_sent(&sent, plan);
        let came = reply.len.min(answer.len);
        let received = reply.of(&mut self.reply);
        assert_eq!(mismatch(&received[..came], seed + 1), None, "{plan:?}");
        assert!(
            received[came..].iter().all(|&byte| byte == GUARD),
            "{plan:?}"
        );
        reply.check_guards(&self.reply);
        // Sending changes nothing for the sender.
        assert_eq!(mismatch(data.of(&mut self.source), seed), None, "{plan:?}");
        data.check_guards(&self.source);
    }

    #[track_caller]
    fn setup(&self, target: Window) {
        let words = [target.start as u64, target.len as u64];
        let message = Message::new(SETUP).with_words(words);
        self.endpoint.call(message).expect("the twin waits");
    }

    /// Ends the twin.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.endpoint
            .call(Message::new(STOP))
            .expect("the twin waits");
        self.twin.join();
    }
}

#[track_caller]
fn check_sent(sent: &Sent, plan: Plan) {
    let Plan {
        data,
        target,
        answer,
        reply,
        ..
    } = plan;
    assert_eq!(sent.accepted, data.len.min(target.len), "{plan:?}");
    assert_eq!(sent.reply_len, answer.len, "{plan:?}");
    assert_eq!(
        sent.reply.tag.peer_truncated(),
        data.len > target.len,
        "{plan:?}"
    );
    assert_eq!(
        sent.reply.tag.truncated(),
        answer.len > reply.len,
        "{plan:?}"
    );
    // Whether the reply was cut is told to the replier after it; the next reply passes it on.
    assert_eq!(sent.reply.label(), 0);
}

/// The twin.
fn serve(from: Handle) {
    let endpoint = Endpoint::borrow(from);
    let mut buffer = PageBuffer::new(ROOM).expect("buffer");
    let mut answers = PageBuffer::new(ROOM).expect("buffer");
    loop {
        let Incoming { message, token, .. } = message(endpoint.recv(&mut []));
        let [start, len, ..] = message.words.map(|word| word as usize);
        if message.label() == STOP {
            token.reply(Message::new(0), &[]).expect("reply");
            return;
        }
        assert_eq!(message.label(), SETUP);
        let target = Window { start, len };
        target.set_guards(&mut buffer);
        target.of(&mut buffer).fill(GUARD);
        token.reply(Message::new(0), &[]).expect("reply");

        let incoming = self::message(endpoint.recv(target.of(&mut buffer)));
        let [seed, answer_start, answer_len, _] = incoming.message.words;
        assert_eq!(incoming.message.label(), DATA);
        assert_eq!(incoming.len, incoming.true_len.min(len));
        assert_eq!(incoming.message.tag.truncated(), incoming.true_len > len);
        let received = target.of(&mut buffer);
        assert_eq!(
            mismatch(&received[..incoming.len], seed),
            None,
            "{target:?}"
        );
        assert!(
            received[incoming.len..].iter().all(|&byte| byte == GUARD),
            "{target:?}"
        );
        target.check_guards(&buffer);
        // What was received is the receiver's to write.
        target.of(&mut buffer).fill(0x5a);

        let answer = Window {
            start: answer_start as usize,
            len: answer_len as usize,
        };
        answer.set_guards(&mut answers);
        fill(answer.of(&mut answers), seed + 1);
        incoming
            .token
            .reply(Message::new(0), answer.of(&mut answers))
            .expect("reply");
        answer.check_guards(&answers);
    }
}

#[track_caller]
fn message(received: Result<Received, libipc::Error>) -> Incoming {
    match received {
        Ok(Received::Message(incoming)) => incoming,
        other => panic!("no message, but {other:?}"),
    }
}

/// A window of `len` bytes at `offset` in its first page.
pub(crate) fn at(offset: usize, len: usize) -> Window {
    Window {
        start: MARGIN + offset,
        len,
    }
}
