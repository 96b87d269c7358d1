//! Init: starts the servers, then one program, and ends the machine with it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::fmt::Write;

use libipc::abi::InitInfo;
use libipc::message::Received;
use libipc::services::procd::{self, INIT_PID};
use libipc::services::{self, console};
use libipc::{Endpoint, Error, System, start};
use servers::init::boot::{CHILD_ENDED, Clients, Machine, SERVERS};
use servers::init::{NO_PROGRAM, SERVER_DIED, program};

libipc::program!(run);

/// Why the machine ends.
struct End {
    status: u64,
    /// What to say, if something went wrong.
    why: heapless::String<200>,
}

impl End {
    fn new(status: u64, why: core::fmt::Arguments<'_>) -> Self {
        let mut text = heapless::String::new();
        let _ = text.write_fmt(why);
        End { status, why: text }
    }
}

fn run() {
    let Some(info) = start::init_info() else {
        return;
    };
    let end = boot(info).unwrap_or_else(|end| end);
    let system = System::borrow(info.system);
    if !end.why.is_empty() {
        let _ = system.log(&end.why);
    }
    let _ = system.shutdown(end.status);
}

fn boot(info: &'static InitInfo) -> Result<End, End> {
    let failed = |error: Error| End::new(SERVER_DIED, format_args!("init: {error}"));
    let machine = Machine::new(info).map_err(failed)?;
    let mut endpoints = heapless::Vec::<Endpoint, { SERVERS.len() }>::new();
    for _ in SERVERS {
        let _ = endpoints.push(Endpoint::create().map_err(failed)?);
    }
    let clients = Clients::new(&endpoints).map_err(failed)?;
    for (number, (server, endpoint)) in SERVERS.iter().zip(&endpoints).enumerate() {
        machine
            .start(number, *server, endpoint, &endpoints, &clients)
            .map_err(|error| {
                End::new(
                    SERVER_DIED,
                    format_args!("init: cannot start {}: {error}", server.name()),
                )
            })?;
    }
    // From here on each endpoint lives as long as its server.
    drop(endpoints);

    let procd = clients.procd(INIT_PID).map_err(failed)?;
    let length = (info.command_line_len as usize).min(info.command_line.len());
    let block = program(&info.command_line[..length]).ok_or_else(|| {
        End::new(
            NO_PROGRAM,
            format_args!("init: the command line is too long"),
        )
    })?;
    let path = start::split_args(&block).next().unwrap_or_default();
    let cannot = |error: services::Error| {
        End::new(
            NO_PROGRAM,
            format_args!("init: cannot start {path}: {error}"),
        )
    };
    let pid = procd::spawn(&procd, &block)
        .map_err(|error| dead_server(&machine).unwrap_or_else(|| cannot(error)))?;
    loop {
        if let Some(end) = next_event(&machine.own) {
            return Err(end);
        }
        while let Ok(Some(ended)) = procd::wait(&procd, 0, false) {
            if ended.pid == pid {
                let _ = console::flush(&clients.console);
                return Ok(End::new(ended.status as u32 as u64, format_args!("")));
            }
        }
    }
}

/// Waits until a child may have ended, or says which server died.
fn next_event(own: &Endpoint) -> Option<End> {
    match own.recv(&mut []) {
        Ok(received) => explain(received),
        Err(error) => Some(End::new(SERVER_DIED, format_args!("init: {error}"))),
    }
}

/// Which server has died, if one has.
fn dead_server(machine: &Machine) -> Option<End> {
    core::iter::from_fn(|| machine.own.try_recv(&mut []).ok()).find_map(explain)
}

fn explain(received: Received) -> Option<End> {
    let name = |number: usize| SERVERS.get(number).map_or("?", |server| server.name());
    match received {
        Received::Notification(bits) if bits & !CHILD_ENDED == 0 => None,
        Received::Notification(bits) => {
            let name = name((bits & !CHILD_ENDED).trailing_zeros() as usize);
            Some(End::new(
                SERVER_DIED,
                format_args!("init: the server {name} has ended"),
            ))
        }
        Received::Fault(fault) => {
            let name = name(fault.badge as usize);
            let words = servers::procd::report::Words(&fault);
            Some(End::new(
                SERVER_DIED,
                format_args!("init: the server {name}: {words}"),
            ))
        }
        Received::Message(incoming) => {
            let _ = incoming
                .token
                .reply(services::Refusal::BadRequest.message(), &[]);
            None
        }
    }
}
