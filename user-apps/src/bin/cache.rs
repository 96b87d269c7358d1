//! A cache in front of the store: `store &` and `cache &` serve, `cache KEY` asks for a value that the store has.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::boxed::Box;
use core::error::Error;

use libipc::service::{self, Reconnecting};
use libipc::services::names::Name;
use libipc::{PageBuffer, println, start};
use user_apps::cache::{CacheClient, CacheError, CacheServer, Recent};
use user_apps::store::{MAX_LEN, StoreClient, StoreError};

libipc::program!(run);

fn run() -> Result<i32, Box<dyn Error>> {
    let mut args = start::args().skip(1);
    match [(); 2].map(|()| args.next()) {
        [None, _] => {
            let mut store = Reconnecting::new("store", StoreClient::connect);
            let cache = Recent::new(|key| fetch(&mut store, key));
            libipc::serve("cache", CacheServer::new(cache))?;
        }
        [Some(key), None] => {
            let key = Name::new(key).ok_or("a key has 1 to 16 bytes")?;
            let mut value = [0; 256];
            let (_, len) = CacheClient::connect("cache")?.get(key, &mut value)?;
            println!("{}", core::str::from_utf8(&value[..len])?);
        }
        _ => {
            println!("cache [KEY]");
            return Ok(2);
        }
    }
    Ok(0)
}

/// A value of the store, which may have died and been started again since the last one.
fn fetch(store: &mut Reconnecting<StoreClient>, key: Name) -> Result<PageBuffer, CacheError> {
    let value = store.call(|store| {
        let mut value = PageBuffer::new(MAX_LEN)?;
        let (_, len) = store.get(key, &mut value)?;
        value.truncate(len);
        Ok(value)
    });
    value.map_err(|error| match error {
        service::Error::Refused(StoreError::NotFound) => CacheError::NotFound,
        _ => CacheError::Unavailable,
    })
}
