//! Virtual memory: the page table is the only map.
//!
//! There is no list of regions. What a page of an address space is, who may do what with it and
//! whether it is shared, all stands in its page-table [entry]. Three operations carry the
//! system: [`fault`](fn@fault) resolves what the hardware could not, [`Sharing`] relates ranges of two spaces
//! (fork is one call), and [`Passage`] moves the bytes of messages, by remapping where it can.
//!
//! Every operation has two phases. The *plan* walks, checks and reserves, and may fail; after an
//! error both spaces, all bytes and all frames are as before. The *commit* cannot fail:
//!
//! ```text
//! plan     check entries, reserve frames                        | may fail
//! pass 1   count up, clear W in sources, replace entries and    |
//!          note what they named; condemn what is to be copied   | cannot fail
//! flush    both spaces                                          |
//! pass 2   release what was noted; copy, publish the copies     |
//! ```
//!
//! Whether a page is replaced in pass 1 or condemned is a question of who may see what before the
//! flush: a buffer that receives may show either page for that long, but the original and the copy
//! of a page must not be in use at once ([`own`]). One flush serves an operation, or 511 frames
//! that it gives up: see [`Departing`](crate::mm::Departing). Whole pages of a message go the other way
//! round, the flush first: their tables are out of reach while they [change hands](mod@copy).
//!
//! What a space may come to need is [charged](mod@commit) when it is mapped, and in strict spaces set aside.
//!
//! Callers [lock](PageTable::try_lock) the spaces that they pass, or have all of them alone, having
//! [settled](crate::platform::Platform::settle). Nobody else changes what belongs to one space
//! only, then, but the hardware (accessed and dirty bits). What several spaces name, tables and pages, others may copy and
//! give up at any time, each under the lock of its own space; nobody changes it but that W goes away. Who gives
//! something up does so after a flush, and the flush is over when [copies in place](copy_in_place), which need no lock, are done that
//! have looked before it. Which order makes that right is told in [`own`] and [`open`], and line by line in
//! `docs/copy-on-write.md`. Dead tables may be worked off at any time. Addresses and lengths have been checked by [`PageRange`] and
//! [`ByteRange`].

mod access;
#[cfg(any(not(target_os = "none"), debug_assertions))]
pub mod audit;
mod commit;
mod copy;
mod cursor;
mod drop;
mod effort;
pub mod entry;
mod fault;
mod map;
mod open;
mod own;
mod range;
mod ranges;
mod reap;
mod remap;
mod share;
#[cfg(not(target_os = "none"))]
pub mod sim;
mod streak;
mod table;
#[cfg(all(test, not(feature = "small-tables")))]
mod tests;

pub use access::{read_user, write_user};
pub use commit::NO_BUDGET;
pub use copy::{CopyError, Passage, Side, Transfer, copy_in_place};
pub use cursor::USER_END;
pub use effort::{Beginning, Effort};
pub use fault::{Fault, fault};
pub use range::{ByteRange, PageRange};
pub use ranges::Piece;
pub use reap::{make_room, reap, reap_some};
pub use share::{Sharing, share_in_place};
pub use table::{Locked, PageTable, SpaceStats, TABLE_SPAN};

/// Why an operation failed: one of `NotMapped`, `NotWritable`, `Occupied`, `Overlap`, `NoMemory`,
/// `Denied`, `OverBudget`, `BadState`.
pub type VmError = cowslip_abi::Error;
