//! Programs of Cowslip, one in each file or folder of `src/bin`, and what test programs share.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod adding;
pub mod bench;
pub mod cache;
pub mod memmap;
pub mod pipe;
pub mod ps;
pub mod scenario;
pub mod shell;
pub mod stacks;
pub mod store;
pub mod tool;
pub mod waits;
