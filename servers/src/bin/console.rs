//! The console server's loop, and the way to its port.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::abi::PortIo;
use libipc::services::console::ConsoleServer;
use libipc::{Borrowed, Endpoint, Interrupt, Ports, start};
use servers::console::uart::Registers;
use servers::console::{
    self, Console, EXTRA_INTERRUPT, EXTRA_INTERRUPTED, EXTRA_PORTS, FIRST_PORT,
};

libipc::program!(run);

/// The registers of COM1, and its interrupt line.
struct Port {
    ports: Ports,
    interrupt: Borrowed<'static, Interrupt>,
}

impl Registers for Port {
    fn read(&mut self, offset: u16) -> u8 {
        let value = self.ports.io(FIRST_PORT + offset, 0, PortIo::Read8);
        // A port that cannot be read looks like one that is not there: all ones.
        value.map_or(0xff, |value| value as u8)
    }

    fn write(&mut self, offset: u16, value: u8) {
        let _ = self
            .ports
            .io(FIRST_PORT + offset, value.into(), PortIo::Write8);
    }

    fn acknowledge(&mut self) {
        let _ = self.interrupt.ack();
    }
}

fn run() -> Result<(), libipc::Error> {
    let extra = start::extra();
    let interrupt = Interrupt::borrow(extra[EXTRA_INTERRUPT]);
    let port = Port {
        ports: Ports::from_raw(extra[EXTRA_PORTS]),
        interrupt: Interrupt::borrow(extra[EXTRA_INTERRUPT]),
    };
    let interrupted = Endpoint::from_raw(extra[EXTRA_INTERRUPTED]);
    let mut console = ConsoleServer::new(Console::new(port, Some(interrupted)));
    console::serve(&mut console, &Endpoint::borrow(start::inbox()), &interrupt)
}
