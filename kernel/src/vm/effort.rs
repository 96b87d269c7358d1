//! How much an operation does before anybody else has the CPU.
//!
//! The kernel does not wait inside itself, so what takes long is done in parts. An operation says how
//! much of what it is asked for one part can be, and how many frames that takes; the caller comes
//! back for the rest.

use crate::mm::PerClass;

/// How much work something is, in pages that change hands. Each is some dozens of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(pub u32);

impl Effort {
    /// Any.
    pub const MAX: Self = Self(u32::MAX);
    /// What is done without letting anybody else have the CPU. Less in tests, for more steps.
    pub const STEP: Self = Self(if cfg!(test) { 64 } else { 512 });
    /// A page that changes hands, or an entry that is looked at.
    pub(super) const PAGE: Self = Self(1);
    /// A page whose bytes are copied.
    pub(super) const BYTES: Self = Self(16);
    /// A table.
    pub(super) const TABLE: Self = Self(2);
    /// Looking through a table for how many pages there are below it.
    pub(super) const SCAN: Self = Self(64);

    /// Makes an effort so many times. What is left is the rest.
    #[inline]
    pub(super) fn spend(&mut self, effort: Self, times: usize) {
        let spent = u64::from(effort.0) * times as u64;
        self.0 = self.0.saturating_sub(spent.try_into().unwrap_or(u32::MAX));
    }

    /// Whether nothing is left.
    #[inline]
    pub(super) const fn is_spent(self) -> bool {
        self.0 == 0
    }

    /// How many times an effort can be made with what is left: once at least.
    pub(super) fn times(self, effort: Self) -> u64 {
        (self.0 / effort.0).max(1).into()
    }
}

/// What the beginning of an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// How many bytes.
    pub len: u64,
    /// How many frames.
    pub nr_frames: PerClass,
    /// What the destination is charged.
    pub charge: u64,
}
