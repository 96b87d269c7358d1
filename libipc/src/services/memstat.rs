//! The memory statistics server: the kernel's counters for programs that may not ask it.
//!
//! `QUERY`: the reply's bytes are eleven words in the order of [`Memory`]. `AUDIT`: the reply's words are
//! those of the kernel's topic `audit`; a kernel that does not have it is answered with `NotFound`.

use super::{Error, Refusal, request};
use crate::message::Message;
use crate::object::Endpoint;

/// Asks for the counters.
pub const QUERY: u32 = 1;

/// Has everything counted again.
pub const AUDIT: u32 = 2;

/// The length of the reply to [`QUERY`] in bytes.
pub const REPLY_LEN: usize = 88;

/// The counters. Frames and pages have 4,096 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Asks for the counters.
///
/// # Errors
/// When the message does not get through, or the server has lost its right.
pub fn query(memstat: &Endpoint) -> Result<Memory, Error> {
    let mut reply = [0; REPLY_LEN];
    let sent = request(memstat, Message::new(QUERY), &[], &mut reply)?;
    if sent.reply_len != REPLY_LEN {
        return Err(Refusal::Broken.into());
    }
    let mut words = [0; 11];
    for (word, bytes) in words.iter_mut().zip(reply.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(Memory::from_words(words))
}

/// Has the kernel count all references and frames again: what is wrong, or `None`. The numbers are those
/// of the kernel's topic `audit`.
///
/// # Errors
/// `NotFound`: the kernel is no debug build. When the message does not get through, or the server has lost
/// its right.
pub fn audit(memstat: &Endpoint) -> Result<Option<[u64; 4]>, Error> {
    let sent = request(memstat, Message::new(AUDIT), &[], &mut [])?;
    let words = sent.reply.words;
    Ok((words[0] != 0).then_some(words))
}
