//! Servers that die and start again: who waits is told, handles and names stay, and no frame is lost.
//!
//! The kernel's command line has the word `mortal`, so init lets this program end servers.
#![cfg_attr(target_os = "none", no_std, no_main)]

use libipc::service::{Error, IDENTIFY};
use libipc::services::console::ConsoleClient;
use libipc::services::init::{self, InitClient};
use libipc::services::names::{Name, NamesClient};
use libipc::services::{self, Refusal};
use libipc::{Endpoint, Handle, Message, Received, Rights, getpid, names, process, start};
use user_apps::scenario::frames::{Frames, available};
use user_apps::scenario::peer::{child, status_of, until};
use user_apps::scenario::server::connected;

user_apps::scenarios![
    a_server_that_dies_starts_again_and_costs_no_frame,
    a_server_that_faults_starts_again_and_costs_no_frame,
    names_keep_their_rights_badges_and_owners,
    who_waits_for_the_console_is_told,
    a_process_that_dies_with_the_name_server_loses_its_names,
    only_those_servers_die_that_there_are,
    who_may_not_keep_names_is_refused,
];

fn init() -> InitClient {
    connected(|| InitClient::connect(init::NAME))
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Has something of each server that can start again.
fn use_servers() -> Result<(), services::Error> {
    let _ = available();
    assert!(matches!(
        names::lookup("nobody"),
        Err(Error::Refused(Refusal::NotFound))
    ));
    // The process server asks the file server.
    let missing = process::spawn("/bin/nobody", &[]);
    assert_eq!(missing, Err(Error::Refused(Refusal::NotFound)));
    ConsoleClient::borrow(start::console()).flush()
}

fn a_server_that_dies_starts_again_and_costs_no_frame() {
    let init = init();
    all_start_again_exactly(|_, server| init.end(server).expect("end"));
}

fn a_server_that_faults_starts_again_and_costs_no_frame() {
    let init = init();
    all_start_again_exactly(|endpoint, server| {
        init.empty(server).expect("unmap");
        // It wakes up for this message, and who has sent it is told; unless its device has woken it up
        // before, and the next one is there to answer.
        let asked = Endpoint::borrow(endpoint).call(Message::new(IDENTIFY));
        match asked.map(|_| ()) {
            Ok(()) => assert_eq!(endpoint, start::console()),
            Err(error) => assert_eq!(error, libipc::Error::Died),
        }
    });
}

fn all_start_again_exactly(end: impl Fn(Handle, Name)) {
    const TRIES: usize = 8;
    let servers = [
        ("memstat", start::memstat()),
        ("names", start::names()),
        ("files", start::files()),
        ("console", start::console()),
    ];
    for (server, endpoint) in servers {
        use_servers().expect("before");
        let before = available();
        let comes_back_exactly = || {
            end(endpoint, name(server));
            use_servers().expect("after");
            Frames::expect(before)
        };
        // The kernel's objects for the next one may have gone to a further frame, where those for the last
        // one were on another CPU still. A leak costs every time.
        let is_exact = (0..TRIES).any(|_| comes_back_exactly() == Ok(()));
        assert!(is_exact, "{server} leaves frames behind each time");
    }
}

fn names_keep_their_rights_badges_and_owners() {
    const BADGE: u64 = 1 << 7;
    let endpoint = Endpoint::create().expect("endpoint");
    let bell = endpoint.copy(Rights::NOTIFY | Rights::COPY, BADGE);
    let names = NamesClient::borrow(start::names());
    names
        .register(name("bell"), bell.expect("copy"))
        .expect("register");
    init().end(name("names")).expect("end");
    let bell = names::lookup("bell").expect("lookup");
    assert_eq!(bell.notify(), Ok(()));
    assert!(matches!(
        endpoint.recv(&mut []),
        Ok(Received::Notification(BADGE))
    ));
    let denied = bell.call(Message::new(1)).map(|_| ());
    assert_eq!(denied, Err(libipc::Error::Denied));
    let again = names::register("bell", &endpoint);
    assert_eq!(again, Err(Error::Refused(Refusal::Taken)));
    // A child that looks it up is not its owner.
    assert_eq!(
        status_of(child(|| i32::from(names::lookup("bell").is_err()))),
        0
    );
    assert!(names::lookup("bell").is_ok());
}

fn a_process_that_dies_with_the_name_server_loses_its_names() {
    let owner = child(|| {
        let endpoint = Endpoint::create().expect("endpoint");
        names::register("short-lived", &endpoint).expect("register");
        let _ = endpoint.recv(&mut []);
        1
    });
    until("the name", || names::lookup("short-lived").is_ok());
    init().end(name("names")).expect("end");
    process::kill(owner).expect("kill");
    let _ = status_of(owner);
    let gone = names::lookup("short-lived").map(|_| ());
    assert_eq!(gone, Err(Error::Refused(Refusal::NotFound)));
}

fn who_waits_for_the_console_is_told() {
    let reader = child(|| {
        let console = ConsoleClient::borrow(start::console());
        let mut line = [0; 16];
        loop {
            match console.read_line_into(&mut line) {
                Ok(_) => {}
                Err(error) => break i32::from(error != Error::Kernel(libipc::Error::Died)),
            }
        }
    });
    let init = init();
    // What the console has not shown yet dies with it: the lines about the cases before.
    use_servers().expect("before");
    // The reader has no way to say that it waits: as long as it does not, it does not end either.
    until("the reader's end", || {
        init.end(name("console")).expect("end");
        use_servers().expect("the next console");
        process::try_wait().is_ok_and(|ended| {
            ended.is_some_and(|ended| {
                assert_eq!((ended.pid, ended.status), (reader, 0));
                true
            })
        })
    });
}

fn only_those_servers_die_that_there_are() {
    for server in ["nobody", "init", "sh"] {
        let ended = init().end(name(server));
        assert_eq!(ended, Err(Error::Refused(Refusal::NotFound)));
        let emptied = init().empty(name(server));
        assert_eq!(emptied, Err(Error::Refused(Refusal::NotFound)));
    }
}

fn who_may_not_keep_names_is_refused() {
    let denied = || Error::Refused(Refusal::Denied);
    let init = init();
    assert_eq!(init.kept(0).map(|_| ()), Err(denied()));
    assert_eq!(init.forget(getpid()), Err(denied()));
}
