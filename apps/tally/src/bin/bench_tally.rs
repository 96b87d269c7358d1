//! What a call costs: `cargo xtask run --icount -- bench_tally` counts instructions, of both sides and the kernel together.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::service::Error;
use tally::{NAME, TallyClient, TallyError};
use user_apps::bench::{Rounds, measure_with};
use user_apps::scenario::server::{kill, start};

libipc::program!(run);

fn run() -> Result<(), Error<TallyError>> {
    let (pid, client) = start("/bin/tally", || TallyClient::connect(NAME));
    measure_with(
        "tally_add",
        Rounds::MANY,
        || 1,
        |amount| client.add(amount),
        |value| assert!(value.is_ok()),
    );
    kill(pid);
    Ok(())
}
