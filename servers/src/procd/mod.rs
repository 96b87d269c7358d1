//! The process server: what the kernel calls spaces, threads and endpoints, as processes.
//!
//! Policy:
//! - A process may end itself and its descendants, nobody else; init may end everyone but itself.
//! - Endpoints are handed out to relatives: parent, child, siblings.
//! - A fault that nobody else supervises ends the process; one line on the console says why, and
//!   the exit status is 128 plus a number as of a POSIX signal.
//! - ^C on the console ends the process that the shell put into the foreground, and its descendants.
//! - The children of a process that ends become init's, which is notified of those that end.
//! - Numbers are never used again.
//! - All may see which processes there are, what their threads wait for, and how much memory they have. What lies where in that, and
//!   who calls whom, is for those who may end them.
//! - Any process may create spaces and read the counters: both cost others nothing but memory.

pub mod launch;
pub mod look;
pub mod programs;
pub mod report;
pub mod table;

use core::fmt::Write;
use core::ops::Deref;

use libipc::abi::{FaultKind, FaultVerdict};
use libipc::message::Fault;
use libipc::object::Entry;
use libipc::server::Answer;
use libipc::service::{Caller, Reply, again};
use libipc::services::Refusal;
use libipc::services::console::MAX_TEXT;
use libipc::services::init::InitClient;
use libipc::services::procd as protocol;
use libipc::services::procd::{
    Counted, Ended, FIRST_SERVER, Given, INIT_PID, LIST_LEN, Reason, Record, Streams, Thing,
    name_text,
};
use libipc::{Commit, Endpoint, Rights, Space};

use crate::init::boot::SERVERS;
use launch::{Maker, Process, Terms, death_bit};
use table::{MAX_PROCESSES, Table, Vacancy, WaitReply, Waiting};

/// The notification bit of ^C; the bits below tell of deaths.
pub const INTERRUPT_BIT: u64 = 1 << 63;

/// Which of a server's extra handles notifies init.
pub const EXTRA_INIT: usize = 0;

/// Which of them asks init for the spaces of servers.
pub const EXTRA_SPACES: usize = 1;

/// The process server.
pub struct Procd {
    table: Table<Process>,
    maker: Maker,
    /// Notified when a child of init has ended.
    init: Endpoint,
    /// The process that ^C ends, with its descendants; 0 for none.
    foreground: u64,
    /// Has the standard servers' spaces.
    spaces: InitClient,
    listing: [u8; LIST_LEN],
}

impl Procd {
    /// A process server with init as its only process; `init` is notified when a child of init
    /// has ended, and `spaces` has those of the standard servers.
    #[must_use]
    pub const fn new(maker: Maker, init: Endpoint, spaces: InitClient) -> Self {
        Procd {
            table: Table::new(),
            maker,
            init,
            foreground: 0,
            spaces,
            listing: [0; LIST_LEN],
        }
    }

    fn try_spawn(
        &mut self,
        pid: u64,
        class: Commit,
        streams: Streams,
        args: &[u8],
    ) -> Result<u64, Refusal> {
        let terms = Terms::New(class);
        let vacancy = self.table.vacancy()?;
        self.hand_down(pid, vacancy.pid, streams)?;
        let made = self.maker.spawn(vacancy, terms, pid, streams, args);
        let (process, name) = made.inspect_err(|_| self.take_back(vacancy.pid, streams))?;
        self.table.add(vacancy, pid, name, process);
        Ok(vacancy.pid)
    }

    fn try_fork(&mut self, pid: u64, entry: Entry) -> Result<u64, Refusal> {
        let vacancy = self.table.vacancy()?;
        let (original, name) = self.table.get_named(pid).ok_or(Refusal::Denied)?;
        // The child has nothing of its own but its number.
        let args = [vacancy.pid, 0, 0];
        let entry = Entry { args, ..entry };
        let streams = original.streams;
        self.hand_down(pid, vacancy.pid, streams)?;
        let made = self.maker.fork(vacancy, original, entry);
        let process = made.inspect_err(|_| self.take_back(vacancy.pid, streams))?;
        self.table.add(vacancy, pid, name, process);
        Ok(vacancy.pid)
    }

