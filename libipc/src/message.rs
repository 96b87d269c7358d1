//! Messages as values: what is sent, what arrives, and the right to answer once.

use abi::{
    Access, Error, FaultKind, FaultVerdict, FoundEntry, Handle, MAX_HANDLES, MessageKind, Tag,
    WORDS, pack_handles, unpack_handles,
};

use crate::object::Results;
use crate::raw;

/// The inline part of a message: a label, four words, up to four handles in the last two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Label, number of handles, and what the kernel says about truncation.
    pub tag: Tag,
    /// The inline words.
    pub words: [u64; WORDS],
}

impl Message {
    /// A message with this label, and words that are all zero.
    #[must_use]
    pub const fn new(label: u32) -> Self {
        Message {
            tag: Tag::new(label),
            words: [0; WORDS],
        }
    }

    /// The same message with these first words.
    #[must_use]
    pub fn with_words<const N: usize>(mut self, words: [u64; N]) -> Self {
        self.words[..N].copy_from_slice(&words);
        self
    }

    /// The same message with copies of these handles, at most four, in place of the last two words.
    #[must_use]
    pub fn with_handles(mut self, handles: &[Handle]) -> Self {
        let mut packed = [Handle::NONE; MAX_HANDLES];
        let count = handles.len().min(MAX_HANDLES);
        packed[..count].copy_from_slice(&handles[..count]);
        [self.words[2], self.words[3]] = pack_handles(packed);
        self.tag = self.tag.with_handles(count);
        self
    }

    /// The same message, whose handles leave the sender on arrival.
    #[must_use]
    pub const fn moving_handles(mut self) -> Self {
        self.tag = self.tag.moving_handles();
        self
    }

    /// The same message, whose whole private pages leave the sender on arrival: they are demand-zero
    /// there afterwards. Nobody has to copy a page then when either side writes to it.
    #[must_use]
    pub const fn moving_pages(mut self) -> Self {
        self.tag = self.tag.moving_pages();
        self
    }

    /// What the message is about.
    #[must_use]
    pub const fn label(&self) -> u32 {
        self.tag.label()
    }

    /// The handles that the message carries; the rest of the four are [`Handle::NONE`].
    #[must_use]
    pub fn handles(&self) -> [Handle; MAX_HANDLES] {
        let mut handles = unpack_handles([self.words[2], self.words[3]]);
        for unused in handles.iter_mut().skip(self.tag.handles()) {
            *unused = Handle::NONE;
        }
        handles
    }
}

/// What a send brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The reply's inline part.
    pub reply: Message,
    /// The reply's true length in bytes; only as much as the reply buffer holds came.
    pub reply_len: usize,
    /// How many bytes of the request the receiver's buffer took.
    pub accepted: usize,
}

/// What a receive returned.
#[derive(Debug)]
pub enum Received {
    /// A message from a thread that waits for the answer.
    Message(Incoming),
    /// Notification bits, cleared by this receive.
    Notification(u64),
    /// A thread that this endpoint supervises cannot go on.
    Fault(Fault),
}

/// A message that arrived.
#[derive(Debug)]
pub struct Incoming {
    /// The badge of the handle it was sent to: who sends, in a form that the sender cannot forge.
    pub badge: u64,
    /// The inline part.
    pub message: Message,
    /// Bytes in the receive buffer.
    pub len: usize,
    /// Bytes that the sender offered; more than `len` if the buffer was too small.
    pub true_len: usize,
    /// The right to answer.
    pub token: ReplyToken,
}

/// A fault that arrived.
#[derive(Debug)]
pub struct Fault {
    /// The badge of the supervisor handle of the thread.
    pub badge: u64,
    /// Why the thread cannot go on; `None` for a kind that this version does not know.
    pub kind: Option<FaultKind>,
    /// The address that it touched, or the exception's vector.
    pub address: u64,
    /// Its instruction pointer.
    pub ip: u64,
    /// What it tried to do.
    pub access: Access,
    /// What is mapped at the address.
    pub found: FoundEntry,
    /// Its stack pointer.
    pub sp: u64,
    /// The right to decide.
    pub token: ReplyToken,
}

impl Fault {
    /// Decides about the thread.
    ///
    /// # Errors
    /// `StaleToken` when the thread is gone.
    pub fn decide(self, verdict: FaultVerdict) -> Result<(), Error> {
        self.token
            .reply(Message::new(verdict as u32), &[])
            .map(|_| ())
    }
}

/// The right to answer one message, used up by answering.
///
/// Dropping it leaves the sender waiting, which is what a server wants that keeps nothing of a
/// client it is about to kill; every other server answers.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the sender waits for a reply"]
pub struct ReplyToken(pub(crate) u64);

impl ReplyToken {
    /// A token from its number, as a receive returned it.
    pub const fn from_raw(token: u64) -> Self {
        ReplyToken(token)
    }

    /// The token's number.
    #[must_use]
    pub const fn into_raw(self) -> u64 {
        self.0
    }

    /// Answers. Returns whether the reply was longer than the sender's buffer.
    ///
    /// # Errors
    /// Those of the call `reply`. After `NoMemory`, `TableFull` and the errors of `data` the sender
    /// still waits; [`serve`](crate::server::serve) then tells it in words.
    pub fn reply(self, message: Message, data: &[u8]) -> Result<bool, Error> {
        let args = [
            self.0,
            message.tag.0,
            data.as_ptr() as u64,
            data.len() as u64,
            0,
            0,
        ];
        let (results, _) =
            raw::checked_message(abi::Call::Reply, Handle::NONE, args, message.words)?;
        Ok(Tag(results[1]).peer_truncated())
    }
}

/// Decodes the results of a receive into a buffer of `capacity` bytes.
#[inline]
pub(crate) fn received((results, words): Results, capacity: usize) -> Received {
    let [badge, tag, true_len, token, ..] = results;
    let tag = Tag(tag);
    match tag.kind() {
        MessageKind::Notification => Received::Notification(words[0]),
        MessageKind::Fault => Received::Fault(Fault {
            badge,
            kind: FaultKind::from_label(tag.label()),
            address: words[0],
            ip: words[1],
            access: Access::from_word(words[2]),
            found: FoundEntry::from_word(words[2]),
            sp: words[3],
            token: ReplyToken(token),
        }),
        MessageKind::Message => {
            let true_len = true_len as usize;
            Received::Message(Incoming {
                badge,
                message: Message { tag, words },
                len: true_len.min(capacity),
                true_len,
                token: ReplyToken(token),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_take_the_last_two_words() {
        let message =
            Message::new(7)
                .with_words([1, 2])
                .with_handles(&[Handle(3), Handle(4), Handle(5)]);
        assert_eq!(message.words[..2], [1, 2]);
        assert_eq!(
            message.handles(),
            [Handle(3), Handle(4), Handle(5), Handle::NONE]
        );
        assert_eq!(message.tag.handles(), 3);
        assert!(message.tag.is_valid_from_user());
    }

    #[test]
    fn unannounced_handles_are_not_seen() {
        assert_eq!(
            Message::new(1).with_words([0, 0, 9, 9]).handles(),
            [Handle::NONE; 4]
        );
    }

    #[test]
    fn a_long_message_is_cut_to_the_buffer() {
        let Received::Message(incoming) = received(([5, 1, 100, 8, 0, 0], [0; 4]), 64) else {
            panic!("not a message");
        };
        assert_eq!(
            (incoming.badge, incoming.len, incoming.true_len),
            (5, 64, 100)
        );
    }
}
