//! The processes and what they do: asked of the process server, drawn as a table of 80 columns.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use libipc::abi::{PAGE_SIZE, ThreadState};
use libipc::object::Member;
use libipc::services::procd::{Counted, Entry, FIRST_SERVER, ProcdClient};
use libipc::services::{Error, Refusal};
use libipc::start;

use crate::waits::{Graph, Wait, Waiter};

/// How many times the process server is asked about one process's memory, or its threads: more than any but a
/// malicious one takes.
const MAX_REQUESTS: usize = 64;

/// A process at some moment.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its line in the process list.
    pub entry: Entry,
    /// Its threads, in the order in which they were created.
    pub threads: Vec<Member>,
    /// Its memory. If there is more than was counted, `next` says so.
    pub memory: Counted,
}

/// All processes, one after the other: each as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The processes, and then the standard servers.
    pub processes: Vec<Process>,
    /// Whether each thread gets a line, also where there is only one.
    pub shows_threads: bool,
    /// The numbers of threads that have done something while all were looked at: these are not stuck.
    pub moved: Vec<u64>,
}

impl Snapshot {
    /// Asks the process server.
    ///
    /// As processes are looked at one after the other, threads may seem to wait for each other that never did so at one time. So if
    /// some do, all are looked at once more.
    ///
    /// # Errors
    /// Those of its calls. Processes that end meanwhile are none.
    pub fn take() -> Result<Self, Error> {
        let first = Self::take_once()?;
        if first.graph().cycles().is_empty() {
            return Ok(first);
        }
        let mut second = Self::take_once()?;
        let has_moved = |thread: &Member| !first.all().any(|(_, _, before)| before == thread);
        let moved = second.all().filter(|(_, _, thread)| has_moved(thread));
        second.moved = moved.map(|(_, _, thread)| thread.number).collect();
        Ok(second)
    }

    fn take_once() -> Result<Self, Error> {
        let procd = ProcdClient::borrow(start::procd());
        let mut processes = Vec::new();
        for above in [0, FIRST_SERVER - 1] {
            let mut last = above;
            loop {
                let (entries, count) = procd.entries(last)?;
                for &entry in &entries[..count] {
                    processes.push(Process {
                        entry,
                        threads: threads_of(&procd, entry.pid)?,
                        memory: unless_gone(memory(&procd, entry.pid))?,
                    });
                    last = entry.pid;
                }
                if count == 0 {
                    break;
                }
            }
        }
        Ok(Snapshot {
            processes,
            shows_threads: false,
            moved: Vec::new(),
        })
    }

    /// Who waits for whom.
    #[must_use]
    pub fn graph(&self) -> Graph {
        let waiter = |process: &Process, thread: &Member| Waiter {
            thread: thread.number,
            space: process.entry.space,
            serves: thread.serves,
            wait: match self.moved.contains(&thread.number) {
                true => Wait::Nothing,
                false => wait(thread),
            },
        };
        let processes = self.processes.iter();
        let inboxes = processes.filter(|process| process.entry.inbox != 0);
        Graph {
            threads: self
                .all()
                .map(|(process, _, thread)| waiter(process, thread))
                .collect(),
            owners: inboxes
                .map(|process| (process.entry.inbox, process.entry.space))
                .collect(),
        }
    }

    /// The cycles of threads that wait for each other for ever, in words.
    #[must_use]
    pub fn deadlocks(&self) -> Vec<String> {
        let all: Vec<_> = self.all().collect();
        let name = |&place: &usize| {
            let (process, number, _) = all[place];
            process.who(number, usize::MAX)
        };
        let cycles = self.graph().cycles();
        cycles
            .iter()
            .map(|cycle| {
                let names: Vec<_> = cycle.iter().chain(cycle.first()).map(name).collect();
                format!("deadlock: {}", names.join(" -> "))
            })
            .collect()
    }

    /// What a thread is blocked on, in at most so many letters.
    #[must_use]
    pub fn blocked_on(&self, thread: &Member, room: usize) -> String {
        let waits = &thread.waits;
        let whom = |what: &str| {
            let room = room.saturating_sub(what.len());
            let who = self.find(waits.thread, waits.space, waits.endpoint, room);
            format!("{what}{}", who.unwrap_or_else(|| "nobody".into()))
        };
        match thread.state {
            ThreadState::Runnable | ThreadState::Dead => String::new(),
            ThreadState::Stopped => "not started".into(),
            ThreadState::Receiving => "a message".into(),
            ThreadState::Sleeping => "timer".into(),
            ThreadState::Sending => whom(""),
            ThreadState::AwaitingReply => whom("reply from "),
            ThreadState::Faulted => whom("verdict of "),
        }
    }

