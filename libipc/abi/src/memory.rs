//! Address-space layout and the words of the memory calls.

use bitflags::bitflags;

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;

/// The first address that user memory cannot have.
///
/// The last page of the lower half is left out: an instruction that ends there would leave a
/// non-canonical return address.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// The longest range, in bytes, of a message and of [`Protect`](crate::Call::Protect): 1 GiB. Map,
/// unmap and share take any range of user memory.
pub const MAX_RANGE: u64 = 1 << 30;

bitflags! {
    /// Access rights of a mapping. Every mapping can be read; none is writable and executable.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Perm: u64 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXECUTE = 4;
    }
}

impl Perm {
    /// Read-only.
    pub const R: Perm = Perm::READ;
    /// Readable and writable.
    pub const RW: Perm = Perm::READ.union(Perm::WRITE);
    /// Readable and executable.
    pub const RX: Perm = Perm::READ.union(Perm::EXECUTE);

    /// Decodes an argument: R, RW and RX are the only legal ones.
    #[must_use]
    pub fn from_user(bits: u64) -> Option<Self> {
        let perm = Self::from_bits(bits)?;
        [Self::R, Self::RW, Self::RX]
            .contains(&perm)
            .then_some(perm)
    }
}

/// How [`Share`](crate::Call::Share) relates the two ranges afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum ShareMode {
    /// Both sides see the same bytes until one writes; then that side has its own page.
    CopyOnWrite = 0,
    /// Both sides see each other's writes, for ever.
    Shared = 1,
    /// The pages leave the source, which is unmapped there.
    Move = 2,
}

impl ShareMode {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_user(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::CopyOnWrite),
            1 => Some(Self::Shared),
            2 => Some(Self::Move),
            _ => None,
        }
    }
}

/// What a space is promised about the frames that it may come to need: its *commit*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Commit {
    /// Nothing: a frame is looked for when it is needed (lazily), and there may be none.
    Overcommit = 0,
    /// All of it: what cannot be backed is refused when it is asked for (eagerly), so that no access
    /// fails later.
    Strict = 1,
}

impl Commit {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_user(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Overcommit),
            1 => Some(Self::Strict),
            _ => None,
        }
    }
}

/// What [`SpaceSet`](crate::Call::SpaceSet) sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum SpaceField {
    /// A [`Commit`]; only while the space is empty.
    Class = 0,
    /// The most that the space's commit may be, in frames; 0 for no limit.
    Budget = 1,
    /// What the space is called in traces: 24 bytes of text in the value and the two arguments behind it, ended by a zero byte
    /// or the end. For kernels that trace.
    Name = 2,
}

impl SpaceField {
    /// Decodes an argument.
    #[must_use]
    pub const fn from_user(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Class),
            1 => Some(Self::Budget),
            2 => Some(Self::Name),
            _ => None,
        }
    }
}
