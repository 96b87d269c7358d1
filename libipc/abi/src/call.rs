//! System call numbers.

/// The system calls. The number travels in the low half of `rax`.
///
/// Arguments and results are listed as `(handle; arguments in order rdi rsi rdx r8 r9 r10) ->
/// results in the same order`; `docs/syscalls.md` says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Call {
    /// `(endpoint; deadline_ns, tag, data, len, reply_buf, reply_cap) -> -, tag, reply_len, accepted_len`
    Send = 0,
    /// `(endpoint; deadline_ns, flags, -, -, buf, cap) -> badge, tag, len, token`
    Recv = 1,
    /// `(-; token, tag, data, len) -> -, tag`
    Reply = 2,
    /// `(endpoint; token, tag, data, len, buf, cap) -> badge, tag, len, token`
    ReplyRecv = 3,
    /// `(endpoint;)`: raises the bits of the handle's badge.
    Notify = 4,
    /// `(endpoint; deadline_ns)`: raises the bits of the handle's badge at the deadline.
    Timer = 5,
    /// `(-;) -> endpoint`
    EndpointCreate = 6,
    /// `(any;)`
    HandleClose = 7,
    /// `(any; space, rights, badge) -> handle`
    HandleCopy = 8,
    /// `(system; death_endpoint, death_badge, like) -> space`
    SpaceCreate = 9,
    /// `(space; addr, len, perm)`
    Map = 10,
    /// `(space; addr, len)`
    Unmap = 11,
    /// `(space; addr, len, perm)`
    Protect = 12,
    /// `(to_space; from_space, from, to, len, mode, perm)`
    Share = 13,
    /// `(space; supervisor_endpoint, priority, badge) -> thread`
    ThreadCreate = 14,
    /// `(thread; ip, sp, arg0, arg1, arg2, fs_base)`
    ThreadStart = 15,
    /// `(thread or -; field, value)`
    ThreadSet = 16,
    /// `()`: never returns.
    ThreadExit = 17,
    /// `(-; until_ns)`: 0 lets others run.
    Yield = 18,
    /// `(thread or space;)`
    Kill = 19,
    /// `(interrupt; endpoint)`
    InterruptBind = 20,
    /// `(interrupt;)`
    InterruptAck = 21,
    /// `(ports; port, value, operation) -> value`
    PortIo = 22,
    /// `(object or -; topic) -> values`
    Info = 23,
    /// `(system; text, len)`
    Log = 24,
    /// `(system; status)`: never returns.
    Shutdown = 25,
    /// `(space; field, value)`
    SpaceSet = 26,
}

impl Call {
    /// Every call, in the order of their numbers.
    pub const ALL: [Call; 27] = [
        Call::Send,
        Call::Recv,
        Call::Reply,
        Call::ReplyRecv,
        Call::Notify,
        Call::Timer,
        Call::EndpointCreate,
        Call::HandleClose,
        Call::HandleCopy,
        Call::SpaceCreate,
        Call::Map,
        Call::Unmap,
        Call::Protect,
        Call::Share,
        Call::ThreadCreate,
        Call::ThreadStart,
        Call::ThreadSet,
        Call::ThreadExit,
        Call::Yield,
        Call::Kill,
        Call::InterruptBind,
        Call::InterruptAck,
        Call::PortIo,
        Call::Info,
        Call::Log,
        Call::Shutdown,
        Call::SpaceSet,
    ];

    /// The call with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}
