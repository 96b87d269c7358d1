//! A key-value store: `store &` serves it; `store put KEY VALUE`, `store get KEY` and `store remove KEY` ask it.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::boxed::Box;
use core::error::Error;

use libipc::services::names::Name;
use libipc::{println, start};
use user_apps::store::{StoreClient, StoreServer, Values};

libipc::program!(run);

fn run() -> Result<i32, Box<dyn Error>> {
    let mut args = start::args().skip(1);
    match [(); 3].map(|()| args.next()) {
        [None, ..] => libipc::serve("store", StoreServer::new(Values::default()))?,
        [Some("put"), Some(key), Some(value)] => {
            StoreClient::connect("store")?.put(name(key)?, value.as_bytes())?;
        }
        [Some("get"), Some(key), None] => {
            let mut value = [0; 256];
            let (_, len) = StoreClient::connect("store")?.get(name(key)?, &mut value)?;
            println!("{}", core::str::from_utf8(&value[..len])?);
        }
        [Some("remove"), Some(key), None] => {
            StoreClient::connect("store")?.remove(name(key)?)?;
        }
        _ => {
            println!("store [put KEY VALUE | get KEY | remove KEY]");
            return Ok(2);
        }
    }
    Ok(0)
}

fn name(key: &str) -> Result<Name, &'static str> {
    Name::new(key).ok_or("a key has 1 to 16 bytes")
}
