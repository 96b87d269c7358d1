//! What the firmware's ACPI tables say about the machine.

use core::ptr::NonNull;

use acpi::{
    AcpiHandler, AcpiTables, PhysicalMapping,
    fadt::Fadt,
    madt::{Madt, MadtEntry},
};
use kernel::{mm::PhysAddr, sync::MAX_CPUS};

use super::{paging, power::PowerOff};

const MAX_CONTROLLERS: usize = 8;
const MAX_OVERRIDES: usize = 32;

/// An ISA interrupt that is wired in its own way.
#[derive(Clone, Copy, Debug)]
pub struct Override {
    /// Number on the ISA bus.
    pub irq: u8,
    /// Global system interrupt.
    pub gsi: u32,
    /// Level-triggered, not edge-triggered.
    pub level: bool,
    /// Active low, not high.
    pub active_low: bool,
}

/// Where the interrupt controllers are, and how they are wired.
pub struct Wiring {
    /// The local APIC's registers.
    pub local: PhysAddr,
    cpus: [u32; MAX_CPUS],
    nr_cpus: usize,
    controllers: [(PhysAddr, u32); MAX_CONTROLLERS],
    nr_controllers: usize,
    overrides: [Option<Override>; MAX_OVERRIDES],
}

impl Wiring {
    /// The numbers by which the CPUs' local APICs are called, as far as there is room for them.
    pub fn cpus(&self) -> &[u32] {
        &self.cpus[..self.nr_cpus.min(MAX_CPUS)]
    }

    /// How many CPUs there are.
    pub fn nr_cpus(&self) -> usize {
        self.nr_cpus
    }

    fn add_cpu(&mut self, apic: u32, flags: u32) {
        /// Ready, or able to be.
        const USABLE: u32 = 0b11;
        if flags & USABLE != 0 {
            if let Some(cpu) = self.cpus.get_mut(self.nr_cpus) {
                *cpu = apic;
            }
            self.nr_cpus += 1;
        }
    }

    /// Each I/O APIC's registers, and its first global system interrupt.
    pub fn controllers(&self) -> &[(PhysAddr, u32)] {
        &self.controllers[..self.nr_controllers]
    }

    /// The ISA interrupts that are wired in their own way.
    pub fn overrides(&self) -> impl Iterator<Item = &Override> {
        self.overrides.iter().flatten()
    }

    /// Every PC's: what there is without tables.
    fn conventional() -> Self {
        let mut wiring = Self {
            local: PhysAddr(0xfee0_0000),
            cpus: [0; MAX_CPUS],
            nr_cpus: 1,
            controllers: [(PhysAddr(0xfec0_0000), 0); MAX_CONTROLLERS],
            nr_controllers: 1,
            overrides: [None; MAX_OVERRIDES],
        };
        wiring.overrides[0] = Some(Override {
            irq: 0,
            gsi: 2,
            level: false,
            active_low: false,
        });
        wiring
    }

    fn of_table(table: &PhysicalMapping<Reach, Madt>) -> Self {
        let table = table.get();
        let mut wiring = Self::conventional();
        wiring.local = PhysAddr(u64::from(table.local_apic_address));
        (wiring.nr_cpus, wiring.nr_controllers, wiring.overrides[0]) = (0, 0, None);
        let mut nr_overrides = 0;
        for entry in table.entries() {
            match entry {
                MadtEntry::LocalApic(cpu) => wiring.add_cpu(cpu.apic_id.into(), cpu.flags),
                MadtEntry::LocalX2Apic(cpu) => wiring.add_cpu(cpu.x2apic_id, cpu.flags),
                MadtEntry::LocalApicAddressOverride(local) => {
                    wiring.local = PhysAddr(local.local_apic_address);
                }
                MadtEntry::IoApic(controller) if wiring.nr_controllers < MAX_CONTROLLERS => {
                    let addr = PhysAddr(u64::from(controller.io_apic_address));
                    wiring.controllers[wiring.nr_controllers] =
                        (addr, controller.global_system_interrupt_base);
                    wiring.nr_controllers += 1;
                }
                MadtEntry::InterruptSourceOverride(wire) if nr_overrides < MAX_OVERRIDES => {
                    let flags = wire.flags;
                    wiring.overrides[nr_overrides] = Some(Override {
                        irq: wire.irq,
                        gsi: wire.global_system_interrupt,
                        level: flags >> 2 & 3 == 3,
                        active_low: flags & 3 == 3,
                    });
                    nr_overrides += 1;
                }
                _ => {}
            }
        }
        wiring
    }
}

/// Reads the tables that the root pointer leads to.
pub fn read(rsdp: Option<u64>) -> (Wiring, Option<PowerOff>) {
    let tables = rsdp.and_then(|rsdp| {
        // SAFETY: the firmware's root pointer leads to its tables.
        unsafe { AcpiTables::from_rsdp(Reach, rsdp as usize) }
            .inspect_err(|error| log::warn!("ACPI: {error:?}"))
            .ok()
    });
    let Some(tables) = tables else {
        log::warn!("no ACPI tables: assuming a conventional PC");
        return (Wiring::conventional(), None);
    };
    let wiring = match tables.find_table::<Madt>() {
        Ok(table) => Wiring::of_table(&table),
        Err(error) => {
            log::warn!("ACPI: no interrupt controllers: {error:?}");
            Wiring::conventional()
        }
    };
    (wiring, power_off(&tables))
}

fn power_off(tables: &AcpiTables<Reach>) -> Option<PowerOff> {
    let fixed = tables.find_table::<Fadt>().ok()?;
    let code = tables.dsdt().ok()?;
    let pointer = paging::reach(PhysAddr(code.address as u64), u64::from(code.length));
    // SAFETY: the table lies there, mapped, and nobody writes to it.
    let code = unsafe { core::slice::from_raw_parts(pointer, code.length as usize) };
    let [sleep_a, sleep_b] = super::power::soft_off_values(code)?;
    let port = |address: u64| u16::try_from(address).ok().filter(|&port| port != 0);
    let control_a = fixed.pm1a_control_block().ok()?;
    let control_b = fixed.pm1b_control_block().ok().flatten();
    Some(PowerOff {
        control_a: port(control_a.address)?,
        control_b: control_b.and_then(|block| port(block.address)),
        sleep_a,
        sleep_b,
        enable_port: u16::try_from(fixed.smi_cmd_port)
            .ok()
            .filter(|&port| port != 0),
        enable_value: fixed.acpi_enable,
    })
}

/// How the `acpi` crate reaches physical memory.
#[derive(Clone)]
struct Reach;

impl AcpiHandler for Reach {
    unsafe fn map_physical_region<T>(&self, addr: usize, len: usize) -> PhysicalMapping<Self, T> {
        let pointer = paging::reach(PhysAddr(addr as u64), len as u64).cast();
        let pointer = NonNull::new(pointer).expect("the direct map does not start at 0");
        // SAFETY: the bytes are mapped, for ever.
        unsafe { PhysicalMapping::new(addr, pointer, len, len, Self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}
