//! A stand-in for the kernel in host tests: calls go to services in the same thread.
//!
//! [`serve`] puts a [`Service`] behind a handle; sends to that handle arrive there, and the bytes
//! are really copied. Deferred answers are collected by [`replies`]; what a loop receives is what [`deliver`] has put there,
//! and then the endpoint is dead. Other calls are recorded and
//! answered with success and, where they create something, fresh handle numbers.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use abi::{Call, Error, Handle, Tag};

use crate::message::{Incoming, Message, ReplyToken};
use crate::raw::{Args, Words};
use crate::server::{Answer, Service};

/// A call that the kernel was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub call: Call,
    /// On what.
    pub handle: Handle,
    /// The argument registers.
    pub args: Args,
}

#[derive(Default)]
struct Fake {
    services: BTreeMap<u32, (u64, Rc<RefCell<dyn Service>>)>,
    asked: VecDeque<Asked>,
    replies: Vec<(u64, Message, Vec<u8>)>,
    failing: BTreeMap<u32, Error>,
    failing_once: BTreeMap<u32, Error>,
    delivered: BTreeMap<u32, VecDeque<Incoming>>,
    /// The last handle number and token given out.
    last: u32,
}

impl Fake {
    fn failure(&mut self, number: u32) -> Option<Error> {
        let once = self.failing_once.remove(&number);
        once.or_else(|| self.failing.get(&number).copied())
    }
}

thread_local! {
    static FAKE: RefCell<Option<Fake>> = const { RefCell::new(None) };
}

fn with<T>(f: impl FnOnce(&mut Fake) -> T) -> T {
    FAKE.with_borrow_mut(|fake| f(fake.get_or_insert_default()))
}

/// Puts a service behind `handle`, whose badge is `badge`.
pub fn serve<S: Service + 'static>(handle: Handle, badge: u64, service: Rc<RefCell<S>>) {
    with(|fake| fake.services.insert(handle.0, (badge, service)));
}

/// Makes every `call` fail, or succeed again.
pub fn fail(call: Call, error: Option<Error>) {
    with(|fake| match error {
        Some(error) => fake.failing.insert(call as u32, error),
        None => fake.failing.remove(&(call as u32)),
    });
}

/// Makes the next `call` fail.
pub fn fail_once(call: Call, error: Error) {
    with(|fake| fake.failing_once.insert(call as u32, error));
}

/// Lets `handle` receive a message without bytes; the answer is one of the [`replies`].
pub fn deliver(handle: Handle, incoming: Incoming) {
    with(|fake| {
        fake.delivered
            .entry(handle.0)
            .or_default()
            .push_back(incoming);
    });
}

/// The calls since the last time, sends left out.
#[must_use]
pub fn asked() -> Vec<Asked> {
    with(|fake| fake.asked.drain(..).collect())
}

/// The deferred replies since the last time: token, message, bytes.
#[must_use]
pub fn replies() -> Vec<(u64, Message, Vec<u8>)> {
    with(|fake| std::mem::take(&mut fake.replies))
}

/// Answers a call.
pub(crate) fn call(number: u32, handle: Handle, args: Args, words: Words) -> (u64, Args, Words) {
    // Services that end with their thread still close their handles.
    let gone = FAKE.try_with(|_| ()).is_err();
    let outcome = match Call::from_number(number) {
        _ if gone => Err(Error::Died),
        None => Err(Error::UnknownCall),
        Some(call) => match with(|fake| fake.failure(number)) {
            Some(error) => Err(error),
            None => dispatch(call, handle, args, words),
        },
    };
    match outcome {
        Ok((results, words)) => (0, results, words),
        Err(error) => (error as u64, args, words),
    }
}

fn dispatch(call: Call, handle: Handle, args: Args, words: Words) -> Result<(Args, Words), Error> {
    match call {
        Call::Send => return send(handle, args, words),
        Call::Reply => reply(args, words),
        Call::Recv => return receive(handle),
        Call::ReplyRecv => {
            reply(args, words);
            return receive(handle);
        }
        _ => with(|fake| fake.asked.push_back(Asked { call, handle, args })),
    }
    let creates = matches!(
        call,
        Call::EndpointCreate | Call::HandleCopy | Call::SpaceCreate | Call::ThreadCreate
    );
    if !creates {
        return Ok((args, words));
    }
    let number = with(|fake| {
        fake.last += 1;
        let number = 0x1000 + fake.last;
        // A copy of a handle leads to the same service, by another badge if one is asked for.
        if call == Call::HandleCopy
            && let Some((badge, service)) = fake.services.get(&handle.0).cloned()
        {
            let badge = if args[2] == 0 { badge } else { args[2] };
            fake.services.insert(number, (badge, service));
        }
        u64::from(number)
    });
    Ok(([number, 0, 0, 0, 0, 0], words))
}

fn reply(args: Args, words: Words) {
    let message = Message {
        tag: Tag(args[1]),
        words,
    };
    // SAFETY: the wrapper passed a slice.
    let data = unsafe { bytes(args[2], args[3]) }.to_vec();
    with(|fake| fake.replies.push((args[0], message, data)));
}

/// The next message that was delivered. Without one the endpoint is dead, as nobody can wait.
fn receive(handle: Handle) -> Result<(Args, Words), Error> {
    let next = with(|fake| fake.delivered.get_mut(&handle.0)?.pop_front());
    let incoming = next.ok_or(Error::Died)?;
    let Message { tag, words } = incoming.message;
    let token = incoming.token.into_raw();
    Ok(([incoming.badge, tag.0, 0, token, 0, 0], words))
}

fn send(handle: Handle, args: Args, words: Words) -> Result<(Args, Words), Error> {
    let [_, tag, data, len, reply, capacity] = args;
    let (badge, service) =
        with(|fake| fake.services.get(&handle.0).cloned()).ok_or(Error::BadHandle)?;
    let token = with(|fake| {
        fake.last += 1;
        u64::from(fake.last)
    });
    let incoming = Incoming {
        badge,
        message: Message {
            tag: Tag(tag),
            words,
        },
        len: len as usize,
        true_len: len as usize,
        token: ReplyToken::from_raw(token),
    };
    let mut service = service.borrow_mut();
    // SAFETY: the wrapper passed a slice.
    let request = unsafe { bytes(data, len) };
    // Nobody can wait in a single thread: an answer that comes later finds nobody.
    let Some(Answer { message, data, .. }) = service.message(incoming, request) else {
        let has_deadline = Tag(tag).has_deadline();
        return Err(if has_deadline {
            Error::TimedOut
        } else {
            Error::WouldBlock
        });
    };
    let stored = data.len().min(capacity as usize);
    // SAFETY: the wrapper passed a slice of `capacity` bytes, which is exclusively borrowed.
    unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), reply as *mut u8, stored) };
    let tag = message.tag.with_truncation(data.len() > stored, false);
    Ok(([0, tag.0, data.len() as u64, len, 0, 0], message.words))
}

/// The bytes of a slice that a wrapper took apart.
///
/// # Safety
/// `addr` and `len` are those of a slice that is borrowed for the length of the call.
unsafe fn bytes<'a>(addr: u64, len: u64) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(addr as *const u8, len as usize) }
}
