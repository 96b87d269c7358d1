//! Virtual memory: the page table is the only map.
//!
//! There is no list of regions. What a page of an address space is, who may do what with it and
//! whether it is shared, all stands in its page-table [entry]. Three operations carry the
//! system: [`fault`](fn@fault) resolves what the hardware could not, [`share`](fn@share) relates ranges of two spaces
//! (fork is one call), and [`copy`](fn@copy) moves the bytes of messages, by remapping where it can.
//!
//! Every operation has two phases. The *plan* walks, checks and reserves, and may fail; after an
//! error both spaces, all bytes and all frames are as before, except that nodes of the reference
//! counts may have been made. The *commit* cannot fail, and flushes once:
//!
//! ```text
//! plan     check entries, prepare counts, reserve frames        | may fail
//! pass 1   count up, clear W in sources, condemn what goes      |
//! flush    once, both spaces                                    | cannot fail
//! pass 2   write what comes, release what was condemned         |
//! ```
//!
//! Callers hold the locks of the spaces that they pass: only the hardware (accessed and dirty bits)
//! changes entries at the same time. Addresses and lengths have been checked by [`PageRange`] and
//! [`ByteRange`].

mod access;
#[cfg(not(target_os = "none"))]
pub mod audit;
mod copy;
mod cursor;
mod drop;
pub mod entry;
mod fault;
mod map;
mod own;
mod range;
mod remap;
mod share;
#[cfg(not(target_os = "none"))]
pub mod sim;
mod table;
#[cfg(test)]
mod tests;

pub use access::{read_user, write_user};
pub use copy::{CopyError, Side, Transfer, copy, copy_in_place};
pub use fault::{Fault, fault};
pub use range::{ByteRange, PageRange};
pub use share::share;
pub use table::{PageTable, SpaceStats};

/// Why an operation failed: one of `NotMapped`, `NotWritable`, `Occupied`, `Overlap`, `NoMemory`,
/// `Denied`.
pub type VmError = cowslip_abi::Error;
