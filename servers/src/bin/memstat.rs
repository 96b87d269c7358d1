//! The memory statistics server's loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::{Endpoint, System, server, start};
use servers::memstat::Memstat;

libipc::program!(run);

fn run() -> Result<(), libipc::Error> {
    let inbox = Endpoint::borrow(start::inbox());
    let mut memstat = Memstat::new(System::from_raw(start::system()));
    server::serve_into(&inbox, &mut [], &mut memstat)
}
