//! What each process has open, and what it is charged for.
//!
//! A file is charged to the process that has created it, or made it longer last: by pages, and as one file. Nobody can use up
//! another one's share: who makes a file longer pays for all of it. When a process ends, its files stay, and are charged to
//! all together.

use alloc::vec::Vec;

use libipc::services::Refusal;
use libipc::services::files::STDOUT;

use super::slab::reserve;

/// The most that a process has open at a time; numbers are below.
pub const MAX_OPEN: usize = 64;

/// The first number that is given out: those below are standard input and output.
const FIRST: usize = STDOUT as usize + 1;

/// What somebody uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Pages of files, directories and pipes.
    pub nr_pages: u64,
    /// Files, directories and pipes.
    pub nr_nodes: u64,
}

impl Usage {
    /// A file, directory or pipe of so many bytes.
    #[must_use]
    pub const fn of_len(len: usize) -> Self {
        Usage {
            nr_pages: len.div_ceil(libipc::PAGE_SIZE) as u64,
            nr_nodes: 1,
        }
    }

    fn plus(self, other: Usage) -> Usage {
        Usage {
            nr_pages: self.nr_pages + other.nr_pages,
            nr_nodes: self.nr_nodes + other.nr_nodes,
        }
    }

    fn minus(self, other: Usage) -> Usage {
        Usage {
            nr_pages: self.nr_pages - other.nr_pages,
            nr_nodes: self.nr_nodes - other.nr_nodes,
        }
    }

    const fn is_within(self, limit: Usage) -> bool {
        self.nr_pages <= limit.nr_pages && self.nr_nodes <= limit.nr_nodes
    }
}

/// How much may be used.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// By all together.
    pub all: Usage,
    /// By one process.
    pub process: Usage,
}

impl Limits {
    /// On a machine with so many frames: half of them for all together, and half of that for one process.
    #[must_use]
    pub const fn of_machine(nr_frames: u64) -> Self {
        let all = Usage {
            nr_pages: nr_frames / 2,
            nr_nodes: 4096,
        };
        Limits {
            all,
            process: Usage {
                nr_pages: all.nr_pages / 2,
                nr_nodes: all.nr_nodes / 4,
            },
        }
    }
}

/// A process that has something open, or is charged for something.
#[derive(Debug)]
struct Client {
    process: u64,
    /// What is open, by number.
    open: Vec<Option<usize>>,
    usage: Usage,
}

/// All of them.
#[derive(Debug)]
pub struct Clients {
    clients: Vec<Client>,
    limits: Limits,
    all: Usage,
}

impl Clients {
    /// Nobody yet.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Clients {
            clients: Vec::new(),
            limits,
            all: Usage {
                nr_pages: 0,
                nr_nodes: 0,
            },
        }
    }

    /// What all together use.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        self.all
    }

    fn find(&self, process: u64) -> Option<&Client> {
        self.clients.iter().find(|client| client.process == process)
    }

    fn find_mut(&mut self, process: u64) -> Option<&mut Client> {
        self.clients
            .iter_mut()
            .find(|client| client.process == process)
    }

    /// A process, which is there from here on.
    fn enter(&mut self, process: u64) -> Result<&mut Client, Refusal> {
        let position = self
            .clients
            .iter()
            .position(|client| client.process == process);
        let position = match position {
            Some(position) => position,
            None => {
                reserve(&mut self.clients, 1)?;
                self.clients.push(Client {
                    process,
                    open: Vec::new(),
                    usage: Usage::default(),
                });
                self.clients.len() - 1
            }
        };
        Ok(&mut self.clients[position])
    }

    /// What a process has open under a number.
    ///
    /// # Errors
    /// `NotOpen`.
    pub fn open(&self, process: u64, id: u32) -> Result<usize, Refusal> {
        let client = self.find(process).ok_or(Refusal::NotOpen)?;
        let open = client.open.get(id as usize).copied().flatten();
        open.ok_or(Refusal::NotOpen)
    }

    /// A number that is free, and stays so until something else happens here.
    ///
    /// # Errors
    /// `Full`, `NoMemory`.
    pub fn free_id(&mut self, process: u64) -> Result<u32, Refusal> {
        let client = self.enter(process)?;
        let free = (FIRST..client.open.len()).find(|&id| client.open[id].is_none());
        let id = free.unwrap_or(client.open.len().max(FIRST));
        if id >= MAX_OPEN {
            return Err(Refusal::Full);
        }
        client.make_room(id)?;
        Ok(id as u32)
    }

    /// Opens something under a free number, or as a standard stream; returns what was open there.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn set(&mut self, process: u64, id: u32, open: usize) -> Result<Option<usize>, Refusal> {
        let client = self.enter(process)?;
        client.make_room(id as usize)?;
        Ok(client.open[id as usize].replace(open))
    }

    /// Closes a number; returns what was open there.
    ///
    /// # Errors
    /// `NotOpen`.
    pub fn unset(&mut self, process: u64, id: u32) -> Result<usize, Refusal> {
        let client = self.find_mut(process).ok_or(Refusal::NotOpen)?;
        let open = client.open.get_mut(id as usize).and_then(Option::take);
        open.ok_or(Refusal::NotOpen)
    }

    /// Takes one of those that a process has open.
    pub fn take_any(&mut self, process: u64) -> Option<usize> {
        let client = self.find_mut(process)?;
        client.open.iter_mut().find_map(Option::take)
    }

    /// Forgets a process that has nothing open. What it was charged for stays charged to all.
    pub fn forget(&mut self, process: u64) {
        self.clients.retain(|client| client.process != process);
    }

    /// Charges a process.
    ///
    /// # Errors
    /// `NoSpace`, `NoMemory`.
    pub fn charge(&mut self, process: u64, usage: Usage) -> Result<(), Refusal> {
        self.enter(process)?;
        self.exchange(process, usage, process, Usage::default())
    }

    /// Charges a process instead of what another one, or it itself, was charged.
    ///
    /// # Errors
    /// `NoSpace`, `NoMemory`: then nothing has changed.
    pub fn exchange(
        &mut self,
        process: u64,
        usage: Usage,
        old_process: u64,
        old: Usage,
    ) -> Result<(), Refusal> {
        let all = self.all.minus(old).plus(usage);
        let limits = self.limits;
        let own = if process != old_process {
            Some(self.enter(process)?.usage.plus(usage))
        } else {
            // One that has ended is charged for nothing any more.
            let client = self.find(process);
            client.map(|client| client.usage.minus(old).plus(usage))
        };
        if !all.is_within(limits.all) || !own.is_none_or(|own| own.is_within(limits.process)) {
            return Err(Refusal::NoSpace);
        }
        if process != old_process
            && let Some(client) = self.find_mut(old_process)
        {
            client.usage = client.usage.minus(old);
        }
        if let (Some(client), Some(own)) = (self.find_mut(process), own) {
            client.usage = own;
        }
        self.all = all;
        Ok(())
    }

    /// Takes back what a process was charged.
    pub fn refund(&mut self, process: u64, usage: Usage) {
        self.all = self.all.minus(usage);
        // One that has ended is charged for nothing any more.
        if let Some(client) = self.find_mut(process) {
            client.usage = client.usage.minus(usage);
        }
    }
}

