//! The serial port: a 16550 (National Semiconductor PC16550D data sheet, section 8).
//!
//! Its interrupt line is edge-triggered: while one cause is left the line stays up, and no further
//! edge comes. So whoever is interrupted asks for [causes](Uart::cause) until there is none.

/// Bytes of the transmit buffer that are filled at a time. One is left for a byte of the kernel's
/// log, which goes to the same port and may get in between.
const BATCH: usize = 15;

/// Receive and transmit.
const DATA: u16 = 0;
/// Interrupt enable: [`ON_RECEIVED`] and [`ON_ROOM`].
const INTERRUPTS: u16 = 1;
/// FIFO control when written, interrupt identification when read: bits 6 and 7 FIFOs on.
const FIFOS: u16 = 2;
/// Line control: 3 is eight bits, no parity, one stop bit.
const LINE: u16 = 3;
/// Modem control: data terminal ready, request to send, and the gate of the interrupt line.
const MODEM: u16 = 4;
/// Line status.
const STATUS: u16 = 5;
/// Modem status.
const MODEM_STATUS: u16 = 6;
/// Remembers what is written to it.
const SCRATCH: u16 = 7;

/// Interrupt enable: a byte was received.
const ON_RECEIVED: u8 = 1;
/// Interrupt enable: the transmit buffer is empty.
const ON_ROOM: u8 = 1 << 1;

/// Status: a byte was received.
const RECEIVED: u8 = 1;
/// Status: the transmit buffer is empty.
const ROOM: u8 = 1 << 5;
/// Status: the last bit is on the wire.
const IDLE: u8 = 1 << 6;
/// Status of a port that is not there.
const ABSENT: u8 = 0xff;

/// Far more reads of the status than fit into the time of a byte at the slowest speed.
const PATIENCE: u32 = 100_000;

/// The registers, by their offset from the first.
pub trait Registers {
    /// Reads one.
    fn read(&mut self, offset: u16) -> u8;
    /// Writes one.
    fn write(&mut self, offset: u16, value: u8);
    /// Unmasks the interrupt.
    fn acknowledge(&mut self) {}
}

/// Why the port interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Bytes were received. Remains until they are taken.
    Received,
    /// The transmit buffer is empty. Asking has ended it.
    Room,
    /// Something that was not asked for. Asking has ended it.
    Other,
}

/// A 16550 that is set up, by its firmware or by [`Uart::set_up`].
#[derive(Debug)]
pub struct Uart<R> {
    registers: R,
    /// What it may interrupt for.
    enabled: u8,
    /// Bytes that an empty transmit buffer takes.
    batch: usize,
}

impl<R: Registers> Uart<R> {
    /// The port behind these registers.
    pub fn new(registers: R) -> Self {
        Uart {
            registers,
            enabled: 0,
            batch: 1,
        }
    }

    /// Turns the FIFOs on, if they are off, and the receive interrupt. The speed stays.
    pub fn set_up(&mut self) {
        let registers = &mut self.registers;
        registers.write(INTERRUPTS, 0);
        registers.write(LINE, 3);
        if registers.read(FIFOS) & 0xc0 != 0xc0 {
            registers.write(FIFOS, 1);
        }
        registers.write(MODEM, 0x0b);
        registers.write(SCRATCH, 0x5a);
        let is_there = registers.read(SCRATCH) == 0x5a;
        self.batch = match registers.read(FIFOS) & 0xc0 {
            // What is written goes nowhere, and nothing ever waits for it.
            _ if !is_there => usize::MAX,
            0xc0 => BATCH,
            _ => 1,
        };
        self.enable(true, false);
        self.acknowledge();
    }

    /// Takes a byte that was received.
    pub fn receive(&mut self) -> Option<u8> {
        let status = self.registers.read(STATUS);
        (status & RECEIVED != 0 && status != ABSENT).then(|| self.registers.read(DATA))
    }

    /// Whether the transmit buffer is empty.
    pub fn has_room(&mut self) -> bool {
        self.registers.read(STATUS) & ROOM != 0
    }

    /// Fills the transmit buffer, which must be empty, with as much as there is.
    pub fn send(&mut self, mut next: impl FnMut() -> Option<u8>) {
        for _ in 0..self.batch {
            let Some(byte) = next() else { break };
            self.registers.write(DATA, byte);
        }
    }

    /// Waits until what has left the transmit buffer has left the machine, which no interrupt
    /// tells: not longer than a byte takes.
    pub fn wait_idle(&mut self) {
        for _ in 0..PATIENCE {
            if self.registers.read(STATUS) & IDLE != 0 {
                break;
            }
            core::hint::spin_loop();
        }
    }

    /// Says what to interrupt for: bytes received, an empty transmit buffer. What is there already
    /// interrupts at once.
    pub fn enable(&mut self, received: bool, room: bool) {
        let bit = |wanted, bit| if wanted { bit } else { 0 };
        let wanted = bit(received, ON_RECEIVED) | bit(room, ON_ROOM);
        if wanted != self.enabled {
            self.enabled = wanted;
            self.registers.write(INTERRUPTS, wanted);
        }
    }

    /// Whether received bytes interrupt.
    pub fn tells_received(&self) -> bool {
        self.enabled & ON_RECEIVED != 0
    }

    /// Whether an empty transmit buffer interrupts.
    pub fn tells_room(&self) -> bool {
        self.enabled & ON_ROOM != 0
    }

    /// Why the port interrupts, if it does.
    pub fn cause(&mut self) -> Option<Cause> {
        match self.registers.read(FIFOS) & 0x0f {
            id if id & 1 != 0 => None,
            // Received, and received a while ago.
            0x4 | 0xc => Some(Cause::Received),
            0x2 => Some(Cause::Room),
            _ => {
                self.registers.read(STATUS);
                self.registers.read(MODEM_STATUS);
                Some(Cause::Other)
            }
        }
    }

    /// Makes causes that are left interrupt again: the line goes down and, for them, up.
    pub fn interrupt_again(&mut self) {
        self.registers.write(INTERRUPTS, 0);
        self.registers.write(INTERRUPTS, self.enabled);
    }

    /// Unmasks the interrupt.
    pub fn acknowledge(&mut self) {
        self.registers.acknowledge();
    }
}
