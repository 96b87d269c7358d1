//! What a thread waits for, told in numbers.
//!
//! Each is an object's [number](Id::number): programs can compare it with others, and name nothing by it.

use cowslip_abi::Waits;

use super::deadlines::WAIT_END;
use super::{Endpoint, Id, Kernel, Space, Special, State, Thread};

impl Kernel {
    /// What a thread waits for, if it is there.
    #[must_use]
    pub fn waits(&self, id: Id<Thread>) -> Option<Waits> {
        let thread = self.threads.get(id)?;
        let (endpoint, whom) = match thread.state {
            State::Sending { endpoint, .. } => (Some(endpoint), self.last_receiver(endpoint)),
            State::Receiving { endpoint } => (Some(endpoint), None),
            State::AwaitingReply { server } => (None, Some(server)),
            State::Stopped | State::Runnable | State::Sleeping => (None, None),
        };
        let (whom, space) = self.whom(thread.bound_to.or(whom));
        let gives_up = thread.special.contains(Special::DEADLINE);
        Some(Waits {
            endpoint: endpoint.map_or(0, Id::number),
            thread: whom,
            space: space.or(thread.owed_by).map_or(0, Id::number),
            until_ns: if gives_up {
                thread.deadline_ns(WAIT_END)
            } else {
                0
            },
        })
    }

    /// The thread that received last at an endpoint, if it has not received elsewhere since.
    #[must_use]
    pub fn last_receiver(&self, endpoint: Id<Endpoint>) -> Option<Id<Thread>> {
        self.endpoints.get(endpoint)?.servers.first()
    }

    /// The number of a thread, and its space; nobody, if it is gone.
    pub(crate) fn whom(&self, thread: Option<Id<Thread>>) -> (u64, Option<Id<Space>>) {
        let found = thread.and_then(|id| Some((id.number(), self.threads.get(id)?.space)));
        found.map_or((0, None), |(number, space)| (number, Some(space)))
    }

    /// The number of the endpoint that a thread serves, or 0.
    #[must_use]
    pub fn served_by(&self, id: Id<Thread>) -> u64 {
        let thread = self.threads.get(id);
        thread
            .and_then(|thread| thread.serves)
            .map_or(0, Id::number)
    }

    /// The thread of a space that has a number.
    #[must_use]
    pub fn member(&self, space: Id<Space>, number: u64) -> Option<Id<Thread>> {
        let id = self.threads.id_at_place(number)?;
        let thread = self.threads.get(id)?;
        (id.number() == number && thread.space == space).then_some(id)
    }
}