impl Client {
    /// Makes room for a number.
    fn make_room(&mut self, id: usize) -> Result<(), Refusal> {
        if let missing @ 1.. = (id + 1).saturating_sub(self.open.len()) {
            reserve(&mut self.open, missing)?;
            self.open.resize(id + 1, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 7;
    const B: u64 = 8;

    fn clients() -> Clients {
        Clients::new(Limits::of_machine(40))
    }

    fn pages(nr_pages: u64) -> Usage {
        Usage {
            nr_pages,
            nr_nodes: 0,
        }
    }

    #[test]
    fn numbers_are_the_process_s_own() {
        let mut clients = clients();
        let id = clients.free_id(A).unwrap();
        assert_eq!(clients.set(A, id, 5), Ok(None));
        assert_eq!(clients.open(A, id), Ok(5));
        for (process, id) in [(B, id), (A, 0), (A, id + 1), (A, u32::MAX)] {
            assert_eq!(clients.open(process, id), Err(Refusal::NotOpen));
            assert_eq!(clients.unset(process, id), Err(Refusal::NotOpen));
        }
        assert_eq!(clients.unset(A, id), Ok(5));
        assert_eq!(clients.unset(A, id), Err(Refusal::NotOpen));
    }

    #[test]
    fn a_process_has_so_much_open_and_no_more() {
        let mut clients = clients();
        for open in FIRST..MAX_OPEN {
            let id = clients.free_id(A).unwrap();
            clients.set(A, id, open).unwrap();
        }
        assert_eq!(clients.free_id(A), Err(Refusal::Full));
        assert!(clients.free_id(B).is_ok());
        clients.unset(A, 10).unwrap();
        assert_eq!(clients.free_id(A), Ok(10));
    }

    #[test]
    fn one_process_cannot_use_up_everything() {
        let mut clients = clients();
        assert_eq!(clients.charge(A, pages(11)), Err(Refusal::NoSpace));
        clients.charge(A, pages(10)).unwrap();
        assert_eq!(clients.charge(A, pages(1)), Err(Refusal::NoSpace));
        clients.charge(B, pages(10)).unwrap();
        assert_eq!(clients.charge(9, pages(1)), Err(Refusal::NoSpace));
        clients.refund(A, pages(1));
        clients.charge(9, pages(1)).unwrap();
    }

    #[test]
    fn what_the_dead_were_charged_counts_for_all() {
        let mut clients = clients();
        clients.charge(A, pages(10)).unwrap();
        clients.charge(B, pages(10)).unwrap();
        clients.forget(A);
        assert_eq!(clients.charge(9, pages(1)), Err(Refusal::NoSpace));
        clients.refund(A, pages(10));
        assert_eq!(clients.usage(), pages(10));
        // Who makes a file longer pays for all of it.
        clients.exchange(9, pages(4), B, pages(3)).unwrap();
        assert_eq!(clients.usage(), pages(11));
        clients.charge(B, pages(3)).unwrap();
        // Their files change at nobody's cost.
        clients.charge(A, pages(2)).unwrap();
        clients.forget(A);
        clients.exchange(A, pages(1), A, pages(2)).unwrap();
        assert_eq!(clients.usage(), pages(15));
    }
}
