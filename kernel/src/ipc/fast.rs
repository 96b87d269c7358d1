//! The fast path: an ordinary message between two threads, when both sides are there.
//!
//! [`Kernel::fast_send`] does what [`Kernel::send`] does, and [`Kernel::fast_reply_recv`] what
//! [`Kernel::reply`] and [`Kernel::receive`] do, for the case that matters most, in one go: no list
//! is walked, no scheduler is asked, and the words stay in their registers. It first looks, and if
//! anything is out of the ordinary it has changed nothing and says so; then the general path does
//! the call, and reports what is wrong with it. So nothing here decides an error. The bytes move
//! last, as that may fail too, and then nothing has changed either.
//!
//! Ordinary means: the tag is a label, the bytes fit the buffer, nobody is
//! [special](Thread::special), and
//!
//! | send | reply and receive |
//! | --- | --- |
//! | the first receiver is in its place | the token is good |
//! | | no notification, no sender and no other receiver waits at the endpoint |
//! | | no thread above the client's priority can run |
//!
//! The receiver runs next in both paths: a sender lends its priority, so nobody who can run has a
//! higher one.
//!
//! Each function comes twice. The one for a label and words, whose thread goes the way that it went
//! last time, calls nothing, so that all it works with is in registers.

use cowslip_abi::Rights;

use crate::mm::Mm;
use crate::object::{Kernel, Registers, Spaces, State, Thread};
use crate::vm::{self, ByteRange};

impl Kernel {
    /// Does the send in the running thread's registers, if it is an ordinary one, and hands the
    /// thread that runs next to `switch`. Its results are in its registers but for two things: `rax`
    /// is to be 0, and the words are still where the caller had them.
    #[inline(always)]
    pub fn fast_send<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let sender = self.threads.pinned()?;
        if is_plain(sender) && sender.sends_by.fits(&sender.regs) {
            self.send_ordinary::<false, R>(now_ticks, switch)
        } else {
            self.send_bytes(now_ticks, switch)
        }
    }

    /// The same for the reply and receive in the running thread's registers.
    #[inline(always)]
    pub fn fast_reply_recv<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let server = self.threads.pinned()?;
        if is_plain(server) && server.receives_by.fits(&server.regs) {
            self.reply_recv_ordinary::<false, R>(now_ticks, switch)
        } else {
            self.reply_recv_bytes(now_ticks, switch)
        }
    }

    #[inline(never)]
    fn send_bytes<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let sender = self.threads.pinned()?;
        if !sender.sends_by.fits(&sender.regs) || !self.endpoints.is_current(sender.sends_by.endpoint) {
            let route = self.find_route(Rights::SEND)?;
            self.threads.pinned_mut()?.sends_by = route;
        }
        self.send_ordinary::<true, R>(now_ticks, switch)
    }

    #[inline(never)]
    fn reply_recv_bytes<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let server = self.threads.pinned()?;
        if !server.receives_by.fits(&server.regs) || !self.endpoints.is_current(server.receives_by.endpoint) {
            let route = self.find_route(Rights::RECV)?;
            self.threads.pinned_mut()?.receives_by = route;
        }
        self.reply_recv_ordinary::<true, R>(now_ticks, switch)
    }

    #[inline(always)]
    fn send_ordinary<const BYTES: bool, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let sender = self.threads.pinned()?;
        let (_, endpoint) = self.endpoints.hinted_mut(sender.sends_by.endpoint)?;
        let mut pair = self.threads.pair(endpoint.receivers.first()?)?;
        let caller = pair.pinned_id();
        let (sender, receiver) = pair.both();
        if !receiver.special.is_empty()
            || BYTES && !sender.special.is_empty()
            || BYTES && !copy_bytes(self.mm, &self.spaces, sender, receiver, &sender.regs)
        {
            return None;
        }
        endpoint.receivers.take_first();

        let token = self.tokens.next(caller);
        sender.state = State::AwaitingReply {
            server: receiver.space,
            token,
        };
        let now_ticks = now_ticks();
        sender.stop_clock(now_ticks);
        receiver.start_clock(now_ticks);
        receiver.state = State::Runnable;
        receiver.borrow_priority(sender.priority);
        receiver.unanswered += 1;
        receiver.regs.rdi = sender.sends_by.badge;
        receiver.regs.rsi = sender.regs.rsi;
        receiver.regs.rdx = if BYTES { sender.regs.r8 } else { 0 };
        receiver.regs.r8 = token;
        Some(switch(pair.pin_other()))
    }

    #[inline(always)]
    fn reply_recv_ordinary<const BYTES: bool, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let server = self.threads.pinned()?;
        let token = server.regs.rdi;
        let (id, endpoint) = self.endpoints.hinted_mut(server.receives_by.endpoint)?;
        if !endpoint.is_quiet() {
            return None;
        }
        let mut pair = self.threads.pair_at(token)?;
        let caller = pair.pinned_id();
        let (server, client) = pair.both();
        if !client.awaits(token, server.space)
            || !client.special.is_empty()
            || BYTES && !server.special.is_empty()
            || self.run_queue.any_above(client.priority)
            || BYTES && !copy_bytes(self.mm, &self.spaces, server, client, &server.regs)
        {
            return None;
        }
        endpoint.receivers.set_only(caller);

        server.state = State::Receiving { endpoint: id };
        server.priority = server.base_priority;
        server.unanswered -= 1;
        let now_ticks = now_ticks();
        server.stop_clock(now_ticks);
        client.start_clock(now_ticks);
        client.state = State::Runnable;
        client.regs.rsi = server.regs.rsi;
        client.regs.rdx = if BYTES { server.regs.r8 } else { 0 };
        Some(switch(pair.pin_other()))
    }
}

/// Whether nothing is special about the thread, and its message has no bytes, no room for any, no
/// handles and no marks.
#[inline(always)]
fn is_plain(thread: &Thread) -> bool {
    let regs = &thread.regs;
    regs.rsi >> 32 | regs.r8 | regs.r10 | thread.special.bits() == 0
}

/// Copies the bytes of a message, if it has nothing but a label besides, and if the buffer that the
/// caller offers is a good one. `false`: that is not so, and nothing has changed.
#[inline(always)]
fn copy_bytes(mm: &Mm, spaces: &Spaces, from: &Thread, to: &Thread, offer: &Registers) -> bool {
    from.regs.rsi >> 32 == 0
        && ByteRange::is_good(offer.r9, offer.r10)
        && (from.regs.r8 == 0 || move_bytes(mm, spaces, from, to))
}

#[inline(never)]
fn move_bytes(mm: &Mm, spaces: &Spaces, from: &Thread, to: &Thread) -> bool {
    let (data, len) = (from.regs.rdx, from.regs.r8);
    let (buffer, capacity) = (to.regs.r9, to.regs.r10);
    if len > capacity || !ByteRange::is_good(data, len) || !ByteRange::is_good(buffer, capacity) {
        return false;
    }
    if vm::copy_in_place(mm, to.root, buffer, from.root, data, len) {
        return true;
    }
    let (Some(source), Some(target)) = (spaces.get(from.space), spaces.get(to.space)) else {
        return false;
    };
    vm::copy(mm, &target.table, buffer, &source.table, data, len).is_ok()
}
