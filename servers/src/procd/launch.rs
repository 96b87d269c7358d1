//! Processes made of kernel objects: spawn, fork and exec.
//!
//! | | memory | handles | starts |
//! | --- | --- | --- | --- |
//! | spawn | the program's, a stack | the standard set | at the entry point |
//! | fork | the parent's, copy-on-write | the standard set | where the parent asked |
//! | exec | the program's, a stack | the standard set | at the entry point |
//!
//! The standard set is what every process needs; the rest it asks for, and most never do.

use core::ops::Range;

use libipc::abi::USER_END;
use libipc::object::Entry;
use libipc::services::Refusal;
use libipc::services::console::ConsoleClient;
use libipc::services::files::FilesClient;
use libipc::services::memstat::MemstatClient;
use libipc::services::names::NamesClient;
use libipc::services::procd::{Name, Streams, Thing};
use libipc::start::{StartInfo, split_args};
use libipc::thread::PRIORITY;
use libipc::{Commit, Endpoint, Error, Handle, Rights, ShareMode, Space, System, Thread};

use super::programs::{Program, Programs};
use super::table::{Vacancy, name};
use crate::loader::{self, Stage};
use crate::tell_name;

/// What a process is made of.
pub struct Process {
    /// Its space, all rights.
    pub space: Space,
    /// Its endpoint, all rights, once it or a relative has asked for it: while the process server has it, it
    /// lives, also across an exec.
    inbox: Option<Endpoint>,
    /// Its first thread, all rights: few processes ever ask for it.
    thread: Option<Thread>,
    /// Whether it can have registered names.
    pub knows_names: bool,
    /// Whether it can have files open.
    pub knows_files: bool,
    /// Which standard streams it started with.
    pub streams: Streams,
    /// The handles that it started with.
    standard: Standard,
}

/// Handles that every process starts with, as it numbers them: the same in all of them, because they are the first in
/// their tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standard {
    space: Handle,
    procd: Handle,
    console: Handle,
}

/// What the process server makes processes with.
pub struct Maker {
    /// With the right to create spaces.
    pub system: System,
    /// Its own endpoint, all rights.
    pub own: Endpoint,
    /// The console server.
    pub console: ConsoleClient,
    /// The name server, by the handle that may forget.
    pub names: NamesClient,
    /// The file server.
    pub files: FilesClient,
    /// The memory statistics server.
    pub memstat: MemstatClient,
    /// Where pages of programs are written.
    pub stage: Stage,
    /// Programs that were started before.
    pub programs: Programs,
}

/// What a process may have of the machine's memory.
#[derive(Clone, Copy, Debug)]
pub enum Terms<'a> {
    /// No limit; whether its memory is promised to it.
    New(Commit),
    /// The same as this space.
    Like(&'a Space),
}

/// How many notification bits tell of deaths.
const DEATH_BITS: usize = 62;

/// Which notification bit tells of the death of the space in this slot.
#[must_use]
pub fn death_bit(slot: usize) -> u64 {
    1 << (slot % DEATH_BITS)
}

impl Process {
    /// A process of this space.
    #[must_use]
    pub fn new(space: Space) -> Self {
        Process {
            space,
            inbox: None,
            thread: None,
            knows_names: false,
            knows_files: false,
            streams: Streams::CONSOLE,
            standard: Standard::default(),
        }
    }

    /// The same, which has started with these of its parent's open files.
    fn with_streams(self, streams: Streams) -> Self {
        Process {
            knows_files: streams != Streams::CONSOLE,
            streams: streams.handed_down(),
            ..self
        }
    }

    /// Makes another program of it, keeping its endpoint; returns the space of the old one.
    pub fn exec(&mut self, next: Process) -> Space {
        self.standard = next.standard;
        self.thread = next.thread;
        self.streams = next.streams;
        core::mem::replace(&mut self.space, next.space)
    }

    /// Its endpoint, if somebody has asked for it.
    #[must_use]
    pub fn known_inbox(&self) -> Option<&Endpoint> {
        self.inbox.as_ref()
    }

    /// Its endpoint, which is made when it is first asked for.
    ///
    /// # Errors
    /// Those of the call `endpoint_create`.
    pub fn inbox(&mut self) -> Result<&Endpoint, Error> {
        made(&mut self.inbox)
    }
}

fn made(inbox: &mut Option<Endpoint>) -> Result<&Endpoint, Error> {
    match inbox {
        Some(inbox) => Ok(inbox),
        none => Ok(none.insert(Endpoint::create()?)),
    }
}

impl Maker {
    /// Starts the program of an argument block as the process in this slot: a new one, or one that becomes another
    /// program.
    pub fn spawn(
        &mut self,
        vacancy: Vacancy,
        terms: Terms<'_>,
        parent: u64,
        streams: Streams,
        args: &[u8],
    ) -> Result<(Process, Name), Refusal> {
        let path = split_args(args).next().ok_or(Refusal::BadRequest)?;
        let process = self.in_new_space(vacancy.slot, terms, |maker, space| {
            tell_name(space, path);
            maker.program(vacancy.pid, parent, path, args, space, streams)
        })?;
        let process = process.with_streams(streams);
        Ok((process, name(path)))
    }

