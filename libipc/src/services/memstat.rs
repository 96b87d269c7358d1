//! The memory statistics server: the kernel's counters for programs that may not ask it.

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::service::Value;

/// The memory statistics server.
#[crate::service(version = 1)]
pub trait Memstat {
    /// The counters.
    ///
    /// # Errors
    /// `Broken` when the server has lost its right.
    fn query(&self) -> Result<Memory, Refusal>;

    /// Has the kernel count all references and frames again. What is wrong has the numbers of the kernel's topic `audit`; the
    /// first is 0 if nothing is.
    ///
    /// # Errors
    /// `NotFound`: the kernel is no debug build. `Broken` when the server has lost its right.
    fn audit(&self) -> Result<[u64; 4], Refusal>;
}

/// The counters. Frames and pages have 4,096 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Frames of the machine.
    pub total: u64,
    /// Free frames.
    pub free: u64,
    /// Frames that more than one page-table entry names.
    pub shared: u64,
    /// Frames in which the kernel keeps reference counts: they come and go with sharing, so
    /// `free + counts` is what stays the same around a program that gives back all that it took.
    pub counts: u64,
    /// Pages that messages copied since boot.
    pub copied: u64,
    /// Pages that messages moved by page table since boot.
    pub remapped: u64,
    /// Pages copied when a copy-on-write page was written, since boot.
    pub broken: u64,
    /// Copy-on-write pages that their last owner took back without a copy, since boot.
    pub reclaimed: u64,
    /// Pages filled with zeros on first touch, since boot.
    pub zeroed: u64,
    /// Pages freed since boot.
    pub freed: u64,
    /// Free frames that are promised to strict spaces: for others there are `free - promised`.
    pub promised: u64,
}

impl Value for Memory {}

impl Memory {
    /// The counters from the kernel's eleven values.
    #[must_use]
    pub const fn from_words(words: [u64; 11]) -> Self {
        let [
            total,
            free,
            shared,
            counts,
            copied,
            remapped,
            broken,
            reclaimed,
            zeroed,
            freed,
            promised,
        ] = words;
        Memory {
            total,
            free,
            shared,
            counts,
            copied,
            remapped,
            broken,
            reclaimed,
            zeroed,
            freed,
            promised,
        }
    }

    /// Frames in use, those of the reference counts left out.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.total.saturating_sub(self.free + self.counts)
    }

    /// What comes back when everything has been given back: free frames and those of the counts.
    #[must_use]
    pub const fn available(&self) -> u64 {
        self.free + self.counts
    }
}
