//! The calls on endpoints.

use cowslip_abi::{Error, MAX_RANGE, RecvFlags, Rights, Tag};

use super::request::Request;
use super::{Answer, Done};
use crate::ipc::Progress;
use crate::object::{Endpoint, Id, Kernel, Outgoing, Timer};
use crate::vm::ByteRange;

pub(super) fn send(kernel: &mut Kernel, request: &Request) -> Answer {
    let (endpoint, badge) = request.endpoint(kernel, request.handle, Rights::SEND)?;
    let message = outgoing(request)?;
    check_buffer(request)?;
    let progress = kernel.send(request.thread, endpoint, badge, message)?;
    if message.tag.has_deadline() {
        kernel.wait_until(request.thread, request.args[0]);
    }
    Ok(progress.into())
}

pub(super) fn recv(kernel: &mut Kernel, request: &Request) -> Answer {
    let (endpoint, _) = request.endpoint(kernel, request.handle, Rights::RECV)?;
    check_buffer(request)?;
    let flags = RecvFlags::from_bits(request.args[1]).ok_or(Error::BadArgument)?;
    let progress = kernel.receive(request.thread, endpoint, flags)?;
    if flags.contains(RecvFlags::DEADLINE) {
        kernel.wait_until(request.thread, request.args[0]);
    }
    Ok(progress.into())
}

pub(super) fn reply(kernel: &mut Kernel, request: &Request) -> Answer {
    let message = outgoing_reply(request)?;
    let Progress::Done(tag) = kernel.reply(request.thread, request.args[0], message)? else {
        return Ok(Done::Again);
    };
    if let Some(caller) = kernel.threads.get_mut(request.thread) {
        caller.regs.rax = 0;
        caller.regs.rsi = tag.0;
    }
    Ok(Done::InPlace)
}

pub(super) fn reply_recv(kernel: &mut Kernel, request: &Request) -> Answer {
    let (endpoint, _) = request.endpoint(kernel, request.handle, Rights::RECV)?;
    let message = outgoing_reply(request)?;
    check_buffer(request)?;
    if !kernel.long(request.thread).has_replied {
        match kernel.reply(request.thread, request.args[0], message)? {
            Progress::More => return Ok(Done::Again),
            Progress::Done(_) => kernel.end_long(request.thread),
        }
        kernel.reap();
    }
    receive_after_reply(kernel, request, endpoint)
}

/// The second half of `reply_recv`. The reply may have ended the caller, or the endpoint.
fn receive_after_reply(kernel: &mut Kernel, request: &Request, endpoint: Id<Endpoint>) -> Answer {
    if kernel.threads.get(request.thread).is_none() {
        return Ok(Done::InPlace);
    }
    let progress = kernel.receive(request.thread, endpoint, RecvFlags::empty())?;
    if progress == Progress::More {
        kernel.note_reply(request.thread);
    }
    Ok(progress.into())
}

impl From<Progress<()>> for Done {
    fn from(progress: Progress<()>) -> Self {
        match progress {
            Progress::Done(()) => Done::InPlace,
            Progress::More => Done::Again,
        }
    }
}

pub(super) fn notify(kernel: &mut Kernel, request: &Request) -> Answer {
    let (endpoint, bits) = request.endpoint(kernel, request.handle, Rights::NOTIFY)?;
    kernel.raise(endpoint, bits);
    Ok(Done::Nothing)
}

pub(super) fn timer(kernel: &mut Kernel, request: &Request) -> Answer {
    let (endpoint, bits) = request.endpoint(kernel, request.handle, Rights::NOTIFY)?;
    let deadline_ns = request.args[0];
    let timer = (deadline_ns != 0).then_some(Timer {
        deadline_ns,
        endpoint,
        bits,
    });
    kernel.set_timer(request.thread, timer);
    Ok(Done::Nothing)
}

/// The message in `rsi`, `rdx` and `r8`.
fn outgoing(request: &Request) -> Result<Outgoing, Error> {
    let [_, tag, data, len, ..] = request.args;
    let data = ByteRange::from_user(data, len, MAX_RANGE)?;
    let tag = Tag(tag);
    if tag.is_valid_from_user() {
        Ok(Outgoing { tag, data })
    } else {
        Err(Error::BadArgument)
    }
}

/// The same of a reply, which waits for nothing.
fn outgoing_reply(request: &Request) -> Result<Outgoing, Error> {
    let message = outgoing(request)?;
    if message.tag.has_deadline() {
        return Err(Error::BadArgument);
    }
    Ok(message)
}

/// Checks the buffer in `r9` and `r10`, where deliveries will look for it.
fn check_buffer(request: &Request) -> Result<(), Error> {
    let [.., buffer, capacity] = request.args;
    ByteRange::from_user(buffer, capacity, MAX_RANGE).map(|_| ())
}
