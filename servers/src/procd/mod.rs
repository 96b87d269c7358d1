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
//! - Any process may create spaces and read the counters: both cost others nothing but memory.

pub mod launch;
pub mod programs;
pub mod report;
pub mod table;

use core::fmt::Write;

use libipc::abi::{FaultKind, FaultVerdict};
use libipc::message::{Fault, Incoming, Message, ReplyToken};
use libipc::object::Entry;
use libipc::server::{Answer, Service};
use libipc::services::procd as protocol;
use libipc::services::procd::{Ended, INIT_PID, Reason, Thing};
use libipc::services::{Refusal, console, names};
use libipc::{Commit, Endpoint, Rights, Space};

use launch::{Maker, Process, Terms, death_bit};
use table::{MAX_PROCESSES, Table, Vacancy, Waiting};

/// The notification bit of ^C; the bits below tell of deaths.
pub const INTERRUPT_BIT: u64 = 1 << 63;

/// Which of a server's extra handles notifies init.
pub const EXTRA_INIT: usize = 0;

/// Entries in one reply to `LIST`.
const LISTED: usize = 16;

/// The process server.
pub struct Procd {
    table: Table<Process>,
    maker: Maker,
    /// Notified when a child of init has ended.
    init: Endpoint,
    /// The process that ^C ends, with its descendants; 0 for none.
    foreground: u64,
    listing: [u8; LISTED * protocol::Entry::LEN],
}

/// What a request led to.
enum Done {
    /// This answer.
    Answer(Message),
    /// This answer with the listing, so many bytes of it.
    Listing(Message, usize),
    /// The sender is gone.
    Gone,
}

impl Procd {
    /// A process server with init as its only process; `init` is notified when a child of init
    /// has ended.
    #[must_use]
    pub const fn new(maker: Maker, init: Endpoint) -> Self {
        let listing = [0; LISTED * protocol::Entry::LEN];
        Procd {
            table: Table::new(),
            maker,
            init,
            foreground: 0,
            listing,
        }
    }

    fn spawn(&mut self, pid: u64, class: u64, args: &[u8]) -> Result<Done, Refusal> {
        let terms = Terms {
            class: Commit::from_user(class).ok_or(Refusal::BadRequest)?,
            budget: None,
        };
        let vacancy = self.table.vacancy()?;
        let (process, name) = self.maker.spawn(vacancy, terms, pid, args)?;
        self.table.add(vacancy, pid, name, process);
        Ok(Done::Answer(Message::new(0).with_words([vacancy.pid])))
    }

    fn fork(&mut self, pid: u64, [ip, sp, fs_base, _]: [u64; 4]) -> Result<Done, Refusal> {
        let vacancy = self.table.vacancy()?;
        let original = self.table.get(pid).ok_or(Refusal::Denied)?;
        // The child has nothing of its own but its number.
        let args = [vacancy.pid, 0, 0];
        let entry = Entry {
            ip,
            sp,
            args,
            fs_base,
        };
        let process = self.maker.fork(vacancy, original, entry)?;
        let name = self.table.name(pid).unwrap_or_default();
        self.table.add(vacancy, pid, name, process);
        Ok(Done::Answer(Message::new(0).with_words([vacancy.pid])))
    }

    fn exec(&mut self, pid: u64, args: &[u8]) -> Result<Done, Refusal> {
        let running = self.table.running().find(|&(running, ..)| running == pid);
        let (_, slot, process) = running.ok_or(Refusal::Denied)?;
        let terms = Terms::of(&process.space)?;
        let parent = self.table.parent(pid).unwrap_or(INIT_PID);
        let (next, name) = self
            .maker
            .spawn(Vacancy { slot, pid }, terms, parent, args)?;
        if let Some((process, old_name)) = self.table.get_mut(pid) {
            *old_name = name;
            let _ = process.exec(next).kill();
        }
        Ok(Done::Gone)
    }

    fn wait(&mut self, pid: u64, child: u64) -> Result<Waiting, Refusal> {
        let waiting = self.table.wait(pid, child)?;
        if let Waiting::Ready(ended) = waiting {
            self.table.reap(ended.pid);
        }
        Ok(waiting)
    }

    fn kill(&mut self, pid: u64, victim: u64) -> Result<Done, Refusal> {
        if victim == INIT_PID {
            return Err(Refusal::Denied);
        }
        self.table.get(victim).ok_or(Refusal::NotFound)?;
        if !self.table.is_ancestor(pid, victim) {
            return Err(Refusal::Denied);
        }
        self.end(victim, Reason::Killed.status());
        Ok(if pid == victim {
            Done::Gone
        } else {
            Done::Answer(Message::new(0))
        })
    }

    fn endpoint(&mut self, pid: u64, other: u64) -> Result<Done, Refusal> {
        self.table.get(other).ok_or(Refusal::NotFound)?;
        let asker = self.table.get(pid).ok_or(Refusal::Denied)?.space.handle();
        if !self.table.are_relatives(pid, other) {
            return Err(Refusal::Denied);
        }
        let (process, _) = self.table.get_mut(other).ok_or(Refusal::NotFound)?;
        let asker = Space::borrow(asker);
        let handle = process.inbox()?.copy_to(&asker, Rights::SEND, pid)?;
        Ok(Done::Answer(Message::new(0).with_words([handle.0.into()])))
    }

