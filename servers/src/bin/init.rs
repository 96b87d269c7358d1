//! Init: starts the servers, then one program, and ends the machine with it.
//!
//! One thread does that, and another one hears of servers that fault or die: the first may just be
//! waiting for one of them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::fmt::{self, Write};

use libipc::abi::{InitInfo, ThreadField};
use libipc::message::{Fault, Incoming};
use libipc::server::{self, Answer, Service};
use libipc::service::Mismatch;
use libipc::services::procd::{INIT_PID, ProcdClient, Streams};
use libipc::services::{self, Refusal};
use libipc::thread::{self, Supervisor};
use libipc::{
    Borrowed, Commit, Endpoint, Error, Handle, PageBuffer, Rights, System, Thread, raw, start,
};
use servers::init::boot::{BootError, Clients, Machine, SERVERS, Server};
use servers::init::{NO_PROGRAM, SERVER_DIED, has_option, program};
use servers::procd::report::Words;

libipc::program!(run);

/// Why the machine ends without a program's end.
enum Failure {
    /// A call of init's own failed.
    Kernel(Error),
    /// A server could not be started.
    Start(Server, BootError),
    /// A server has ended.
    Ended(&'static str),
    /// A server has faulted.
    Faulted(&'static str, Fault),
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
            Failure::Faulted(name, fault) => write!(f, "{name}: {}", Words(fault)),
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
    server::serve_into(&own, &mut [], &mut Watch)
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

/// Hears of everything that fails. It needs no memory for that, and waits for nobody.
struct Watch;

impl Service for Watch {
    fn message(&mut self, incoming: Incoming, _: &[u8]) -> Option<Answer<'_>> {
        incoming.token.answer(Mismatch::Unknown.message())
    }

    fn notification(&mut self, bits: u64) {
        give_up(&Failure::Ended(name(u64::from(bits.trailing_zeros()))));
    }

    fn fault(&mut self, fault: Fault) {
        give_up(&Failure::Faulted(name(fault.badge), fault));
    }
}

/// Who is meant by this badge or bit.
fn name(number: u64) -> &'static str {
    SERVERS
        .get(number as usize)
        .map_or("init", |server| server.name())
}

/// Says why, and ends the machine.
fn give_up(failure: &Failure) {
    let mut text = heapless::String::<256>::new();
    let _ = writeln!(text, "{failure}");
    let _ = System::borrow(start::system()).log(&text);
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
    let clients = start_servers(&mut machine)?;
    let procd = clients.procd(INIT_PID)?;
    let pid = start_program(info, &procd).map_err(|error| {
        let _ = clients.console().flush();
        Failure::Program(error)
    })?;
    loop {
        machine.ended.recv(&mut [])?;
        while let Ok(Some(ended)) = procd.wait(0, false) {
            if ended.pid == pid {
                let _ = clients.console().flush();
                return Ok(ended.status as u32 as u64);
            }
        }
    }
}

fn start_servers(machine: &mut Machine) -> Result<Clients, Failure> {
    // Gone when all have started: from then on an endpoint lives as long as its server.
    let mut endpoints = heapless::Vec::<Endpoint, { SERVERS.len() }>::new();
    for _ in SERVERS {
        let _ = endpoints.push(Endpoint::create()?);
    }
    let clients = Clients::new(&endpoints)?;
    for server in SERVERS {
        machine
            .start(server, &endpoints, &clients)
            .map_err(|error| Failure::Start(server, error))?;
    }
    Ok(clients)
}

fn start_program(info: &InitInfo, procd: &ProcdClient) -> Result<u64, services::Error> {
    let block = program(command_line(info)).ok_or(Refusal::BadRequest)?;
    procd.spawn(Commit::Overcommit, Streams::CONSOLE, &block)
}

fn command_line(info: &InitInfo) -> &[u8] {
    let len = (info.command_line_len as usize).min(info.command_line.len());
    &info.command_line[..len]
}
