//! The fast path: an ordinary message between two threads, when both sides are there.
//!
//! [`Here::fast_send`] does what [`Kernel::send`] does, and [`Here::fast_reply_recv`] what
//! [`Kernel::reply`] and [`Kernel::receive`] do, for the case that matters most, in one go: no list
//! is walked, no scheduler is asked, and the words stay in their registers. It first looks, and if
//! anything is out of the ordinary it has changed nothing and says so; then the general path does
//! the call, and reports what is wrong with it. So nothing here decides an error. The bytes move
//! last, as that may fail too, and then nothing has changed either.
//!
//! Ordinary means: the thread [knows](Here::knows_way) where its call goes, the tag is a label, the bytes fit the buffer,
//! nobody is [special](Thread::special), unless it is a reply that lets a faulted client go on, and
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
//! A CPU that sends words, or bytes that are copied where they are, shares the kernel with others. It claims the endpoint
//! with its first receiver, and the client of a reply. Handles and pages change spaces: who moves those has the kernel alone.
//!
//! Each function comes once for each kind of payload, and the entry code chooses, by the tag and the
//! lengths. So the one for a label and words need not know that there are others: it calls nothing, and all it works
//! with is in registers.

use core::ops::Deref;

use cowslip_abi::{FaultVerdict, Handle, Tag};

use super::deliver::SENDERS_MARKS;
use super::fault::tag_of;
use crate::mm::Mm;
use crate::object::{Here, Id, Kernel, Registers, Spaces, Special, Thread, Way};
use crate::trace;
use crate::vm::{self, ByteRange, Effort, Passage, Transfer};

