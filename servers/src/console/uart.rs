//! The serial port: a 16550 (National Semiconductor PC16550D data sheet, section 8).

/// Bytes in the transmit buffer.
pub const FIFO: usize = 16;

/// Receive and transmit.
const DATA: u16 = 0;
/// Interrupt enable: bit 0 data available.
const INTERRUPTS: u16 = 1;
/// FIFO control when written, interrupt identification when read: bits 6 and 7 FIFOs on.
const FIFOS: u16 = 2;
/// Line control: 3 is eight bits, no parity, one stop bit.
const LINE: u16 = 3;
/// Modem control: data terminal ready, request to send, and the gate of the interrupt line.
const MODEM: u16 = 4;
/// Line status.
const STATUS: u16 = 5;

/// Status: a byte was received.
const RECEIVED: u8 = 1;
/// Status: the transmit buffer is empty.
const ROOM: u8 = 1 << 5;
/// Status: the last bit is on the wire.
const IDLE: u8 = 1 << 6;

/// The registers, by their offset from the first.
pub trait Registers {
    /// Reads one.
    fn read(&mut self, offset: u16) -> u8;
    /// Writes one.
    fn write(&mut self, offset: u16, value: u8);
    /// Unmasks the interrupt.
    fn acknowledge(&mut self) {}
}

/// A 16550 that is set up, by its firmware or by [`Uart::set_up`].
#[derive(Debug)]
pub struct Uart<R> {
    registers: R,
}

impl<R: Registers> Uart<R> {
    /// The port behind these registers.
    pub fn new(registers: R) -> Self {
        Uart { registers }
    }

    /// Turns the FIFOs on, if they are off, and the receive interrupt. The speed stays.
    pub fn set_up(&mut self) {
        let registers = &mut self.registers;
        registers.write(LINE, 3);
        if registers.read(FIFOS) & 0xc0 != 0xc0 {
            registers.write(FIFOS, 1);
        }
        registers.write(MODEM, 0x0b);
        registers.write(INTERRUPTS, 1);
        registers.acknowledge();
    }

    /// Takes a byte that was received.
    pub fn receive(&mut self) -> Option<u8> {
        (self.registers.read(STATUS) & RECEIVED != 0).then(|| self.registers.read(DATA))
    }

    /// Unmasks the interrupt.
    pub fn acknowledge(&mut self) {
        self.registers.acknowledge();
    }

    /// Writes text, each line end as carriage return and line feed.
    pub fn write(&mut self, text: &[u8]) {
        let mut room = 0;
        for &byte in text {
            if byte == b'\n' {
                self.put(b'\r', &mut room);
            }
            self.put(byte, &mut room);
        }
    }

    /// Waits until everything has left.
    pub fn flush(&mut self) {
        self.wait(ROOM | IDLE);
    }

    fn put(&mut self, byte: u8, room: &mut usize) {
        if *room == 0 {
            self.wait(ROOM);
            *room = FIFO;
        }
        self.registers.write(DATA, byte);
        *room -= 1;
    }

    fn wait(&mut self, status: u8) {
        while self.registers.read(STATUS) & status != status {
            core::hint::spin_loop();
        }
    }
}
