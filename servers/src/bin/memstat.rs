//! The memory statistics server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::memstat::MemstatServer;
use libipc::{Endpoint, System, server, start};
use servers::memstat::Memstat;

libipc::program!(run);

fn run() -> Result<(), libipc::Error> {
    let inbox = Endpoint::borrow(start::inbox());
    let system = System::from_raw(start::system());
    server::serve_on(&inbox, &mut MemstatServer::new(Memstat(system)))
}
