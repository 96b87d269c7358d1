//! A 16550 as its data sheet has it, and the terminal that hangs on it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Registers, Served, Service};

/// What the transmit buffer holds.
const FIFO: usize = 16;

#[derive(Default)]
struct State {
    /// What the terminal typed.
    received: VecDeque<u8>,
    /// The transmit buffer.
    transmit: VecDeque<u8>,
    /// What the terminal was sent.
    sent: Vec<u8>,
    /// The terminal takes bytes only when it is told to.
    slow: bool,
    enabled: u8,
    /// The transmit buffer has become empty, and nobody has asked yet.
    room: bool,
    scratch: u8,
    /// The interrupt line.
    line: bool,
    /// It has gone up.
    edge: bool,
}

impl State {
    fn cause(&self) -> u8 {
        match () {
            () if self.enabled & 1 != 0 && !self.received.is_empty() => 4,
            () if self.enabled & 2 != 0 && self.room => 2,
            () => 1,
        }
    }

    fn update(&mut self) {
        let line = self.cause() != 1;
        self.edge |= line && !self.line;
        self.line = line;
    }

    fn send_all(&mut self) {
        if !self.transmit.is_empty() {
            self.sent.extend(self.transmit.drain(..));
            self.room = true;
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Port(Rc<RefCell<State>>);

impl Registers for Port {
    fn read(&mut self, offset: u16) -> u8 {
        let mut port = self.0.borrow_mut();
        let value = match offset {
            0 => port.received.pop_front().unwrap_or(0),
            2 => {
                let cause = port.cause();
                port.room &= cause != 2;
                cause | 0xc0
            }
            5 => u8::from(!port.received.is_empty()) + u8::from(port.transmit.is_empty()) * 0x60,
            7 => port.scratch,
            _ => 0,
        };
        port.update();
        value
    }

    fn write(&mut self, offset: u16, value: u8) {
        let mut port = self.0.borrow_mut();
        match offset {
            0 => {
                assert!(port.transmit.len() < FIFO, "a byte is lost");
                port.transmit.push_back(value);
                port.room = false;
                port.update();
                if !port.slow {
                    port.send_all();
                }
            }
            1 => {
                port.room |= value & !port.enabled & 2 != 0 && port.transmit.is_empty();
                port.enabled = value;
            }
            7 => port.scratch = value,
            _ => {}
        }
        port.update();
    }
}

impl Port {
    /// A port whose terminal takes bytes only when it is told to.
    pub(super) fn slow() -> Self {
        let port = Port::default();
        port.0.borrow_mut().slow = true;
        port
    }

    pub(super) fn type_(&self, bytes: &[u8]) {
        let mut port = self.0.borrow_mut();
        port.received.extend(bytes);
        port.update();
    }

    pub(super) fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().sent)
    }

    /// How much the terminal was sent.
    pub(super) fn nr_sent(&self) -> usize {
        self.0.borrow().sent.len()
    }

    /// What the terminal typed and nobody has taken.
    pub(super) fn nr_received(&self) -> usize {
        self.0.borrow().received.len()
    }

    /// The terminal takes the transmit buffer.
    pub(super) fn take(&self) {
        let mut port = self.0.borrow_mut();
        port.send_all();
        port.update();
    }

    /// Notifies the console of each edge, until there is none; returns of how many.
    pub(super) fn interrupt(&self, console: &mut Served<Port>) -> usize {
        let mut nr = 0;
        while std::mem::take(&mut self.0.borrow_mut().edge) {
            console.notification(1);
            nr += 1;
        }
        assert!(!self.0.borrow().line, "a cause is left without an edge");
        nr
    }

    /// The terminal takes all that comes.
    pub(super) fn settle(&self, console: &mut Served<Port>) {
        self.interrupt(console);
        while !self.0.borrow().transmit.is_empty() {
            self.take();
            self.interrupt(console);
        }
    }

    /// What a person sees: the last line of the screen.
    pub(super) fn screen(&self) -> String {
        let (mut line, mut column) = (Vec::new(), 0);
        for byte in self.sent() {
            match byte {
                8 => column -= 1,
                b'\r' => column = 0,
                b'\n' => line.clear(),
                _ => {
                    line.resize(line.len().max(column + 1), b' ');
                    line[column] = byte;
                    column += 1;
                }
            }
        }
        String::from_utf8(line).unwrap().trim_end().into()
    }
}
