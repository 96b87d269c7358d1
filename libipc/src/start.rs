//! What a program starts with: handles and arguments, at the top of its stack.
//!
//! ```text
//!   STACK_TOP - STACK_LEN                          START_INFO    STACK_TOP
//!   |  stack, untouched ...        ... stack | arguments | StartInfo |
//!                                            |<- stack pointer
//! ```
//!
//! A small program needs no further page: it is the one that it touches first. Whoever starts a program passes
//! [`START_INFO`] in `rdi`. The kernel starts the first program with a page of another form
//! ([`InitInfo`]), told apart by the magic number; a program started with 0 in `rdi` has nothing.
//!
//! Handles that few programs use are asked for when they are first used. A forked child finds its parent's
//! memory and puts its own number in the place of its parent's, so nothing here may be cached.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::{Handle, INIT_MAGIC, InitInfo};

use crate::object::Endpoint;
use crate::services::procd::{ProcdClient, Thing};

/// First word of [`StartInfo`].
pub const START_MAGIC: u64 = u64::from_le_bytes(*b"cowslipP");

/// The first address above the first thread's stack. The stack lies below everything else, with
/// nothing mapped between it and address 0: where it ends, no other memory begins.
pub const STACK_TOP: u64 = 0x5_0000;

/// Size of the first thread's stack in bytes.
pub const STACK_LEN: u64 = 256 * 1024;

/// Where [`StartInfo`] is, in every process.
pub const START_INFO: u64 = STACK_TOP - size_of::<StartInfo>() as u64;

/// The longest argument block in bytes: path and arguments, each ended by a zero byte. With
/// [`StartInfo`] it leaves some room on the stack's first page.
pub const MAX_ARGS: usize = 3072;

/// Handles beyond the standard set that a spawner may give.
pub const MAX_EXTRA: usize = 6;

/// What a program has. Handles that it has not been given are [`Handle::NONE`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartInfo {
    /// [`START_MAGIC`].
    pub magic: u64,
    /// The process's number; servers that init started have 0.
    pub pid: u64,
    /// The number of the process that started it.
    pub ppid: u64,
    /// For the file server: where the boot archive is mapped.
    pub archive: u64,
    /// For the file server: its length in bytes.
    pub archive_len: u64,
    /// Where the argument block is, or 0 for none.
    pub args: u64,
    /// Its length in bytes.
    pub args_len: u64,
    /// Its own space.
    pub space: Handle,
    /// Its first thread. A process asks for it.
    pub thread: Handle,
    /// Its own endpoint, with the right to receive.
    pub inbox: Handle,
    /// The process server; the badge is the pid.
    pub procd: Handle,
    /// Where the faults of its threads go; the badge is the pid.
    pub supervisor: Handle,
    /// The console server; the badge is the pid.
    pub console: Handle,
    /// The name server; the badge is the pid.
    pub names: Handle,
    /// The file server; the badge is the pid.
    pub files: Handle,
    /// The memory statistics server; the badge is the pid.
    pub memstat: Handle,
    /// The system object, with the rights that the program needs.
    pub system: Handle,
    /// The number of its standard input at the file server, 0 for the console.
    pub stdin: u32,
    /// The number of its standard output at the file server, 0 for the console.
    pub stdout: u32,
    /// Handles that mean something to this program alone.
    pub extra: [Handle; MAX_EXTRA],
}

const _: () = assert!(size_of::<StartInfo>() == 7 * 8 + (10 + 2 + MAX_EXTRA) * 4);

