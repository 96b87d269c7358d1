//! Init: starts the servers, then one program, and ends the machine with it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::fmt::{self, Write};

use libipc::abi::InitInfo;
use libipc::message::{Fault, Received};
use libipc::services::procd::{self, INIT_PID};
use libipc::services::{self, Refusal, console};
use libipc::{Endpoint, Error, System, raw, start};
use servers::init::boot::{BootError, CHILD_ENDED, Clients, Machine, SERVERS, Server};
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
            Failure::Faulted(name, fault) => write!(f, "the server {name}: {}", Words(fault)),
            Failure::Program(error) => write!(f, "cannot start the program: {error}"),
        }
    }
}

fn run() {
    let began = raw::ticks();
    let Some(info) = start::init_info() else {
        return;
    };
    let system = System::borrow(info.system);
    if has_option(command_line(info), b"ticks") {
        let mut text = heapless::String::<64>::new();
        let _ = writeln!(text, "init began at {began} ticks");
        let _ = system.log(&text);
    }
    let status = boot(info).unwrap_or_else(|failure| {
        let mut text = heapless::String::<256>::new();
        let _ = writeln!(text, "{failure}");
        let _ = system.log(&text);
        match failure {
            Failure::Program(_) => NO_PROGRAM,
            _ => SERVER_DIED,
        }
    });
    let _ = system.shutdown(status);
}

/// Starts everything; returns the program's exit status once it has ended.
fn boot(info: &'static InitInfo) -> Result<u64, Failure> {
    let machine = Machine::new(info)?;
    let clients = start_servers(&machine)?;
    let procd = clients.procd(INIT_PID)?;
    let pid = start_program(info, &procd).map_err(|error| {
        // It may be a server that is to blame.
        let events = core::iter::from_fn(|| machine.own.try_recv(&mut []).ok());
        let blamed = events.filter_map(failure).next();
        blamed.unwrap_or(Failure::Program(error))
    })?;
    loop {
        if let Some(failure) = failure(machine.own.recv(&mut [])?) {
            return Err(failure);
        }
        while let Ok(Some(ended)) = procd::wait(&procd, 0, false) {
            if ended.pid == pid {
                let _ = console::flush(&clients.console);
                return Ok(ended.status as u32 as u64);
            }
        }
    }
}

fn start_servers(machine: &Machine) -> Result<Clients, Failure> {
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

fn start_program(info: &InitInfo, procd: &Endpoint) -> Result<u64, services::Error> {
    let block = program(command_line(info)).ok_or(Refusal::BadRequest)?;
    procd::spawn(procd, &block)
}

fn command_line(info: &InitInfo) -> &[u8] {
    let len = (info.command_line_len as usize).min(info.command_line.len());
    &info.command_line[..len]
}

/// What went wrong, if this event says that something did.
fn failure(event: Received) -> Option<Failure> {
    let name = |number: usize| SERVERS.get(number).map_or("?", |server| server.name());
    match event {
        Received::Notification(CHILD_ENDED) => None,
        Received::Notification(bits) => Some(Failure::Ended(name(bits.trailing_zeros() as usize))),
        Received::Fault(fault) => Some(Failure::Faulted(name(fault.badge as usize), fault)),
        Received::Message(incoming) => {
            let _ = incoming.token.reply(Refusal::BadRequest.message(), &[]);
            None
        }
    }
}
