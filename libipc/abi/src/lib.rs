//! The binary interface between the Cowslip kernel and the programs above it.
//!
//! Every number that crosses the boundary is defined here and nowhere else: the kernel decodes
//! with these types and `libipc` encodes with them. `docs/syscalls.md` is the normative prose.
//!
//! # Register convention
//!
//! | register | on entry | on return |
//! | --- | --- | --- |
//! | `rax` | low half: [`Call`]; high half: the [`Handle`] that the call acts on | 0 or an [`Error`] |
//! | `rdi rsi rdx r8 r9 r10` | arguments | results |
//! | `r12 r13 r14 r15` | the four inline words of a message | likewise |
//! | `rcx r11` | destroyed by the `syscall` instruction | |
//!
//! Registers that a call does not name as a result keep their values.
#![no_std]
#![forbid(unsafe_code)]

mod call;
mod error;
mod fault;
mod handle;
mod info;
mod init;
mod memory;
mod message;
mod trace;

pub use call::Call;
pub use error::Error;
pub use fault::{Access, FaultKind, FaultVerdict, FoundEntry};
pub use handle::{Handle, Rights};
pub use info::{InfoTopic, PortIo, RangeKind, ThreadField, ThreadState, Waits};
pub use init::{INIT_ARCHIVE, INIT_INFO, INIT_MAGIC, InitInfo};
pub use memory::{Commit, MAX_RANGE, PAGE_SIZE, Perm, ShareMode, SpaceField, USER_END};
pub use message::{MAX_HANDLES, MessageKind, RecvFlags, Tag, WORDS, pack_handles, unpack_handles};
pub use trace::{
    TRACE_ARGS, TRACE_MAGIC, TRACE_SYMBOL, TraceHeader, TraceKind, TracePages, TraceRecord,
};
