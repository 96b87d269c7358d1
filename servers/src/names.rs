//! The name server: a table of names, each with a handle and the process that it belongs to. Init keeps a copy of it, with which
//! the next name server begins.

use libipc::abi::Rights;
use libipc::object::Endpoint;
use libipc::service::{Caller, Error};
use libipc::services::Refusal;
use libipc::services::init::{InitClient, Named, Registration};
use libipc::services::names::{self, Name};

/// Most names.
pub const MAX_NAMES: usize = 32;

/// Which of a server's extra handles leads to init, where names are kept.
pub const EXTRA_INIT: usize = 0;

/// Who may forget the names of others: holders of the unbadged handle.
const TRUSTED: u64 = 0;

/// The name server.
#[derive(Debug)]
pub struct Names {
    table: heapless::Vec<Named, MAX_NAMES>,
    init: InitClient,
}

impl Names {
    /// A server of the names that init has kept.
    ///
    /// # Errors
    /// Those of init: `NotFound`, which tells the end of its table, is none.
    pub fn new(init: InitClient) -> Result<Self, libipc::services::Error> {
        let mut table = heapless::Vec::new();
        while !table.is_full() {
            match init.kept(table.len()) {
                Ok(named) => {
                    // There is room.
                    let _ = table.push(named);
                }
                Err(Error::Refused(Refusal::NotFound)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Names { table, init })
    }

    fn find(&self, name: Name) -> Option<&Named> {
        let mut table = self.table.iter();
        table.find(|named| named.registration.name == name)
    }
}

impl names::Names for Names {
    fn register(&mut self, caller: Caller, name: Name, endpoint: Endpoint) -> Result<(), Refusal> {
        // Asking for a handle without rights gives nothing away, and tells whether the handle can
        // be copied, and whether what it names is alive.
        let probe = |endpoint: &Endpoint| endpoint.copy(Rights::empty(), 0).err();
        if name.is_empty() || probe(&endpoint).is_some() {
            return Err(Refusal::BadRequest);
        }
        self.table
            .retain(|named| probe(&named.endpoint) != Some(libipc::Error::Died));
        if self.find(name).is_some() {
            return Err(Refusal::Taken);
        }
        let owner = caller.badge;
        let registration = Registration { name, owner };
        let named = self.init.keep(Named {
            registration,
            endpoint,
        })?;
        self.table.push(named).map_err(|_| Refusal::Full)
    }

    fn lookup(&self, name: Name) -> Result<&Endpoint, Refusal> {
        let named = self.find(name).ok_or(Refusal::NotFound)?;
        Ok(&named.endpoint)
    }

    fn forget(&mut self, caller: Caller, process: u64) -> Result<(), Refusal> {
        if caller.badge != TRUSTED {
            return Err(Refusal::Denied);
        }
        self.init.forget(process)?;
        self.table
            .retain(|named| named.registration.owner != process);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::ErrorCode;
    use libipc::abi::Call;
    use libipc::service::ConnectError;
    use libipc::services::names::{NamesClient, NamesServer};
    use libipc::start::StartInfo;
    use libipc::{Borrowed, Handle, Message, fake};

    use super::*;
    use crate::init::keeper;

    const TRUSTED_HANDLE: Handle = Handle(1);
    const INIT: Handle = Handle(90);

    fn names() -> [Borrowed<'static, NamesClient>; 3] {
        keeper::tests::serve(INIT);
        serve()
    }

    /// The first name server, or the next one.
    fn serve() -> [Borrowed<'static, NamesClient>; 3] {
        let names = Names::new(InitClient::new(Endpoint::from_raw(INIT))).unwrap();
        let names = Rc::new(RefCell::new(NamesServer::new(names)));
        for badge in 0..3 {
            fake::serve(
                Handle(TRUSTED_HANDLE.0 + badge),
                badge.into(),
                names.clone(),
            );
        }
        [1, 2, 3].map(|number| NamesClient::borrow(Handle(number)))
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
        first.publish("clock", &endpoint, 7).unwrap();
        let taken = second.publish("clock", &endpoint, 7);
        assert_eq!(refused(taken), Refusal::Taken);
        assert!(second.find("clock").is_ok());
        assert_eq!(refused(second.forget(1)), Refusal::Denied);
        trusted.forget(2).unwrap();
        assert!(second.find("clock").is_ok());
        trusted.forget(1).unwrap();
        assert_eq!(refused(second.find("clock")), Refusal::NotFound);
    }

    #[test]
    fn the_next_name_server_knows_names_and_owners() {
        let [trusted, first, second] = names();
        let [clock, store] = [50, 51].map(|number| Endpoint::from_raw(Handle(number)));
        first.publish("clock", &clock, 7).unwrap();
        second.publish("store", &store, 0).unwrap();
        trusted.forget(2).unwrap();
        serve();
        assert_eq!(refused(first.publish("clock", &clock, 7)), Refusal::Taken);
        assert_eq!(refused(first.find("store")), Refusal::NotFound);
        trusted.forget(1).unwrap();
        serve();
        assert_eq!(refused(first.find("clock")), Refusal::NotFound);
    }

    #[test]
    fn bad_names_and_handles_are_refused() {
        let [_, first, _] = names();
        let endpoint = Endpoint::from_raw(Handle(50));
        for name in ["", "seventeen letters", "a\0b"] {
            assert_eq!(
                refused(first.publish(name, &endpoint, 1)),
                Refusal::BadRequest
            );
            assert_eq!(refused(first.find(name)), Refusal::BadRequest);
        }
        let name = Name::new("clock").unwrap();
        fake::fail(Call::HandleCopy, Some(libipc::Error::Denied));
        let registered = first.register(name, Endpoint::from_raw(Handle(9)));
        fake::fail(Call::HandleCopy, None);
        assert_eq!(refused(registered), Refusal::BadRequest);
        // A name that no client can make.
        let register = Message::new(NamesClient::REGISTER);
        let reply = first
            .as_endpoint()
            .call(register.with_handles(&[Handle(9)]))
            .unwrap();
        assert_eq!(
            Refusal::from_label(reply.label()),
            Some(Refusal::BadRequest)
        );
    }

    #[test]
    fn the_table_is_bounded_and_handles_that_are_not_kept_are_closed() {
        let [_, first, _] = names();
        let endpoint = Endpoint::from_raw(Handle(50));
        for number in 0..MAX_NAMES {
            first
                .publish(&format!("name {number}"), &endpoint, 1)
                .unwrap();
        }
        let _ = fake::asked();
        let name = Name::new("one more").unwrap();
        let full = first.register(name, Endpoint::from_raw(Handle(80)));
        assert_eq!(refused(full), Refusal::Full);
        let asked = fake::asked();
        let closed = |number| {
            asked
                .iter()
                .any(|asked| (asked.call, asked.handle) == (Call::HandleClose, Handle(number)))
        };
        assert!(closed(80));
    }

    /// A service, and its next version.
    mod greeter {
        #[libipc::service(version = 1)]
        pub(super) trait Greeter {
            /// How often it was asked.
            fn greet(&mut self) -> u64;
        }

        #[allow(dead_code, reason = "nobody serves it")]
        pub(super) mod next {
            #[libipc::service(version = 2)]
            pub(in super::super) trait Greeter {
                /// How often it was asked.
                fn greet(&mut self) -> u64;
            }
        }
    }

    struct Polite(u64);

    impl greeter::Greeter for Polite {
        fn greet(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    #[test]
    fn services_are_connected_by_name_if_they_are_the_same() {
        let [_, first, _] = names();
        let info = StartInfo {
            names: first.as_endpoint().handle(),
            ..StartInfo::EMPTY
        };
        libipc::start::set_for_test(Box::leak(Box::new(info)));
        let server = greeter::GreeterServer::new(Polite(0));
        fake::serve(Handle(60), 0, Rc::new(RefCell::new(server)));
        let endpoint = Endpoint::from_raw(Handle(60));
        assert_eq!(
            greeter::GreeterClient::connect("greeter").map(|_| ()),
            Err(ConnectError::NoServer)
        );
        libipc::names::register("greeter", &endpoint).unwrap();
        let client = greeter::GreeterClient::connect("greeter").unwrap();
        assert_eq!((client.greet(), client.greet()), (Ok(1), Ok(2)));
        let other = greeter::next::GreeterClient::connect("greeter");
        let error = other.map(|_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the server has version 1, the client version 2"
        );
    }
}
