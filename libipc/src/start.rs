//! What a program starts with: a read-only page that names its handles, and one with arguments.
//!
//! Whoever starts a program puts the page at [`START_INFO`] and passes that address in `rdi`. The
//! kernel does the same for the first program with a page of another form ([`InitInfo`]), told
//! apart by the magic number; a program started with 0 in `rdi` has nothing.
//!
//! The page is read anew each time. After a fork the child finds its own page in the place of its
//! parent's, with its own handle numbers, so nothing here may be cached.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Handle, INIT_INFO, INIT_MAGIC, InitInfo, PAGE_SIZE};

/// First word of [`StartInfo`].
pub const START_MAGIC: u64 = u64::from_le_bytes(*b"cowslipP");

/// Where the page is, in every process.
pub const START_INFO: u64 = INIT_INFO;

/// Where the argument page is, in every process: the length of the argument block in bytes, as a
/// word, and the block: path and arguments, each ended by a zero byte. A page of its own, because a
/// forked child keeps its parent's.
pub const START_ARGS: u64 = START_INFO - PAGE_SIZE as u64;

/// The longest argument block in bytes.
pub const MAX_ARGS: usize = 3072;

/// Handles beyond the standard set that a spawner may give.
pub const MAX_EXTRA: usize = 8;

/// The first address above the first thread's stack. Whoever starts a program leaves an unmapped
/// guard page below the stack, and nothing above it.
pub const STACK_TOP: u64 = 0x5f00_0000_0000;

/// Size of the first thread's stack in bytes.
pub const STACK_LEN: u64 = 256 * 1024;

/// The page. Handles that a program has not been given are [`Handle::NONE`].
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
    /// Where the argument page is mapped: [`START_ARGS`], or 0 for none.
    pub args: u64,
    /// Its own space.
    pub space: Handle,
    /// Its first thread.
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
    /// Handles that mean something to this program alone.
    pub extra: [Handle; MAX_EXTRA],
}

const _: () = assert!(size_of::<StartInfo>() == 6 * 8 + (10 + MAX_EXTRA) * 4);

impl StartInfo {
    /// A page with no handles and no arguments.
    pub const EMPTY: StartInfo = StartInfo {
        magic: START_MAGIC,
        pid: 0,
        ppid: 0,
        archive: 0,
        archive_len: 0,
        args: 0,
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
        extra: [Handle::NONE; MAX_EXTRA],
    };

    /// The page's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the structure is `repr(C)` and has no padding: six words, ten and eight handles.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

/// The page's address, 0 when there is none.
static INFO: AtomicU64 = AtomicU64::new(0);

/// Takes the address that the program was started with.
#[cfg(target_os = "none")]
pub(crate) fn set(info: u64) {
    INFO.store(info, Ordering::Relaxed);
}

/// Puts a page in place for a host test and leaves it there.
#[cfg(not(target_os = "none"))]
pub fn set_for_test(info: &'static StartInfo) {
    INFO.store(core::ptr::from_ref(info) as u64, Ordering::Relaxed);
}

/// Reads a value out of the page.
fn read<T: Copy>(offset: usize) -> T {
    let address = INFO.load(Ordering::Relaxed) as usize + offset;
    // SAFETY: callers have seen the magic number of the structure that has a `T` at `offset`, so
    // the page is mapped; it is never written while the program runs. Volatile, because a fork
    // exchanges the page.
    unsafe { core::ptr::read_volatile(address as *const T) }
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

getter! {
    /// The process's number; 0 outside of a process.
    pid: u64, init 0, none 0
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
getter! {
    /// This program's first thread.
    thread: Handle, init read(offset_of!(InitInfo, thread)), none Handle::NONE
}
getter! {
    /// This program's own endpoint.
    inbox: Handle, init Handle::NONE, none Handle::NONE
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
getter! {
    /// The name server.
    names: Handle, init Handle::NONE, none Handle::NONE
}
getter! {
    /// The file server.
    files: Handle, init Handle::NONE, none Handle::NONE
}
getter! {
    /// The memory statistics server.
    memstat: Handle, init Handle::NONE, none Handle::NONE
}
getter! {
    /// The system object.
    system: Handle, init read(offset_of!(InitInfo, system)), none Handle::NONE
}
getter! {
    /// Handles that mean something to this program alone.
    extra: [Handle; MAX_EXTRA], init [Handle::NONE; MAX_EXTRA], none [Handle::NONE; MAX_EXTRA]
}

/// The argument block: path and arguments, each ended by a zero byte.
#[must_use]
pub fn arg_block() -> &'static [u8] {
    let page = match magic() {
        START_MAGIC => read::<u64>(offset_of!(StartInfo, args)),
        _ => 0,
    };
    if page == 0 {
        return &[];
    }
    // SAFETY: whoever started the program mapped the page there, read-only, for good; a forked
    // child has it too.
    unsafe {
        let len = *(page as *const u64) as usize;
        core::slice::from_raw_parts((page + 8) as *const u8, len.min(MAX_ARGS))
    }
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
