//! The machine: everything that needs privileged instructions, I/O ports or assembly.

pub mod acpi;
pub mod apic;
pub mod clock;
pub mod cpu;
pub mod entry;
pub mod fpu;
pub mod hold;
pub mod lines;
pub mod machine;
pub mod paging;
mod panic;
pub mod percpu;
pub mod power;
pub mod roots;
mod segments;
pub mod serial;
pub mod smp;
pub mod symbols;
pub mod tlb;
pub mod trace;
pub mod trap;
