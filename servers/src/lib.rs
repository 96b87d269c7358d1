//! The servers of Cowslip: what they do, apart from how they are asked.
#![cfg_attr(target_os = "none", no_std)]
