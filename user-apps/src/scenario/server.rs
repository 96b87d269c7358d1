//! Servers as processes, started as a person starts them.

use libipc::process;
use libipc::service::ConnectError;
use libipc::services::procd::Reason;

use super::peer::{status_of, until};

/// Starts a server; returns its pid, and what `connect` makes once there is a connection.
///
/// # Panics
/// When there is none in a time that no server needs.
#[track_caller]
pub fn start<T>(path: &str, connect: impl Fn() -> Result<T, ConnectError>) -> (u64, T) {
    let pid = process::spawn(path, &[]).expect("spawn");
    (pid, connected(connect))
}

/// What `connect` makes, once there is a connection.
///
/// # Panics
/// When there is none in a time that no server needs.
#[track_caller]
pub fn connected<T>(connect: impl Fn() -> Result<T, ConnectError>) -> T {
    let mut client = None;
    until("the server's name", || {
        client = connect().ok();
        client.is_some()
    });
    client.expect("a connection")
}

/// Ends a server that [`start`] has started.
///
/// # Panics
/// When it has ended before.
#[track_caller]
pub fn kill(pid: u64) {
    process::kill(pid).expect("kill");
    assert_eq!(status_of(pid), Reason::Killed.status());
}

/// The exit status of a program.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn status(path: &str, args: &[&str]) -> i32 {
    status_of(process::spawn(path, args).expect("spawn"))
}
