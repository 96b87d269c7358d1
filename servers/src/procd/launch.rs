//! Processes made of kernel objects: spawn, fork and exec.
//!
//! | | memory | handles | starts |
//! | --- | --- | --- | --- |
//! | spawn | the program's, a stack | the standard set | at the entry point |
//! | fork | the parent's, copy-on-write | the standard set | where the parent asked |
//! | exec | the program's, a stack | the standard set, the old endpoint | at the entry point |

use libipc::abi::{PAGE_SIZE, USER_END};
use libipc::object::Entry;
use libipc::services::{Refusal, files};
use libipc::start::{START_ARGS, START_INFO, StartInfo, split_args};
use libipc::thread::PRIORITY;
use libipc::{Endpoint, Error, PageBuffer, Rights, ShareMode, Space, System};

use super::table::{Name, Vacancy};
use crate::loader;

/// What a process is made of.
pub struct Process {
    /// Its space, all rights.
    pub space: Space,
    /// Its endpoint, all rights: while the process server has it, it lives, also across an exec.
    pub inbox: Endpoint,
}

/// What the process server makes processes with.
pub struct Maker {
    /// With the right to create spaces.
    pub system: System,
    /// Its own endpoint, all rights.
    pub own: Endpoint,
    /// The console server.
    pub console: Endpoint,
    /// The name server, by the handle that may forget.
    pub names: Endpoint,
    /// The file server.
    pub files: Endpoint,
    /// The memory statistics server.
    pub memstat: Endpoint,
}

/// Which notification bit tells of the death of the space in this slot.
#[must_use]
pub fn death_bit(slot: usize) -> u64 {
    1 << (slot % 62)
}

impl Maker {
    /// Starts the program of an argument block.
    pub fn spawn(
        &self,
        vacancy: Vacancy,
        parent: u64,
        args: &[u8],
    ) -> Result<(Process, Name), Refusal> {
        let (path, image) = self.image(args)?;
        let inbox = Endpoint::create()?;
        let space = self.program(vacancy, parent, args, &image, &inbox)?;
        Ok((Process { space, inbox }, name(path)))
    }

    /// Starts the program of an argument block in a new space, for the process in this slot.
    pub fn exec(
        &self,
        vacancy: Vacancy,
        parent: u64,
        args: &[u8],
        inbox: &Endpoint,
    ) -> Result<(Space, Name), Refusal> {
        let (path, image) = self.image(args)?;
        let space = self.program(vacancy, parent, args, &image, inbox)?;
        Ok((space, name(path)))
    }

    /// Starts a copy of a process.
    pub fn fork(
        &self,
        vacancy: Vacancy,
        parent: u64,
        original: &Process,
        entry: Entry,
    ) -> Result<Process, Refusal> {
        let inbox = Endpoint::create()?;
        let space = self.space(vacancy.slot)?;
        let all = USER_END;
        space.share(&original.space, 0, 0, all, ShareMode::CopyOnWrite, None)?;
        space.unmap(START_INFO, PAGE_SIZE as u64)?;
        self.start(vacancy.pid, parent, &space, &inbox, entry)?;
        Ok(Process { space, inbox })
    }

    fn space(&self, slot: usize) -> Result<Space, Error> {
        let death = self.own.copy(Rights::NOTIFY, death_bit(slot))?;
        self.system.create_space(Some(&death))
    }

    /// A program's path and file.
    fn image<'a>(&self, args: &'a [u8]) -> Result<(&'a str, PageBuffer), Refusal> {
        let path = split_args(args).next().ok_or(Refusal::BadRequest)?;
        let refused = |error| match error {
            libipc::services::Error::Kernel(error) => error.into(),
            libipc::services::Error::Refused(refusal) => refusal,
        };
        let file = files::open(&self.files, path).map_err(refused)?;
        let mut image = PageBuffer::new(file.size)?;
        let len = files::read(&self.files, file, 0, &mut image).map_err(refused)?;
        if len == file.size {
            Ok((path, image))
        } else {
            Err(Refusal::Broken)
        }
    }

    fn program(
        &self,
        vacancy: Vacancy,
        parent: u64,
        args: &[u8],
        image: &PageBuffer,
        inbox: &Endpoint,
    ) -> Result<Space, Refusal> {
        let space = self.space(vacancy.slot)?;
        let ip = loader::load(image, &space)?;
        loader::place_args(&space, args)?;
        self.start(vacancy.pid, parent, &space, inbox, loader::entry(ip))?;
        Ok(space)
    }

    /// Gives a space its handles, its start page and a running thread.
    fn start(
        &self,
        pid: u64,
        ppid: u64,
        space: &Space,
        inbox: &Endpoint,
        entry: Entry,
    ) -> Result<(), Error> {
        let give = |endpoint: &Endpoint| endpoint.copy_to(space, Rights::SEND, pid);
        let mut info = StartInfo {
            pid,
            ppid,
            args: START_ARGS,
            ..StartInfo::EMPTY
        };
        info.space = space.copy_to(space, Rights::SPACE, 0)?;
        info.inbox = inbox.copy_to(space, Rights::ENDPOINT, 0)?;
        info.procd = give(&self.own)?;
        info.supervisor = info.procd;
        info.console = give(&self.console)?;
        info.names = give(&self.names)?;
        info.files = give(&self.files)?;
        info.memstat = give(&self.memstat)?;
        let supervisor = self.own.copy(Rights::SEND, pid)?;
        let thread = space.create_thread(Some(&supervisor), PRIORITY)?;
        info.thread = thread.copy_to(space, Rights::THREAD, 0)?;
        loader::place_info(space, &info)?;
        thread.start(entry)
    }
}

/// The end of a path that fits.
fn name(path: &str) -> Name {
    let bytes = path.rsplit('/').next().unwrap_or(path).as_bytes();
    let mut name = [0; 24];
    let len = bytes.len().min(name.len());
    name[..len].copy_from_slice(&bytes[..len]);
    name
}
