//! The calls that make spaces and threads and close handles, for who shares the kernel.
//!
//! What is not ordinary, be it wrong or only too much, is [left](crate::object::Creator) to who has it alone, and so are all errors.

use cowslip_abi::{Call, Handle, Rights};

use super::request::{Request, handle_argument};
use super::threads::start_of;
use crate::object::{Creator, Endpoint, Id, Object, Space, Supervisor, Thread};

/// Whether this may be the number of such a call.
#[must_use]
pub fn is_creation(number: u32) -> bool {
    const CALLS: [Call; 4] = [
        Call::HandleClose,
        Call::SpaceCreate,
        Call::ThreadCreate,
        Call::ThreadStart,
    ];
    CALLS.iter().any(|&call| call as u32 == number)
}

/// Makes such a call of the running thread, which goes on. Returns whether it has; otherwise nothing has happened.
pub fn create(mut creator: Creator<'_>) -> bool {
    try_create(&mut creator).is_some()
}

fn try_create(creator: &mut Creator<'_>) -> Option<()> {
    let (id, caller) = creator.caller()?;
    let (request, highest) = (Request::by(id, caller), caller.base_priority);
    let handle = match Call::from_number(request.number)? {
        Call::HandleClose => {
            creator.close(request.handle)?;
            None
        }
        Call::SpaceCreate => Some(space_create(creator, &request)?),
        Call::ThreadCreate => Some(thread_create(creator, &request, highest)?),
        Call::ThreadStart => {
            thread_start(creator, &request)?;
            None
        }
        _ => return None,
    };
    creator.succeed(handle)
}

fn space_create(creator: &mut Creator<'_>, request: &Request) -> Option<Handle> {
    let system = creator.entry(request.handle, Rights::CREATE)?;
    if system.object != Object::System {
        return None;
    }
    let [death, death_badge, like, ..] = request.args;
    let death = optional_endpoint(creator, death, Rights::NOTIFY, death_badge)?;
    let like = match handle_argument(like).ok()? {
        Handle::NONE => None,
        like => Some(space(creator, like, Rights::READ)?),
    };
    creator.create_space(death, like)
}

fn thread_create(creator: &mut Creator<'_>, request: &Request, highest: u8) -> Option<Handle> {
    let space = space(creator, request.handle, Rights::MANAGE)?;
    let [supervisor, priority, badge, ..] = request.args;
    let supervisor = optional_endpoint(creator, supervisor, Rights::SEND, badge)?;
    let supervisor = supervisor.map(|(endpoint, badge)| Supervisor { endpoint, badge });
    let priority = u8::try_from(priority).ok()?;
    if priority > highest {
        return None;
    }
    creator.create_thread(space, supervisor, priority)
}

fn thread_start(creator: &mut Creator<'_>, request: &Request) -> Option<()> {
    let thread = thread(creator, request.handle, Rights::MANAGE)?;
    creator.start_thread(thread, &start_of(request).ok()?)
}

fn space(creator: &Creator<'_>, handle: Handle, rights: Rights) -> Option<Id<Space>> {
    match creator.entry(handle, rights)?.object {
        Object::Space(id) => Some(id),
        _ => None,
    }
}

fn thread(creator: &Creator<'_>, handle: Handle, rights: Rights) -> Option<Id<Thread>> {
    match creator.entry(handle, rights)?.object {
        Object::Thread(id) => Some(id),
        _ => None,
    }
}

/// A living endpoint with the badge that is asked for, or nothing for the handle 0.
#[allow(clippy::option_option, reason = "the outer one is a failure")]
fn optional_endpoint(
    creator: &Creator<'_>,
    argument: u64,
    rights: Rights,
    badge: u64,
) -> Option<Option<(Id<Endpoint>, u64)>> {
    let handle = handle_argument(argument).ok()?;
    if handle.is_none() {
        return Some(None);
    }
    let entry = creator.entry(handle, rights)?;
    match entry.object {
        Object::Endpoint(id) if creator.has_endpoint(id) => {
            Some(Some((id, entry.badge_for(badge).ok()?)))
        }
        _ => None,
    }
}
