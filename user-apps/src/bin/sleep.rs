//! Waits: `sleep 1.5`, in seconds.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::time::{Duration, sleep};
use libipc::{println, start};

libipc::program!(run);

/// The exit status of a program that was called wrongly.
const USAGE: i32 = 2;

fn run() -> i32 {
    let mut args = start::args().skip(1);
    let (Some(seconds), None) = (args.next(), args.next()) else {
        println!("usage: sleep SECONDS");
        return USAGE;
    };
    let seconds = seconds.parse().ok();
    let Some(duration) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    else {
        println!("sleep: how long? A number of seconds, such as 0.5");
        return USAGE;
    };
    match sleep(duration) {
        Ok(()) => 0,
        Err(error) => {
            println!("sleep: {error}");
            1
        }
    }
}