    fn handle(&mut self, pid: u64, thing: u64) -> Result<Done, Refusal> {
        let thing = Thing::from_word(thing).ok_or(Refusal::BadRequest)?;
        let (process, _) = self.table.get_mut(pid).ok_or(Refusal::Denied)?;
        let handle = self.maker.give(pid, process, thing)?;
        Ok(Done::Answer(Message::new(0).with_words([handle.0.into()])))
    }

    fn system(&self, pid: u64) -> Result<Done, Refusal> {
        let asker = self.table.get(pid).ok_or(Refusal::Denied)?;
        let rights = Rights::CREATE | Rights::OBSERVE | Rights::COPY;
        let handle = self.maker.system.copy_to(&asker.space, rights, 0)?;
        Ok(Done::Answer(Message::new(0).with_words([handle.0.into()])))
    }

    fn foreground(&mut self, pid: u64, child: u64) -> Result<Done, Refusal> {
        if child != 0 && self.table.parent(child) != Some(pid) {
            return Err(Refusal::Denied);
        }
        self.foreground = child;
        Ok(Done::Answer(Message::new(0)))
    }

    fn list(&mut self, after: u64) -> Done {
        let first = self.table.next_after(after);
        let entries = core::iter::successors(first, |entry| self.table.next_after(entry.pid));
        let mut count = 0;
        for (bytes, entry) in self.listing.chunks_mut(protocol::Entry::LEN).zip(entries) {
            let space = self.table.get(entry.pid).map(|process| &process.space);
            let charge = space.and_then(|space| space.charge().ok());
            let commit = charge.map_or(0, |charge| charge.commit);
            bytes.copy_from_slice(&protocol::Entry { commit, ..entry }.to_bytes());
            count += 1;
        }
        let message = Message::new(0).with_words([count as u64]);
        Done::Listing(message, count * protocol::Entry::LEN)
    }

    /// Ends a process, and tells who waits for that.
    fn end(&mut self, pid: u64, status: i32) {
        let Some(process) = self.table.end(pid, status) else {
            return;
        };
        let _ = process.space.kill();
        if process.knows_names {
            let _ = names::forget(&self.maker.names, pid);
        }
        drop(process);
        while let Some((waiter, outcome)) = self.table.take_ready() {
            let message = outcome.map_or_else(Refusal::message, ended);
            // A thread that was killed while it waited has not heard: the next one may.
            if let (Ok(_), Ok(Ended { pid, .. })) = (waiter.token.reply(message, &[]), outcome) {
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

    fn request(&mut self, pid: u64, message: Message, data: &[u8]) -> Result<Done, Refusal> {
        let [first, ..] = message.words;
        match message.label() {
            protocol::SPAWN => self.spawn(pid, first, data),
            protocol::FORK => self.fork(pid, message.words),
            protocol::EXEC => self.exec(pid, data),
            protocol::EXIT => {
                self.table.get(pid).ok_or(Refusal::Denied)?;
                self.end(pid, first as i32);
                Ok(Done::Gone)
            }
            protocol::KILL => self.kill(pid, first),
            protocol::PARENT => {
                let parent = self.table.parent(pid).unwrap_or(0);
                Ok(Done::Answer(Message::new(0).with_words([parent])))
            }
            protocol::ENDPOINT => self.endpoint(pid, first),
            protocol::LIST => Ok(self.list(first)),
            protocol::FOREGROUND => self.foreground(pid, first),
            protocol::SYSTEM => self.system(pid),
            protocol::HANDLE => self.handle(pid, first),
            _ => Err(Refusal::BadRequest),
        }
    }

    /// `WAIT`, the one request that may be answered later.
    fn wait_request(
        &mut self,
        pid: u64,
        [child, no_block, ..]: [u64; 4],
        token: ReplyToken,
    ) -> Option<Answer<'_>> {
        let message = match self.wait(pid, child) {
            Ok(Waiting::Ready(child)) => ended(child),
            Ok(Waiting::Blocked) if no_block != 0 => Message::new(0),
            Ok(Waiting::Blocked) => match self.table.block(pid, child, token) {
                Ok(()) => return None,
                Err(token) => return token.answer(Refusal::Full.message()),
            },
            Err(refusal) => refusal.message(),
        };
        token.answer(message)
    }
}

fn ended(child: Ended) -> Message {
    Message::new(0).with_words([child.pid, child.status as u32 as u64])
}

impl Service for Procd {
    fn message(&mut self, incoming: Incoming, data: &[u8]) -> Option<Answer<'_>> {
        let Incoming {
            badge: pid,
            message,
            token,
            true_len,
            ..
        } = incoming;
        if true_len > data.len() {
            return token.answer(Refusal::BadRequest.message());
        }
        if message.label() == protocol::WAIT {
            return self.wait_request(pid, message.words, token);
        }
        let mut outcome = self.request(pid, message, data);
        if matches!(outcome, Err(Refusal::NoMemory)) && self.maker.programs.clear() {
            outcome = self.request(pid, message, data);
        }
        match outcome {
            Ok(Done::Answer(message)) => token.answer(message),
            Ok(Done::Listing(message, len)) => token.answer_with(message, &self.listing[..len]),
            Ok(Done::Gone) => None,
            Err(refusal) => token.answer(refusal.message()),
        }
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
        let Some(name) = self.table.name(pid) else {
            return;
        };
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let name = core::str::from_utf8(name).unwrap_or("?");
        let mut line = heapless::String::<256>::new();
        let words = report::Words(&fault);
        let _ = writeln!(line, "procd: process {pid} ({name}) ended: {words}");
        let _ = console::write(&self.maker.console, line.as_bytes());
        self.end(pid, report::reason(&fault).status());
    }
}

#[cfg(test)]
mod tests;
