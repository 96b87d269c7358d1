//! The bytes of a message as work that may take more than one step.

use crate::mm::PerClass;
use crate::object::Work;
use crate::vm::{Beginning, CopyError, Effort, Passage};

impl Work for Passage<'_> {
    type Error = CopyError;

    fn nr_bytes(&self) -> u64 {
        self.len
    }

    fn at_once(&self) -> Result<bool, CopyError> {
        self.copy_within(Effort::STEP)
    }

    fn check(&self, done: u64) -> Result<Beginning, CopyError> {
        Passage::check(self, done, Effort::STEP)
    }

    fn perform(&self, done: u64, aside: &mut PerClass) -> Result<u64, CopyError> {
        self.copy_some(done, Effort::STEP, aside)
    }
}
