//! The system object: creating spaces, the counters, the log, the end.

use abi::{Call, Error, InfoTopic};

use super::{Endpoint, Space, System, badged, first_handle, info, named};
use crate::raw;

impl System {
    /// Creates an empty space, overcommit and without a budget. When it dies, these bits are raised at this endpoint; 0
    /// stands for the badge of the endpoint's handle.
    ///
    /// # Errors
    /// Those of the call `space_create`.
    pub fn create_space(&self, death: Option<(&Endpoint, u64)>) -> Result<Space, Error> {
        self.create(death, 0)
    }

    /// The same, of the class of another space and with its budget.
    ///
    /// # Errors
    /// Those of the call `space_create`.
    pub fn create_space_like(
        &self,
        like: &Space,
        death: Option<(&Endpoint, u64)>,
    ) -> Result<Space, Error> {
        self.create(death, named(like.handle())?)
    }

    fn create(&self, death: Option<(&Endpoint, u64)>, like: u64) -> Result<Space, Error> {
        let [death, bits] = badged(death)?;
        let args = [death, bits, like, 0, 0, 0];
        raw::checked(Call::SpaceCreate, self.handle(), args)
            .map(|results| Space::from_raw(first_handle(results)))
    }

    /// The ten values of the topic `memory` and the one of `promise`, in the order of the interface.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn memory(&self) -> Result<[u64; 11], Error> {
        let (first, last) = info(self.handle(), InfoTopic::Memory)?;
        let ([promised, ..], _) = info(self.handle(), InfoTopic::Promise)?;
        let mut values = [0; 11];
        values[..6].copy_from_slice(&first);
        values[6..10].copy_from_slice(&last);
        values[10] = promised;
        Ok(values)
    }

    /// Lets the kernel count all references and frames again: what is wrong, or `None`.
    ///
    /// # Errors
    /// `BadArgument`: the kernel is no debug build. Others are those of the call `info`.
    pub fn audit(&self) -> Result<Option<[u64; 4]>, Error> {
        let ([flaw, frame, counted, found, ..], _) = info(self.handle(), InfoTopic::Audit)?;
        Ok((flaw != 0).then_some([flaw, frame, counted, found]))
    }

    /// Writes text to the kernel's log.
    ///
    /// # Errors
    /// Those of the call `log`.
    pub fn log(&self, text: &str) -> Result<(), Error> {
        let args = [text.as_ptr() as u64, text.len() as u64, 0, 0, 0, 0];
        raw::checked(Call::Log, self.handle(), args).map(|_| ())
    }

    /// Ends the machine.
    ///
    /// # Errors
    /// Those of the call `shutdown`; it does not return otherwise.
    pub fn shutdown(&self, status: u64) -> Result<(), Error> {
        raw::checked(Call::Shutdown, self.handle(), [status, 0, 0, 0, 0, 0]).map(|_| ())
    }
}
