//! The moment when a message passes from one thread to another.
//!
//! Handles first, then bytes, then registers: the first two can fail, and then nothing has
//! happened; the last cannot. Bytes go through the one generic copy, a [`Passage`], which remaps
//! whole pages copy-on-write where source and destination allow it.

use cowslip_abi::{
    Error, Handle, MAX_HANDLES, MessageKind, Rights, Tag, pack_handles, unpack_handles,
};

use super::Progress;
use crate::object::{HandleEntry, Id, Kernel, Outgoing, Space, Special, State, Thread};
use crate::trace;
use crate::vm::{self, ByteRange, CopyError, Passage, Side, Transfer};

/// Why a delivery failed, and to whom it is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The sender's buffer or handles, or a lack of resources.
    OfSender(Error),
    /// The receiver's buffer.
    OfReceiver(Error),
}

impl Kernel {
    /// Passes the message of a thread in state `Sending` to one in state `Receiving`, both in no
    /// queue. Afterwards the sender waits for the reply, and the receiver is ready to be let run;
    /// unless that takes more than one step of `caller`, who is one of them.
    pub(super) fn deliver(
        &mut self,
        from: Id<Thread>,
        to: Id<Thread>,
        caller: Id<Thread>,
    ) -> Result<Progress<()>, Fault> {
        let gone = Fault::OfSender(Error::Died);
        let sender = self.threads.get(from).ok_or(gone)?;
        let receiver = self.threads.get(to).ok_or(gone)?;
        let State::Sending {
            endpoint,
            badge,
            message,
        } = sender.state
        else {
            return Err(gone);
        };
        let buffer = receiver.regs.buffer().map_err(Fault::OfReceiver)?;
        let fault = sender.fault();
        let (client, server) = (sender.space, receiver.space);
        debug_assert_eq!(receiver.answering, 0, "the answer is not deferred");

        let (tag, words, len) = match fault {
            Some(fault) => (fault.tag(), fault.words(&sender.regs), 0),
            None => {
                let passed = self.transfer(caller, from, client, server, message, buffer)?;
                let Progress::Done(words) = passed else {
                    return Ok(Progress::More);
                };
                let tag = message.tag.with_kind(MessageKind::Message);
                (Tag(tag.0 & !SENDERS_MARKS), words, message.data.len())
            }
        };
        let accepted = len.min(buffer.len());

        if let Some((sender, receiver)) = self.threads.two_mut(from, to) {
            let tag = tag.with_truncation(accepted < len, false);
            receiver.regs.set_message(tag, len);
            receiver.answering = sender.token.advance();
            receiver.regs.r8 = receiver.answering;
            receiver.regs.rdi = badge;
            receiver.regs.set_words(words);
            let (number, tag) = (endpoint.number(), receiver.regs.rsi);
            trace::message(from.number(), to.number(), number, tag, accepted);
            // As it is now: a handle that has left may have changed it.
            receiver.borrow_priority(sender.priority);
            sender.state = State::AwaitingReply { server: to };
            if fault.is_none() {
                sender.regs.r8 = accepted;
                sender.special.set(Special::TRUNCATED, accepted < len);
            }
        }
        Ok(Progress::Done(()))
    }

    /// Passes a reply to a thread in state `AwaitingReply`, which stays in it. Returns whether the
    /// reply was longer than the thread's buffer.
    pub(super) fn deliver_reply(
        &mut self,
        from: Id<Thread>,
        to: Id<Thread>,
        message: Outgoing,
    ) -> Result<Progress<bool>, Fault> {
        let gone = Fault::OfSender(Error::StaleToken);
        let server = self.threads.get(from).ok_or(gone)?.space;
        let client = self.threads.get(to).ok_or(gone)?;
        let reply = client.regs.buffer().map_err(Fault::OfReceiver)?;
        let passed = self.transfer(from, from, server, client.space, message, reply)?;
        let Progress::Done(words) = passed else {
            return Ok(Progress::More);
        };

        let truncated = message.data.len() > reply.len();
        if let Some(client) = self.threads.get_mut(to) {
            let tag = Tag(message.tag.0 & !SENDERS_MARKS)
                .with_truncation(truncated, client.special.contains(Special::TRUNCATED));
            client.regs.set_message(tag, message.data.len());
            client.regs.set_words(words);
            let accepted = message.data.len().min(reply.len());
            trace::reply(from.number(), to.number(), tag.0, accepted);
        }
        Ok(Progress::Done(truncated))
    }

