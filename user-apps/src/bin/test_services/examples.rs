//! The example servers, started as a person starts them.

use libipc::service::Error;
use libipc::services::names::Name;
use libipc::{PAGE_SIZE, PageBuffer};
use user_apps::adding::{AddError, AdderClient};
use user_apps::scenario::frames::counters;
use user_apps::scenario::server::{kill, start, status};
use user_apps::store::{MAX_LEN, StoreClient, StoreError};

pub(crate) fn the_smallest_server_adds() {
    let (pid, adder) = start("/bin/adder", || AdderClient::connect("adder"));
    assert_eq!(adder.add(2, 3), Ok(5));
    let overflow = Err(Error::Refused(AddError::Overflow));
    assert_eq!(adder.add(u64::MAX, 1), overflow);
    assert_eq!(status("/bin/add", &["2", "3"]), 0);
    assert_eq!(status("/bin/add", &["18446744073709551615", "1"]), 1);
    kill(pid);
    assert_eq!(status("/bin/add", &["2", "3"]), 1);
}

pub(crate) fn a_store_lends_its_pages_to_many_readers() {
    const NR_PAGES: u64 = (MAX_LEN / PAGE_SIZE) as u64;
    const NR_READERS: usize = 8;
    let (pid, store) = start("/bin/store", || StoreClient::connect("store"));
    let key = Name::new("pages").expect("a key");
    let mut value = PageBuffer::new(MAX_LEN).expect("buffer");
    value.fill(7);
    store.put(key, &value).expect("put");
    let mut readers = [const { None }; NR_READERS];
    let before = counters();
    for reader in &mut readers {
        let mut into = PageBuffer::new(MAX_LEN).expect("buffer");
        assert_eq!(store.get(key, &mut into), Ok((MAX_LEN, MAX_LEN)));
        *reader = Some(into);
    }
    let after = counters();
    assert_eq!(
        after.remapped - before.remapped,
        NR_PAGES * NR_READERS as u64
    );
    assert!(before.available() - after.available() < NR_PAGES);
    // What one reader writes, no other sees, nor the store.
    for reader in readers.iter_mut().flatten() {
        assert!(reader.iter().all(|&byte| byte == 7));
        reader.fill(9);
    }
    assert_eq!(store.get(key, &mut value), Ok((MAX_LEN, MAX_LEN)));
    assert!(value.iter().all(|&byte| byte == 7));
    store.remove(key).expect("remove");
    let missing = store.get(key, &mut value);
    assert_eq!(missing, Err(Error::Refused(StoreError::NotFound)));
    assert_eq!(status("/bin/store", &["put", "key", "value"]), 0);
    assert_eq!(status("/bin/store", &["get", "key"]), 0);
    assert_eq!(status("/bin/store", &["get", "other"]), 1);
    kill(pid);
}
