//! The example servers, started as a person starts them.

use libipc::service::Error;
use libipc::services::names::Name;
use libipc::{PAGE_SIZE, PageBuffer};
use user_apps::adding::{AddError, AdderClient};
use user_apps::cache::{CacheClient, CacheError, Counts};
use user_apps::pipe::{self, PipeClient, PipeError};
use user_apps::scenario::frames::counters;
use user_apps::scenario::peer::{child, status_of};
use user_apps::scenario::server::{connected, kill, start, status};
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

pub(crate) fn a_pipe_copies_no_page() {
    const NR_BUFFERS: u8 = 20;
    const NR_PAGES: u64 = (pipe::MAX_LEN / PAGE_SIZE) as u64;
    let (pid, pipe) = start("/bin/pipe", || PipeClient::connect("pipe"));
    let before = counters();
    let writer = child(|| {
        let pipe = connected(|| PipeClient::connect("pipe"));
        for nr in 0..NR_BUFFERS {
            let mut pages = PageBuffer::new(pipe::MAX_LEN).expect("buffer");
            pages.fill(nr);
            pipe.write(pages).expect("write");
        }
        i32::from(pipe.close().is_err())
    });
    for nr in 0..NR_BUFFERS {
        let pages = pipe.read().expect("read");
        assert_eq!(pages.len(), pipe::MAX_LEN);
        assert!(pages.iter().all(|&byte| byte == nr));
    }
    let closed = pipe.read().map(|_| ());
    assert_eq!(closed, Err(Error::Refused(PipeError::Closed)));
    assert_eq!(status_of(writer), 0);
    let remapped = counters().remapped - before.remapped;
    assert_eq!(remapped, 2 * NR_PAGES * u64::from(NR_BUFFERS));
    kill(pid);
}

pub(crate) fn a_cache_fetches_once_and_lends_to_many() {
    const NR_PAGES: u64 = (MAX_LEN / PAGE_SIZE) as u64;
    const NR_READERS: usize = 8;
    let (store_pid, store) = start("/bin/store", || StoreClient::connect("store"));
    let (pid, cache) = start("/bin/cache", || CacheClient::connect("cache"));
    let [first, second] = ["first", "second"].map(|key| Name::new(key).expect("a key"));
    let mut value = PageBuffer::new(MAX_LEN).expect("buffer");
    value.fill(7);
    store.put(first, &value).expect("put");
    assert_eq!(cache.get(first, &mut value), Ok((MAX_LEN, MAX_LEN)));
    let mut readers = [const { None }; NR_READERS];
    let before = counters();
    for reader in &mut readers {
        let mut into = PageBuffer::new(MAX_LEN).expect("buffer");
        assert_eq!(cache.get(first, &mut into), Ok((MAX_LEN, MAX_LEN)));
        *reader = Some(into);
    }
    assert!(before.available() - counters().available() < NR_PAGES);
    for reader in readers.iter_mut().flatten() {
        assert!(reader.iter().all(|&byte| byte == 7));
        reader.fill(9);
    }
    let counts = Counts {
        found: NR_READERS as u64,
        fetched: 1,
    };
    assert_eq!(cache.counts(), Ok(counts));
    let missing = cache.get(second, &mut value);
    assert_eq!(missing, Err(Error::Refused(CacheError::NotFound)));
    // The cache has what the store had, and finds the next store by its name.
    kill(store_pid);
    assert_eq!(cache.get(first, &mut value), Ok((MAX_LEN, MAX_LEN)));
    let nobody = cache.get(second, &mut value);
    assert_eq!(nobody, Err(Error::Refused(CacheError::Unavailable)));
    let (store_pid, store) = start("/bin/store", || StoreClient::connect("store"));
    store.put(second, b"value").expect("put");
    assert_eq!(cache.get(second, &mut value), Ok((5, 5)));
    assert_eq!(status("/bin/cache", &["second"]), 0);
    kill(store_pid);
    kill(pid);
}
