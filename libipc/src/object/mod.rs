//! Kernel objects as types, each owning one handle.
//!
//! A handle closes when its owner is dropped, in the process that owns it and in no other: a forked
//! child has a copy of the parent's memory, but a handle table of its own, where the parent's
//! numbers may name something else. So each owner remembers the process it belongs to, and in any
//! other it names nothing: calls fail with `BadHandle`, and dropping it closes nothing.

mod device;
mod endpoint;
mod inspect;
mod space;
mod system;
mod thread;

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use abi::{Call, Error, Handle, InfoTopic, Rights};

use crate::{raw, start};

pub use abi::Waits;
pub(crate) use endpoint::{Results, reply_and_receive};
pub use inspect::{Identity, Member, Place, Range};
pub use space::{Charge, SpaceInfo};
pub use thread::{Entry, ThreadInfo};

/// A handle and the process whose table it is in.
#[derive(Debug)]
struct Owned {
    handle: Handle,
    owner: u64,
}

impl Owned {
    fn new(handle: Handle) -> Self {
        Owned {
            handle,
            owner: start::pid(),
        }
    }

    #[inline]
    fn get(&self) -> Handle {
        if self.owner == start::pid() {
            self.handle
        } else {
            cold_none()
        }
    }
}

/// In a process that does not own it, which asks for it by mistake.
#[cold]
const fn cold_none() -> Handle {
    Handle::NONE
}

impl Drop for Owned {
    fn drop(&mut self) {
        let handle = self.get();
        if !handle.is_none() {
            let _ = raw::checked(Call::HandleClose, handle, [0; 6]);
        }
    }
}

/// A wrapper of a handle that somebody else owns: it never closes.
#[derive(Debug)]
pub struct Borrowed<'a, T>(ManuallyDrop<T>, PhantomData<&'a T>);

impl<T> Borrowed<'_, T> {
    /// Wraps a value so that it is never dropped: who made it sees to that whatever it stands for outlives this.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Borrowed(ManuallyDrop::new(value), PhantomData)
    }
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

macro_rules! object {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Owned);

        impl $name {
            /// Takes over a handle of this process.
            #[must_use]
            pub fn from_raw(handle: Handle) -> Self {
                $name(Owned::new(handle))
            }

            /// Wraps a handle without taking it over.
            #[must_use]
            pub fn borrow<'a>(handle: Handle) -> Borrowed<'a, Self> {
                Borrowed::new(Self::from_raw(handle))
            }

            /// The handle; [`Handle::NONE`] in a process that does not own it.
            #[must_use]
            pub fn handle(&self) -> Handle {
                self.0.get()
            }

            /// Gives the handle up without closing it.
            #[must_use]
            pub fn into_raw(self) -> Handle {
                ManuallyDrop::new(self).0.get()
            }

            /// A second handle to the object in this process, with these rights. A badge of 0
            /// keeps the badge.
            ///
            /// # Errors
            /// Those of the call `handle_copy`.
            pub fn copy(&self, rights: Rights, badge: u64) -> Result<Self, Error> {
                copy_handle(self.handle(), Handle::NONE, rights, badge).map(Self::from_raw)
            }

            /// Puts a handle to the object into another space's table, and returns its number
            /// there. A badge of 0 keeps the badge.
            ///
            /// # Errors
            /// Those of the call `handle_copy`.
            pub fn copy_to(&self, to: &Space, rights: Rights, badge: u64) -> Result<Handle, Error> {
                copy_handle(self.handle(), to.handle(), rights, badge)
            }
        }
    };
}

object! {
    /// An endpoint: where messages, notifications and faults arrive.
    Endpoint
}
object! {
    /// An address space with a handle table.
    Space
}
object! {
    /// A thread.
    Thread
}
object! {
    /// The system object: creating spaces, the counters, the log, the end.
    System
}
object! {
    /// One interrupt line, or all of them.
    Interrupt
}
object! {
    /// A range of I/O ports.
    Ports
}

/// The call `handle_copy` on a bare handle.
///
/// # Errors
/// Those of the call.
pub fn copy_handle(
    handle: Handle,
    to: Handle,
    rights: Rights,
    badge: u64,
) -> Result<Handle, Error> {
    let args = [to.0.into(), rights.bits().into(), badge, 0, 0, 0];
    raw::checked(Call::HandleCopy, handle, args).map(first_handle)
}

/// Closes a bare handle, of whatever it is; [`Handle::NONE`] is none.
pub(crate) fn close_raw(handle: Handle) {
    drop(Owned::new(handle));
}

/// An endpoint and a badge as calls want them that take both; nobody is 0.
///
/// # Errors
/// As for [`named`].
fn badged(endpoint: Option<(&Endpoint, u64)>) -> Result<[u64; 2], Error> {
    match endpoint {
        Some((endpoint, badge)) => Ok([named(endpoint.handle())?, badge]),
        None => Ok([0; 2]),
    }
}

/// A handle as an argument that may be left out, and is not.
///
/// # Errors
/// `BadHandle`: it names nothing in this process, which the call would take for leaving it out.
fn named(handle: Handle) -> Result<u64, Error> {
    if handle.is_none() {
        Err(Error::BadHandle)
    } else {
        Ok(handle.0.into())
    }
}

/// The handle that a creating call returned in `rdi`.
fn first_handle(results: raw::Args) -> Handle {
    Handle(results[0] as u32)
}

/// The clock: nanoseconds since boot, and ticks per second of the time-stamp counter.
///
/// # Errors
/// Those of the call `info`.
pub fn clock() -> Result<(u64, u64), Error> {
    info(Handle::NONE, InfoTopic::Clock).map(|([ns, ticks_per_s, ..], _)| (ns, ticks_per_s))
}

/// The CPUs that run threads, a bit each.
///
/// # Errors
/// Those of the call `info`.
pub fn cpus() -> Result<u64, Error> {
    info(Handle::NONE, InfoTopic::Clock).map(|([_, _, cpus, ..], _)| cpus)
}

/// Lets other threads of the same priority run.
pub fn yield_now() {
    let _ = raw::checked(Call::Yield, Handle::NONE, [0; 6]);
}

fn info(handle: Handle, topic: InfoTopic) -> Result<(raw::Args, raw::Words), Error> {
    info_at(handle, topic, 0)
}

/// The call `info` with an argument.
fn info_at(handle: Handle, topic: InfoTopic, place: u64) -> Result<(raw::Args, raw::Words), Error> {
    let args = [topic as u64, place, 0, 0, 0, 0];
    raw::checked_message(Call::Info, handle, args, [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn what_names_nothing_here_is_not_left_out() {
        let (system, space) = (System::borrow(Handle(1)), Space::borrow(Handle(2)));
        // What it was in another process.
        let (lost, lost_space) = (Endpoint::borrow(Handle::NONE), Space::borrow(Handle::NONE));
        let _ = fake::asked();
        let told = Some((&*lost, 1));
        assert_eq!(system.create_space(told).err(), Some(Error::BadHandle));
        let like = system.create_space_like(&lost_space, None);
        assert_eq!(like.err(), Some(Error::BadHandle));
        let thread = space.create_thread(told, 1);
        assert_eq!(thread.err(), Some(Error::BadHandle));
        assert_eq!(fake::asked(), []);
        assert!(system.create_space(None).is_ok() && space.create_thread(None, 1).is_ok());
    }
}
