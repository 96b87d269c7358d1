//! Interrupt lines and I/O ports.

use abi::{Call, Error, PortIo};

use super::{Endpoint, Interrupt, Ports};
use crate::raw;

impl Interrupt {
    /// From here on the line raises the badge bits of `endpoint`.
    ///
    /// # Errors
    /// Those of the call `interrupt_bind`.
    pub fn bind(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let args = [endpoint.handle().0.into(), 0, 0, 0, 0, 0];
        raw::checked(Call::InterruptBind, self.handle(), args).map(|_| ())
    }

    /// Unmasks the line after an interrupt.
    ///
    /// # Errors
    /// Those of the call `interrupt_ack`.
    pub fn ack(&self) -> Result<(), Error> {
        raw::checked(Call::InterruptAck, self.handle(), [0; 6]).map(|_| ())
    }
}

impl Ports {
    /// Reads or writes a port; returns what was read.
    ///
    /// # Errors
    /// Those of the call `port_io`.
    pub fn io(&self, port: u16, value: u32, operation: PortIo) -> Result<u32, Error> {
        let args = [port.into(), value.into(), operation as u64, 0, 0, 0];
        raw::checked(Call::PortIo, self.handle(), args).map(|results| results[0] as u32)
    }
}
