//! The memory statistics server: passes the kernel's counters on.

use libipc::message::{Incoming, Message};
use libipc::object::System;
use libipc::server::{Answer, Service};
use libipc::services::Refusal;
use libipc::services::memstat::{AUDIT, QUERY, REPLY_LEN};

/// The memory statistics server.
#[derive(Debug)]
pub struct Memstat {
    system: System,
    reply: [u8; REPLY_LEN],
}

impl Memstat {
    /// A server that asks the kernel through this handle, which needs `OBSERVE`.
    #[must_use]
    pub fn new(system: System) -> Self {
        Memstat {
            system,
            reply: [0; REPLY_LEN],
        }
    }

    fn audit(&self) -> Message {
        match self.system.audit() {
            Ok(flaw) => Message::new(0).with_words(flaw.unwrap_or_default()),
            Err(libipc::Error::BadArgument) => Refusal::NotFound.message(),
            Err(error) => Refusal::from(error).message(),
        }
    }
}

impl Service for Memstat {
    fn message(&mut self, incoming: Incoming, _: &[u8]) -> Option<Answer<'_>> {
        let token = incoming.token;
        match incoming.message.label() {
            QUERY => {}
            AUDIT => return token.answer(self.audit()),
            _ => return token.answer(Refusal::BadRequest.message()),
        }
        match self.system.memory() {
            Ok(words) => {
                for (bytes, word) in self.reply.chunks_mut(8).zip(words) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                token.answer_with(Message::new(0), &self.reply)
            }
            Err(error) => token.answer(Refusal::from(error).message()),
        }
    }
}
