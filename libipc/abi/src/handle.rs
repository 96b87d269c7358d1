//! Handles and the rights that they carry.

use bitflags::bitflags;

/// A number that names one kernel object in the caller's handle table.
///
/// The number holds a slot and a generation, so one that outlived its handle is an error until its
/// table has seen two million handles more. [`Handle::NONE`] names nothing in every table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Handle(pub u32);

impl Handle {
    /// The handle that names nothing.
    pub const NONE: Handle = Handle(0);

    /// Whether this is [`Handle::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

bitflags! {
    /// What the holder of a handle may do with its object.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u32 {
        /// Endpoint: send messages; be named as a supervisor.
        const SEND = 1 << 0;
        /// Endpoint: receive. While a handle with this right exists, the endpoint is alive.
        const RECV = 1 << 1;
        /// Endpoint: raise the notification bits of the badge, oneself or by timer, interrupt, death.
        const NOTIFY = 1 << 2;
        /// Space: map, unmap, protect; be the destination of a share, or the source of a move or
        /// of a writable shared mapping.
        const MAP = 1 << 3;
        /// Space: be the source of a share. Space and thread: be asked for information.
        const READ = 1 << 4;
        /// Space: create threads in it, give it handles, kill it. Thread: start, set, kill.
        const MANAGE = 1 << 5;
        /// System: create spaces.
        const CREATE = 1 << 6;
        /// System: read the counters, write to the kernel log.
        const OBSERVE = 1 << 7;
        /// System: end the machine.
        const POWER = 1 << 8;
        /// Interrupt and ports: use the device.
        const DEVICE = 1 << 9;
        /// Any: copy the handle, also by message.
        const COPY = 1 << 10;
        /// Endpoint, interrupt, ports: choose the badge of a copy.
        const MINT = 1 << 11;
    }
}

impl Rights {
    /// All rights that mean something on an endpoint.
    pub const ENDPOINT: Rights = Rights::SEND
        .union(Rights::RECV)
        .union(Rights::NOTIFY)
        .union(Rights::COPY)
        .union(Rights::MINT);
    /// All rights that mean something on a space.
    pub const SPACE: Rights = Rights::MAP
        .union(Rights::READ)
        .union(Rights::MANAGE)
        .union(Rights::COPY);
    /// All rights that mean something on a thread.
    pub const THREAD: Rights = Rights::READ.union(Rights::MANAGE).union(Rights::COPY);
    /// All rights that mean something on the system object.
    pub const SYSTEM: Rights = Rights::CREATE
        .union(Rights::OBSERVE)
        .union(Rights::POWER)
        .union(Rights::COPY);
    /// All rights that mean something on interrupts and ports.
    pub const DEVICES: Rights = Rights::DEVICE.union(Rights::COPY).union(Rights::MINT);
}
