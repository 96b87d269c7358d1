//! Who is whose parent, who has ended, and who waits for whom. Pure: what a process is made of is
//! the type parameter, and it is given back when the process ends.
//!
//! ```text
//!            add            end                    reap
//!   (nothing) --> running  ----> ended, status kept ----> (nothing)
//! ```
//!
//! A process's children become init's when it ends. Numbers are never used again.

use libipc::fs::file_name;
use libipc::service::Reply;
use libipc::services::Refusal;
use libipc::services::procd::{Ended, Entry, INIT_PID, Name};

/// Most processes, those included that ended and were not waited for.
pub const MAX_PROCESSES: usize = 128;

/// Most threads that wait for a child.
const MAX_WAITERS: usize = 128;

/// The end of a path that fits.
#[must_use]
pub fn name(path: &str) -> Name {
    let bytes = file_name(path).as_bytes();
    let mut name = [0; 24];
    let len = bytes.len().min(name.len());
    name[..len].copy_from_slice(&bytes[..len]);
    name
}

enum State<P> {
    Running(P),
    Ended(i32),
}

struct Process<P> {
    pid: u64,
    parent: u64,
    name: Name,
    state: State<P>,
}

/// The right to tell of a child.
pub type WaitReply = Reply<Option<Ended>, Refusal>;

/// A thread that waits for a child of its process.
#[derive(Debug)]
pub struct Waiter {
    pid: u64,
    /// The child, 0 for any.
    child: u64,
    /// The right to answer.
    pub reply: WaitReply,
}

/// What there is to say to somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A child that has ended.
    Ready(Ended),
    /// None has ended, but one may.
    Blocked,
}

/// The processes. Init is there from the beginning, and made of nothing.
pub struct Table<P> {
    slots: [Option<Process<P>>; MAX_PROCESSES],
    /// No slot from here on has a process: most of the table is never looked at.
    end: usize,
    waiters: heapless::Vec<Waiter, MAX_WAITERS>,
    last_pid: u64,
}

