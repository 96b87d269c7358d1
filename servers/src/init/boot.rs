//! Who gets what at boot, and when it starts again.
//!
//! | server | besides its own endpoint, its space and a thread | when it has died |
//! | --- | --- | --- |
//! | memstat | the counters | starts again |
//! | names | keeping names at init | starts again, with the names |
//! | console | COM1's ports and interrupt line, ^C to procd | starts again, without the text and the input that waited |
//! | files | the boot archive; the counters | starts again, with the archive as it was; what was written is gone, and all that was open |
//! | procd | creating spaces; all other servers, to pass on; telling init of ended children; looking into the servers' spaces | is the end: the processes die with it |
//!
//! Endpoints are init's, and outlive the servers: clients keep their handles. Who waited for an answer is told that the server
//! died; who sends meanwhile is heard by the next one.

use core::fmt;
use core::ops::Deref;

use libipc::abi::{InitInfo, PAGE_SIZE};
use libipc::services::console::ConsoleClient;
use libipc::services::procd::ProcdClient;
use libipc::start::StartInfo;
use libipc::thread::PRIORITY;
use libipc::{
    Borrowed, Endpoint, Error, Interrupt, PageBuffer, Perm, Ports, Rights, ShareMode, Space,
    System, Thread,
};

use crate::loader::{self, LoadError, Stage};
use crate::tell_name;
use crate::{archive, console, names, procd};

/// Where the file server finds the archive.
const ARCHIVE: u64 = 0x6100_0000_0000;

/// How far servers are above processes.
const SERVER_PRIORITY: u8 = PRIORITY + 4;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Memory statistics.
    Memstat,
    /// Names.
    Names,
    /// Console.
    Console,
    /// Files.
    Files,
    /// Processes.
    Procd,
}

/// The servers in the order of their start.
pub const SERVERS: [Server; 5] = [
    Server::Memstat,
    Server::Names,
    Server::Console,
    Server::Files,
    Server::Procd,
];

impl Server {
    /// The name of its program.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.path().trim_start_matches("/bin/")
    }

    /// Whether there is somebody to serve when it has died and started again. With the process server all processes die: it has
    /// created their spaces.
    #[must_use]
    pub fn can_start_again(self) -> bool {
        self != Server::Procd
    }

    /// The path of its program.
    const fn path(self) -> &'static str {
        match self {
            Server::Memstat => "/bin/memstat",
            Server::Names => "/bin/names",
            Server::Console => "/bin/console",
            Server::Files => "/bin/files",
            Server::Procd => "/bin/procd",
        }
    }

    fn of(self, endpoints: &[Endpoint]) -> &Endpoint {
        &endpoints[self as usize]
    }
}

/// Why a server could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The archive does not have it.
    Missing,
    /// It could not be loaded.
    Load(LoadError),
}

impl<E: Into<LoadError>> From<E> for BootError {
    fn from(error: E) -> Self {
        BootError::Load(error.into())
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Missing => f.write_str("not in the boot archive"),
            BootError::Load(error) => error.fmt(f),
        }
    }
}

/// What clients of the servers hold: no right to receive.
pub struct Clients {
    /// The memory statistics server.
    pub memstat: Endpoint,
    /// The name server, by the handle that may forget.
    pub names: Endpoint,
    /// The console server.
    pub console: Endpoint,
    /// The file server.
    pub files: Endpoint,
    procd: Endpoint,
}

impl Clients {
    /// Client handles of the servers' endpoints, badge 0.
    ///
    /// # Errors
    /// Those of the call `handle_copy`.
    pub fn new(endpoints: &[Endpoint]) -> Result<Self, Error> {
        let client = |server: Server| {
            server
                .of(endpoints)
                .copy(Rights::SEND | Rights::COPY | Rights::MINT, 0)
        };
        Ok(Clients {
            memstat: client(Server::Memstat)?,
            names: client(Server::Names)?,
            console: client(Server::Console)?,
            files: client(Server::Files)?,
            procd: client(Server::Procd)?,
        })
    }

