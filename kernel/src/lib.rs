//! The Cowslip kernel, as far as it can run anywhere.
//!
//! Address spaces, threads, messages and copy-on-write memory, and nothing more. This library is
//! the kernel without its machine: it builds for the host too, where tests run it over simulated
//! memory. The executable beside it adds `arch` (the processor) and `boot` (the way in).
//!
//! ```text
//!   arch, boot      the machine            (executable)
//!        |
//!       sys         decode, dispatch, encode; who runs next
//!        |
//!       ipc         send, receive, reply, faults
//!        |
//!      object       spaces, threads, endpoints, handles; their death
//!        |
//!       vm          page tables, copy-on-write, the one generic copy
//!        |
//!       mm          frames, reference counts, the direct map
//! ```
//!
//! Below them are `sync`, how CPUs wait for each other, and `trace`, which writes down what all of them do.
//!
//! Each layer calls only what stands below it and returns plain data.
#![cfg_attr(not(test), no_std)]

pub mod ipc;
pub mod mm;
pub mod object;
pub mod platform;
pub mod sync;
pub mod sys;
pub mod trace;
pub mod vm;