    /// All threads, each with its process and its number there, from 1 on.
    fn all(&self) -> impl Iterator<Item = (&Process, usize, &Member)> {
        self.processes.iter().flat_map(|process| {
            let threads = process.threads.iter().zip(1..);
            threads.map(move |(thread, number)| (process, number, thread))
        })
    }

    /// The name of a thread, or of the space if that is not known, or of whoever owns the endpoint.
    fn find(&self, thread: u64, space: u64, endpoint: u64, room: usize) -> Option<String> {
        if let Some((process, number, _)) = self.all().find(|all| all.2.number == thread) {
            return Some(process.who(number, room));
        }
        let owns = |process: &&Process| {
            let entry = &process.entry;
            space != 0 && entry.space == space || endpoint != 0 && entry.inbox == endpoint
        };
        let process = self.processes.iter().find(owns)?;
        Some(process.who_of_all(room))
    }
}

/// What a process has, or nothing if it has ended.
fn unless_gone<T: Default>(outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Err(Error::Refused(Refusal::NotFound)) => Ok(T::default()),
        outcome => outcome,
    }
}

/// A process's line in the process list.
pub(crate) fn entry(procd: &ProcdClient, pid: u64) -> Result<Entry, Error> {
    let (entries, count) = procd.entries(pid.saturating_sub(1))?;
    let first = entries[..count].first();
    let found = first.filter(|entry| entry.pid == pid).copied();
    Ok(found.ok_or(Refusal::NotFound)?)
}

/// A process's threads; none if it has just ended.
pub(crate) fn threads_of(procd: &ProcdClient, pid: u64) -> Result<Vec<Member>, Error> {
    unless_gone(threads(procd, pid))
}

fn threads(procd: &ProcdClient, pid: u64) -> Result<Vec<Member>, Error> {
    let (mut threads, mut after): (Vec<Member>, u64) = (Vec::new(), 0);
    for _ in 0..MAX_REQUESTS {
        let (entries, count) = match procd.thread_entries(pid, after) {
            // The last one has ended: those behind it come again from the first on.
            Err(Error::Refused(Refusal::NotFound)) if after != 0 => {
                after = 0;
                continue;
            }
            answer => answer?,
        };
        let known = threads.last().map_or(0, |last| last.number);
        let members = entries[..count].iter().map(|entry| entry.0);
        threads.extend(members.filter(|member| member.number > known));
        match entries[..count].last() {
            Some(last) => after = last.0.number,
            None => break,
        }
    }
    Ok(threads)
}

fn memory(procd: &ProcdClient, pid: u64) -> Result<Counted, Error> {
    let mut sum = procd.memory(pid, 0)?;
    for _ in 1..MAX_REQUESTS {
        let Some(from) = sum.next else {
            break;
        };
        let more = procd.memory(pid, from)?;
        sum.next = more.next;
        sum.private += more.private;
        sum.shared_cow += more.shared_cow;
        sum.shared_memory += more.shared_memory;
        sum.untouched += more.untouched;
        sum.tables += more.tables;
    }
    Ok(sum)
}

/// What takes another thread to end.
fn wait(thread: &Member) -> Wait {
    let waits = &thread.waits;
    match thread.state {
        _ if waits.until_ns != 0 => Wait::Nothing,
        ThreadState::Sending | ThreadState::AwaitingReply | ThreadState::Faulted => {
            match waits.endpoint {
                0 => Wait::Reply {
                    thread: waits.thread,
                    space: waits.space,
                },
                endpoint => Wait::Queue { endpoint },
            }
        }
        _ => Wait::Nothing,
    }
}

impl Process {
    /// A thread, told from all others: the process's name and number, and which of its threads if it has several.
    fn who(&self, number: usize, room: usize) -> String {
        let long = format!(" (thread {number})");
        let behind = match self.threads.len() {
            0 | 1 => String::new(),
            _ if self.who_of_all(usize::MAX).len() + long.len() <= room => long,
            _ => format!(" ({number})"),
        };
        let name = self.who_of_all(room.saturating_sub(behind.len()));
        format!("{name}{behind}")
    }

    /// The process, told from all others.
    fn who_of_all(&self, room: usize) -> String {
        if self.entry.is_server() {
            return clipped(self.entry.name(), room);
        }
        let behind = format!(" {}", self.entry.pid);
        let name = clipped(self.entry.name(), room.saturating_sub(behind.len()));
        format!("{name}{behind}")
    }