    /// The process server for this process.
    ///
    /// # Errors
    /// Those of the call `handle_copy`.
    pub fn procd(&self, pid: u64) -> Result<ProcdClient, Error> {
        self.procd.copy(Rights::SEND, pid).map(ProcdClient::new)
    }

    /// The console, for init's own use.
    #[must_use]
    pub fn console(&self) -> Borrowed<'_, ConsoleClient> {
        ConsoleClient::borrow(self.console.handle())
    }
}

/// A program's file at the beginning of a page.
enum Image {
    /// Where it is, in an archive that `cargo xtask` made.
    InArchive(&'static [u8]),
    /// On pages of its own, from any other archive.
    Copied(PageBuffer),
}

impl Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Image::InArchive(file) => file,
            Image::Copied(copy) => copy,
        }
    }
}

/// Notified by the process server, of children that may have ended; from the bit [`RESTARTED`] on, of servers that have started again.
const CHILD_ENDED: u64 = 1;

/// The first of the bits that tell of servers.
const RESTARTED: u32 = 8;

/// What the kernel gave to init, init's own endpoints, and the servers that run.
pub struct Machine {
    /// Faults and deaths of servers.
    pub own: Borrowed<'static, Endpoint>,
    /// Children that may have ended, and servers that have started again.
    pub ended: Endpoint,
    /// What clients of the servers get.
    pub clients: Clients,
    endpoints: [Endpoint; SERVERS.len()],
    spaces: [Option<Space>; SERVERS.len()],
    system: Borrowed<'static, System>,
    interrupts: Borrowed<'static, Interrupt>,
    ports: Borrowed<'static, Ports>,
    archive: &'static [u8],
    programs: [Option<&'static [u8]>; SERVERS.len()],
    priority: u8,
    stage: Stage,
}

impl Machine {
    /// Takes stock; `own` is the endpoint that hears of failures.
    ///
    /// # Errors
    /// `NoMemory`, `TableFull`, and those of the call `share`.
    pub fn new(info: &'static InitInfo, own: Borrowed<'static, Endpoint>) -> Result<Self, Error> {
        // SAFETY: the kernel mapped the archive there, read-only, for good.
        let archive = unsafe {
            core::slice::from_raw_parts(info.archive as *const u8, info.archive_len as usize)
        };
        let own_priority = Thread::borrow(info.thread).info()?.base_priority;
        let endpoints = [
            Endpoint::create()?,
            Endpoint::create()?,
            Endpoint::create()?,
            Endpoint::create()?,
            Endpoint::create()?,
        ];
        Ok(Machine {
            own,
            ended: Endpoint::create()?,
            clients: Clients::new(&endpoints)?,
            endpoints,
            spaces: [const { None }; SERVERS.len()],
            system: System::borrow(info.system),
            interrupts: Interrupt::borrow(info.interrupts),
            ports: Ports::borrow(info.ports),
            archive,
            programs: archive::find(archive, SERVERS.map(Server::path)),
            priority: SERVER_PRIORITY.min(own_priority as u8),
            stage: Stage::new()?,
        })
    }

    /// Loads and starts a server, in the place of one that has died.
    ///
    /// # Errors
    /// Why not.
    pub fn start(&mut self, server: Server) -> Result<(), BootError> {
        self.spaces[server as usize] = None;
        let image = self.image(server)?;
        let death = (&*self.own, 1 << server as u64);
        let space = self.system.create_space(Some(death))?;
        tell_name(&space, server.path());
        let ip = loader::load(&image, &space, &mut self.stage)?.entry;
        let supervisor = (&*self.own, server as u64);
        let thread = space.create_thread(Some(supervisor), self.priority)?;

        let mut info = StartInfo::EMPTY;
        info.space = space.copy_to(&space, Rights::SPACE, 0)?;
        info.thread = thread.copy_to(&space, Rights::THREAD, 0)?;
        info.inbox = server
            .of(&self.endpoints)
            .copy_to(&space, Rights::ENDPOINT, 0)?;
        self.equip(server, &space, &mut info)?;
        let mut args = heapless::Vec::<u8, 24>::new();
        let _ = args.extend_from_slice(server.path().as_bytes());
        let _ = args.push(0);
        let entry = loader::place_stack(&space, &mut info, &args, ip, &mut self.stage)?;
        thread.start(entry)?;
        self.spaces[server as usize] = Some(space);
        Ok(())
    }

