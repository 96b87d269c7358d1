//! The names that outlive the name server: a copy of its table, which the next one begins with.

use libipc::abi::{Error, Rights};
use libipc::services::Refusal;
use libipc::services::init::Named;

use crate::names::MAX_NAMES;

/// The names.
#[derive(Debug, Default)]
pub struct Keeper {
    table: heapless::Vec<Named, MAX_NAMES>,
}

impl Keeper {
    /// Keeps a name. Names whose endpoints are dead make room.
    ///
    /// # Errors
    /// `Full`.
    pub fn keep(&mut self, named: Named) -> Result<&Named, Refusal> {
        let is_dead =
            |named: &Named| named.endpoint.copy(Rights::empty(), 0).err() == Some(Error::Died);
        self.table.retain(|named| !is_dead(named));
        self.table.push(named).map_err(|_| Refusal::Full)?;
        self.table.last().ok_or(Refusal::Broken)
    }

    /// The name with this number.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn kept(&self, number: usize) -> Result<&Named, Refusal> {
        self.table.get(number).ok_or(Refusal::NotFound)
    }

    /// Forgets what a process has registered.
    pub fn forget(&mut self, process: u64) {
        self.table
            .retain(|named| named.registration.owner != process);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use libipc::service::Caller;
    use libipc::services::init::{Init, InitServer};
    use libipc::services::names::Name;
    use libipc::{Handle, Space, fake};

    use super::*;

    /// Init, as far as names are concerned.
    #[derive(Default)]
    struct Keeps(Keeper);

    impl Init for Keeps {
        fn keep(&mut self, _: Caller, named: Named) -> Result<&Named, Refusal> {
            self.0.keep(named)
        }

        fn kept(&self, _: Caller, number: usize) -> Result<&Named, Refusal> {
            self.0.kept(number)
        }

        fn forget(&mut self, _: Caller, process: u64) -> Result<(), Refusal> {
            self.0.forget(process);
            Ok(())
        }

        fn space(&self, _: Caller, _: usize) -> Result<Space, Refusal> {
            Err(Refusal::NotFound)
        }

        fn end(&mut self, _: Caller, _: Name) -> Result<(), Refusal> {
            Err(Refusal::Denied)
        }

        fn empty(&mut self, _: Caller, _: Name) -> Result<(), Refusal> {
            Err(Refusal::Denied)
        }
    }

    /// Puts an init that knows no name yet behind a handle.
    pub(crate) fn serve(handle: Handle) {
        let init = InitServer::new(Keeps::default());
        fake::serve(handle, 0, Rc::new(RefCell::new(init)));
    }
}