    fn run_ns(&self) -> u64 {
        self.threads.iter().map(|thread| thread.run_ns).sum()
    }
}

/// A text of at most so many letters, whose end shows if it is not all.
fn clipped(text: &str, room: usize) -> String {
    match text.chars().count() <= room {
        true => text.into(),
        false => {
            let kept = text.chars().take(room.saturating_sub(1));
            kept.chain(['~']).collect()
        }
    }
}

/// So many pages, in at most five letters.
#[must_use]
pub fn size(nr_pages: u64) -> String {
    let kib = nr_pages.saturating_mul(PAGE_SIZE as u64 / 1024);
    match kib {
        0 => "-".into(),
        1..10_000 => format!("{kib}K"),
        10_000..10_000_000 => format!("{}M", kib >> 10),
        10_000_000..10_000_000_000 => format!("{}G", kib >> 20),
        _ => format!("{}T", kib >> 30),
    }
}

/// A word for a state.
const fn word(state: ThreadState) -> &'static str {
    match state {
        ThreadState::Stopped => "stop",
        ThreadState::Runnable => "run",
        ThreadState::Sending => "send",
        ThreadState::Receiving => "recv",
        ThreadState::AwaitingReply => "reply",
        ThreadState::Faulted => "fault",
        ThreadState::Dead => "ended",
        ThreadState::Sleeping => "sleep",
    }
}

/// The columns of the table, the widths of all but the last.
const NAME: usize = 14;
/// The width of the last column.
const BLOCKED: usize = 21;

struct Row {
    pid: String,
    ppid: String,
    state: &'static str,
    run_ns: Option<u64>,
    memory: [String; 3],
    name: String,
    blocked: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            pid,
            ppid,
            state,
            memory: [private, shared, cow],
            name,
            blocked,
            ..
        } = self;
        let run = self.run_ns.map_or(String::new(), |ns| {
            format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
        });
        let line = format!(
            "{pid:>5} {ppid:>5} {state:<5} {run:>7} {private:>5} {shared:>5} {cow:>5} {name:<NAME$} {blocked}"
        );
        f.write_str(line.trim_end())
    }
}

impl Snapshot {
    fn rows(&self, process: &Process) -> Vec<Row> {
        let Entry {
            pid, ppid, ended, ..
        } = process.entry;
        let number = |number: u64| match number {
            0 | FIRST_SERVER.. => String::from("-"),
            number => format!("{number}"),
        };
        let memory = &process.memory;
        let pages = |nr_pages| {
            let more = if memory.next.is_some() { "+" } else { "" };
            format!("{}{more}", size(nr_pages))
        };
        let mut row = Row {
            pid: number(pid),
            ppid: number(ppid),
            state: if ended == 1 { "ended" } else { "" },
            run_ns: (ended == 0).then(|| process.run_ns()),
            memory: match ended {
                1 => Default::default(),
                _ => [memory.private, memory.shared_memory, memory.shared_cow].map(pages),
            },
            name: clipped(process.entry.name(), NAME),
            blocked: String::new(),
        };
        match &process.threads[..] {
            [] => {}
            [thread] if !self.shows_threads => {
                row.state = word(thread.state);
                row.blocked = self.blocked_on(thread, BLOCKED);
            }
            threads => {
                let plural = if threads.len() == 1 { "" } else { "s" };
                row.blocked = format!("{} thread{plural}", threads.len());
                let lines = threads.iter().zip(1..);
                let lines = lines.map(|(thread, number)| self.thread_row(thread, number));
                return core::iter::once(row).chain(lines).collect();
            }
        }
        alloc::vec![row]
    }

