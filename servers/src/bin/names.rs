//! The name server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::Error;
use libipc::services::init::InitClient;
use libipc::services::names::NamesServer;
use libipc::{Endpoint, server, start};
use servers::names::{EXTRA_INIT, Names};

libipc::program!(run);

fn run() -> Result<(), Error> {
    let inbox = Endpoint::borrow(start::inbox());
    let init = InitClient::new(Endpoint::from_raw(start::extra()[EXTRA_INIT]));
    let mut names = NamesServer::new(Names::new(init)?);
    Ok(server::serve_on(&inbox, &mut names)?)
}