    fn try_exec(&mut self, pid: u64, args: &[u8]) -> Result<(), Refusal> {
        let running = self.table.running().find(|&(running, ..)| running == pid);
        let (_, slot, process) = running.ok_or(Refusal::Denied)?;
        let terms = Terms::Like(&process.space);
        let streams = process.streams;
        let parent = self.table.parent(pid).unwrap_or(INIT_PID);
        let (next, name) = self
            .maker
            .spawn(Vacancy { slot, pid }, terms, parent, streams, args)?;
        if let Some((process, old_name)) = self.table.get_mut(pid) {
            *old_name = name;
            let _ = process.exec(next).kill();
            // Its other files are closed: what has become of it does not know of them, and cannot have asked for any yet.
            if process.knows_files {
                let _ = self.hand_down(pid, pid, streams);
            }
        }
        Ok(())
    }

    /// Opens standard streams for a process that is about to start: until it can ask for files, it waits for this server.
    fn hand_down(&self, parent: u64, child: u64, streams: Streams) -> Result<(), Refusal> {
        let Streams { stdin, stdout } = streams;
        if parent != child && streams == Streams::CONSOLE {
            return Ok(());
        }
        let files = &self.maker.files;
        Ok(files.hand_down(parent, child, stdin, stdout)?)
    }

    /// Undoes it for a process that could not be started.
    fn take_back(&self, child: u64, streams: Streams) {
        if streams != Streams::CONSOLE {
            let _ = self.maker.files.forget(child);
        }
    }

    fn try_kill(&mut self, pid: u64, victim: u64) -> Result<(), Refusal> {
        if victim == INIT_PID {
            return Err(Refusal::Denied);
        }
        self.table.get(victim).ok_or(Refusal::NotFound)?;
        if !self.table.is_ancestor(pid, victim) {
            return Err(Refusal::Denied);
        }
        self.end(victim, Reason::Killed.status());
        Ok(())
    }

    /// Does something that takes memory. Programs that are kept are given up for it.
    fn with_memory<T>(
        &mut self,
        mut action: impl FnMut(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match action(self) {
            Err(Refusal::NoMemory) if self.maker.programs.clear() => action(self),
            outcome => outcome,
        }
    }

    /// Ends a process, and tells who waits for that.
    fn end(&mut self, pid: u64, status: i32) {
        let Some(process) = self.table.end(pid, status) else {
            return;
        };
        let _ = process.space.kill();
        if process.knows_names {
            // If the name server dies meanwhile, the next one still knows the names.
            let _ = again(|| self.maker.names.forget(pid));
        }
        if process.knows_files {
            let _ = self.maker.files.forget(pid);
        }
        drop(process);
        while let Some((waiter, outcome)) = self.table.take_ready() {
            // A thread that was killed while it waited has not heard: the next one may.
            if let (Ok(()), Ok(Ended { pid, .. })) = (waiter.reply.send(outcome.map(Some)), outcome)
            {
                self.table.reap(pid);
            }
        }
        if self
            .table
            .wait(INIT_PID, 0)
            .is_ok_and(|waiting| waiting != Waiting::Blocked)
        {
            let _ = self.init.notify();
        }
    }

    /// The next line of the process list: init and the processes, or the other standard servers.
    fn entry_above(&self, above: u64) -> Option<protocol::Entry> {
        if let Some(first) = above.saturating_add(1).checked_sub(FIRST_SERVER) {
            let mut numbers = first..SERVERS.len() as u64;
            return numbers.find_map(|number| self.server_entry(FIRST_SERVER + number));
        }
        let init = (above < INIT_PID).then(|| self.server_entry(INIT_PID));
        init.flatten().or_else(|| self.process_entry_above(above))
    }

    fn process_entry_above(&self, above: u64) -> Option<protocol::Entry> {
        let entry = self.table.next_after(above)?;
        let Some(process) = self.table.get(entry.pid) else {
            return Some(entry);
        };
        let inbox = process.known_inbox();
        let inbox = inbox.and_then(|inbox| inbox.identity().ok());
        Some(protocol::Entry {
            inbox: inbox.map_or(0, |identity| identity.endpoint),
            ..look::charged(entry, &process.space)
        })
    }

    fn server_entry(&self, pid: u64) -> Option<protocol::Entry> {
        let number = server_number(pid)?;
        let space = self.spaces.space(number).ok()?;
        let name = SERVERS.get(number).map_or("init", |server| server.name());
        let entry = protocol::Entry {
            pid,
            ppid: 0,
            ended: 0,
            commit: 0,
            space: 0,
            inbox: 0,
            name: table::name(name),
        };
        Some(look::charged(entry, &space))
    }

    /// The space of a process that runs, or of a standard server.
    fn subject(&self, pid: u64) -> Result<Subject<'_>, Refusal> {
        if let Some(number) = server_number(pid) {
            return Ok(Subject::Server(self.spaces.space(number)?));
        }
        let process = self.table.get(pid).ok_or(Refusal::NotFound)?;
        Ok(Subject::Process(&process.space))
    }

