//! What programs and servers of Cowslip are written against.
//!
//! | layer | modules |
//! | --- | --- |
//! | the instruction | [`raw`] |
//! | kernel objects as types that own their handle | [`object`], [`message`], [`buffer`], [`thread`] |
//! | what a program starts with | [`start`], [`rt`], [`io`] |
//! | services, whose client and server are generated | [`mod@service`] |
//! | where a thread is: frames of its stack | [`backtrace`] |
//! | a server's loop | [`server`] |
//! | clock, sleep | [`time`] |
//! | clients of the standard servers | [`services`] |
//! | endpoints by name | [`names`] |
//! | files, directories, pipes | [`fs`] |
//! | processes, and the course's send / recv / reply between them | [`process`], [`course`] |
//! | host tests | [`fake`] |
//!
//! A program is a function and one line:
//!
//! ```ignore
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! libipc::program!(run);
//!
//! fn run() {
//!     libipc::println!("hello");
//! }
//! ```
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
extern crate alloc;

// The attribute names the crate as its users do.
extern crate self as libipc;

pub use ::abi;

pub mod backtrace;
pub mod buffer;
pub mod course;
#[cfg(not(target_os = "none"))]
pub mod fake;
pub mod fs;
pub mod io;
pub mod message;
pub mod names;
pub mod object;
pub mod process;
pub mod ranges;
pub mod raw;
pub mod rt;
pub mod server;
pub mod service;
pub mod services;
mod shared;
pub mod start;
pub mod thread;
pub mod time;

pub use abi::{Commit, Error, Handle, PAGE_SIZE, Perm, Rights, ShareMode};
pub use buffer::PageBuffer;
pub use libipc_macros::service;
pub use message::{Fault, Incoming, Message, Received, ReplyToken, Sent};
pub use object::{Borrowed, Endpoint, Interrupt, Ports, Space, System, Thread};
pub use process::{exit, fork, getpid, getppid};
pub use server::serve;
pub use service::{Argument, ErrorCode};
pub use shared::{Mapping, Shared};
