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

use cowslip_abi::{Call, FaultVerdict, Handle, Tag};

use super::deliver::MOVE_MARKS;
use crate::mm::Mm;
use crate::object::{Kernel, Object, Registers, Spaces, Special, State, Thread, Way};
use crate::vm::{self, ByteRange, Transfer};

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
        if is_plain(sender) && sender.route(Way::Send).fits(&sender.regs) {
            self.send_ordinary::<PLAIN, R>(now_ticks, switch)
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
        if is_plain(server) && server.route(Way::Receive).fits(&server.regs) {
            self.reply_recv_ordinary::<PLAIN, R>(now_ticks, switch)
        } else {
            self.reply_recv_bytes(now_ticks, switch)
        }
    }

    /// Does the call of the running thread, if it is an ordinary one of these: a send or a reply and
    /// receive with exactly one handle, which moves, and no bytes; or a reply and receive that lets
    /// a faulted thread go on. All registers are in the frames, before and after.
    #[inline]
    pub fn fast_with_frames<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        const SEND: u32 = Call::Send as u32;
        const REPLY_RECV: u32 = Call::ReplyRecv as u32;
        let regs = &self.threads.pinned()?.regs;
        if regs.r8 | regs.r10 != 0 {
            return None;
        }
        match (regs.rax as u32, regs.rsi) {
            (SEND, tag) if has_one_handle(tag) => {
                self.find_way(Way::Send)?;
                self.send_ordinary::<HANDLE, R>(now_ticks, switch)
            }
            (REPLY_RECV, tag) if has_one_handle(tag) => {
                self.find_way(Way::Receive)?;
                self.reply_recv_ordinary::<HANDLE, R>(now_ticks, switch)
            }
            (REPLY_RECV, RESUME) => {
                self.find_way(Way::Receive)?;
                self.reply_recv_ordinary::<VERDICT, R>(now_ticks, switch)
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn send_bytes<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        if has_handles(&self.threads.pinned()?.regs) {
            return None;
        }
        self.find_way(Way::Send)?;
        self.send_ordinary::<BYTES, R>(now_ticks, switch)
    }

    #[inline(never)]
    fn reply_recv_bytes<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        if has_handles(&self.threads.pinned()?.regs) {
            return None;
        }
        self.find_way(Way::Receive)?;
        self.reply_recv_ordinary::<BYTES, R>(now_ticks, switch)
    }

    #[inline(always)]
    fn send_ordinary<const PAYLOAD: u8, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let sender = self.threads.pinned()?;
        let (_, endpoint) = self
            .endpoints
            .hinted_mut(sender.route(Way::Send).endpoint)?;
        let mut pair = self.threads.pair(endpoint.receivers.first()?)?;
        let caller = pair.pinned_id();
        let (sender, receiver) = pair.both();
        if !receiver.special.is_empty() {
            return None;
        }
        let passed = pass::<PAYLOAD>(self.mm, &mut self.spaces, sender, receiver)?;
        endpoint.receivers.take_first();
        if passed == Passed::Endpoint {
            self.endpoints.end_epoch();
        }

        let token = self.tokens.next(caller);
        sender.hand_over(receiver, token, now_ticks());
        receiver.regs.rdi = sender.route(Way::Send).badge;
        receiver.regs.rsi = sender.regs.rsi & tag_mask(PAYLOAD);
        receiver.regs.rdx = if PAYLOAD == BYTES { sender.regs.r8 } else { 0 };
        receiver.regs.r8 = token;
        Some(switch(pair.pin_other()))
    }

    #[inline(always)]
    fn reply_recv_ordinary<const PAYLOAD: u8, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let server = self.threads.pinned()?;
        let token = server.regs.rdi;
        let (id, endpoint) = self
            .endpoints
            .hinted_mut(server.route(Way::Receive).endpoint)?;
        if !endpoint.is_quiet() {
            return None;
        }
        let mut pair = self.threads.pair_at(token)?;
        let caller = pair.pinned_id();
        let (server, client) = pair.both();
        if !client.awaits(token, server.space)
            || client.special != expected_special(PAYLOAD)
            || self.run_queue.any_above(client.priority)
        {
            return None;
        }
        let passed = pass::<PAYLOAD>(self.mm, &mut self.spaces, server, client)?;
        endpoint.receivers.set_only(caller);
        if passed == Passed::Endpoint {
            self.endpoints.end_epoch();
        }

        server.state = State::Receiving { endpoint: id };
        server.priority = server.base_priority;
        server.unanswered -= 1;
        let now_ticks = now_ticks();
        server.stop_clock(now_ticks);
        client.start_clock(now_ticks);
        client.state = State::Runnable;
        if PAYLOAD == VERDICT {
            client.set_fault(None);
        } else {
            client.regs.rsi = server.regs.rsi & tag_mask(PAYLOAD);
            client.regs.rdx = if PAYLOAD == BYTES { server.regs.r8 } else { 0 };
        }
        Some(switch(pair.pin_other()))
    }
}

