//! The two doors into the kernel, and what lies behind them.
//!
//! [`pvh`] and [`limine`] fill one [`BootInfo`] each and end in [`start::start`]; nothing else knows
//! which of them it was. [`memory`] turns the firmware's memory map into free frames, and [`first`]
//! makes the first program from the boot [`archive`].

mod archive;
mod first;
pub mod info;
mod limine;
pub mod memory;
mod pvh;
mod start;

pub use info::{BootInfo, MemoryKind};
