//! The server: `tally &` starts it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use tally::{NAME, State, TallyServer};

libipc::program!(run);

fn run() -> Result<(), libipc::services::Error> {
    libipc::serve(NAME, TallyServer::new(State::default()))
}
