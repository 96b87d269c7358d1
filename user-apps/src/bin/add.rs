//! The smallest server's client: `add 2 3`, while `adder &` runs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::service::Error;
use libipc::{println, start};
use user_apps::adding::{AddError, AdderClient};

libipc::program!(run);

fn run() -> Result<(), Error<AddError>> {
    let mut numbers = start::args()
        .skip(1)
        .map(|arg| arg.parse::<u64>().unwrap_or(0));
    let [a, b] = [0; 2].map(|zero| numbers.next().unwrap_or(zero));
    let adder = AdderClient::connect("adder")?;
    println!("{}", adder.add(a, b)?);
    Ok(())
}
