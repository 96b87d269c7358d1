//! Interrupt lines: from a device's pin through an I/O APIC to a vector.
//!
//! A line is named by its global system interrupt, those below 16 by their number on the ISA bus,
//! which the firmware may have wired to another pin. The vector follows from the line, not from the
//! pin.
//!
//! A silenced *level-triggered* line is masked at its pin. A silenced *edge-triggered* line is not:
//! the I/O APIC forgets an edge that comes while the pin is masked, and a device whose driver has
//! looked once too early would never be heard of again. Its next interrupt is remembered instead,
//! and only then the pin is masked; letting the line interrupt again delivers what was remembered.

use kernel::{
    mm::PhysAddr,
    object::MAX_LINES,
    sync::{Ordered, Rank},
};
use x86_64::instructions::port::Port;

use super::{
    acpi::{Override, Wiring},
    apic, paging,
};

/// Vector of line 0; the others follow.
pub const FIRST_VECTOR: u8 = 0x30;
/// Vector of interrupts of the old controllers, which are off and may still send spurious ones.
const OLD_FIRST_VECTOR: u8 = 0x20;

const MAX_CONTROLLERS: usize = 8;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

static LINES: Ordered<Lines> = Ordered::new(
    Rank::Lines,
    Lines {
        controllers: [const { None }; MAX_CONTROLLERS],
        lines: [None; MAX_LINES],
    },
);

struct Lines {
    controllers: [Option<Controller>; MAX_CONTROLLERS],
    lines: [Option<Line>; MAX_LINES],
}

#[derive(Clone, Copy)]
struct Line {
    /// Index of the controller, and of the pin there.
    controller: usize,
    pin: u32,
    /// What never changes of the pin's entry: vector, polarity, trigger.
    entry: u32,
    /// May interrupt.
    enabled: bool,
    /// Masked at the pin.
    masked: bool,
    /// An edge came while the line was silenced.
    pending: bool,
}

/// An I/O APIC.
struct Controller {
    registers: *mut u32,
    first: u32,
    nr_pins: u32,
}

// SAFETY: the registers can be used from any CPU, one at a time, which the lock sees to.
unsafe impl Send for Controller {}

/// Masks the old controllers for good and everything on the I/O APICs for now.
pub fn init(wiring: &Wiring) {
    silence_old_controllers();
    let mut lines = LINES.lock();
    let places = lines.controllers.iter_mut();
    for (place, &(addr, first)) in places.zip(wiring.controllers()) {
        *place = Some(Controller::new(addr, first));
    }
    for line in 0..MAX_LINES {
        lines.lines[line] = lines.wire(line as u32, wiring);
    }
    let nr_lines = lines.lines.iter().flatten().count();
    log::info!(
        "interrupts: {} I/O APICs, {nr_lines} lines",
        lines.controllers.iter().flatten().count()
    );
}

/// Whether there is such a line.
pub fn exists(line: u32) -> bool {
    LINES
        .lock()
        .lines
        .get(line as usize)
        .is_some_and(Option::is_some)
}

/// Lets a line interrupt, or silences it.
pub fn enable(line: u32, enabled: bool) {
    let mut lines = LINES.lock();
    let Lines { controllers, lines } = &mut *lines;
    let Some(Some(line)) = lines.get_mut(line as usize) else {
        return;
    };
    let Some(controller) = &controllers[line.controller] else {
        return;
    };
    line.enabled = enabled;
    let masked = !enabled && (line.is_level() || line.masked);
    if masked != line.masked {
        line.masked = masked;
        controller.write_entry(line);
    }
    if enabled && core::mem::take(&mut line.pending) {
        apic::send_to_self(line.entry as u8);
    }
}

/// Whether an interrupt that has come on a line is to be delivered.
pub fn arrived(line: u32) -> bool {
    let mut lines = LINES.lock();
    let Lines { controllers, lines } = &mut *lines;
    let Some(Some(line)) = lines.get_mut(line as usize) else {
        return false;
    };
    let Some(controller) = &controllers[line.controller] else {
        return false;
    };
    if !line.enabled && !line.masked {
        line.pending = true;
        line.masked = true;
        controller.write_entry(line);
    }
    line.enabled
}

impl Lines {
    /// Finds the pin of a line.
    fn wire(&self, line: u32, wiring: &Wiring) -> Option<Line> {
        let own = wiring.overrides().find(|wire| u32::from(wire.irq) == line);
        let taken = wiring.overrides().any(|wire| wire.gsi == line);
        let Override {
            gsi,
            level,
            active_low,
            ..
        } = match own {
            Some(wire) => *wire,
            None if taken => return None,
            None => {
                let is_isa = line < 16;
                Override {
                    irq: 0,
                    gsi: line,
                    level: !is_isa,
                    active_low: !is_isa,
                }
            }
        };
        let holds = |controller: &Option<Controller>| {
            controller.as_ref().is_some_and(|controller| {
                (controller.first..controller.first + controller.nr_pins).contains(&gsi)
            })
        };
        let controller = self.controllers.iter().position(holds)?;
        let pin = gsi - self.controllers[controller].as_ref()?.first;
        let entry = u32::from(FIRST_VECTOR)
            + line
            + if level { LEVEL } else { 0 }
            + if active_low { ACTIVE_LOW } else { 0 };
        Some(Line {
            controller,
            pin,
            entry,
            enabled: false,
            masked: true,
            pending: false,
        })
    }
}

impl Line {
    fn is_level(&self) -> bool {
        self.entry & LEVEL != 0
    }
}

impl Controller {
    const VERSION: u32 = 1;
    const ENTRIES: u32 = 0x10;

    fn new(addr: PhysAddr, first: u32) -> Self {
        let registers = paging::map_device(addr, 32).cast();
        let mut controller = Self {
            registers,
            first,
            nr_pins: 0,
        };
        controller.nr_pins = (controller.read(Self::VERSION) >> 16 & 0xff) + 1;
        for pin in 0..controller.nr_pins {
            controller.write(Self::ENTRIES + 2 * pin, MASKED);
        }
        controller
    }

    /// Writes a line's entry: to the CPU that runs this, masked or not.
    fn write_entry(&self, line: &Line) {
        let register = Self::ENTRIES + 2 * line.pin;
        if line.masked {
            self.write(register, line.entry | MASKED);
        } else {
            self.write(register + 1, apic::id() << 24);
            self.write(register, line.entry);
        }
    }

    fn read(&self, register: u32) -> u32 {
        // SAFETY: the registers are mapped; a selector and a window, under the lock.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.add(4).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as above; the vectors that are written have handlers.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.add(4).write_volatile(value);
        }
    }
}

/// Moves the vectors of the two 8259s out of the exceptions' way, and masks all they have.
fn silence_old_controllers() {
    for (base, vector, wiring) in [(0x20, OLD_FIRST_VECTOR, 4), (0xa0, OLD_FIRST_VECTOR + 8, 2)] {
        let [mut command, mut data] = [base, base + 1].map(Port::<u8>::new);
        // SAFETY: these are the controllers' ports; without any line enabled they do nothing.
        unsafe {
            command.write(0x11);
            data.write(vector);
            data.write(wiring);
            data.write(0x01);
            data.write(0xff);
        }
    }
}