/// What a message has besides label and words: nothing.
const PLAIN: u8 = 0;
/// Bytes, or room for some.
const BYTES: u8 = 1;
/// One handle, which moves.
const HANDLE: u8 = 2;

/// The answer to a fault: the thread shall go on.
const VERDICT: u8 = 3;

/// The tag of that answer.
const RESUME: u64 = Tag::new(FaultVerdict::Resume as u32).0;

/// Whether a message with this tag has one handle, which moves, and nothing else.
#[inline(always)]
const fn has_one_handle(tag: u64) -> bool {
    tag >> 32 == Tag(0).with_handles(1).moving_handles().0 >> 32
}

/// What the receiver sees of a tag: that handles or pages move is not its business.
const fn tag_mask(payload: u8) -> u64 {
    if payload == PLAIN {
        u64::MAX
    } else {
        !MOVE_MARKS
    }
}

/// What is special about the thread that gets an answer.
const fn expected_special(payload: u8) -> Special {
    if payload == VERDICT {
        Special::FAULT
    } else {
        Special::empty()
    }
}

/// Whether the tag is more than a label and the mark that pages move.
#[inline(always)]
fn has_handles(regs: &Registers) -> bool {
    (regs.rsi & !Tag(0).moving_pages().0) >> 32 != 0
}

/// Whether nothing is special about the thread, and its message has no bytes, no room for any, no
/// handles and no marks.
#[inline(always)]
fn is_plain(thread: &Thread) -> bool {
    let regs = &thread.regs;
    regs.rsi >> 32 | regs.r8 | regs.r10 | thread.special.bits() == 0
}

/// What went over besides label and words.
#[derive(PartialEq, Eq)]
enum Passed {
    /// Nothing by which a thread may remember an endpoint.
    Other,
    /// A handle to an endpoint.
    Endpoint,
}

/// Passes the payload of a message. `None`: that is not possible, or something is special about the
/// thread that it comes from, and nothing has changed.
#[inline(always)]
fn pass<const PAYLOAD: u8>(
    mm: &Mm,
    spaces: &mut Spaces,
    from: &Thread,
    to: &mut Thread,
) -> Option<Passed> {
    if PAYLOAD != PLAIN && !from.special.is_empty() {
        return None;
    }
    match PAYLOAD {
        BYTES => copy_bytes(mm, spaces, from, to).then_some(Passed::Other),
        HANDLE => move_handle(mm, spaces, from, to),
        _ => Some(Passed::Other),
    }
}

/// Copies the bytes of a message, if the buffer that its sender offers in turn is a good one.
#[inline(always)]
fn copy_bytes(mm: &Mm, spaces: &Spaces, from: &Thread, to: &Thread) -> bool {
    ByteRange::is_good(from.regs.r9, from.regs.r10)
        && (from.regs.r8 == 0 || move_bytes(mm, spaces, from, to))
}

#[inline(never)]
fn move_bytes(mm: &Mm, spaces: &Spaces, from: &Thread, to: &Thread) -> bool {
    let (data, len) = (from.regs.rdx, from.regs.r8);
    let (buffer, capacity) = (to.regs.r9, to.regs.r10);
    if len > capacity || !ByteRange::is_good(data, len) || !ByteRange::is_good(buffer, capacity) {
        return false;
    }
    let how = Transfer::of(Tag(from.regs.rsi));
    if how == Transfer::Copy && vm::copy_in_place(mm, to.root, buffer, from.root, data, len) {
        return true;
    }
    let (Some(source), Some(target)) = (spaces.get(from.space), spaces.get(to.space)) else {
        return false;
    };
    let (source, target) = (&source.table, &target.table);
    let is_copied = vm::copy(mm, target, buffer, source, data, len, how).is_ok();
    vm::reap(mm);
    is_copied
}

/// Moves the handle of a message and passes the words.
#[inline(never)]
fn move_handle(mm: &Mm, spaces: &mut Spaces, from: &Thread, to: &mut Thread) -> Option<Passed> {
    let [w0, w1, w2, _] = from.regs.words();
    let (handle, object) = spaces.move_handle(mm, from.space, to.space, Handle(w2 as u32))?;
    to.regs.rax = 0;
    to.regs.set_words([w0, w1, handle.0.into(), 0]);
    Some(match object {
        Object::Endpoint(_) => Passed::Endpoint,
        _ => Passed::Other,
    })
}
