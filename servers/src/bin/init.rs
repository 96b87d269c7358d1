//! Init: starts the servers, then one program, and ends the machine with it.
//!
//! One thread does that, and another one hears of servers that fault or die, and starts them again: the first may just be
//! waiting for one of them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::fmt::{self, Write};

use libipc::abi::{InitInfo, ThreadField, USER_END};
use libipc::message::{Fault, Received};
use libipc::object::clock;
use libipc::rt::YieldRelax;
use libipc::server;
use libipc::service::{Caller, MAX_VALUES, again};
use libipc::services::console::ConsoleClient;
use libipc::services::init::{self, Init, InitServer, Named, WHO_ENDS};
use libipc::services::names::{Name, NamesClient};
use libipc::services::procd::{INIT_PID, ProcdClient, Streams};
use libipc::services::{self, Refusal};
use libipc::thread::{self, Supervisor};
use libipc::{
    Borrowed, Commit, Endpoint, Error, Handle, PageBuffer, Rights, Space, System, Thread, raw,
    start,
};
use servers::init::boot::{BootError, Clients, Machine, SERVERS, Server};
use servers::init::keeper::Keeper;
use servers::init::restarts::Restarts;
use servers::init::{NO_PROGRAM, SERVER_DIED, has_option, program};
use servers::procd::look;
use servers::procd::report::Report;
use spin::mutex::SpinMutex;

libipc::program!(run);