    /// The space of a server that has been started.
    #[must_use]
    pub fn space(&self, server: Server) -> Option<&Space> {
        self.spaces[server as usize].as_ref()
    }

    /// Lets the thread that waits for [`ended`](Self::ended) know that a server has started again.
    ///
    /// # Errors
    /// Those of the calls `handle_copy` and `notify`.
    pub fn tell_of_restart(&self, server: Server) -> Result<(), Error> {
        let bit = 1 << (RESTARTED + server as u32);
        self.ended.copy(Rights::NOTIFY, bit)?.notify()
    }

    /// The servers that these bits tell of.
    pub fn restarted(bits: u64) -> impl Iterator<Item = Server> {
        let is_told = move |&server: &Server| bits & 1 << (RESTARTED + server as u32) != 0;
        SERVERS.into_iter().filter(is_told)
    }

    /// A server's file, at the beginning of a page.
    fn image(&self, server: Server) -> Result<Image, BootError> {
        let file = self.programs[server as usize].ok_or(BootError::Missing)?;
        if file.as_ptr().addr().is_multiple_of(PAGE_SIZE) {
            return Ok(Image::InArchive(file));
        }
        let mut copy = PageBuffer::new(file.len())?;
        copy.copy_from_slice(file);
        Ok(Image::Copied(copy))
    }

    /// Gives a server what it alone needs.
    fn equip(&self, server: Server, space: &Space, info: &mut StartInfo) -> Result<(), Error> {
        match server {
            Server::Memstat => {
                info.system = self.system.copy_to(space, Rights::OBSERVE, 0)?;
            }
            Server::Names => {
                info.extra[names::EXTRA_INIT] =
                    self.own.copy_to(space, Rights::SEND, server as u64)?;
            }
            Server::Console => {
                let ports = u64::from(console::FIRST_PORT) | console::NR_PORTS << 16;
                let procd = Server::Procd.of(&self.endpoints);
                info.extra[console::EXTRA_PORTS] =
                    self.ports.copy_to(space, Rights::DEVICE, ports)?;
                info.extra[console::EXTRA_INTERRUPT] =
                    self.interrupts
                        .copy_to(space, Rights::DEVICE, console::LINE)?;
                info.extra[console::EXTRA_INTERRUPTED] =
                    procd.copy_to(space, Rights::NOTIFY, procd::INTERRUPT_BIT)?;
            }
            Server::Files => {
                info.system = self.system.copy_to(space, Rights::OBSERVE, 0)?;
                info.archive = ARCHIVE;
                info.archive_len = self.archive.len() as u64;
                let from = self.archive.as_ptr() as u64;
                let len = info.archive_len.next_multiple_of(PAGE_SIZE as u64);
                if len > 0 {
                    let mode = ShareMode::CopyOnWrite;
                    space.share(&Space::own(), from, ARCHIVE, len, mode, Some(Perm::R))?;
                }
            }
            Server::Procd => {
                let give = |endpoint: &Endpoint| {
                    endpoint.copy_to(space, Rights::SEND | Rights::COPY | Rights::MINT, 0)
                };
                let rights = Rights::CREATE | Rights::OBSERVE | Rights::COPY;
                info.system = self.system.copy_to(space, rights, 0)?;
                info.console = give(&self.clients.console)?;
                info.names = give(&self.clients.names)?;
                info.files = give(&self.clients.files)?;
                info.memstat = give(&self.clients.memstat)?;
                info.extra[procd::EXTRA_INIT] =
                    self.ended.copy_to(space, Rights::NOTIFY, CHILD_ENDED)?;
                info.extra[procd::EXTRA_SPACES] =
                    self.own.copy_to(space, Rights::SEND, server as u64)?;
            }
        }
        Ok(())
    }
}
