//! Address spaces: mapping, sharing, counting, ending.

use abi::{Call, Commit, Error, InfoTopic, Perm, ShareMode, SpaceField};

use super::{Borrowed, Endpoint, Space, Thread, badged, first_handle, info};
use crate::{raw, start};

/// The pages of a space, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceInfo {
    /// Whether the space is alive.
    pub alive: bool,
    /// Pages that only this space names.
    pub private: u64,
    /// Copy-on-write pages that others name too.
    pub shared_cow: u64,
    /// Pages of shared memory.
    pub shared_memory: u64,
    /// Demand-zero pages that were not touched.
    pub untouched: u64,
    /// Frames of page tables.
    pub table_frames: u64,
    /// Threads.
    pub threads: u64,
    /// Handles.
    pub handles: u64,
}

/// What a space is charged. Frames have 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Whether the space is alive.
    pub alive: bool,
    /// Whether frames for its commit are set aside.
    pub class: Commit,
    /// Its commit: the frames that it would have if nothing were shared and everything there.
    pub commit: u64,
    /// The most that the commit may be, in frames.
    pub budget: Option<u64>,
    /// The space's number.
    pub number: u64,
}

impl Space {
    /// This program's own space.
    #[must_use]
    pub fn own() -> Borrowed<'static, Self> {
        Self::borrow(start::space())
    }

    /// Maps demand-zero memory.
    ///
    /// # Errors
    /// Those of the call `map`.
    pub fn map(&self, addr: u64, len: u64, perm: Perm) -> Result<(), Error> {
        raw::checked(Call::Map, self.handle(), [addr, len, perm.bits(), 0, 0, 0]).map(|_| ())
    }

    /// Removes what is mapped in a range.
    ///
    /// # Errors
    /// Those of the call `unmap`.
    pub fn unmap(&self, addr: u64, len: u64) -> Result<(), Error> {
        raw::checked(Call::Unmap, self.handle(), [addr, len, 0, 0, 0, 0]).map(|_| ())
    }

    /// Changes the rights of mapped pages.
    ///
    /// # Errors
    /// Those of the call `protect`.
    pub fn protect(&self, addr: u64, len: u64, perm: Perm) -> Result<(), Error> {
        raw::checked(
            Call::Protect,
            self.handle(),
            [addr, len, perm.bits(), 0, 0, 0],
        )
        .map(|_| ())
    }

    /// Makes `len` bytes at `from` of the space `source` appear at `to` of this one. `None` for
    /// `perm` keeps each page's own rights and skips holes.
    ///
    /// # Errors
    /// Those of the call `share`.
    pub fn share(
        &self,
        source: &Space,
        from: u64,
        to: u64,
        len: u64,
        mode: ShareMode,
        perm: Option<Perm>,
    ) -> Result<(), Error> {
        let perm = perm.map_or(0, |perm| perm.bits());
        let args = [source.handle().0.into(), from, to, len, mode as u64, perm];
        raw::checked(Call::Share, self.handle(), args).map(|_| ())
    }

    /// Creates a stopped thread in the space. Its faults arrive at the supervisor with this badge; 0 stands for the
    /// badge of the endpoint's handle.
    ///
    /// # Errors
    /// Those of the call `thread_create`.
    pub fn create_thread(
        &self,
        supervisor: Option<(&Endpoint, u64)>,
        priority: u8,
    ) -> Result<Thread, Error> {
        let [supervisor, badge] = badged(supervisor)?;
        let args = [supervisor, priority.into(), badge, 0, 0, 0];
        raw::checked(Call::ThreadCreate, self.handle(), args)
            .map(|results| Thread::from_raw(first_handle(results)))
    }

    /// Counts what is in the space.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn info(&self) -> Result<SpaceInfo, Error> {
        let (first, last) = info(self.handle(), InfoTopic::Space)?;
        let [
            alive,
            private,
            shared_cow,
            shared_memory,
            untouched,
            table_frames,
        ] = first;
        Ok(SpaceInfo {
            alive: alive == 1,
            private,
            shared_cow,
            shared_memory,
            untouched,
            table_frames,
            threads: last[0],
            handles: last[1],
        })
    }

    /// What the space is charged: in constant time.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn charge(&self) -> Result<Charge, Error> {
        let ([alive, class, commit, budget, number, _], _) =
            info(self.handle(), InfoTopic::Commit)?;
        Ok(Charge {
            alive: alive == 1,
            class: Commit::from_user(class).unwrap_or(Commit::Overcommit),
            commit,
            budget: (budget != 0).then_some(budget),
            number,
        })
    }

    /// Chooses, while the space is empty, whether frames for its commit are set aside.
    ///
    /// # Errors
    /// Those of the call `space_set`.
    pub fn set_class(&self, class: Commit) -> Result<(), Error> {
        self.set(SpaceField::Class, class as u64)
    }

    /// Limits the commit to so many frames; `None` for no limit. Nobody can raise the budget of its own
    /// space.
    ///
    /// # Errors
    /// Those of the call `space_set`; `BadArgument` for a budget of no frames.
    pub fn set_budget(&self, nr_frames: Option<u64>) -> Result<(), Error> {
        match nr_frames {
            Some(0) => Err(Error::BadArgument),
            budget => self.set(SpaceField::Budget, budget.unwrap_or(0)),
        }
    }

    /// What the space is called in traces: the first 24 bytes.
    ///
    /// # Errors
    /// Those of the call `space_set`; `BadArgument` from kernels that do not trace.
    pub fn set_name(&self, name: &str) -> Result<(), Error> {
        let mut text = [0; 24];
        for (byte, of_name) in text.iter_mut().zip(name.bytes()) {
            *byte = of_name;
        }
        let word = |at: usize| {
            let bytes = text[at..at + 8].iter().rev();
            bytes.fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        let args = [SpaceField::Name as u64, word(0), word(8), word(16), 0, 0];
        raw::checked(Call::SpaceSet, self.handle(), args).map(|_| ())
    }

    fn set(&self, field: SpaceField, value: u64) -> Result<(), Error> {
        let args = [field as u64, value, 0, 0, 0, 0];
        raw::checked(Call::SpaceSet, self.handle(), args).map(|_| ())
    }

    /// Whether the space is dead: asked without counting what is in it, by a call that is an error
    /// in any other case too.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.map(0, 0, Perm::R) == Err(Error::Died)
    }

    /// Ends the space and every thread in it.
    ///
    /// # Errors
    /// Those of the call `kill`.
    pub fn kill(&self) -> Result<(), Error> {
        raw::checked(Call::Kill, self.handle(), [0; 6]).map(|_| ())
    }
}
