//! The fast path: an ordinary message between two threads, when both sides are there.
//!
//! [`Kernel::fast_send`] does what [`Kernel::send`] does, and [`Kernel::fast_reply_recv`] what
//! [`Kernel::reply`] and [`Kernel::receive`] do, for the case that matters most, in one go: no queue
//! is walked, no scheduler is asked, and the words stay in their registers. It first looks, and if
//! anything is out of the ordinary it has changed nothing and says so; then the general path does
//! the call, and reports what is wrong with it. So nothing here decides an error. The bytes move
//! last, as that may fail too, and then nothing has changed either.
//!
//! Ordinary means: the tag is a label, the bytes fit the buffer, nobody has vector registers or an
//! `fs` base, and
//!
//! | send | reply and receive |
//! | --- | --- |
//! | a receiver waits | the token is good, its thread waits with a call and not with a fault |
//! | | no notification and no sender waits at the endpoint |
//! | | no thread above the client's priority can run |
//!
//! The receiver runs next in both paths: a sender lends its priority, so nobody who can run has a
//! higher one.

use cowslip_abi::{Handle, MAX_RANGE, Rights, Tag};

use super::deliver::{token, token_index, token_sequence};
use crate::mm::Mm;
use crate::object::{Endpoint, Id, Kernel, Object, Registers, Spaces, State, Thread};
use crate::vm::{self, ByteRange, Transfer};

impl Kernel {
    /// Does the send in the running thread's registers, if it is an ordinary one, and returns the
    /// thread that runs next, with the results in its registers but for the words: those are still
    /// where the caller had them.
    #[inline]
    pub fn fast_send(
        &mut self,
        caller: Id<Thread>,
        now_ticks: u64,
    ) -> Option<(Id<Thread>, &Thread)> {
        let sender = self.threads.get(caller)?;
        if !is_ordinary(sender) {
            return None;
        }
        let reply = buffer(&sender.regs)?;
        let (id, badge) = endpoint(&self.spaces, sender, Rights::SEND)?;
        let endpoint = self.endpoints.get_mut(id)?;
        let next = endpoint.receivers.first()?;
        let (sender, receiver) = self.threads.pair_mut(caller, next)?;
        let State::Receiving { buffer, .. } = receiver.state else {
            return None;
        };
        if is_special(receiver)
            || !endpoint.receivers.is_only(next)
            || !copy(self.mm, &self.spaces, sender, receiver, buffer)
        {
            return None;
        }
        endpoint.receivers.pop_only(receiver);

        self.reply_sequence += 1;
        sender.state = State::AwaitingReply {
            server: receiver.space,
            sequence: self.reply_sequence,
            accepted: sender.regs.r8,
            request_truncated: false,
            reply,
        };
        sender.run_ticks += now_ticks.wrapping_sub(self.turn.began_ticks);
        receiver.state = State::Runnable;
        receiver.priority = receiver.priority.max(sender.priority);
        receiver.unanswered += 1;
        receiver.regs.rdi = badge;
        let token = token(self.reply_sequence, caller);
        receiver
            .regs
            .set_message(Tag(sender.regs.rsi), sender.regs.r8, token);
        self.turn.began_ticks = now_ticks;
        self.current = Some(next);
        Some((next, receiver))
    }

    /// The same for the reply and receive in the running thread's registers.
    #[inline]
    pub fn fast_reply_recv(
        &mut self,
        caller: Id<Thread>,
        now_ticks: u64,
    ) -> Option<(Id<Thread>, &Thread)> {
        let server = self.threads.get(caller)?;
        if !is_ordinary(server) {
            return None;
        }
        let token = server.regs.rdi;
        let buffer = buffer(&server.regs)?;
        let next = self.threads.id_at(token_index(token))?;
        let (id, _) = endpoint(&self.spaces, server, Rights::RECV)?;
        let endpoint = self.endpoints.get_mut(id)?;
        let (server, client) = self.threads.pair_mut(caller, next)?;
        let State::AwaitingReply {
            server: owed_by,
            sequence,
            accepted,
            request_truncated: false,
            reply,
        } = client.state
        else {
            return None;
        };
        if owed_by != server.space
            || sequence != token_sequence(token)
            || client.fault.is_some()
            || is_special(client)
            || endpoint.bits != 0
            || !endpoint.senders.is_empty()
            || self.run_queue.any_above(client.priority)
            || !endpoint.receivers.is_empty()
            || !copy(self.mm, &self.spaces, server, client, reply)
        {
            return None;
        }
        endpoint.receivers.push_only(caller, server);

        server.state = State::Receiving {
            endpoint: id,
            buffer,
        };
        server.priority = server.base_priority;
        server.unanswered -= 1;
        server.run_ticks += now_ticks.wrapping_sub(self.turn.began_ticks);
        client.state = State::Runnable;
        client
            .regs
            .set_message(Tag(server.regs.rsi), server.regs.r8, accepted);
        self.turn.began_ticks = now_ticks;
        self.current = Some(next);
        Some((next, client))
    }
}

/// What the caller's handle names, if it is an endpoint and has the right; and its badge.
#[inline(always)]
fn endpoint(spaces: &Spaces, caller: &Thread, right: Rights) -> Option<(Id<Endpoint>, u64)> {
    let handle = Handle((caller.regs.rax >> 32) as u32);
    let (_, entry) = spaces.get(caller.space)?.handles.find(handle)?;
    match entry.object {
        Object::Endpoint(id) if entry.rights.contains(right) => Some((id, entry.badge)),
        _ => None,
    }
}

/// The buffer in the registers, if it is a good one.
#[inline]
fn buffer(regs: &Registers) -> Option<ByteRange> {
    ByteRange::from_user(regs.r9, regs.r10, MAX_RANGE).ok()
}

/// Whether the caller's tag is only a label, and nothing else about it is special.
#[inline]
fn is_ordinary(caller: &Thread) -> bool {
    caller.regs.rsi >> 32 == 0 && !is_special(caller)
}

/// Whether switching to or from the thread takes more than its general-purpose registers.
#[inline]
fn is_special(thread: &Thread) -> bool {
    thread.fpu.is_some() || thread.fs_base != 0
}

/// Copies the bytes that a message has; `false`: that is not possible, and nothing has changed.
#[inline]
fn copy(mm: &Mm, spaces: &Spaces, from: &Thread, to: &Thread, buffer: ByteRange) -> bool {
    from.regs.r8 == 0 || copy_bytes(mm, spaces, from, to, buffer).is_some()
}

#[inline(never)]
fn copy_bytes(
    mm: &Mm,
    spaces: &Spaces,
    from: &Thread,
    to: &Thread,
    buffer: ByteRange,
) -> Option<()> {
    let len = from.regs.r8;
    let data = ByteRange::from_user(from.regs.rdx, len, MAX_RANGE).ok()?;
    if len > buffer.len() {
        return None;
    }
    if vm::copy_in_place(mm, to.root, buffer.addr(), from.root, data.addr(), len) {
        return Some(());
    }
    let (source, target) = (&spaces.get(from.space)?.table, &spaces.get(to.space)?.table);
    let (to, from) = (buffer.addr(), data.addr());
    vm::copy(mm, target, to, source, from, len, Transfer::Copy).ok()
}
