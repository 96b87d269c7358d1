//! `sleep SECONDS`: waits so long, such as 1.5.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::time::{Duration, sleep};
use libipc::{Error, start};
use user_apps::tool::usage;

libipc::program!(run);

fn run() -> Result<i32, Error> {
    let mut args = start::args().skip(1);
    let (Some(seconds), None) = (args.next(), args.next()) else {
        return Ok(usage("SECONDS"));
    };
    let seconds = seconds.parse().ok();
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(duration) => sleep(duration).map(|()| 0),
        None => Ok(usage("SECONDS, such as 0.5")),
    }
}
