//! Kernel objects as types, each owning one handle.
//!
//! A handle closes when its owner is dropped, in the process that owns it and in no other: a forked
//! child has a copy of the parent's memory, but a handle table of its own, where the parent's
//! numbers may name something else. So each owner remembers the process it belongs to, and in any
//! other it names nothing: calls fail with `BadHandle`, and dropping it closes nothing.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use abi::{
    Call, Error, Handle, InfoTopic, Perm, PortIo, RecvFlags, Rights, ShareMode, Tag, ThreadField,
    ThreadState,
};

use crate::message::{Message, Received, ReplyToken, Sent, received};
use crate::{raw, start};

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

    fn get(&self) -> Handle {
        if self.owner == start::pid() {
            self.handle
        } else {
            Handle::NONE
        }
    }
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
                Borrowed(ManuallyDrop::new(Self::from_raw(handle)), PhantomData)
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

/// The handle that a creating call returned in `rdi`.
fn first_handle(results: raw::Args) -> Handle {
    Handle(results[0] as u32)
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
        let args = [
            0,
            message.tag.0,
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

    /// Takes the next event if there is one.
    ///
    /// # Errors
    /// Those of the call `recv`; `WouldBlock` when nothing is there.
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<Received, Error> {
        self.recv_flags(RecvFlags::NONBLOCK, buffer)
    }

    fn recv_flags(&self, flags: RecvFlags, buffer: &mut [u8]) -> Result<Received, Error> {
        let args = [
            0,
            flags.bits(),
            0,
            0,
            buffer.as_mut_ptr() as u64,
            buffer.len() as u64,
        ];
        let (results, words) = raw::checked_message(Call::Recv, self.handle(), args, [0; 4])?;
        Ok(received(results, words, buffer.len()))
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
        let args = [
            token.into_raw(),
            message.tag.0,
            data.as_ptr() as u64,
            data.len() as u64,
            buffer.as_mut_ptr() as u64,
            buffer.len() as u64,
        ];
        let (results, words) =
            raw::checked_message(Call::ReplyRecv, self.handle(), args, message.words)?;
        Ok(received(results, words, buffer.len()))
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

/// The pages of a space, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceInfo {
    /// Whether the space is alive.
    pub alive: bool,
    /// Pages that only this space names.
    pub private: u64,
    /// Copy-on-write pages that others name too.
    pub shared_cow: u64,
    /// Pages of shared memory.
    pub shared_memory: u64,
    /// Demand-zero pages that were not touched.
    pub untouched: u64,
    /// Frames of page tables.
    pub table_frames: u64,
    /// Threads.
    pub threads: u64,
    /// Handles.
    pub handles: u64,
}

impl Space {
    /// This program's own space.
    #[must_use]
    pub fn own() -> Borrowed<'static, Self> {
        Self::borrow(start::space())
    }

    /// Maps demand-zero memory.
    ///
    /// # Errors
    /// Those of the call `map`.
    pub fn map(&self, addr: u64, len: u64, perm: Perm) -> Result<(), Error> {
        raw::checked(Call::Map, self.handle(), [addr, len, perm.bits(), 0, 0, 0]).map(|_| ())
    }

    /// Removes what is mapped in a range.
    ///
    /// # Errors
    /// Those of the call `unmap`.
    pub fn unmap(&self, addr: u64, len: u64) -> Result<(), Error> {
        raw::checked(Call::Unmap, self.handle(), [addr, len, 0, 0, 0, 0]).map(|_| ())
    }

    /// Changes the rights of mapped pages.
    ///
    /// # Errors
    /// Those of the call `protect`.
    pub fn protect(&self, addr: u64, len: u64, perm: Perm) -> Result<(), Error> {
        raw::checked(
            Call::Protect,
            self.handle(),
            [addr, len, perm.bits(), 0, 0, 0],
        )
        .map(|_| ())
    }

    /// Makes `len` bytes at `from` of the space `source` appear at `to` of this one. `None` for
    /// `perm` keeps each page's own rights and skips holes.
    ///
    /// # Errors
    /// Those of the call `share`.
    pub fn share(
        &self,
        source: &Space,
        from: u64,
        to: u64,
        len: u64,
        mode: ShareMode,
        perm: Option<Perm>,
    ) -> Result<(), Error> {
        let perm = perm.map_or(0, |perm| perm.bits());
        let args = [source.handle().0.into(), from, to, len, mode as u64, perm];
        raw::checked(Call::Share, self.handle(), args).map(|_| ())
    }

    /// Creates a stopped thread in the space.
    ///
    /// # Errors
    /// Those of the call `thread_create`.
    pub fn create_thread(
        &self,
        supervisor: Option<&Endpoint>,
        priority: u8,
    ) -> Result<Thread, Error> {
        let supervisor = supervisor.map_or(Handle::NONE, |endpoint| endpoint.handle());
        let args = [supervisor.0.into(), priority.into(), 0, 0, 0, 0];
        raw::checked(Call::ThreadCreate, self.handle(), args)
            .map(|results| Thread::from_raw(first_handle(results)))
    }

    /// Counts what is in the space.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn info(&self) -> Result<SpaceInfo, Error> {
        let (first, last) = info(self.handle(), InfoTopic::Space)?;
        let [
            alive,
            private,
            shared_cow,
            shared_memory,
            untouched,
            table_frames,
        ] = first;
        Ok(SpaceInfo {
            alive: alive == 1,
            private,
            shared_cow,
            shared_memory,
            untouched,
            table_frames,
            threads: last[0],
            handles: last[1],
        })
    }

    /// Ends the space and every thread in it.
    ///
    /// # Errors
    /// Those of the call `kill`.
    pub fn kill(&self) -> Result<(), Error> {
        raw::checked(Call::Kill, self.handle(), [0; 6]).map(|_| ())
    }
}

