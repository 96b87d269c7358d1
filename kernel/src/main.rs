//! The kernel's executable: the machine (`arch`), and the way from the loader's door to the first
//! program (`boot`). The portable kernel is the library of the same name.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(
    unreachable_pub,
    reason = "an executable exports nothing: `pub` is what modules offer"
)]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod boot;

/// The kernel runs on a bare machine only.
#[cfg(not(target_os = "none"))]
fn main() {}
