//! The process server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::services::console::ConsoleClient;
use libipc::services::files::FilesClient;
use libipc::services::init::InitClient;
use libipc::services::memstat::MemstatClient;
use libipc::services::names::NamesClient;
use libipc::services::procd::ProcdServer;
use libipc::start::MAX_ARGS;
use libipc::{Endpoint, System, server, start};
use servers::loader::Stage;
use servers::procd::launch::Maker;
use servers::procd::programs::Programs;
use servers::procd::{EXTRA_INIT, EXTRA_SPACES, Procd};

libipc::program!(run);

fn run() -> Result<(), libipc::Error> {
    let inbox = Endpoint::borrow(start::inbox());
    let maker = Maker {
        system: System::from_raw(start::system()),
        own: Endpoint::from_raw(start::inbox()),
        console: ConsoleClient::new(Endpoint::from_raw(start::console())),
        names: NamesClient::new(Endpoint::from_raw(start::names())),
        files: FilesClient::new(Endpoint::from_raw(start::files())),
        memstat: MemstatClient::new(Endpoint::from_raw(start::memstat())),
        stage: Stage::new()?,
        programs: Programs::default(),
    };
    let init = Endpoint::from_raw(start::extra()[EXTRA_INIT]);
    let spaces = InitClient::new(Endpoint::from_raw(start::extra()[EXTRA_SPACES]));
    let mut procd = ProcdServer::new(Procd::new(maker, init, spaces));
    server::serve_into(&inbox, &mut [0; MAX_ARGS], &mut procd)
}
