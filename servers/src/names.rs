//! The name server: a table of names, each with a handle and the process that it belongs to.

use libipc::abi::{Error, Rights};
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
        // Asking for a handle without rights gives nothing away, and tells whether the handle can
        // be copied, and whether what it names is alive.
        let probe = |endpoint: &Endpoint| endpoint.copy(Rights::empty(), 0).err();
        if name[0] == 0 || probe(&endpoint).is_some() {
            return Err(Refusal::BadRequest);
        }
        self.table
            .retain(|named| probe(&named.endpoint) != Some(Error::Died));
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::abi::Call;
    use libipc::services::names as client;
    use libipc::{Handle, fake};

    use super::*;

    const TRUSTED_HANDLE: Handle = Handle(1);

    fn names() -> [libipc::Borrowed<'static, Endpoint>; 3] {
        let names = Rc::new(RefCell::new(Names::default()));
        for badge in 0..3 {
            fake::serve(
                Handle(TRUSTED_HANDLE.0 + badge),
                badge.into(),
                names.clone(),
            );
        }
        [1, 2, 3].map(|number| Endpoint::borrow(Handle(number)))
    }

    fn refused<T: core::fmt::Debug>(
        result: Result<T, libipc::services::Error>,
    ) -> libipc::services::Refusal {
        match result {
            Err(libipc::services::Error::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_belongs_to_who_registered_it() {
        let [trusted, first, second] = names();
        let endpoint = Endpoint::from_raw(Handle(50));
        client::register(&first, "clock", &endpoint, 7).unwrap();
        let taken = client::register(&second, "clock", &endpoint, 7);
        assert_eq!(refused(taken), Refusal::Taken);
        assert!(client::lookup(&second, "clock").is_ok());
        assert_eq!(refused(client::forget(&second, 1)), Refusal::Denied);
        client::forget(&trusted, 2).unwrap();
        assert!(client::lookup(&second, "clock").is_ok());
        client::forget(&trusted, 1).unwrap();
        assert_eq!(refused(client::lookup(&second, "clock")), Refusal::NotFound);
    }

    #[test]
    fn bad_names_and_handles_are_refused() {
        let [_, first, _] = names();
        let endpoint = Endpoint::from_raw(Handle(50));
        for name in ["", "seventeen letters", "a\0b"] {
            assert_eq!(
                refused(client::register(&first, name, &endpoint, 1)),
                Refusal::BadRequest
            );
            assert_eq!(refused(client::lookup(&first, name)), Refusal::BadRequest);
        }
        let register = Message::new(REGISTER).with_words([1, 0]);
        fake::fail(Call::HandleCopy, Some(Error::Denied));
        let reply = first.call(register.with_handles(&[Handle(9)])).unwrap();
        fake::fail(Call::HandleCopy, None);
        assert_eq!(reply.label(), Refusal::BadRequest as u32);
    }

    #[test]
    fn the_table_is_bounded_and_handles_that_are_not_kept_are_closed() {
        let [_, first, _] = names();
        let endpoint = Endpoint::from_raw(Handle(50));
        for number in 0..MAX_NAMES {
            client::register(&first, &format!("name {number}"), &endpoint, 1).unwrap();
        }
        let _ = fake::asked();
        let register = Message::new(REGISTER).with_words([0x78, 0]);
        let reply = first
            .call(register.with_handles(&[Handle(90), Handle(91)]))
            .unwrap();
        assert_eq!(reply.label(), Refusal::Full as u32);
        let asked = fake::asked();
        let closed = |number| {
            asked
                .iter()
                .any(|asked| (asked.call, asked.handle) == (Call::HandleClose, Handle(number)))
        };
        assert!(closed(90) && closed(91));
    }
}
