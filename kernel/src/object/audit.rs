//! Counting every frame of the machine again: in debug builds, and for tests.

use core::iter::successors;

use super::{Id, Kernel, Phase, Pool, Thread};
use crate::vm::audit::{Audit, Flaw, FrameLedger, Ledger, Role, Stopped};

impl Kernel {
    /// Counts every reference again, from nothing but page tables and kernel objects, and compares it
    /// with the reference counts; and every frame must be free, set aside or in use, exactly.
    ///
    /// It takes a frame for each 2 MiB in which memory is in use, gives them back, and takes as long as
    /// it takes: a system in which this is called is not one for measuring.
    ///
    /// # Errors
    ///
    /// The first [`Flaw`], or that there are no frames for the notes.
    pub fn audit(&self) -> Result<(), Stopped> {
        let mm = self.mm;
        let nr_free = mm.frames.free_count();
        let mut audit = Audit::new(mm, FrameLedger::new(mm)?);
        let pools = self.spaces.frames().chain(self.threads.frames());
        for frame in pools.chain(self.endpoints.frames()) {
            audit.name(frame, Role::Kernel)?;
        }
        for space in every(&self.spaces) {
            for frame in space.handles.frames() {
                audit.name(frame, Role::Kernel)?;
            }
            audit.space(&space.table)?;
        }
        for frame in every(&self.threads).filter_map(Thread::fpu) {
            audit.name(frame, Role::Kernel)?;
        }
        let ledger = audit.finish()?;
        let kept_alone = mm.kept().filter(|frame| ledger.get(*frame).is_none());
        let nr_used = ledger.len() + mm.counts.nodes() + kept_alone.count() as u64;
        let counted = mm.frames.total_count();
        let found = nr_free + self.nr_set_aside() + nr_used;
        if counted != found {
            return Err(Stopped::At(Flaw::Total { counted, found }));
        }
        Ok(())
    }

    /// How many frames are set aside for calls that take more than one step.
    fn nr_set_aside(&self) -> u64 {
        every(&self.threads)
            .filter_map(Thread::long)
            .filter(|long| long.phase == Phase::Perform)
            .map(|long| long.nr_frames.total())
            .sum()
    }
}

fn every<T, const CHUNKS: usize, const PINS: usize>(
    pool: &Pool<T, CHUNKS, PINS>,
) -> impl Iterator<Item = &T> {
    let next = |id: &Id<T>| pool.next_id(id.index() + 1);
    successors(pool.next_id(0), next).filter_map(|id| pool.get(id))
}
