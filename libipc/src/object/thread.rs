//! Threads: starting, changing, asking, ending.

use abi::{Call, Error, InfoTopic, ThreadField, ThreadState};

use super::{Thread, info};
use crate::raw;

/// Where a thread starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// `rdi rsi rdx`.
    pub args: [u64; 3],
    /// Base of `fs`.
    pub fs_base: u64,
}

/// What the kernel says about a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// What it does.
    pub state: ThreadState,
    /// Nanoseconds that it ran.
    pub run_ns: u64,
    /// Its own priority.
    pub base_priority: u64,
    /// The priority that it runs at, with what its clients lend it.
    pub priority: u64,
}

impl Thread {
    /// Starts a stopped thread.
    ///
    /// # Errors
    /// Those of the call `thread_start`.
    pub fn start(&self, entry: Entry) -> Result<(), Error> {
        let [arg0, arg1, arg2] = entry.args;
        let args = [entry.ip, entry.sp, arg0, arg1, arg2, entry.fs_base];
        raw::checked(Call::ThreadStart, self.handle(), args).map(|_| ())
    }

    /// Changes a field of the thread.
    ///
    /// # Errors
    /// Those of the call `thread_set`.
    pub fn set(&self, field: ThreadField, value: u64) -> Result<(), Error> {
        raw::checked(
            Call::ThreadSet,
            self.handle(),
            [field as u64, value, 0, 0, 0, 0],
        )
        .map(|_| ())
    }

    /// What the thread does.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn info(&self) -> Result<ThreadInfo, Error> {
        let ([state, run_ns, base_priority, priority, ..], _) =
            info(self.handle(), InfoTopic::Thread)?;
        Ok(ThreadInfo {
            state: ThreadState::from_word(state),
            run_ns,
            base_priority,
            priority,
        })
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// Those of the call `kill`.
    pub fn kill(&self) -> Result<(), Error> {
        raw::checked(Call::Kill, self.handle(), [0; 6]).map(|_| ())
    }
}
