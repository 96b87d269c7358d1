//! Endpoints: sending, receiving, notifying.

use abi::{Call, Error, Handle, RecvFlags, Tag};

use super::{Endpoint, first_handle};
use crate::message::{Message, Received, ReplyToken, Sent, received};
use crate::raw;
use crate::time::Instant;

/// What a receive leaves in the registers, undecoded: there it stays if a loop decodes it by itself.
pub(crate) type Results = (raw::Args, raw::Words);

/// The call `reply_recv`, undecoded.
#[inline]
pub(crate) fn reply_and_receive(
    endpoint: Handle,
    token: ReplyToken,
    message: Message,
    data: &[u8],
    buffer: &mut [u8],
) -> Result<Results, Error> {
    let args = [
        token.into_raw(),
        message.tag.0,
        data.as_ptr() as u64,
        data.len() as u64,
        buffer.as_mut_ptr() as u64,
        buffer.len() as u64,
    ];
    raw::checked_message(Call::ReplyRecv, endpoint, args, message.words)
}

impl Endpoint {
    /// Creates an endpoint; the handle has all rights.
    ///
    /// # Errors
    /// `NoMemory`, `TableFull`.
    pub fn create() -> Result<Self, Error> {
        raw::checked(Call::EndpointCreate, Handle::NONE, [0; 6])
            .map(|results| Self::from_raw(first_handle(results)))
    }

    /// Sends a message with `data`, and waits for the reply, whose bytes go to `reply`.
    ///
    /// # Errors
    /// Those of the call `send`.
    pub fn send(&self, message: Message, data: &[u8], reply: &mut [u8]) -> Result<Sent, Error> {
        self.send_tagged(0, message.tag, message, data, reply)
    }

    /// The same, and gives up when that has not come to an end until `deadline`. Then the server has not got the message, or
    /// cannot answer it any more.
    ///
    /// # Errors
    /// Those of the call `send`; `TimedOut`.
    pub fn send_until(
        &self,
        deadline: Instant,
        message: Message,
        data: &[u8],
        reply: &mut [u8],
    ) -> Result<Sent, Error> {
        let tag = message.tag.with_deadline();
        self.send_tagged(deadline.to_deadline(), tag, message, data, reply)
    }

    #[inline]
    fn send_tagged(
        &self,
        deadline_ns: u64,
        tag: Tag,
        message: Message,
        data: &[u8],
        reply: &mut [u8],
    ) -> Result<Sent, Error> {
        let args = [
            deadline_ns,
            tag.0,
            data.as_ptr() as u64,
            data.len() as u64,
            reply.as_mut_ptr() as u64,
            reply.len() as u64,
        ];
        let (results, words) =
            raw::checked_message(Call::Send, self.handle(), args, message.words)?;
        let [_, tag, reply_len, accepted, ..] = results;
        Ok(Sent {
            reply: Message {
                tag: Tag(tag),
                words,
            },
            reply_len: reply_len as usize,
            accepted: accepted as usize,
        })
    }

    /// Sends an inline message and waits for an inline reply.
    ///
    /// # Errors
    /// Those of the call `send`.
    pub fn call(&self, message: Message) -> Result<Message, Error> {
        self.send(message, &[], &mut []).map(|sent| sent.reply)
    }

    /// Waits for the next event; a message's bytes go to `buffer`.
    ///
    /// # Errors
    /// Those of the call `recv`.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Received, Error> {
        self.recv_flags(RecvFlags::empty(), buffer)
    }

    /// The same as [`recv`](Self::recv), and gives up when nothing is there until `deadline`.
    ///
    /// # Errors
    /// Those of the call `recv`; `TimedOut`.
    pub fn recv_until(&self, deadline: Instant, buffer: &mut [u8]) -> Result<Received, Error> {
        let results = self.receive_flags(deadline.to_deadline(), RecvFlags::DEADLINE, buffer)?;
        Ok(received(results, buffer.len()))
    }

    /// Takes the next event if there is one.
    ///
    /// # Errors
    /// Those of the call `recv`; `WouldBlock` when nothing is there.
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<Received, Error> {
        self.recv_flags(RecvFlags::NONBLOCK, buffer)
    }

    /// The call `recv`, undecoded.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Results, Error> {
        self.receive_flags(0, RecvFlags::empty(), buffer)
    }

    #[inline]
    fn receive_flags(
        &self,
        deadline_ns: u64,
        flags: RecvFlags,
        buffer: &mut [u8],
    ) -> Result<Results, Error> {
        let args = [
            deadline_ns,
            flags.bits(),
            0,
            0,
            buffer.as_mut_ptr() as u64,
            buffer.len() as u64,
        ];
        raw::checked_message(Call::Recv, self.handle(), args, [0; 4])
    }

    fn recv_flags(&self, flags: RecvFlags, buffer: &mut [u8]) -> Result<Received, Error> {
        let results = self.receive_flags(0, flags, buffer)?;
        Ok(received(results, buffer.len()))
    }

    /// Answers, and waits for the next event in the same entry.
    ///
    /// # Errors
    /// Those of the call `reply_recv`. After an error of the reply nothing has been received.
    pub fn reply_recv(
        &self,
        token: ReplyToken,
        message: Message,
        data: &[u8],
        buffer: &mut [u8],
    ) -> Result<Received, Error> {
        let results = reply_and_receive(self.handle(), token, message, data, buffer)?;
        Ok(received(results, buffer.len()))
    }

    /// Raises the bits of the handle's badge.
    ///
    /// # Errors
    /// Those of the call `notify`.
    pub fn notify(&self) -> Result<(), Error> {
        raw::checked(Call::Notify, self.handle(), [0; 6]).map(|_| ())
    }

    /// Raises the bits of the handle's badge when the clock reaches `deadline_ns`; 0 cancels.
    ///
    /// # Errors
    /// Those of the call `timer`.
    pub fn timer(&self, deadline_ns: u64) -> Result<(), Error> {
        raw::checked(Call::Timer, self.handle(), [deadline_ns, 0, 0, 0, 0, 0]).map(|_| ())
    }
}
