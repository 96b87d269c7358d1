//! Programs of Cowslip, one file each in `src/bin`.
#![cfg_attr(target_os = "none", no_std)]
