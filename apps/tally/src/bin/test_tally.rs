//! The server and its client on the real system: each case in a process of its own, after which no frame may be missing.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::service::Error;
use tally::{NAME, TallyClient, TallyError};
use user_apps::scenario::server::{kill, start, status};

user_apps::scenarios![
    clients_share_a_number,
    the_client_tells_by_its_status_what_came_of_it,
    who_calls_a_dead_server_is_told,
];

fn clients_share_a_number() {
    let (pid, client) = start("/bin/tally", || TallyClient::connect(NAME));
    let other = TallyClient::connect(NAME).expect("a second connection");
    assert_eq!(client.add(2), Ok(2));
    assert_eq!(other.add(3), Ok(5));
    let too_large = Err(Error::Refused(TallyError::TooLarge));
    assert_eq!(client.add(u64::MAX), too_large);
    assert_eq!(other.value(), Ok(5));
    kill(pid);
}

fn the_client_tells_by_its_status_what_came_of_it() {
    let (pid, client) = start("/bin/tally", || TallyClient::connect(NAME));
    assert_eq!(status("/bin/tally_client", &["7"]), 0);
    assert_eq!(client.value(), Ok(7));
    assert_eq!(status("/bin/tally_client", &["18446744073709551615"]), 1);
    assert_eq!(status("/bin/tally_client", &["seven"]), 2);
    kill(pid);
    assert_eq!(status("/bin/tally_client", &["7"]), 1);
}

fn who_calls_a_dead_server_is_told() {
    let (pid, client) = start("/bin/tally", || TallyClient::connect(NAME));
    kill(pid);
    assert_eq!(client.value(), Err(Error::Kernel(libipc::Error::Died)));
    // The next one is found by the same name.
    let (pid, client) = start("/bin/tally", || TallyClient::connect(NAME));
    assert_eq!(client.value(), Ok(0));
    kill(pid);
}
