//! Who gets what at boot.
//!
//! | server | besides its own endpoint, its space and a thread |
//! | --- | --- |
//! | memstat | the counters |
//! | names | |
//! | console | COM1's ports and interrupt line, ^C to procd |
//! | files | the boot archive; the counters |
//! | procd | creating spaces; all other servers, to pass on; telling init of ended children |

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
use crate::{archive, console, procd};

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

/// What clients of the servers hold: no right to receive, so a dead server is noticed.
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

/// What the kernel gave to init, and init's own endpoints.
pub struct Machine {
    /// Faults and deaths of servers.
    pub own: Borrowed<'static, Endpoint>,
    /// The process server notifies of children that may have ended.
    pub ended: Endpoint,
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
        Ok(Machine {
            own,
            ended: Endpoint::create()?,
            system: System::borrow(info.system),
            interrupts: Interrupt::borrow(info.interrupts),
            ports: Ports::borrow(info.ports),
            archive,
            programs: archive::find(archive, SERVERS.map(Server::path)),
            priority: SERVER_PRIORITY.min(own_priority as u8),
            stage: Stage::new()?,
        })
    }

    /// Loads and starts a server.
    ///
    /// # Errors
    /// Why not.
    pub fn start(
        &mut self,
        server: Server,
        endpoints: &[Endpoint],
        clients: &Clients,
    ) -> Result<(), BootError> {
        let image = self.image(server)?;
        let death = self.own.copy(Rights::NOTIFY, 1 << server as u64)?;
        let space = self.system.create_space(Some(&death))?;
        let ip = loader::load(&image, &space, &mut self.stage)?.entry;
        let supervisor = self.own.copy(Rights::SEND, server as u64)?;
        let thread = space.create_thread(Some(&supervisor), self.priority)?;

        let mut info = StartInfo::EMPTY;
        info.space = space.copy_to(&space, Rights::SPACE, 0)?;
        info.thread = thread.copy_to(&space, Rights::THREAD, 0)?;
        info.inbox = server.of(endpoints).copy_to(&space, Rights::ENDPOINT, 0)?;
        self.equip(server, &space, endpoints, clients, &mut info)?;
        let mut args = heapless::Vec::<u8, 24>::new();
        let _ = args.extend_from_slice(server.path().as_bytes());
        let _ = args.push(0);
        let entry = loader::place_stack(&space, &mut info, &args, ip, &mut self.stage)?;
        thread.start(entry)?;
        Ok(())
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
    fn equip(
        &self,
        server: Server,
        space: &Space,
        endpoints: &[Endpoint],
        clients: &Clients,
        info: &mut StartInfo,
    ) -> Result<(), Error> {
        match server {
            Server::Memstat => {
                info.system = self.system.copy_to(space, Rights::OBSERVE, 0)?;
            }
            Server::Names => {}
            Server::Console => {
                let ports = u64::from(console::FIRST_PORT) | console::NR_PORTS << 16;
                let procd = Server::Procd.of(endpoints);
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
                info.console = give(&clients.console)?;
                info.names = give(&clients.names)?;
                info.files = give(&clients.files)?;
                info.memstat = give(&clients.memstat)?;
                info.extra[procd::EXTRA_INIT] = self.ended.copy_to(space, Rights::NOTIFY, 1)?;
            }
        }
        Ok(())
    }
}
