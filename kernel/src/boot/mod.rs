//! The two doors into the kernel, and what lies behind them.
//!
//! [`pvh`] and [`limine`] fill one [`BootInfo`] each and end in [`crate::main`]; nothing else knows
//! which of them it was. [`memory`] turns the firmware's memory map into free frames, and [`first`]
//! builds the first program from the boot archive.

pub mod info;
mod limine;
pub mod memory;
mod pvh;

pub use info::{BootInfo, MemoryKind, MemoryRange};
