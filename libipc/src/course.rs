//! The course's own calls: send to a process by number, receive, reply.
//!
//! `send(pid, data, len, replybuf, replylen)`, `recv(buf, len)` and `reply(pid, data, len)` of the
//! assignment, with slices for pointer and length, and a value that can be used once for the right
//! to reply. Only relatives (parent, child, sibling) can be sent to; the pid that the receiver sees
//! is the badge of the sender's handle, which the process server made.

use spin::mutex::SpinMutex;

use crate::message::{Message, Received, ReplyToken};
use crate::object::Endpoint;
use crate::rt::YieldRelax;
use crate::services::Error;
use crate::services::procd::ProcdClient;
use crate::start;

/// Label of these messages.
const LABEL: u32 = 0;

/// Relatives whose endpoints are kept.
const KEPT: usize = 8;

/// Endpoints of relatives, by pid. In a forked child they name nothing, and are asked for anew.
static RELATIVES: SpinMutex<Relatives, YieldRelax> = SpinMutex::new(Relatives {
    kept: [const { None }; KEPT],
    next: 0,
});

struct Relatives {
    kept: [Option<(u64, Endpoint)>; KEPT],
    next: usize,
}

impl Relatives {
    /// The handle of a relative's endpoint.
    fn get(&mut self, pid: u64) -> Result<abi::Handle, Error> {
        let known = self.kept.iter().flatten().find(|(kept, _)| *kept == pid);
        if let Some((_, endpoint)) = known
            && !endpoint.handle().is_none()
        {
            return Ok(endpoint.handle());
        }
        let given = ProcdClient::borrow(start::procd()).endpoint(pid)?;
        let handle = given.into();
        let slot = self
            .kept
            .iter()
            .position(|kept| kept.as_ref().is_none_or(|(_, old)| old.handle().is_none()))
            .unwrap_or(self.next);
        self.next = (slot + 1) % KEPT;
        self.kept[slot] = Some((pid, Endpoint::from_raw(handle)));
        Ok(handle)
    }

    fn forget(&mut self, pid: u64) {
        for kept in &mut self.kept {
            kept.take_if(|(known, _)| *known == pid);
        }
    }
}

/// Sends `data` to a relative, waits for its reply, and returns how many bytes of it are in
/// `reply`.
///
/// # Errors
/// `NotFound`, `Denied` when the process is no relative; those of the call `send`.
pub fn send(pid: u64, data: &[u8], reply: &mut [u8]) -> Result<usize, Error> {
    let endpoint = Endpoint::borrow(RELATIVES.lock().get(pid)?);
    match endpoint.send(Message::new(LABEL), data, reply) {
        Ok(sent) => Ok(sent.reply_len.min(reply.len())),
        Err(error) => {
            if error == abi::Error::Died {
                RELATIVES.lock().forget(pid);
            }
            Err(error.into())
        }
    }
}

/// A message from a relative, which waits for the reply.
#[derive(Debug)]
#[must_use = "the sender waits for a reply"]
pub struct Letter {
    /// Who sent it.
    pub from: u64,
    /// How many bytes are in the buffer.
    pub len: usize,
    token: ReplyToken,
}

impl Letter {
    /// Replies; what does not fit into the sender's reply buffer is cut off.
    ///
    /// # Errors
    /// Those of the call `reply`.
    pub fn reply(self, data: &[u8]) -> Result<(), Error> {
        self.token.reply(Message::new(LABEL), data)?;
        Ok(())
    }
}

/// Waits for a message from a relative; its bytes go to `buffer`, as far as they fit.
///
/// # Errors
/// Those of the call `recv`.
pub fn recv(buffer: &mut [u8]) -> Result<Letter, Error> {
    let inbox = Endpoint::borrow(start::inbox());
    loop {
        // The inbox is for messages: bits that somebody raised there mean nothing.
        if let Received::Message(incoming) = inbox.recv(buffer)? {
            return Ok(Letter {
                from: incoming.badge,
                len: incoming.len,
                token: incoming.token,
            });
        }
    }
}