    /// Passes handles and bytes; returns the words for the receiver. If that takes `caller` more than
    /// one step, the handles go last.
    fn transfer(
        &mut self,
        caller: Id<Thread>,
        sender: Id<Thread>,
        from: Id<Space>,
        to: Id<Space>,
        message: Outgoing,
        buffer: ByteRange,
    ) -> Result<Progress<[u64; 4]>, Fault> {
        let mut words = match self.threads.get(sender) {
            Some(thread) => thread.regs.words(),
            None => return Err(Fault::OfSender(Error::Died)),
        };
        let count = message.tag.handles();
        let is_long = self.is_long(caller);
        if (count == 0 || is_long) && !self.copy_bytes(caller, from, to, message, buffer)? {
            return Ok(Progress::More);
        }
        if count == 0 {
            return Ok(Progress::Done(words));
        }

        let sent = unpack_handles([words[2], words[3]]);
        let entries = self
            .readable_handles(from, &sent[..count])
            .map_err(Fault::OfSender)?;
        let installed = self
            .install_all(to, &entries[..count])
            .map_err(Fault::OfSender)?;
        if !is_long {
            let copied = self.copy_bytes(caller, from, to, message, buffer);
            if copied != Ok(true) {
                self.close_all(to, &installed[..count]);
                return copied.map(|_| Progress::More);
            }
        }
        if message.tag.moves_handles() {
            self.close_all(from, &sent[..count]);
        }
        [words[2], words[3]] = pack_handles(installed);
        Ok(Progress::Done(words))
    }

    /// Copies the bytes of a message, or takes one step of doing so. Returns whether they are copied.
    fn copy_bytes(
        &mut self,
        caller: Id<Thread>,
        from: Id<Space>,
        to: Id<Space>,
        message: Outgoing,
        buffer: ByteRange,
    ) -> Result<bool, Fault> {
        let len = message.data.len().min(buffer.len());
        if len == 0 {
            return Ok(true);
        }
        self.settle_memory();
        let source = self.spaces.get(from).ok_or(Fault::OfSender(Error::Died))?;
        let target = self.spaces.get(to).ok_or(Fault::OfSender(Error::Died))?;
        let passage = Passage {
            mm: self.mm,
            dst: &target.table,
            to: buffer.addr(),
            src: &source.table,
            from: message.data.addr(),
            len,
            transfer: Transfer::of(message.tag),
        };
        let mut long = self.long(caller);
        let result = long.step(self.mm, &passage);
        self.set_long(caller, long);
        let is_worth_again = vm::make_room(self.mm);
        match result {
            // Memory is not out before all that is dead is worked off.
            Err(failure) if failure.error == Error::NoMemory && is_worth_again => Ok(false),
            result => result.map_err(fault_of),
        }
    }

    /// The entries of handles that are to go along in a message.
    fn readable_handles(
        &self,
        space: Id<Space>,
        handles: &[Handle],
    ) -> Result<[HandleEntry; MAX_HANDLES], Error> {
        let table = &self.spaces.get(space).ok_or(Error::Died)?.handles;
        let mut entries = [HandleEntry::NOTHING; MAX_HANDLES];
        for (entry, handle) in entries.iter_mut().zip(handles) {
            *entry = table.get(*handle)?.having(Rights::COPY)?;
        }
        Ok(entries)
    }

    /// Installs all entries or none.
    fn install_all(
        &mut self,
        space: Id<Space>,
        entries: &[HandleEntry],
    ) -> Result<[Handle; MAX_HANDLES], Error> {
        let mut installed = [Handle::NONE; MAX_HANDLES];
        for (i, entry) in entries.iter().enumerate() {
            match self.install(space, entry.object, entry.rights, entry.badge) {
                Ok(handle) => installed[i] = handle,
                Err(error) => {
                    self.close_all(space, &installed[..i]);
                    return Err(error);
                }
            }
        }
        Ok(installed)
    }

    /// Closes handles; one that is named twice is closed once.
    fn close_all(&mut self, space: Id<Space>, handles: &[Handle]) {
        for handle in handles {
            let _ = self.close(space, *handle);
        }
    }
}

/// To whom the failure of a copy is told.
fn fault_of(failure: CopyError) -> Fault {
    match failure.side {
        Side::Destination if failure.error != Error::Overlap => Fault::OfReceiver(failure.error),
        _ => Fault::OfSender(failure.error),
    }
}

/// That handles and pages move, and that there is a deadline, means nothing to the receiver.
pub(super) const SENDERS_MARKS: u64 = Tag(0).moving_handles().moving_pages().with_deadline().0;

impl Transfer {
    /// What the sender's tag asks for.
    pub(super) const fn of(tag: Tag) -> Self {
        if tag.moves_pages() {
            Self::Move
        } else {
            Self::Copy
        }
    }
}
