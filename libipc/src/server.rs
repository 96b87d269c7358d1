//! The loop of a server, around whatever it serves.
//!
//! A [`Service`] says what to answer: a [generated](mod@crate::service) one by calling a trait's methods, one by hand by looking
//! at messages. [`serve`] receives and replies in one entry, and goes on when a client is gone. A server that serves takes no more memory: it has touched all that it needs, so
//! that it answers when there are no free frames left. Host tests call the same services through the [fake kernel](crate::fake).

#[cfg(target_os = "none")]
use abi::PAGE_SIZE;
mod pool;
mod timer;

use abi::Error;

use crate::buffer::PageBuffer;
use crate::message::{Fault, Incoming, Message, Received, ReplyToken, received};
use crate::names;
use crate::object::{Endpoint, Results, close_raw, reply_and_receive};
use crate::service::undelivered;
use crate::services;
#[cfg(target_os = "none")]
use crate::start::STACK_TOP;

pub use pool::{WAKE, serve_by};
pub use timer::{Interval, Timer};

/// What a server answers.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Whom.
    pub token: ReplyToken,
    /// The inline part.
    pub message: Message,
    /// The bytes.
    pub data: &'a [u8],
}

impl ReplyToken {
    /// An answer without bytes.
    #[must_use]
    pub fn answer(self, message: Message) -> Option<Answer<'static>> {
        Some(Answer {
            token: self,
            message,
            data: &[],
        })
    }

    /// An answer with bytes.
    #[must_use]
    pub fn answer_with(self, message: Message, data: &[u8]) -> Option<Answer<'_>> {
        Some(Answer {
            token: self,
            message,
            data,
        })
    }
}

/// What a server does with what arrives.
pub trait Service {
    /// Whether messages may bring handles. Where they may not, those that come are closed.
    fn takes_handles(&self) -> bool {
        false
    }

    /// The most bytes that a message may bring.
    fn max_bytes(&self) -> usize {
        0
    }

    /// Whether it has done what it is there for. The loop asks at first, and after each event that is not answered at
    /// once: so who ends a service with a request answers that itself, by [`ReplyToken::reply`].
    fn is_done(&self) -> bool {
        false
    }

    /// A message with its bytes. `None`: the answer comes later, by the token.
    fn message(&mut self, incoming: Incoming, data: &[u8]) -> Option<Answer<'_>>;

    /// Notification bits.
    fn notification(&mut self, bits: u64) {
        let _ = bits;
    }

    /// A fault of a thread that the endpoint supervises.
    fn fault(&mut self, fault: Fault) {
        let _ = fault.decide(abi::FaultVerdict::Kill);
    }
}

/// How much stack a server may use beyond its own variables, in bytes: touched before it serves.
#[cfg(target_os = "none")]
const STACK: u64 = 32 * 1024;

/// Serves under a name, until the service is done.
///
/// # Errors
/// Those of [`names::register`], and why the endpoint cannot be received on any more.
pub fn serve<S: Service>(name: &str, mut service: S) -> Result<(), services::Error> {
    let endpoint = Endpoint::create()?;
    names::register(name, &endpoint)?;
    Ok(serve_on(&endpoint, &mut service)?)
}

/// Serves on an endpoint, until the service is done. What arrives begins at a page.
///
/// # Errors
/// `NoMemory` for the buffer; why the endpoint cannot be received on any more.
pub fn serve_on<S: Service>(endpoint: &Endpoint, service: &mut S) -> Result<(), Error> {
    match service.max_bytes() {
        0 => serve_into(endpoint, &mut [], service),
        len => serve_into(endpoint, &mut PageBuffer::new(len)?, service),
    }
}

/// Where a loop receives.
pub trait Room {
    /// Room for the next message. Nobody looks at the last one any more.
    fn next(&mut self) -> &mut [u8];

    /// The bytes of a message that has just come there, and how many there are.
    fn arrived(&mut self, len: usize) -> &[u8];
}

/// Bytes that are always there.
impl Room for &mut [u8] {
    #[inline]
    fn next(&mut self) -> &mut [u8] {
        self
    }

    #[inline]
    fn arrived(&mut self, len: usize) -> &[u8] {
        &self[..len]
    }
}

