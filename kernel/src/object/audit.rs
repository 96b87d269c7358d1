//! Counting every frame of the machine again: in debug builds, and for tests.

use core::iter::successors;

use super::{Id, Kernel, Phase, Pool, Thread};
use crate::mm::PerClass;
use crate::vm::audit::{Audit, Flaw, FrameLedger, Ledger, Stopped};

impl Kernel {
    /// Counts every reference again, from nothing but page tables and kernel objects, and compares it
    /// with the reference counts. Every frame must be free, set aside or in use, exactly; every space
    /// charged what it consists of; and what strict ones are charged there or promised.
    ///
    /// It takes a frame for each MiB in which memory is in use, gives them back, and takes as long as
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
            audit.kernel_frame(frame)?;
        }
        for space in every(&self.spaces) {
            for frame in space.handles.frames() {
                audit.kernel_frame(frame)?;
            }
            audit.space(&space.table)?;
        }
        for frame in every(&self.threads).filter_map(Thread::fpu) {
            audit.kernel_frame(frame)?;
        }
        let set_aside = self.set_aside();
        audit.set_aside(set_aside);
        let ledger = audit.finish()?;
        let kept_alone = mm.kept().filter(|frame| ledger.get(*frame).is_none());
        let nr_used = ledger.len() + mm.counts.nodes() + kept_alone.count() as u64;
        let counted = mm.frames.total_count();
        let found = nr_free + set_aside.total() + nr_used;
        if counted != found {
            return Err(Stopped::At(Flaw::Total { counted, found }));
        }
        Ok(())
    }

    /// How many frames are set aside for calls that take more than one step.
    fn set_aside(&self) -> PerClass {
        let mut set_aside = PerClass::default();
        every(&self.threads)
            .filter_map(Thread::long)
            .filter(|long| long.phase == Phase::Perform)
            .for_each(|long| set_aside += long.nr_frames);
        set_aside
    }
}

fn every<T, const CHUNKS: usize, const PINS: usize>(
    pool: &Pool<T, CHUNKS, PINS>,
) -> impl Iterator<Item = &T> {
    let next = |id: &Id<T>| pool.next_id(id.index() + 1);
    successors(pool.next_id(0), next).filter_map(|id| pool.get(id))
}