impl<S: Deref<Target = Spaces>> Here<'_, S> {
    /// Does the send in the running thread's registers, if it is an ordinary one, and hands the
    /// thread that runs next to `switch`. Its results are in its registers but for two things: `rax`
    /// is to be 0, and the words are still where the caller had them.
    ///
    /// For a message of label and words: the upper half of the tag and both lengths must be 0.
    #[inline(always)]
    pub fn fast_send<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        self.send_ordinary::<PLAIN, R>(now_ticks, switch, Nothing)
    }

    /// The same for two threads of which one at least may not run on every CPU, and both may run here.
    #[inline(always)]
    pub fn fast_send_bound<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        self.send_ordinary::<BOUND, R>(now_ticks, switch, Nothing)
    }

    /// The same as [`fast_send`](Self::fast_send) for a message without bytes, but with room for some in the reply: only
    /// the upper half of the tag may say that pages move, and the first length must be 0.
    #[inline(always)]
    pub fn fast_send_room<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        self.send_ordinary::<ROOM, R>(now_ticks, switch, Room)
    }

    /// The same for a message with bytes that can be copied where they are.
    #[inline(always)]
    pub fn fast_send_bytes<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let pass = InPlace(self.mm);
        self.send_ordinary::<BYTES, R>(now_ticks, switch, pass)
    }

    /// Like [`fast_send`](Self::fast_send), for a reply and receive. If the reply lets a faulted thread go on, that is handed
    /// to `resume` instead: all of its registers are in its frame.
    #[inline(always)]
    pub fn fast_reply_recv<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
        resume: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        self.reply_recv_or_resume::<PLAIN, R>(now_ticks, switch, resume, Nothing)
    }

    /// Like [`fast_send_room`](Self::fast_send_room), for a reply and receive.
    #[inline(always)]
    pub fn fast_reply_recv_room<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        self.reply_recv_ordinary::<ROOM, R>(now_ticks, switch, Room)
    }

    /// Like [`fast_send_bytes`](Self::fast_send_bytes), for a reply and receive.
    #[inline(always)]
    pub fn fast_reply_recv_bytes<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let pass = InPlace(self.mm);
        self.reply_recv_ordinary::<BYTES, R>(now_ticks, switch, pass)
    }

    /// Like [`fast_send_bound`](Self::fast_send_bound), for a reply and receive.
    #[inline(always)]
    pub fn fast_reply_recv_bound<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        self.reply_recv_ordinary::<BOUND, R>(now_ticks, switch, Nothing)
    }

    #[inline(always)]
    fn send_ordinary<const PAYLOAD: u8, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
        pass: impl Pass<S>,
    ) -> Option<R> {
        if !self.knows_way(Way::Send) {
            return None;
        }
        let sender = self.running.get_mut()?;
        if !has_payload::<PAYLOAD>(&sender.regs) {
            return None;
        }
        let (to, endpoint) = self.endpoints.hinted(sender.route(Way::Send).endpoint)?;
        let mut first = self.threads.claim_berth(endpoint.receivers.first())?;
        let server = first.id()?;
        let receiver = first.get_mut()?;
        let special = sender.special | receiver.special;
        if special != expected_special(PAYLOAD) || PAYLOAD == BOUND && !self.cpu.may_run(receiver) {
            return None;
        }
        pass.pass(&mut self.spaces, sender, receiver)?;

        let token = sender.hand_over(server, receiver, now_ticks());
        receiver.regs.rdi = sender.route(Way::Send).badge;
        receiver.regs.rsi = sender.regs.rsi & tag_mask(PAYLOAD);
        receiver.regs.rdx = if PAYLOAD == BYTES { sender.regs.r8 } else { 0 };
        receiver.regs.r8 = token;
        let (tag, len) = (receiver.regs.rsi, receiver.regs.rdx);
        let from = Id::word(self.running.id());
        trace::message(from, server.number(), to.number(), tag, len);
        // Whoever has the token may reply from now on.
        drop(self.running.replace(first.take()?));
        self.running.get().map(switch)
    }

    #[inline(always)]
    fn reply_recv_ordinary<const PAYLOAD: u8, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
        pass: impl Pass<S>,
    ) -> Option<R> {
        self.reply_recv_or_resume::<PAYLOAD, R>(now_ticks, &switch, &switch, pass)
    }

    #[inline(always)]
    fn reply_recv_or_resume<const PAYLOAD: u8, R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
        resume: impl Fn(&Thread) -> R,
        pass: impl Pass<S>,
    ) -> Option<R> {
        if !self.knows_way(Way::Receive) {
            return None;
        }
        let server = self.running.get_mut()?;
        if !has_payload::<PAYLOAD>(&server.regs) {
            return None;
        }
        let token = server.regs.rdi;
        let (id, endpoint) = self.endpoints.hinted(server.route(Way::Receive).endpoint)?;
        let first = endpoint.receivers.first();
        let mut first = self
            .threads
            .claim_empty_berth(first, || endpoint.others())?;
        let mut client = self.threads.claim_at(token)?;
        if PAYLOAD == BOUND && !self.cpu.may_run(&client)
            || server.answering != token
            || self.cpu.run_queue.any_above(client.priority)
        {
            return None;
        }
        let special = server.special | client.special;
        if special == expected_special(PAYLOAD) {
            pass.pass(&mut self.spaces, server, &mut client)?;
            client.regs.rsi = server.regs.rsi & tag_mask(PAYLOAD);
            client.regs.rdx = if PAYLOAD == BYTES { server.regs.r8 } else { 0 };
            server.wait_after_reply(id, &mut client, now_ticks());
            let (tag, len) = (client.regs.rsi, client.regs.rdx);
            trace::reply(Id::word(self.running.id()), client.id().number(), tag, len);
            let server = self.running.replace(client)?;
            let next = self.running.get().map(switch);
            first.put(server);
            return next;
        }
        if PAYLOAD != PLAIN || special != Special::FAULT || server.regs.rsi != RESUME {
            return None;
        }
        // The end that follows is the one above, apart: one for both makes an ordinary reply remember which it is, and a round trip
        // four instructions dearer.
        client.set_fault(None);
        server.wait_after_reply(id, &mut client, now_ticks());
        let verdict = tag_of(FaultVerdict::Resume).0;
        trace::reply(
            Id::word(self.running.id()),
            client.id().number(),
            verdict,
            0,
        );
        let server = self.running.replace(client)?;
        let next = self.running.get().map(resume);
        first.put(server);
        next
    }
}