impl StartInfo {
    /// No handles and no arguments.
    pub const EMPTY: StartInfo = StartInfo {
        magic: START_MAGIC,
        pid: 0,
        ppid: 0,
        archive: 0,
        archive_len: 0,
        args: 0,
        args_len: 0,
        space: Handle::NONE,
        thread: Handle::NONE,
        inbox: Handle::NONE,
        procd: Handle::NONE,
        supervisor: Handle::NONE,
        console: Handle::NONE,
        names: Handle::NONE,
        files: Handle::NONE,
        memstat: Handle::NONE,
        system: Handle::NONE,
        stdin: 0,
        stdout: 0,
        extra: [Handle::NONE; MAX_EXTRA],
    };

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the structure is `repr(C)` and has no padding: seven words, ten handles, two numbers, and six handles.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

/// Its address, 0 when there is none. That of a process stands here from the beginning: then nothing has to
/// be written, and the page with this word stays shared among all processes of the program.
static INFO: AtomicU64 = AtomicU64::new(if cfg!(target_os = "none") {
    START_INFO
} else {
    0
});

/// Takes the address that the program was started with.
#[cfg(target_os = "none")]
pub(crate) fn set(info: u64) {
    if info != START_INFO {
        INFO.store(info, Ordering::Relaxed);
    }
}

/// Puts other information in place for a host test and leaves it there.
#[cfg(not(target_os = "none"))]
pub fn set_for_test(info: &'static StartInfo) {
    INFO.store(core::ptr::from_ref(info) as u64, Ordering::Relaxed);
}

/// Reads a value.
fn read<T: Copy>(offset: usize) -> T {
    let address = INFO.load(Ordering::Relaxed) as usize + offset;
    // SAFETY: callers have seen the magic number of the structure that has a `T` at `offset`, so it
    // is mapped. Volatile, because it may change: see `replace` and `keep`.
    unsafe { core::ptr::read_volatile(address as *const T) }
}

/// Makes these the numbers and handles of the program, for one that runs as a copy of another and
/// finds the other's here. Addresses stay as they are. No other thread may run yet.
pub fn replace(info: &StartInfo) {
    if magic() != START_MAGIC {
        return;
    }
    let own = INFO.load(Ordering::Relaxed) as *mut StartInfo;
    // SAFETY: the magic number says that the structure is there, on the stack of the program's own; nobody
    // has a reference to it, and the addresses in it, which others trust, stay.
    unsafe {
        let old = own.read_volatile();
        own.write_volatile(StartInfo {
            magic: old.magic,
            archive: old.archive,
            archive_len: old.archive_len,
            args: old.args,
            args_len: old.args_len,
            ..*info
        });
    }
}

/// In a forked child: takes its number. It has the handles that every process starts with, under
/// the same numbers as its parent, and asks for the others anew.
#[cfg(target_os = "none")]
pub(crate) extern "C" fn forked(pid: u64) {
    replace(&StartInfo {
        pid,
        ppid: self::pid(),
        space: space(),
        procd: self::procd(),
        supervisor: supervisor(),
        console: console(),
        stdin: stdin(),
        stdout: stdout(),
        ..StartInfo::EMPTY
    });
}

/// Reads a handle that is asked for on first use; [`Handle::NONE`] where there is none to be had.
fn on_demand(offset: usize, thing: Thing) -> Handle {
    if magic() != START_MAGIC {
        return Handle::NONE;
    }
    let handle: Handle = read(offset);
    if !handle.is_none() || procd().is_none() {
        return handle;
    }
    ProcdClient::borrow(procd())
        .handle(thing)
        .map_or(Handle::NONE, |given| keep(offset, given.into()))
}

/// Keeps a handle, unless another thread has kept one before; returns the one that is kept.
fn keep(offset: usize, handle: Handle) -> Handle {
    let address = INFO.load(Ordering::Relaxed) as usize + offset;
    // SAFETY: `on_demand` has read the handle there; it lies in memory of the program's own.
    let kept = unsafe { AtomicU32::from_ptr(address as *mut u32) };
    match kept.compare_exchange(0, handle.0, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => handle,
        Err(other) => {
            drop(Endpoint::from_raw(handle));
            Handle(other)
        }
    }
}

fn magic() -> u64 {
    if INFO.load(Ordering::Relaxed) == 0 {
        0
    } else {
        read(0)
    }
}

/// The page of a program that the kernel started, if this is one.
#[must_use]
pub fn init_info() -> Option<&'static InitInfo> {
    let address = INFO.load(Ordering::Relaxed) as usize;
    // SAFETY: the magic number says that the kernel put the structure there, read-only, for good.
    (magic() == INIT_MAGIC).then(|| unsafe { &*(address as *const InitInfo) })
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident: $type:ty, init $init:expr, none $none:expr) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> $type {
            match magic() {
                START_MAGIC => read(offset_of!(StartInfo, $name)),
                INIT_MAGIC => $init,
                _ => $none,
            }
        }
    };
}

/// The process's number; 0 outside of a process.
///
/// Each use of a handle asks for it. Whoever passes [`START_INFO`] has put a [`StartInfo`] there: its magic number need not
/// be looked at.
#[inline]
#[must_use]
pub fn pid() -> u64 {
    let has_info = INFO.load(Ordering::Relaxed) == START_INFO && cfg!(target_os = "none");
    if !has_info {
        return pid_elsewhere();
    }
    let address = START_INFO as usize + offset_of!(StartInfo, pid);
    // SAFETY: as for `read`, at the address that every process has it at.
    unsafe { core::ptr::read_volatile(address as *const u64) }
}

