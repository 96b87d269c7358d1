//! Why a system call failed, and whose fault it was.

use core::fmt;

/// What a system call reports in `rax`; 0 is success.
///
/// After an error nothing has changed, unless the call's description says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Error {
    /// The handle names nothing in the caller's table.
    BadHandle = 1,
    /// The handle names an object of another type.
    WrongType = 2,
    /// The handle lacks a right that the call needs, or a mapping may not have the right asked for.
    Denied = 3,
    /// No system call has this number.
    UnknownCall = 4,
    /// An argument has a value that has no meaning.
    BadArgument = 5,
    /// An address or a length is not a multiple of the page size.
    Unaligned = 6,
    /// An address is in neither half of the address space, or a range reaches past the end of the
    /// lower half.
    NonCanonical = 7,
    /// An address is in the kernel's half.
    KernelAddress = 8,
    /// Address plus length exceeds 2^64.
    Wraps = 9,
    /// A length exceeds [`MAX_RANGE`](crate::MAX_RANGE).
    TooLong = 10,
    /// A page of the range is not mapped.
    NotMapped = 11,
    /// A page of the range may not be written.
    NotWritable = 12,
    /// A page of the range is mapped already.
    Occupied = 13,
    /// Source and destination overlap.
    Overlap = 14,
    /// There are not enough free frames.
    NoMemory = 15,
    /// The handle table that should take a handle is full.
    TableFull = 16,
    /// The reply token does not name a thread that waits for a reply from this space.
    StaleToken = 17,
    /// The other side is gone: the endpoint has no receiver any more, the server died before it
    /// replied, or the object that the handle named is dead.
    Died = 18,
    /// The call would block, and the caller asked that it should not.
    WouldBlock = 19,
    /// The object is not in a state that allows the call.
    BadState = 20,
    /// The space would commit itself to more frames than its budget allows.
    OverBudget = 21,
    /// The deadline came before what the call waited for.
    TimedOut = 22,
}

impl Error {
    /// Every error, in the order of their codes, which start at 1.
    pub const ALL: [Error; 22] = [
        Error::BadHandle,
        Error::WrongType,
        Error::Denied,
        Error::UnknownCall,
        Error::BadArgument,
        Error::Unaligned,
        Error::NonCanonical,
        Error::KernelAddress,
        Error::Wraps,
        Error::TooLong,
        Error::NotMapped,
        Error::NotWritable,
        Error::Occupied,
        Error::Overlap,
        Error::NoMemory,
        Error::TableFull,
        Error::StaleToken,
        Error::Died,
        Error::WouldBlock,
        Error::BadState,
        Error::OverBudget,
        Error::TimedOut,
    ];

    /// Decodes `rax`: `None` is success.
    ///
    /// A code that no kernel of this version returns decodes as [`Error::BadState`].
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        let index = usize::try_from(code.checked_sub(1)?).unwrap_or(usize::MAX);
        Some(Self::ALL.get(index).copied().unwrap_or(Self::BadState))
    }

    /// The error in words, for people.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Error::BadHandle => "no such handle",
            Error::WrongType => "handle to another type of object",
            Error::Denied => "right missing",
            Error::UnknownCall => "no such system call",
            Error::BadArgument => "meaningless argument",
            Error::Unaligned => "not page-aligned",
            Error::NonCanonical => "address outside the address space",
            Error::KernelAddress => "address in the kernel's half",
            Error::Wraps => "range wraps around",
            Error::TooLong => "range too long",
            Error::NotMapped => "page not mapped",
            Error::NotWritable => "page not writable",
            Error::Occupied => "page mapped already",
            Error::Overlap => "ranges overlap",
            Error::NoMemory => "out of memory",
            Error::TableFull => "handle table full",
            Error::StaleToken => "stale reply token",
            Error::Died => "the other side died",
            Error::WouldBlock => "would block",
            Error::BadState => "object in the wrong state",
            Error::OverBudget => "over budget",
            Error::TimedOut => "timed out",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for Error {}