impl Here<'_, &mut Spaces> {
    /// The same as [`fast_send`](Self::fast_send) for a message with bytes, wherever they are.
    #[inline(always)]
    pub fn fast_send_pages<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let pass = Pages(self.mm);
        self.send_ordinary::<BYTES, R>(now_ticks, switch, pass)
    }

    /// Like [`fast_send_pages`](Self::fast_send_pages), for a reply and receive.
    #[inline(always)]
    pub fn fast_reply_recv_pages<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let pass = Pages(self.mm);
        self.reply_recv_ordinary::<BYTES, R>(now_ticks, switch, pass)
    }
}

impl Kernel {
    /// The same as [`Here::fast_send`] for a message with one handle, which moves, and no bytes. The third word is in the
    /// frame, before and after, and the fourth is to be 0.
    #[inline(always)]
    pub fn fast_send_handle<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let (mm, mut ends_epoch) = (self.mm, false);
        let pass = OneHandle {
            mm,
            ends_epoch: &mut ends_epoch,
        };
        let next = self
            .here()
            .send_ordinary::<HANDLE, R>(now_ticks, switch, pass);
        if ends_epoch {
            self.endpoints.end_epoch();
        }
        next
    }

    /// Like [`fast_send_handle`](Self::fast_send_handle), for a reply and receive.
    #[inline(always)]
    pub fn fast_reply_recv_handle<R>(
        &mut self,
        now_ticks: impl Fn() -> u64,
        switch: impl Fn(&Thread) -> R,
    ) -> Option<R> {
        let (mm, mut ends_epoch) = (self.mm, false);
        let pass = OneHandle {
            mm,
            ends_epoch: &mut ends_epoch,
        };
        let next = self
            .here()
            .reply_recv_ordinary::<HANDLE, R>(now_ticks, switch, pass);
        if ends_epoch {
            self.endpoints.end_epoch();
        }
        next
    }
}

/// What a message has besides label and words: nothing.
const PLAIN: u8 = 0;
/// No bytes, but room for some.
const ROOM: u8 = 1;
/// Bytes, and perhaps room for some.
const BYTES: u8 = 2;
/// One handle, which moves.
const HANDLE: u8 = 3;
/// Nothing, between threads of which one may not run on every CPU.
const BOUND: u8 = 4;

/// The answer to a fault: the thread shall go on.
const RESUME: u64 = Tag::new(FaultVerdict::Resume as u32).0;

/// What the receiver sees of a tag: that handles or pages move is not its business.
const fn tag_mask(payload: u8) -> u64 {
    if payload == PLAIN || payload == BOUND {
        u64::MAX
    } else {
        !SENDERS_MARKS
    }
}

/// What is special about the two.
const fn expected_special(payload: u8) -> Special {
    match payload {
        BOUND => Special::BOUND,
        _ => Special::empty(),
    }
}

/// Whether a message has nothing but label, words and this payload, as far as the entry code has not
/// seen to it.
#[inline(always)]
fn has_payload<const PAYLOAD: u8>(regs: &Registers) -> bool {
    const ONE_HANDLE: Tag = Tag(0).with_handles(1).moving_handles();
    debug_assert!(PAYLOAD == HANDLE || (regs.rsi & !Tag(0).moving_pages().0) >> 32 == 0);
    match PAYLOAD {
        HANDLE => regs.rsi >> 32 == ONE_HANDLE.0 >> 32 && regs.r8 | regs.r10 == 0,
        _ => true,
    }
}

/// How what a message has besides label and words is passed.
trait Pass<S> {
    /// Passes it. `None`: it is not possible, and nothing has changed.
    fn pass(self, spaces: &mut S, from: &mut Thread, to: &mut Thread) -> Option<()>;
}

