//! The Cowslip kernel.
#![cfg_attr(not(test), no_std)]

pub mod mm;
pub mod vm;