/// Where a thread starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// `rdi rsi rdx`.
    pub args: [u64; 3],
    /// Base of `fs`.
    pub fs_base: u64,
}

/// What the kernel says about a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// What it does.
    pub state: ThreadState,
    /// Nanoseconds that it ran.
    pub run_ns: u64,
    /// Its own priority.
    pub base_priority: u64,
    /// The priority that it runs at, with what its clients lend it.
    pub priority: u64,
}

impl Thread {
    /// Starts a stopped thread.
    ///
    /// # Errors
    /// Those of the call `thread_start`.
    pub fn start(&self, entry: Entry) -> Result<(), Error> {
        let [arg0, arg1, arg2] = entry.args;
        let args = [entry.ip, entry.sp, arg0, arg1, arg2, entry.fs_base];
        raw::checked(Call::ThreadStart, self.handle(), args).map(|_| ())
    }

    /// Changes a field of the thread.
    ///
    /// # Errors
    /// Those of the call `thread_set`.
    pub fn set(&self, field: ThreadField, value: u64) -> Result<(), Error> {
        raw::checked(
            Call::ThreadSet,
            self.handle(),
            [field as u64, value, 0, 0, 0, 0],
        )
        .map(|_| ())
    }

    /// What the thread does.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn info(&self) -> Result<ThreadInfo, Error> {
        let ([state, run_ns, base_priority, priority, ..], _) =
            info(self.handle(), InfoTopic::Thread)?;
        Ok(ThreadInfo {
            state: ThreadState::from_word(state),
            run_ns,
            base_priority,
            priority,
        })
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// Those of the call `kill`.
    pub fn kill(&self) -> Result<(), Error> {
        raw::checked(Call::Kill, self.handle(), [0; 6]).map(|_| ())
    }
}

impl System {
    /// Creates an empty space; the badge bits of `death` are raised when it dies.
    ///
    /// # Errors
    /// Those of the call `space_create`.
    pub fn create_space(&self, death: Option<&Endpoint>) -> Result<Space, Error> {
        let death = death.map_or(Handle::NONE, |endpoint| endpoint.handle());
        raw::checked(
            Call::SpaceCreate,
            self.handle(),
            [death.0.into(), 0, 0, 0, 0, 0],
        )
        .map(|results| Space::from_raw(first_handle(results)))
    }

    /// The ten values of the topic `memory`, in the order of the interface.
    ///
    /// # Errors
    /// Those of the call `info`.
    pub fn memory(&self) -> Result<[u64; 10], Error> {
        let (first, last) = info(self.handle(), InfoTopic::Memory)?;
        let mut values = [0; 10];
        values[..6].copy_from_slice(&first);
        values[6..].copy_from_slice(&last);
        Ok(values)
    }

    /// Writes text to the kernel's log.
    ///
    /// # Errors
    /// Those of the call `log`.
    pub fn log(&self, text: &str) -> Result<(), Error> {
        let args = [text.as_ptr() as u64, text.len() as u64, 0, 0, 0, 0];
        raw::checked(Call::Log, self.handle(), args).map(|_| ())
    }

    /// Ends the machine.
    ///
    /// # Errors
    /// Those of the call `shutdown`; it does not return otherwise.
    pub fn shutdown(&self, status: u64) -> Result<(), Error> {
        raw::checked(Call::Shutdown, self.handle(), [status, 0, 0, 0, 0, 0]).map(|_| ())
    }
}

impl Interrupt {
    /// From here on the line raises the badge bits of `endpoint`.
    ///
    /// # Errors
    /// Those of the call `interrupt_bind`.
    pub fn bind(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let args = [endpoint.handle().0.into(), 0, 0, 0, 0, 0];
        raw::checked(Call::InterruptBind, self.handle(), args).map(|_| ())
    }

    /// Unmasks the line after an interrupt.
    ///
    /// # Errors
    /// Those of the call `interrupt_ack`.
    pub fn ack(&self) -> Result<(), Error> {
        raw::checked(Call::InterruptAck, self.handle(), [0; 6]).map(|_| ())
    }
}

impl Ports {
    /// Reads or writes a port; returns what was read.
    ///
    /// # Errors
    /// Those of the call `port_io`.
    pub fn io(&self, port: u16, value: u32, operation: PortIo) -> Result<u32, Error> {
        let args = [port.into(), value.into(), operation as u64, 0, 0, 0];
        raw::checked(Call::PortIo, self.handle(), args).map(|results| results[0] as u32)
    }
}

/// The clock: nanoseconds since boot, and ticks per second of the time-stamp counter.
///
/// # Errors
/// Those of the call `info`.
pub fn clock() -> Result<(u64, u64), Error> {
    info(Handle::NONE, InfoTopic::Clock).map(|([ns, ticks_per_s, ..], _)| (ns, ticks_per_s))
}

/// Lets other threads of the same priority run.
pub fn yield_now() {
    let _ = raw::checked(Call::Yield, Handle::NONE, [0; 6]);
}

fn info(handle: Handle, topic: InfoTopic) -> Result<(raw::Args, raw::Words), Error> {
    raw::checked_message(Call::Info, handle, [topic as u64, 0, 0, 0, 0, 0], [0; 4])
}