/// There is nothing.
struct Nothing;

impl<S> Pass<S> for Nothing {
    #[inline(always)]
    fn pass(self, _: &mut S, _: &mut Thread, _: &mut Thread) -> Option<()> {
        Some(())
    }
}

/// There is nothing, but the sender offers a buffer for a reply or the next message.
struct Room;

impl<S> Pass<S> for Room {
    #[inline(always)]
    fn pass(self, _: &mut S, from: &mut Thread, _: &mut Thread) -> Option<()> {
        offers_good_buffer(from).then_some(())
    }
}

/// Bytes are copied where they are.
struct InPlace(&'static Mm);

impl<S> Pass<S> for InPlace {
    #[inline(always)]
    fn pass(self, _: &mut S, from: &mut Thread, to: &mut Thread) -> Option<()> {
        (fits(from, to) && copy_in_place(self.0, from, to)).then_some(())
    }
}

/// Bytes are copied, or their pages mapped: more of them than can be copied where they are.
struct Pages(&'static Mm);

impl Pass<&mut Spaces> for Pages {
    #[inline(always)]
    fn pass(self, spaces: &mut &mut Spaces, from: &mut Thread, to: &mut Thread) -> Option<()> {
        if fits(from, to) {
            copy_pages(self.0, spaces, from, to)
        } else {
            None
        }
    }
}

/// A handle moves.
struct OneHandle<'e> {
    mm: &'static Mm,
    /// That ends the epoch of the endpoints.
    ends_epoch: &'e mut bool,
}

impl Pass<&mut Spaces> for OneHandle<'_> {
    #[inline(always)]
    fn pass(self, spaces: &mut &mut Spaces, from: &mut Thread, to: &mut Thread) -> Option<()> {
        let handle = Handle(from.regs.r14 as u32);
        let (moved, ends_epoch) = spaces.move_handle(self.mm, from, to.space, handle)?;
        to.regs.r14 = moved.0.into();
        *self.ends_epoch = ends_epoch;
        Some(())
    }
}

/// Whether the buffer is a good one that a thread offers for a reply or the next message.
#[inline(always)]
fn offers_good_buffer(thread: &Thread) -> bool {
    ByteRange::is_good(thread.regs.r9, thread.regs.r10)
}

/// Whether the bytes of a message fit the receiver's buffer, and the sender offers a good buffer in turn. The receiver's
/// is one, or it would not wait.
#[inline(always)]
fn fits(from: &Thread, to: &Thread) -> bool {
    debug_assert!(offers_good_buffer(to));
    let (data, len) = (from.regs.rdx, from.regs.r8);
    offers_good_buffer(from) && len != 0 && len <= to.regs.r10 && ByteRange::is_good(data, len)
}

/// Copies the bytes of a message where they are and go, if all of that is mapped. Pages that move are whole ones, and
/// none of those is copied in place.
#[inline(always)]
fn copy_in_place(mm: &Mm, from: &Thread, to: &Thread) -> bool {
    let (data, len) = (from.regs.rdx, from.regs.r8);
    vm::copy_in_place(mm, to.root, to.regs.r9, from.root, data, len)
}

/// Copies the bytes of a message that fits, however many there are.
#[inline(never)]
fn copy_pages(mm: &Mm, spaces: &Spaces, from: &Thread, to: &Thread) -> Option<()> {
    let (source, target) = (spaces.get(from.space)?, spaces.get(to.space)?);
    let passage = Passage {
        mm,
        dst: &target.table,
        to: to.regs.r9,
        src: &source.table,
        from: from.regs.rdx,
        len: from.regs.r8,
        transfer: Transfer::of(Tag(from.regs.rsi)),
    };
    let is_copied = passage.copy_within(Effort::STEP) == Ok(true);
    vm::reap(mm);
    is_copied.then_some(())
}
