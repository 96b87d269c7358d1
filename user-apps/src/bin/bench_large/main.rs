//! What whole page tables make cheap: large messages, forks of large processes and the writes after
//! them, and memory that is reserved and never touched.
//!
//! Everything is measured in a machine with more memory than the other programs have.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod files;
mod forks;
mod generations;
mod messages;

use libipc::abi::Call;
use libipc::raw::call;
use libipc::services::Error;
use libipc::{Perm, start};
use user_apps::bench::{Rounds, measure_with};
use user_apps::scenario::memory::SCRATCH;

libipc::program!(run);

const TIB: u64 = 1 << 40;

fn run() -> Result<(), Error> {
    reserve();
    generations::run()?;
    forks::run()?;
    messages::run()?;
    files::run()
}

/// Reserves a terabyte, and gives it back untouched.
fn reserve() {
    let own = start::space();
    measure_with(
        "reserve_1TiB",
        Rounds::MANY,
        || (),
        |()| {
            let mapped = call(
                Call::Map as u32,
                own,
                [SCRATCH, TIB, Perm::RW.bits(), 0, 0, 0],
            );
            let unmapped = call(Call::Unmap as u32, own, [SCRATCH, TIB, 0, 0, 0, 0]);
            (mapped.0, unmapped.0)
        },
        |codes| assert_eq!(codes, (0, 0), "a call failed"),
    );
}