    /// The space of a process that the caller may end.
    fn own_or_descendant(&self, caller: Caller, pid: u64) -> Result<&Space, Refusal> {
        if server_number(pid).is_some() {
            return Err(Refusal::Denied);
        }
        let process = self.table.get(pid).ok_or(Refusal::NotFound)?;
        if self.table.is_ancestor(caller.badge, pid) {
            Ok(&process.space)
        } else {
            Err(Refusal::Denied)
        }
    }

    /// Ends the foreground process and its descendants.
    fn interrupt(&mut self) {
        let first = core::mem::take(&mut self.foreground);
        let table = &self.table;
        let family = table.running().map(|(pid, ..)| pid);
        let family: heapless::Vec<u64, MAX_PROCESSES> = family
            .filter(|&pid| table.is_ancestor(first, pid))
            .collect();
        for pid in family {
            self.end(pid, Reason::Interrupt.status());
        }
    }
}

/// Whose space is looked at.
enum Subject<'a> {
    Process(&'a Space),
    Server(Space),
}

impl Deref for Subject<'_> {
    type Target = Space;

    fn deref(&self) -> &Space {
        match self {
            Subject::Process(space) => space,
            Subject::Server(space) => space,
        }
    }
}

/// As which init knows this standard server; itself as the one behind all others.
fn server_number(pid: u64) -> Option<usize> {
    if pid == INIT_PID {
        return Some(SERVERS.len());
    }
    let number = usize::try_from(pid.checked_sub(FIRST_SERVER)?).ok()?;
    (number < SERVERS.len()).then_some(number)
}

impl protocol::Procd for Procd {
    fn spawn(
        &mut self,
        caller: Caller,
        class: Commit,
        streams: Streams,
        args: &[u8],
    ) -> Result<u64, Refusal> {
        self.with_memory(|procd| procd.try_spawn(caller.badge, class, streams, args))
    }

    fn fork(&mut self, caller: Caller, ip: u64, sp: u64, fs_base: u64) -> Result<u64, Refusal> {
        let entry = Entry {
            ip,
            sp,
            fs_base,
            ..Entry::default()
        };
        self.with_memory(|procd| procd.try_fork(caller.badge, entry))
    }