    fn thread_row(&self, thread: &Member, number: usize) -> Row {
        Row {
            pid: String::new(),
            ppid: String::new(),
            state: word(thread.state),
            run_ns: Some(thread.run_ns),
            memory: Default::default(),
            name: format!("  thread {number}"),
            blocked: self.blocked_on(thread, BLOCKED),
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>5} {:>5} {:<5} {:>7} {:>5} {:>5} {:>5} {:<NAME$} BLOCKED ON",
            "PID", "PPID", "STATE", "CPU s", "PRIV", "SHARE", "COW", "NAME"
        )?;
        for row in self.processes.iter().flat_map(|process| self.rows(process)) {
            writeln!(f, "{row}")?;
        }
        for deadlock in self.deadlocks() {
            writeln!(f, "{deadlock}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::object::Waits;

    fn process(pid: u64, name: &str, threads: Vec<Member>) -> Process {
        let mut bytes = [0; 24];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Process {
            entry: Entry {
                pid,
                ppid: 1,
                ended: 0,
                commit: 0,
                space: pid & 0xff,
                inbox: 0,
                name: bytes,
            },
            threads,
            memory: Counted {
                private: 3,
                shared_cow: 40_000,
                ..Counted::default()
            },
        }
    }

    fn thread(number: u64, state: ThreadState, waits: Waits, serves: u64) -> Member {
        Member {
            number,
            state,
            run_ns: 1_234_567_890,
            priority: 16,
            waits,
            serves,
        }
    }

    fn snapshot(processes: Vec<Process>) -> Snapshot {
        Snapshot {
            processes,
            shows_threads: false,
            moved: Vec::new(),
        }
    }

    fn waits(endpoint: u64, thread: u64, space: u64) -> Waits {
        Waits {
            endpoint,
            thread,
            space,
            until_ns: 0,
        }
    }

    #[test]
    fn a_table_says_who_is_blocked_on_whom() {
        let receives = |number| thread(number, ThreadState::Receiving, waits(5, 0, 0), 5);
        let asks = thread(11, ThreadState::AwaitingReply, waits(0, 31, 9), 0);
        let queued = thread(12, ThreadState::Sending, waits(5, 32, 9), 0);
        let alone = snapshot(vec![process(2, "sh", vec![asks])]);
        assert_eq!(alone.blocked_on(&asks, 21), "reply from nobody");
        let two = snapshot(vec![
            process(2, "sh", vec![asks]),
            process(3, "cat", vec![queued]),
            process(FIRST_SERVER | 9, "files", vec![receives(31), receives(32)]),
        ]);
        assert_eq!(two.blocked_on(&asks, 30), "reply from files (thread 1)");
        assert_eq!(two.blocked_on(&queued, 21), "files (thread 2)");
        let text = two.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "  PID  PPID STATE   CPU s  PRIV SHARE   COW NAME           BLOCKED ON",
                "    2     1 reply   1.234   12K     -  156M sh             reply from files (1)",
                "    3     1 send    1.234   12K     -  156M cat            files (thread 2)",
            ]
        );
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        assert!(
            lines[4].ends_with("recv    1.234                     thread 1     a message"),
            "{text}"
        );
    }

    #[test]
    fn long_names_are_cut_and_lines_stay_short() {
        let long = "a_program_with_long_name";
        let asks = thread(11, ThreadState::AwaitingReply, waits(0, 12, 0), 0);
        let shown = snapshot(vec![
            process(1_000_002, long, vec![asks]),
            process(
                1_000_003,
                long,
                vec![thread(12, ThreadState::Sleeping, Waits::default(), 0)],
            ),
        ]);
        let text = shown.to_string();
        assert!(text.lines().all(|line| line.len() <= 84), "{text}");
        assert!(text.contains("reply from a~ 1000003"), "{text}");
    }

    #[test]
    fn cycles_are_named_with_their_processes() {
        let a = thread(1, ThreadState::AwaitingReply, waits(0, 2, 3), 0);
        let b = thread(2, ThreadState::Sending, waits(8, 1, 2), 0);
        let serves = Member { serves: 8, ..a };
        let shown = snapshot(vec![
            process(2, "a", vec![serves]),
            process(3, "b", vec![b]),
        ]);
        assert_eq!(shown.deadlocks(), ["deadlock: a 2 -> b 3 -> a 2"]);
        let moved = Snapshot {
            moved: vec![2],
            ..shown
        };
        assert!(moved.deadlocks().is_empty());
        let gives_up = Member {
            waits: Waits {
                until_ns: 5,
                ..b.waits
            },
            ..b
        };
        let shown = snapshot(vec![
            process(2, "a", vec![serves]),
            process(3, "b", vec![gives_up]),
        ]);
        assert!(shown.deadlocks().is_empty());
    }

    #[test]
    fn sizes_have_at_most_five_letters() {
        for (nr_pages, expected) in [
            (0, "-"),
            (1, "4K"),
            (2499, "9996K"),
            (2500, "9M"),
            (1 << 18, "1024M"),
            (1 << 28, "1024G"),
            (1 << 35, "128T"),
        ] {
            assert_eq!(size(nr_pages), expected);
        }
    }
}
