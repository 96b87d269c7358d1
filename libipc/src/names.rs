//! Endpoints by name, from this process's name server.

use crate::object::Endpoint;
use crate::services::Error;
use crate::services::names::NamesClient;
use crate::start;

/// Lets everyone find `endpoint` under `name`, up to 16 bytes, until this process ends. Who looks
/// it up may send to it, and pass it on; the badge is 0.
///
/// # Errors
/// `Taken`, `Full`, `BadRequest` for a name that is empty or too long.
pub fn register(name: &str, endpoint: &Endpoint) -> Result<(), Error> {
    NamesClient::borrow(start::names()).publish(name, endpoint, 0)
}

/// The endpoint that was registered under `name`.
///
/// # Errors
/// `NotFound`, `BadRequest` for a name that is empty or too long.
pub fn lookup(name: &str) -> Result<Endpoint, Error> {
    NamesClient::borrow(start::names()).find(name)
}
