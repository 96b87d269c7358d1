//! The machine: everything that needs privileged instructions, I/O ports or assembly.

pub mod clock;
pub mod cpu;
pub mod paging;
pub mod port;
pub mod serial;
mod stack;
