//! The name server: a table of names, each with a handle and the process that it belongs to.

use libipc::abi::Rights;
use libipc::message::{Incoming, Message};
use libipc::object::Endpoint;
use libipc::server::{Answer, Service};
use libipc::services::Refusal;
use libipc::services::names::{FORGET, LOOKUP, REGISTER};

/// Most names.
const MAX_NAMES: usize = 32;

/// Who may forget the names of others: holders of the unbadged handle.
const TRUSTED: u64 = 0;

struct Named {
    name: [u64; 2],
    owner: u64,
    endpoint: Endpoint,
}

/// The name server.
#[derive(Default)]
pub struct Names {
    table: heapless::Vec<Named, MAX_NAMES>,
}

impl Names {
    fn register(
        &mut self,
        name: [u64; 2],
        owner: u64,
        endpoint: Endpoint,
    ) -> Result<Message, Refusal> {
        if name[0] == 0 || endpoint.handle().is_none() {
            return Err(Refusal::BadRequest);
        }
        // A name whose endpoint is gone is free. Asking for no rights tells, and gives nothing.
        self.table
            .retain(|named| named.endpoint.copy(Rights::empty(), 0).is_ok());
        if self.table.iter().any(|named| named.name == name) {
            return Err(Refusal::Taken);
        }
        self.table
            .push(Named {
                name,
                owner,
                endpoint,
            })
            .map_err(|_| Refusal::Full)?;
        Ok(Message::new(0))
    }

    fn lookup(&self, name: [u64; 2]) -> Result<Message, Refusal> {
        let named = self.table.iter().find(|named| named.name == name);
        let handle = named.ok_or(Refusal::NotFound)?.endpoint.handle();
        Ok(Message::new(0).with_handles(&[handle]))
    }

    fn forget(&mut self, sender: u64, owner: u64) -> Result<Message, Refusal> {
        if sender != TRUSTED {
            return Err(Refusal::Denied);
        }
        self.table.retain(|named| named.owner != owner);
        Ok(Message::new(0))
    }
}

impl Service for Names {
    fn takes_handles(&self) -> bool {
        true
    }

    fn message(&mut self, incoming: Incoming, _: &[u8]) -> Option<Answer<'_>> {
        let Incoming {
            badge,
            message,
            token,
            ..
        } = incoming;
        let [first, ..] = message.words;
        let name = [message.words[0], message.words[1]];
        // Whatever else came along is closed here.
        let [endpoint, ..] = message.handles().map(Endpoint::from_raw);
        let result = match message.label() {
            REGISTER => self.register(name, badge, endpoint),
            LOOKUP => self.lookup(name),
            FORGET => self.forget(badge, first),
            _ => Err(Refusal::BadRequest),
        };
        token.answer(result.unwrap_or_else(Refusal::message))
    }
}