/// The number of a program whose information is elsewhere, if there is any.
#[cold]
fn pid_elsewhere() -> u64 {
    match magic() {
        START_MAGIC => read(offset_of!(StartInfo, pid)),
        _ => 0,
    }
}

getter! {
    /// The number of the process that started this one.
    ppid: u64, init 0, none 0
}
getter! {
    /// Where the boot archive is mapped, for programs that were given it.
    archive: u64, init read(offset_of!(InitInfo, archive)), none 0
}
getter! {
    /// Length of the boot archive in bytes.
    archive_len: u64, init read(offset_of!(InitInfo, archive_len)), none 0
}
getter! {
    /// This program's own space.
    space: Handle, init read(offset_of!(InitInfo, space)), none Handle::NONE
}

/// This program's first thread.
#[must_use]
pub fn thread() -> Handle {
    match magic() {
        INIT_MAGIC => read(offset_of!(InitInfo, thread)),
        _ => on_demand(offset_of!(StartInfo, thread), Thing::Thread),
    }
}

/// This program's own endpoint.
#[must_use]
pub fn inbox() -> Handle {
    on_demand(offset_of!(StartInfo, inbox), Thing::Inbox)
}

getter! {
    /// The process server.
    procd: Handle, init Handle::NONE, none Handle::NONE
}
getter! {
    /// Where faults of this program's threads go.
    supervisor: Handle, init Handle::NONE, none Handle::NONE
}
getter! {
    /// The console server.
    console: Handle, init Handle::NONE, none Handle::NONE
}
/// The name server.
#[must_use]
pub fn names() -> Handle {
    on_demand(offset_of!(StartInfo, names), Thing::Names)
}

/// The file server.
#[must_use]
pub fn files() -> Handle {
    on_demand(offset_of!(StartInfo, files), Thing::Files)
}

/// The memory statistics server.
#[must_use]
pub fn memstat() -> Handle {
    on_demand(offset_of!(StartInfo, memstat), Thing::Memstat)
}

getter! {
    /// The system object.
    system: Handle, init read(offset_of!(InitInfo, system)), none Handle::NONE
}
getter! {
    /// The number of the standard input at the file server, 0 for the console.
    stdin: u32, init 0, none 0
}
getter! {
    /// The number of the standard output at the file server, 0 for the console.
    stdout: u32, init 0, none 0
}
getter! {
    /// Handles that mean something to this program alone.
    extra: [Handle; MAX_EXTRA], init [Handle::NONE; MAX_EXTRA], none [Handle::NONE; MAX_EXTRA]
}

/// The argument block: path and arguments, each ended by a zero byte.
#[must_use]
pub fn arg_block() -> &'static [u8] {
    if magic() != START_MAGIC {
        return &[];
    }
    let (args, len) = (
        read::<u64>(offset_of!(StartInfo, args)),
        read::<u64>(offset_of!(StartInfo, args_len)),
    );
    if args == 0 {
        return &[];
    }
    // SAFETY: whoever started the program put the block there, above all that its stack will ever
    // hold, where nobody writes; a forked child has it too.
    unsafe { core::slice::from_raw_parts(args as *const u8, len as usize) }
}

/// The program's path and arguments.
pub fn args() -> impl Iterator<Item = &'static str> {
    split_args(arg_block())
}

/// The strings of an argument block; bytes that are not UTF-8 end it.
pub fn split_args(block: &[u8]) -> impl Iterator<Item = &str> {
    let count = if block.is_empty() { 0 } else { usize::MAX };
    let block = block.strip_suffix(&[0]).unwrap_or(block);
    block
        .split(|&byte| byte == 0)
        .take(count)
        .map_while(|arg| core::str::from_utf8(arg).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_blocks_split() {
        let split = |block: &'static [u8]| split_args(block).collect::<Vec<_>>();
        assert_eq!(split(b"/bin/x\0a\0b c\0"), ["/bin/x", "a", "b c"]);
        assert_eq!(split(b"/bin/x\0\0"), ["/bin/x", ""]);
        assert_eq!(split(b""), Vec::<&str>::new());
        assert_eq!(split(b"\0"), [""]);
        assert_eq!(split(b"a\0\xff\0b\0"), ["a"]);
    }

    #[test]
    fn bytes_begin_with_the_magic() {
        assert_eq!(StartInfo::EMPTY.as_bytes()[..8], START_MAGIC.to_le_bytes());
    }
}
