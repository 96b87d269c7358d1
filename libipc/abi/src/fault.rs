//! What a fault message says.
//!
//! Label: [`FaultKind`]. Words: the address touched (or the exception vector), the instruction
//! pointer, [`Access`] `|` [`FoundEntry`]` << 8`, and the stack pointer.

/// Why a thread cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FaultKind {
    /// An access that the page table does not allow.
    Page = 0,
    /// A legal access that needs a frame, and there is none.
    OutOfMemory = 1,
    /// A processor exception; the first word is its vector.
    Exception = 2,
}

impl FaultKind {
    /// Decodes a label.
    #[must_use]
    pub const fn from_label(label: u32) -> Option<Self> {
        match label {
            0 => Some(Self::Page),
            1 => Some(Self::OutOfMemory),
            2 => Some(Self::Exception),
            _ => None,
        }
    }
}

/// What the thread tried to do with the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Access {
    /// A load.
    Read = 0,
    /// A store.
    Write = 1,
    /// An instruction fetch.
    Execute = 2,
}

impl Access {
    /// Decodes the low byte of the third word.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match word & 0xff {
            1 => Self::Write,
            2 => Self::Execute,
            _ => Self::Read,
        }
    }
}

/// What the page table holds at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FoundEntry {
    /// Nothing is mapped.
    Empty = 0,
    /// Memory that may only be read.
    ReadOnly = 1,
    /// Memory that may be read and written, but not executed.
    ReadWrite = 2,
    /// Memory that may be read and executed, but not written.
    ReadExecute = 3,
    /// The address is not a user address.
    NotUser = 4,
}

impl FoundEntry {
    /// Decodes the second byte of the third word.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match (word >> 8) & 0xff {
            1 => Self::ReadOnly,
            2 => Self::ReadWrite,
            3 => Self::ReadExecute,
            4 => Self::NotUser,
            _ => Self::Empty,
        }
    }
}

/// The label of the reply to a fault message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FaultVerdict {
    /// The thread tries the same instruction again.
    Resume = 0,
    /// The thread is killed.
    Kill = 1,
}

impl FaultVerdict {
    /// Decodes a label.
    #[must_use]
    pub const fn from_label(label: u32) -> Option<Self> {
        match label {
            0 => Some(Self::Resume),
            1 => Some(Self::Kill),
            _ => None,
        }
    }
}
