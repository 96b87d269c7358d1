//! The bytes of a message on their way from one space to another.

use crate::mm::Mm;
use crate::object::Work;
use crate::vm::{self, Beginning, CopyError, Effort, PageTable, Transfer};

/// Where the bytes come from and where they go.
#[derive(Clone, Copy)]
pub(super) struct Passage<'k> {
    pub(super) mm: &'k Mm,
    pub(super) dst: &'k PageTable,
    pub(super) to: u64,
    pub(super) src: &'k PageTable,
    pub(super) from: u64,
    pub(super) len: u64,
    pub(super) transfer: Transfer,
}

impl Work for Passage<'_> {
    type Error = CopyError;

    fn nr_bytes(&self) -> u64 {
        self.len
    }

    fn at_once(&self) -> Result<bool, CopyError> {
        let Self { to, from, len, .. } = *self;
        let (mm, limit) = (self.mm, Effort::STEP);
        vm::copy_within(mm, limit, self.dst, to, self.src, from, len, self.transfer)
    }

    fn check(&self, done: u64) -> Result<Beginning, CopyError> {
        let (to, from, rest) = (self.to + done, self.from + done, self.len - done);
        let (mm, limit) = (self.mm, Effort::STEP);
        vm::check_copy(mm, limit, self.dst, to, self.src, from, rest, self.transfer)
    }

    fn perform(&self, done: u64, len: u64) -> Result<(), CopyError> {
        let (to, from) = (self.to + done, self.from + done);
        vm::copy(self.mm, self.dst, to, self.src, from, len, self.transfer)
    }
}
