//! System calls: decode, dispatch, encode.
//!
//! Every argument is an allegation. A call checks its handles first (number, type, right, life), then its other
//! arguments, and only then does something; `docs/syscalls.md` is the normative list. Nothing here
//! touches user memory by its address.

mod creation;
mod devices;
mod handles;
mod info;
mod inspect;
mod memory;
mod messages;
mod request;
mod schedule;
mod threads;
mod traps;

pub use creation::{create, is_creation};
pub use memory::{LockedCall, map_page, memory_call, share_page, unmap_page};
pub use schedule::{Next, next, tick};
pub use traps::{exception, fault_out_of_memory, interrupt, page_fault, report};

use cowslip_abi::{Call, Error, Handle};

use crate::object::Kernel;
use request::{Request, Values};

/// What a system call did.
enum Done {
    /// What was asked, and there are no results.
    Nothing,
    /// This handle was made.
    Handle(Handle),
    /// These are the results.
    Values(Values),
    /// The caller's registers hold the results already, or it waits, or it is gone.
    InPlace,
    /// A step; the caller makes the call [again](crate::object::Long).
    Again,
}

type Answer = Result<Done, Error>;

/// Carries out the system call that is in the registers of the running thread.
pub fn syscall(kernel: &mut Kernel) {
    let Some(request) = Request::of(kernel) else {
        return;
    };
    let mut answer = match Call::from_number(request.number) {
        Some(call) => dispatch(kernel, call, &request),
        None => Err(Error::UnknownCall),
    };
    // Such a call has changed nothing, and memory is not out before all that is dead is worked off.
    if matches!(answer, Err(Error::NoMemory)) && kernel.make_room() {
        answer = Ok(Done::Again);
    }
    if matches!(answer, Ok(Done::Again)) {
        kernel.make_again(request.thread);
    } else if kernel.may_have_begun() {
        kernel.end_long(request.thread);
    }
    // The caller runs still, unless it has made an end of itself.
    if let Some(thread) = kernel.threads.pinned_mut() {
        match answer {
            Ok(Done::Nothing) => thread.regs.rax = 0,
            Ok(Done::Handle(handle)) => (thread.regs.rax, thread.regs.rdi) = (0, handle.0.into()),
            Ok(Done::Values(values)) => values.store(&mut thread.regs),
            Ok(Done::InPlace | Done::Again) => {}
            Err(error) => thread.regs.rax = error as u64,
        }
    }
    // Before anything dies, by which a caller that waits may be woken.
    kernel.switch_if_blocked();
    kernel.reap();
}

fn dispatch(kernel: &mut Kernel, call: Call, request: &Request) -> Answer {
    match call {
        Call::Send => messages::send(kernel, request),
        Call::Recv => messages::recv(kernel, request),
        Call::Reply => messages::reply(kernel, request),
        Call::ReplyRecv => messages::reply_recv(kernel, request),
        Call::Notify => messages::notify(kernel, request),
        Call::Timer => messages::timer(kernel, request),
        Call::EndpointCreate => handles::endpoint_create(kernel, request),
        Call::HandleClose => handles::close(kernel, request),
        Call::HandleCopy => handles::copy(kernel, request),
        Call::SpaceCreate => memory::space_create(kernel, request),
        Call::Map | Call::Unmap | Call::Protect | Call::Share => memory::in_steps(kernel, request),
        Call::ThreadCreate => threads::create(kernel, request),
        Call::ThreadStart => threads::start(kernel, request),
        Call::ThreadSet => threads::set(kernel, request),
        Call::ThreadExit => threads::exit(kernel, request),
        Call::Yield => threads::yield_now(kernel, request),
        Call::Kill => threads::kill(kernel, request),
        Call::InterruptBind => devices::interrupt_bind(kernel, request),
        Call::InterruptAck => devices::interrupt_ack(kernel, request),
        Call::PortIo => devices::port_io(kernel, request),
        Call::Info => info::info(kernel, request),
        Call::Log => info::log(kernel, request),
        Call::Shutdown => info::shutdown(kernel, request),
        Call::SpaceSet => memory::space_set(kernel, request),
    }
}

impl From<Values> for Done {
    fn from(values: Values) -> Self {
        Done::Values(values)
    }
}

#[cfg(all(test, not(feature = "small-tables")))]
mod tests;