/// [`serve_on`] with a buffer of the caller's.
///
/// # Errors
/// Why the endpoint cannot be received on any more.
pub fn serve_into<S: Service>(
    endpoint: &Endpoint,
    buffer: &mut [u8],
    service: &mut S,
) -> Result<(), Error> {
    serve_while(endpoint, buffer, service, |service| !service.is_done())
}

/// Serves as long as the service wants: it is asked at first, and after each event that it does
/// not answer at once.
///
/// # Errors
/// Why the endpoint cannot be received on any more.
pub fn serve_while<S: Service>(
    endpoint: &Endpoint,
    buffer: &mut [u8],
    service: &mut S,
    goes_on: impl Fn(&S) -> bool,
) -> Result<(), Error> {
    let mut buffer = buffer;
    buffer.fill(0);
    serve_in(endpoint, &mut buffer, service, goes_on)
}

/// [`serve_while`] with room of another kind, which sees to it that it is there when a message comes.
///
/// # Errors
/// Why the endpoint cannot be received on any more.
pub fn serve_in<S: Service>(
    endpoint: &Endpoint,
    room: &mut impl Room,
    service: &mut S,
    goes_on: impl Fn(&S) -> bool,
) -> Result<(), Error> {
    touch_stack();
    if !goes_on(service) {
        return Ok(());
    }
    // A child that the service forks has nothing to reply to, and then learns that the endpoint is not its.
    let handle = endpoint.handle();
    let mut buffer = room.next();
    let mut capacity = buffer.len();
    let mut next = endpoint.receive(buffer)?;
    loop {
        let answer = match received(next, capacity) {
            Received::Message(incoming) => {
                let len = incoming.len;
                if !service.takes_handles() {
                    close(&incoming.message);
                }
                service.message(incoming, room.arrived(len))
            }
            Received::Notification(bits) => {
                service.notification(bits);
                None
            }
            Received::Fault(fault) => {
                service.fault(fault);
                None
            }
        };
        if let Some(Answer {
            token,
            message,
            data,
        }) = answer
        {
            buffer = room.next();
            capacity = buffer.len();
            if message.tag.moves_handles() {
                next = reply_moving(endpoint, token, message, data, buffer)?;
                continue;
            }
            let number = token.0;
            match reply_and_receive(handle, token, message, data, buffer) {
                Ok(results) => {
                    next = results;
                    continue;
                }
                // Whether it was the receive half that failed, the receive says again.
                Err(error) => withdraw(number, error),
            }
        } else if !goes_on(service) {
            return Ok(());
        }
        buffer = room.next();
        capacity = buffer.len();
        next = endpoint.receive(buffer)?;
    }
}

/// Answers with handles that move, and receives. If they do not get through they are still here, and are closed.
#[inline(never)]
fn reply_moving(
    endpoint: &Endpoint,
    token: ReplyToken,
    message: Message,
    data: &[u8],
    buffer: &mut [u8],
) -> Result<Results, Error> {
    let number = token.0;
    reply_and_receive(endpoint.handle(), token, message, data, buffer).or_else(|error| {
        withdraw(number, error);
        close(&message);
        endpoint.receive(buffer)
    })
}

/// Tells a client, if it still waits, that its answer could not be delivered: in words, which take
/// neither a frame nor a handle.
#[cold]
fn withdraw(token: u64, error: Error) {
    let _ = ReplyToken(token).reply(undelivered(error), &[]);
}

/// Touches the stack, from its beginning to [`STACK`] bytes below this function: a read is enough.
#[cfg(target_os = "none")]
#[inline(never)]
fn touch_stack() {
    let here = 0u8;
    let lowest = &raw const here as u64 - STACK;
    // Init's stack is the kernel's choice: there the frames above this one are small.
    let mut page = STACK_TOP.max(&raw const here as u64) - PAGE_SIZE as u64;
    while page >= lowest {
        // SAFETY: whoever started the server mapped the stack there, much longer than this.
        unsafe { core::ptr::read_volatile(page as *const u8) };
        page -= PAGE_SIZE as u64;
    }
}

/// On the host, servers run on the stacks of tests.
#[cfg(not(target_os = "none"))]
fn touch_stack() {}

/// Closes the handles of a message.
fn close(message: &Message) {
    message.handles().into_iter().for_each(close_raw);
}
