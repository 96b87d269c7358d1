//! Servers that die and are started again, seen by their clients.

use super::{ConnectError, Error};

/// Whether the server has died, under this call or before.
fn has_died<T, E>(outcome: &Result<T, Error<E>>) -> bool {
    matches!(outcome, Err(Error::Kernel(abi::Error::Died)))
}

/// Calls once more if the server dies under the first call, as another one may serve the same endpoint: the standard servers
/// are started again so. For what may be done twice, as the dead server may have done it.
///
/// # Errors
/// Those of the last call.
pub fn again<T, E>(mut call: impl FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
    let outcome = call();
    if has_died(&outcome) { call() } else { outcome }
}

/// A client that finds its server by name when it is needed, and the next server of that name when one has died.
///
/// ```ignore
/// let mut adder = Reconnecting::new("adder", AdderClient::connect);
/// let sum = adder.call(|adder| adder.add(2, 3))?;
/// ```
#[derive(Debug)]
pub struct Reconnecting<C> {
    name: &'static str,
    connect: fn(&str) -> Result<C, ConnectError>,
    client: Option<C>,
}

impl<C> Reconnecting<C> {
    /// A client without a connection. `connect` is the function of that name of the generated client.
    pub const fn new(name: &'static str, connect: fn(&str) -> Result<C, ConnectError>) -> Self {
        Reconnecting {
            name,
            connect,
            client: None,
        }
    }

    /// Calls the server, and once more if that has died and there is another one. For what may be done twice, as the dead
    /// server may have done it.
    ///
    /// # Errors
    /// [`Connect`](Error::Connect) when nobody has the name; else those of the call. After `Died` the next call connects anew.
    pub fn call<T, E>(&mut self, call: impl Fn(&C) -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        let outcome = call(self.client()?);
        if !has_died(&outcome) {
            return outcome;
        }
        self.client = None;
        let outcome = call(self.client()?);
        if has_died(&outcome) {
            self.client = None;
        }
        outcome
    }

    /// The connection, which is made if there is none.
    fn client(&mut self) -> Result<&C, ConnectError> {
        match &mut self.client {
            Some(client) => Ok(client),
            none => Ok(none.insert((self.connect)(self.name)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const DIED: Result<u64, Error<()>> = Err(Error::Kernel(abi::Error::Died));

    #[test]
    fn a_second_call_is_made_after_a_death_only() {
        for (first, nr_calls) in [(DIED, 2), (Ok(1), 1), (Err(Error::Refused(())), 1)] {
            let mut outcomes = [first, DIED].into_iter();
            let outcome = again(|| outcomes.next().unwrap());
            assert_eq!(outcome, if nr_calls == 2 { DIED } else { first });
            assert_eq!(outcomes.len(), 2 - nr_calls);
        }
    }

    thread_local! {
        /// How many connections there were.
        static NR_CONNECTED: Cell<u64> = const { Cell::new(0) };
    }

    fn connect(name: &str) -> Result<u64, ConnectError> {
        assert_eq!(name, "counter");
        NR_CONNECTED.set(NR_CONNECTED.get() + 1);
        match NR_CONNECTED.get() {
            4.. => Err(ConnectError::NoServer),
            number => Ok(number),
        }
    }

    #[test]
    fn the_next_server_is_found_by_its_name() {
        let mut client = Reconnecting::new("counter", connect);
        let from = |first: u64| move |&number: &u64| if number < first { DIED } else { Ok(number) };
        assert_eq!(client.call(from(0)), Ok(1));
        assert_eq!(client.call(from(0)), Ok(1));
        assert_eq!(client.call(from(2)), Ok(2));
        // The next one dies as well, and then there is none.
        assert_eq!(client.call(from(9)), DIED);
        let nobody = Err(Error::Connect(ConnectError::NoServer));
        assert_eq!(client.call(from(9)), nobody);
    }
}