/// Why the machine ends without a program's end.
enum Failure {
    /// A call of init's own failed.
    Kernel(Error),
    /// A server could not be started.
    Start(Server, BootError),
    /// A server has ended, and cannot start again.
    Ended(&'static str),
    /// A server ends again and again.
    EndsOften(&'static str),
    /// The command line names no program that could be started.
    Program(services::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Kernel(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("init: ")?;
        match self {
            Failure::Kernel(error) => error.fmt(f),
            Failure::Start(server, error) => write!(f, "cannot start {}: {error}", server.name()),
            Failure::Ended(name) => write!(f, "the server {name} has ended"),
            Failure::EndsOften(name) => write!(f, "the server {name} ends again and again"),
            Failure::Program(error) => write!(f, "cannot start the program: {error}"),
        }
    }
}

fn run() -> Result<(), Error> {
    tell_ticks(raw::ticks());
    let own = Endpoint::create()?;
    let supervisor = own.copy(Rights::SEND, SERVERS.len() as u64)?;
    let supervisor = Supervisor::Endpoint(&supervisor);
    let arg = own.handle().0.into();
    let this = Thread::borrow(start::thread());
    let priority = this.info()?.base_priority as u8;
    let stack = PageBuffer::new(STACK)?;
    let _work = thread::spawn_at(work, arg, stack, supervisor, priority)?;
    // Below the other thread, which knows better why a server that it starts has died.
    this.set(ThreadField::Priority, u64::from(priority) - 1)?;
    let mut watch = InitServer::new(Watch::default());
    server::serve_into(&own, &mut [0; MAX_VALUES], &mut watch)
}

/// Tells when this program began, if the command line asks for it.
fn tell_ticks(began: u64) {
    if start::init_info().is_some_and(|info| has_option(command_line(info), b"ticks")) {
        let mut text = heapless::String::<64>::new();
        let _ = writeln!(text, "init began at {began} ticks");
        let _ = System::borrow(start::system()).log(&text);
    }
}

/// Bytes of the working thread's stack.
const STACK: usize = 64 * 1024;

/// The servers once all have started: from then on they are started again.
static RUNNING: SpinMutex<Option<Machine>, YieldRelax> = SpinMutex::new(None);

/// Hears of everything that fails, and waits for nobody. What a server needs to start again is there already, but for the memory
/// that the dead one gave back.
#[derive(Default)]
struct Watch {
    restarts: [Restarts; SERVERS.len()],
    keeper: Keeper,
}

impl Watch {
    /// Starts a server that has died again.
    fn restart(&mut self, server: Server) -> Result<(), Failure> {
        let mut running = RUNNING.lock();
        let machine = running.as_mut().filter(|_| server.can_start_again());
        let machine = machine.ok_or(Failure::Ended(server.name()))?;
        let (now_ns, _) = clock()?;
        if !self.restarts[server as usize].may_start(now_ns) {
            return Err(Failure::EndsOften(server.name()));
        }
        machine
            .start(server)
            .map_err(|error| Failure::Start(server, error))?;
        machine.tell_of_restart(server)?;
        Ok(())
    }
}

impl Init for Watch {
    fn keep(&mut self, caller: Caller, named: Named) -> Result<&Named, Refusal> {
        only(Server::Names, caller)?;
        self.keeper.keep(named)
    }

    fn kept(&self, caller: Caller, number: usize) -> Result<&Named, Refusal> {
        only(Server::Names, caller)?;
        self.keeper.kept(number)
    }

    fn forget(&mut self, caller: Caller, process: u64) -> Result<(), Refusal> {
        only(Server::Names, caller)?;
        self.keeper.forget(process);
        Ok(())
    }

    fn space(&self, caller: Caller, number: usize) -> Result<Space, Refusal> {
        only(Server::Procd, caller)?;
        let rights = Rights::READ | Rights::COPY;
        if number == SERVERS.len() {
            return Ok(Space::own().copy(rights, 0)?);
        }
        let server = *SERVERS.get(number).ok_or(Refusal::NotFound)?;
        let running = RUNNING.lock();
        let space = running.as_ref().and_then(|machine| machine.space(server));
        Ok(space.ok_or(Refusal::NotFound)?.copy(rights, 0)?)
    }

    fn end(&mut self, caller: Caller, server: Name) -> Result<(), Refusal> {
        with_space(caller, server, Space::kill)
    }

    fn empty(&mut self, caller: Caller, server: Name) -> Result<(), Refusal> {
        with_space(caller, server, |space| space.unmap(0, USER_END))
    }

    fn notification(&mut self, bits: u64) {
        let dead = SERVERS
            .into_iter()
            .filter(|&server| bits & 1 << server as u64 != 0);
        for server in dead {
            if let Err(failure) = self.restart(server) {
                give_up(&failure);
            }
        }
    }

    /// A server that faults dies, and is started again when its death is told.
    fn fault(&mut self, fault: Fault) {
        let server = SERVERS.get(fault.badge as usize);
        let server = server.filter(|server| server.can_start_again());
        let running = RUNNING.lock();
        let machine = running.as_ref().zip(server);
        let space = machine.and_then(|(machine, &server)| machine.space(server));
        let found = space.map(|space| look::at_fault(space, &fault));
        let report = Report {
            who: None,
            name: name(fault.badge),
            fault: &fault,
            found: found.unwrap_or_default(),
        };
        say(format_args!("init: {report}"));
        match space {
            Some(space) => drop(space.kill()),
            None => shut_down(SERVER_DIED),
        }
    }
}

/// Does something to a server for who may end servers.
fn with_space(
    caller: Caller,
    server: Name,
    act: impl FnOnce(&Space) -> Result<(), Error>,
) -> Result<(), Refusal> {
    if caller.badge != WHO_ENDS {
        return Err(Refusal::Denied);
    }
    let mut servers = SERVERS.into_iter();
    let server = servers.find(|candidate| Name::new(candidate.name()) == Some(server));
    let server = server.ok_or(Refusal::NotFound)?;
    let running = RUNNING.lock();
    let space = running.as_ref().and_then(|machine| machine.space(server));
    Ok(act(space.ok_or(Refusal::NotFound)?)?)
}

/// Refuses everybody but this server.
fn only(server: Server, caller: Caller) -> Result<(), Refusal> {
    if caller.badge == server as u64 {
        Ok(())
    } else {
        Err(Refusal::Denied)
    }
}

/// Who is meant by this badge or bit.
fn name(number: u64) -> &'static str {
    SERVERS
        .get(number as usize)
        .map_or("init", |server| server.name())
}

/// The longest text that one call logs, in bytes.
const MAX_LOG: usize = 1024;

/// Says what has failed, by the kernel's log: the console may be what has.
fn say(failure: impl fmt::Display) {
    let mut text = heapless::String::<MAX_LOG>::new();
    let _ = writeln!(text, "{failure}");
    let _ = System::borrow(start::system()).log(&text);
}

/// Says why, and ends the machine.
fn give_up(failure: &Failure) {
    say(failure);
    shut_down(match failure {
        Failure::Program(_) => NO_PROGRAM,
        _ => SERVER_DIED,
    });
}

fn shut_down(status: u64) {
    let _ = System::borrow(start::system()).shutdown(status);
}

/// The working thread: boots, and ends the machine with the program.
fn work(own: u64) {
    let own = Endpoint::borrow(Handle(own as u32));
    match start::init_info().map(|info| boot(info, own)) {
        Some(Ok(status)) => shut_down(status),
        // A server that died, of which the watching thread has heard.
        Some(Err(Failure::Program(services::Error::Kernel(Error::Died)))) | None => {}
        Some(Err(failure)) => give_up(&failure),
    }
}

/// Starts everything; returns the program's exit status once it has ended.
fn boot(info: &'static InitInfo, own: Borrowed<'static, Endpoint>) -> Result<u64, Failure> {
    let mut machine = Machine::new(info, own)?;
    for server in SERVERS {
        machine
            .start(server)
            .map_err(|error| Failure::Start(server, error))?;
    }
    let procd = machine.clients.procd(INIT_PID)?;
    // The other thread gets the machine, and closes neither of these.
    let console = ConsoleClient::borrow(machine.clients.console.handle());
    let ended = Endpoint::borrow(machine.ended.handle());
    if has_option(command_line(info), b"mortal") {
        let_servers_be_ended(&machine.own, &machine.clients).map_err(Failure::Program)?;
    }
    *RUNNING.lock() = Some(machine);
    let pid = start_program(info, &procd).map_err(|error| {
        let _ = again(|| console.flush());
        Failure::Program(error)
    })?;
    loop {
        if let Received::Notification(bits) = ended.recv(&mut [])? {
            tell_restarts(&console, bits);
        }
        while let Ok(Some(ended)) = procd.wait(0, false) {
            if ended.pid == pid {
                let _ = again(|| console.flush());
                return Ok(ended.status as u32 as u64);
            }
        }
    }
}

/// Says which servers have been started again. This thread may wait for the console.
fn tell_restarts(console: &ConsoleClient, bits: u64) {
    for server in Machine::restarted(bits) {
        let mut text = heapless::String::<64>::new();
        let _ = writeln!(text, "init: started {} again", server.name());
        let _ = again(|| console.write_all(text.as_bytes()));
    }
}

/// Lets everybody end servers, for tests of what becomes of that.
fn let_servers_be_ended(own: &Endpoint, clients: &Clients) -> Result<(), services::Error> {
    let names = NamesClient::borrow(clients.names.handle());
    names.publish(init::NAME, own, WHO_ENDS)
}

fn start_program(info: &InitInfo, procd: &ProcdClient) -> Result<u64, services::Error> {
    let block = program(command_line(info)).ok_or(Refusal::BadRequest)?;
    procd.spawn(Commit::Overcommit, Streams::CONSOLE, &block)
}

fn command_line(info: &InitInfo) -> &[u8] {
    let len = (info.command_line_len as usize).min(info.command_line.len());
    &info.command_line[..len]
}
