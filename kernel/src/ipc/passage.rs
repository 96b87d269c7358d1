//! The bytes of a message on their way from one space to another, in one step or in several.

use crate::mm::{Mm, OutOfMemory};
use crate::object::{Long, Phase};
use crate::vm::{self, CopyError, Effort, PageTable, Transfer};

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

impl Passage<'_> {
    /// Takes a step. Returns whether all bytes are copied.
    ///
    /// # Errors
    ///
    /// Nothing has been copied if it was the first step, or the whole was not found good yet. Later
    /// there are errors only if somebody has changed the memory of either side meanwhile.
    pub(super) fn step(&self, long: &mut Long) -> Result<bool, CopyError> {
        match long.phase {
            Phase::Begin => self.at_once(long),
            Phase::Check => self.check(long).map(|()| false),
            Phase::Copy => self.copy(long),
        }
    }

    /// Copies all bytes if that is not too much.
    fn at_once(&self, long: &mut Long) -> Result<bool, CopyError> {
        let Self { mm, dst, src, .. } = *self;
        let limit = Effort::STEP;
        let is_done = vm::copy_within(
            mm,
            limit,
            dst,
            self.to,
            src,
            self.from,
            self.len,
            self.transfer,
        )?;
        if !is_done {
            long.phase = Phase::Check;
        }
        Ok(is_done)
    }

    /// Looks at the next bytes. At their end the frames are set aside that they need.
    fn check(&self, long: &mut Long) -> Result<(), CopyError> {
        let part = self.next(long)?;
        long.done += part.len;
        long.nr_frames += part.nr_frames as u64;
        if long.done == self.len {
            let reserve = self.mm.frames.reserve(long.nr_frames as usize);
            long.nr_frames = reserve
                .map_err(|OutOfMemory| CopyError::from(OutOfMemory))?
                .keep();
            (long.phase, long.done) = (Phase::Copy, 0);
        }
        Ok(())
    }

    /// Copies the next bytes.
    fn copy(&self, long: &mut Long) -> Result<bool, CopyError> {
        let part = self.next(long)?;
        let nr_frames = long.nr_frames.min(part.nr_frames as u64);
        long.nr_frames -= nr_frames;
        self.mm.frames.give_back(nr_frames);
        let (to, from) = (self.to + long.done, self.from + long.done);
        vm::copy(
            self.mm,
            self.dst,
            to,
            self.src,
            from,
            part.len,
            self.transfer,
        )?;
        long.done += part.len;
        Ok(long.done == self.len)
    }

    /// What one step is enough for.
    fn next(&self, long: &Long) -> Result<vm::Beginning, CopyError> {
        let Self { mm, dst, src, .. } = *self;
        let (to, from) = (self.to + long.done, self.from + long.done);
        let rest = self.len - long.done;
        vm::check_copy(mm, Effort::STEP, dst, to, src, from, rest, self.transfer)
    }
}