    /// Starts a copy of a process.
    pub fn fork(
        &mut self,
        vacancy: Vacancy,
        original: &Process,
        entry: Entry,
    ) -> Result<Process, Refusal> {
        let terms = Terms::Like(&original.space);
        self.in_new_space(vacancy.slot, terms, |maker, space| {
            copy_memory(&original.space, &(0..USER_END), space)?;
            let (standard, thread) = maker.furnish(vacancy.pid, space)?;
            // The child goes by the numbers in its parent's memory.
            if standard != original.standard {
                return Err(Refusal::Broken);
            }
            thread.start(entry)?;
            Ok((standard, thread))
        })
        .map(|process| process.with_streams(original.streams))
    }

    /// Makes a process in an empty space, for this slot. If that fails the space is killed: by then it may have a handle to
    /// itself, which would keep it.
    fn in_new_space(
        &mut self,
        slot: usize,
        terms: Terms<'_>,
        make: impl FnOnce(&mut Self, &Space) -> Result<(Standard, Thread), Refusal>,
    ) -> Result<Process, Refusal> {
        let space = self.space(slot, terms)?;
        let (standard, thread) = make(self, &space).inspect_err(|_| {
            let _ = space.kill();
        })?;
        Ok(Process {
            standard,
            thread: Some(thread),
            ..Process::new(space)
        })
    }

    /// Gives a process a handle that it does not start with.
    pub fn give(&self, pid: u64, process: &mut Process, thing: Thing) -> Result<Handle, Error> {
        let Process {
            space,
            inbox,
            thread,
            ..
        } = process;
        let server = match thing {
            Thing::Inbox => return made(inbox)?.copy_to(space, Rights::ENDPOINT, 0),
            Thing::Thread => {
                let thread = thread.as_ref().ok_or(Error::Died)?;
                return thread.copy_to(space, Rights::THREAD, 0);
            }
            Thing::Names => self.names.as_endpoint(),
            Thing::Files => self.files.as_endpoint(),
            Thing::Memstat => self.memstat.as_endpoint(),
        };
        process.knows_names |= thing == Thing::Names;
        process.knows_files |= thing == Thing::Files;
        server.copy_to(&process.space, Rights::SEND, pid)
    }

    /// An empty space for the process in this slot.
    fn space(&self, slot: usize, terms: Terms<'_>) -> Result<Space, Error> {
        let death = Some((&self.own, death_bit(slot)));
        match terms {
            Terms::Like(other) => self.system.create_space_like(other, death),
            Terms::New(class) => {
                let space = self.system.create_space(death)?;
                if class == Commit::Strict {
                    space.set_class(class)?;
                }
                Ok(space)
            }
        }
    }

    /// Starts a program in an empty space.
    fn program(
        &mut self,
        pid: u64,
        ppid: u64,
        path: &str,
        args: &[u8],
        space: &Space,
        streams: Streams,
    ) -> Result<(Standard, Thread), Refusal> {
        let passing;
        let program = match self.programs.find(path) {
            Some(program) => program,
            None => {
                let program = Program::load(path, &self.files, &self.system, &mut self.stage)?;
                if program.is_constant {
                    self.programs.keep(program)
                } else {
                    passing = program;
                    &passing
                }
            }
        };
        let ip = program.loaded.entry;
        copy_memory(&program.space, &program.loaded.memory, space)?;
        let (standard, thread) = self.furnish(pid, space)?;
        let streams = streams.handed_down();
        let mut info = StartInfo {
            pid,
            ppid,
            space: standard.space,
            procd: standard.procd,
            supervisor: standard.procd,
            console: standard.console,
            stdin: streams.stdin,
            stdout: streams.stdout,
            ..StartInfo::EMPTY
        };
        let entry = loader::place_stack(space, &mut info, args, ip, &mut self.stage)?;
        thread.start(entry)?;
        Ok((standard, thread))
    }

    /// Gives an empty space its handles and a stopped thread.
    fn furnish(&self, pid: u64, space: &Space) -> Result<(Standard, Thread), Error> {
        let give = |endpoint: &Endpoint| endpoint.copy_to(space, Rights::SEND, pid);
        let thread = space.create_thread(Some((&self.own, pid)), PRIORITY)?;
        let standard = Standard {
            space: space.copy_to(space, Rights::SPACE, 0)?,
            procd: give(&self.own)?,
            console: give(self.console.as_endpoint())?,
        };
        Ok((standard, thread))
    }
}

/// Lets an empty space have the memory of another one, copy-on-write.
fn copy_memory(from: &Space, range: &Range<u64>, to: &Space) -> Result<(), Error> {
    let (at, len) = (range.start, range.end - range.start);
    to.share(from, at, at, len, ShareMode::CopyOnWrite, None)
}