    fn exec(
        &mut self,
        caller: Caller,
        args: &[u8],
        reply: Reply<(), Refusal>,
    ) -> Option<Answer<'_>> {
        match self.with_memory(|procd| procd.try_exec(caller.badge, args)) {
            // Who asked is gone.
            Ok(()) => None,
            Err(refusal) => reply.now(Err(refusal)),
        }
    }

    fn exit(
        &mut self,
        caller: Caller,
        status: i32,
        reply: Reply<(), Refusal>,
    ) -> Option<Answer<'_>> {
        if self.table.get(caller.badge).is_none() {
            return reply.now(Err(Refusal::Denied));
        }
        self.end(caller.badge, status);
        None
    }

    fn wait(
        &mut self,
        caller: Caller,
        child: u64,
        blocks: bool,
        reply: WaitReply,
    ) -> Option<Answer<'_>> {
        match self.table.wait(caller.badge, child) {
            Ok(Waiting::Ready(ended)) => {
                self.table.reap(ended.pid);
                reply.now(Ok(Some(ended)))
            }
            Ok(Waiting::Blocked) if !blocks => reply.now(Ok(None)),
            Ok(Waiting::Blocked) => match self.table.block(caller.badge, child, reply) {
                Ok(()) => None,
                Err(reply) => reply.now(Err(Refusal::Full)),
            },
            Err(refusal) => reply.now(Err(refusal)),
        }
    }

    fn kill(
        &mut self,
        caller: Caller,
        victim: u64,
        reply: Reply<(), Refusal>,
    ) -> Option<Answer<'_>> {
        match self.try_kill(caller.badge, victim) {
            Ok(()) if caller.badge == victim => None,
            outcome => reply.now(outcome),
        }
    }

    fn parent(&self, caller: Caller) -> u64 {
        self.table.parent(caller.badge).unwrap_or(0)
    }

    fn endpoint(&mut self, caller: Caller, relative: u64) -> Result<Given, Refusal> {
        self.with_memory(|procd| {
            let pid = caller.badge;
            procd.table.get(relative).ok_or(Refusal::NotFound)?;
            let asker = procd.table.get(pid).ok_or(Refusal::Denied)?.space.handle();
            if !procd.table.are_relatives(pid, relative) {
                return Err(Refusal::Denied);
            }
            let (process, _) = procd.table.get_mut(relative).ok_or(Refusal::NotFound)?;
            let asker = Space::borrow(asker);
            Ok(process.inbox()?.copy_to(&asker, Rights::SEND, pid)?.into())
        })
    }

    fn list(&mut self, above: u64) -> &[u8] {
        let first = self.entry_above(above);
        let entries = core::iter::successors(first, |entry| self.entry_above(entry.pid));
        let mut list = [0; LIST_LEN];
        let mut count = 0;
        for entry in entries.take(protocol::Entry::LISTED) {
            entry.put(&mut list, count);
            count += 1;
        }
        self.listing = list;
        &self.listing[..count * protocol::Entry::LEN]
    }

    fn threads(&mut self, pid: u64, after: u64) -> Result<&[u8], Refusal> {
        let mut list = [0; LIST_LEN];
        let len = look::threads(&*self.subject(pid)?, after, &mut list)?;
        self.listing = list;
        Ok(&self.listing[..len])
    }

    fn memory(&self, pid: u64, from: u64) -> Result<Counted, Refusal> {
        look::count(&*self.subject(pid)?, from)
    }

    fn ranges(&mut self, caller: Caller, pid: u64, from: u64) -> Result<&[u8], Refusal> {
        let mut list = [0; LIST_LEN];
        let len = look::ranges(self.own_or_descendant(caller, pid)?, from, &mut list)?;
        self.listing = list;
        Ok(&self.listing[..len])
    }

    fn stack(&mut self, caller: Caller, pid: u64, thread: u64) -> Result<&[u8], Refusal> {
        let frames = look::stack(self.own_or_descendant(caller, pid)?, thread)?;
        for (place, ip) in self.listing.chunks_exact_mut(8).zip(&frames) {
            place.copy_from_slice(&ip.to_le_bytes());
        }
        Ok(&self.listing[..8 * frames.len()])
    }

    fn foreground(&mut self, caller: Caller, child: u64) -> Result<(), Refusal> {
        if child != 0 && self.table.parent(child) != Some(caller.badge) {
            return Err(Refusal::Denied);
        }
        self.foreground = child;
        Ok(())
    }

    fn system(&mut self, caller: Caller) -> Result<Given, Refusal> {
        self.with_memory(|procd| {
            let asker = procd.table.get(caller.badge).ok_or(Refusal::Denied)?;
            let rights = Rights::CREATE | Rights::OBSERVE | Rights::COPY;
            Ok(procd.maker.system.copy_to(&asker.space, rights, 0)?.into())
        })
    }

    fn handle(&mut self, caller: Caller, thing: Thing) -> Result<Given, Refusal> {
        self.with_memory(|procd| {
            let process = procd.table.get_mut(caller.badge);
            let (process, _) = process.ok_or(Refusal::Denied)?;
            Ok(procd.maker.give(caller.badge, process, thing)?.into())
        })
    }

    fn notification(&mut self, bits: u64) {
        if bits & INTERRUPT_BIT != 0 && self.foreground != 0 {
            self.interrupt();
        }
        // The bit of a slot may come late, when another process has the slot: the space says.
        let dead = |table: &Table<Process>| {
            table
                .running()
                .find(|&(_, slot, process)| bits & death_bit(slot) != 0 && process.space.is_dead())
                .map(|(pid, ..)| pid)
        };
        while let Some(pid) = dead(&self.table) {
            self.end(pid, Reason::Killed.status());
        }
    }

    fn fault(&mut self, fault: Fault) {
        let pid = fault.badge;
        // Programs that are kept are memory that somebody needs more.
        if fault.kind == Some(FaultKind::OutOfMemory) && self.maker.programs.clear() {
            let _ = fault.decide(FaultVerdict::Resume);
            return;
        }
        let Some((process, name)) = self.table.get_named(pid) else {
            return;
        };
        let report = report::Report {
            who: Some(pid),
            name: name_text(&name),
            fault: &fault,
            found: look::at_fault(&process.space, &fault),
        };
        let mut text = heapless::String::<MAX_TEXT>::new();
        let _ = writeln!(text, "{report}");
        let _ = self.maker.console.write_all(text.as_bytes());
        self.end(pid, report::reason(&fault).status());
    }
}

#[cfg(test)]
mod tests;
