//! A client for the shell: `tally_client 2` adds 2 and says what comes of it, while `tally &` runs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::service::Error;
use libipc::{println, start};
use tally::{NAME, TallyClient, TallyError};

libipc::program!(run);

fn run() -> Result<i32, Error<TallyError>> {
    let Some(Ok(amount)) = start::args().nth(1).map(str::parse) else {
        println!("tally_client AMOUNT");
        return Ok(2);
    };
    let server = TallyClient::connect(NAME)?;
    println!("{}", server.add(amount)?);
    Ok(0)
}
