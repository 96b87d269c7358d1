//! The name server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::names::NamesServer;
use libipc::{Endpoint, server, start};
use servers::names::Names;

libipc::program!(run);

fn run() -> Result<(), libipc::Error> {
    let inbox = Endpoint::borrow(start::inbox());
    server::serve_on(&inbox, &mut NamesServer::new(Names::default()))
}
