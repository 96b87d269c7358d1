//! The file server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Refusal;
use libipc::services::files::FilesServer;
use libipc::services::memstat::Memory as Counters;
use libipc::{Endpoint, System, rt, server, start};
use servers::files::Files;
use servers::files::clients::Limits;
use servers::files::memory::{Machine, Memory, Mover};
use servers::files::room::{Guarded, Pages};

libipc::program!(run);

fn run() -> Result<(), Refusal> {
    // A table that grows takes its frames as it does so, and not when it is written to.
    rt::back_heap();
    let (archive, len) = (start::archive(), start::archive_len());
    // SAFETY: init mapped the archive there, read-only, for good.
    let archive = unsafe { core::slice::from_raw_parts(archive as *const u8, len as usize) };
    let counters = Counters::from_words(System::borrow(start::system()).memory()?);
    let mover = Mover::start()?;
    let memory = Memory::new(Machine::new(mover));
    let files = Files::new(archive, memory, Limits::of_machine(counters.total))?;
    let mut room = Pages::new(mover)?;
    let inbox = Endpoint::borrow(start::inbox());
    let mut service = Guarded(FilesServer::new(files));
    Ok(server::serve_in(&inbox, &mut room, &mut service, |_| true)?)
}