/// A place for a process that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacancy {
    /// The place in the table.
    pub slot: usize,
    /// The number that the process will have.
    pub pid: u64,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Table<P> {
    /// A table with init alone.
    #[must_use]
    pub const fn new() -> Self {
        Table {
            slots: [const { None }; MAX_PROCESSES],
            end: 0,
            waiters: heapless::Vec::new(),
            last_pid: INIT_PID,
        }
    }

    /// Finds a place for a process, and a number that none had before.
    ///
    /// # Errors
    /// `Full`.
    pub fn vacancy(&mut self) -> Result<Vacancy, Refusal> {
        let slot = self.used().position(Option::is_none).unwrap_or(self.end);
        if slot == MAX_PROCESSES {
            return Err(Refusal::Full);
        }
        self.last_pid += 1;
        Ok(Vacancy {
            slot,
            pid: self.last_pid,
        })
    }

    /// Adds a process.
    pub fn add(&mut self, vacancy: Vacancy, parent: u64, name: Name, made_of: P) {
        let Vacancy { slot, pid } = vacancy;
        let state = State::Running(made_of);
        self.slots[slot] = Some(Process {
            pid,
            parent,
            name,
            state,
        });
        self.end = self.end.max(slot + 1);
    }

    /// The slots that may have processes.
    fn used(&self) -> core::slice::Iter<'_, Option<Process<P>>> {
        self.slots[..self.end].iter()
    }

    /// The processes, to be changed.
    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process<P>> {
        self.slots[..self.end].iter_mut().flatten()
    }

    /// What a running process is made of.
    #[must_use]
    pub fn get(&self, pid: u64) -> Option<&P> {
        self.running()
            .find(|&(running, _, _)| running == pid)
            .map(|(_, _, made_of)| made_of)
    }

    /// What a running process is made of, and its name.
    #[must_use]
    pub fn get_named(&self, pid: u64) -> Option<(&P, Name)> {
        let process = self.find(pid)?;
        match &process.state {
            State::Running(made_of) => Some((made_of, process.name)),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, pid: u64) -> Option<(&mut P, &mut Name)> {
        self.processes_mut()
            .find_map(|process| match &mut process.state {
                State::Running(made_of) if process.pid == pid => Some((made_of, &mut process.name)),
                _ => None,
            })
    }

    /// The running processes: number, slot, what they are made of.
    pub fn running(&self) -> impl Iterator<Item = (u64, usize, &P)> {
        self.used()
            .enumerate()
            .filter_map(|(slot, process)| match process {
                Some(Process {
                    pid,
                    state: State::Running(made_of),
                    ..
                }) => Some((*pid, slot, made_of)),
                _ => None,
            })
    }

    fn find(&self, pid: u64) -> Option<&Process<P>> {
        self.used().flatten().find(|process| process.pid == pid)
    }

    /// The name of a process.
    #[must_use]
    pub fn name(&self, pid: u64) -> Option<Name> {
        self.find(pid).map(|process| process.name)
    }

    /// The parent of a process; init has none.
    #[must_use]
    pub fn parent(&self, pid: u64) -> Option<u64> {
        self.find(pid).map(|process| process.parent)
    }

    /// Whether one is the other's parent, child, or sibling. Init's children are no siblings:
    /// they may be orphans that have nothing to do with each other.
    #[must_use]
    pub fn are_relatives(&self, a: u64, b: u64) -> bool {
        let (parent_a, parent_b) = (self.parent(a), self.parent(b));
        parent_a == Some(b)
            || parent_b == Some(a)
            || (a != b && parent_a.is_some_and(|p| p != INIT_PID) && parent_a == parent_b)
    }

    /// Whether `ancestor` is `pid`, its parent, its parent's parent, and so on.
    #[must_use]
    pub fn is_ancestor(&self, ancestor: u64, pid: u64) -> bool {
        core::iter::successors(Some(pid), |&pid| self.parent(pid)).any(|pid| pid == ancestor)
    }

    /// Ends a running process and gives back what it was made of. Its children are init's from
    /// here on.
    pub fn end(&mut self, pid: u64, status: i32) -> Option<P> {
        let process = self
            .processes_mut()
            .find(|process| process.pid == pid && matches!(process.state, State::Running(_)))?;
        let State::Running(made_of) = core::mem::replace(&mut process.state, State::Ended(status))
        else {
            return None;
        };
        for child in self.processes_mut().filter(|child| child.parent == pid) {
            child.parent = INIT_PID;
        }
        self.waiters.retain(|waiter| waiter.pid != pid);
        Some(made_of)
    }

    /// What there is to say to `pid`, which waits for `child`, 0 for any.
    ///
    /// # Errors
    /// `NoChild`.
    pub fn wait(&self, pid: u64, child: u64) -> Result<Waiting, Refusal> {
        let mut any = false;
        let children = self
            .used()
            .flatten()
            .filter(|process| process.parent == pid && (child == 0 || process.pid == child));
        for process in children {
            any = true;
            if let State::Ended(status) = process.state {
                return Ok(Waiting::Ready(Ended {
                    pid: process.pid,
                    status,
                }));
            }
        }
        if any {
            Ok(Waiting::Blocked)
        } else {
            Err(Refusal::NoChild)
        }
    }

    /// Forgets a process that has ended, once its status has been told.
    pub fn reap(&mut self, pid: u64) {
        for slot in &mut self.slots[..self.end] {
            slot.take_if(|process| process.pid == pid && matches!(process.state, State::Ended(_)));
        }
        let last = self.used().rposition(Option::is_some);
        self.end = last.map_or(0, |last| last + 1);
    }

    /// Keeps a thread waiting.
    ///
    /// # Errors
    /// The reply, when too many wait.
    pub fn block(&mut self, pid: u64, child: u64, reply: WaitReply) -> Result<(), WaitReply> {
        self.waiters
            .push(Waiter { pid, child, reply })
            .map_err(|waiter| waiter.reply)
    }

    /// Takes a waiter that there is something to say to, with what.
    pub fn take_ready(&mut self) -> Option<(Waiter, Result<Ended, Refusal>)> {
        let ready = |waiter: &Waiter| match self.wait(waiter.pid, waiter.child) {
            Ok(Waiting::Ready(ended)) => Some(Ok(ended)),
            Ok(Waiting::Blocked) => None,
            Err(refusal) => Some(Err(refusal)),
        };
        let (index, outcome) = self
            .waiters
            .iter()
            .enumerate()
            .find_map(|(i, waiter)| Some((i, ready(waiter)?)))?;
        Some((self.waiters.remove(index), outcome))
    }

    /// The process with the smallest number above `pid`.
    #[must_use]
    pub fn next_after(&self, pid: u64) -> Option<Entry> {
        let process = self
            .used()
            .flatten()
            .filter(|p| p.pid > pid)
            .min_by_key(|p| p.pid)?;
        Some(Entry {
            pid: process.pid,
            ppid: process.parent,
            ended: u64::from(matches!(process.state, State::Ended(_))),
            commit: 0,
            space: 0,
            inbox: 0,
            name: process.name,
        })
    }
}

#[cfg(test)]
mod tests;
