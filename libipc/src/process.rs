//! Processes: the calls of a Unix, made of messages to the process server.

use abi::{Commit, Error as KernelError};

use crate::object::System;
use crate::service::refused;
use crate::services::procd::{ArgBlock, Ended, ProcdClient, Streams};
use crate::services::{Error, Refusal};
use crate::{io, rt, start};

/// Starts a program as a child of this process; returns its pid.
///
/// # Errors
/// `NotFound`, `NotExecutable`, `NoMemory`, `Full`, `BadRequest` for arguments that are too long.
pub fn spawn(path: &str, args: &[&str]) -> Result<u64, Error> {
    spawn_with(Commit::Overcommit, path, args)
}

/// The same with a choice: a [strict](Commit::Strict) program is refused if the memory that it asks for is
/// not there, and never ended for want of it.
///
/// # Errors
/// As for [`spawn`].
pub fn spawn_with(class: Commit, path: &str, args: &[&str]) -> Result<u64, Error> {
    let streams = Streams {
        stdin: start::stdin(),
        stdout: start::stdout(),
    };
    spawn_between(class, streams, path, args)
}

/// The same with standard streams of one's own choice. [`spawn`] hands this process's down.
///
/// # Errors
/// As for [`spawn`]; `NotOpen`.
pub fn spawn_between(
    class: Commit,
    streams: Streams,
    path: &str,
    args: &[&str],
) -> Result<u64, Error> {
    io::flush();
    let block = ArgBlock::new(path, args.iter().copied())?;
    server().spawn(class, streams, block.as_bytes())
}

/// Puts another program in the place of this one. Returns only if that fails.
///
/// # Errors
/// As for [`spawn`].
pub fn exec(path: &str, args: &[&str]) -> Result<core::convert::Infallible, Error> {
    io::flush();
    let block = ArgBlock::new(path, args.iter().copied())?;
    server().become_another(block.as_bytes())
}

/// Starts a copy of this process: returns the child's pid here, and 0 there.
///
/// The child has this thread alone, all memory copy-on-write, the standard handles, and the standard streams. Other handles that this process owns are the parent's only: in the child their
/// owners name nothing.
///
/// # Errors
/// `NoMemory`, `Full`.
pub fn fork() -> Result<u64, Error> {
    io::flush();
    let word = stub::fork(start::procd())?;
    match word >> 32 {
        0 => Ok(word),
        label => Err(refused(label as u32)),
    }
}

/// Ends this process. The first program ends the machine; a program that is no process ends its
/// thread.
pub fn exit(status: i32) -> ! {
    io::flush();
    end(status)
}

/// The same, whatever is still buffered.
pub(crate) fn end(status: i32) -> ! {
    if !start::procd().is_none() {
        let _ = server().exit(status);
    } else if start::init_info().is_some() {
        let _ = System::borrow(start::system()).shutdown(status as u32 as u64);
    }
    rt::thread_exit()
}

/// Waits for the end of this child.
///
/// # Errors
/// `NoChild`.
pub fn wait(pid: u64) -> Result<Ended, Error> {
    server()
        .wait(pid, true)?
        .ok_or(Error::Refused(Refusal::Broken))
}

/// Waits for the end of any child.
///
/// # Errors
/// `NoChild`.
pub fn wait_any() -> Result<Ended, Error> {
    wait(0)
}

/// A child that has ended, if there is one.
///
/// # Errors
/// `NoChild`.
pub fn try_wait() -> Result<Option<Ended>, Error> {
    server().wait(0, false)
}

/// Ends this process or a descendant.
///
/// # Errors
/// `NotFound`, `Denied`.
pub fn kill(pid: u64) -> Result<(), Error> {
    server().kill(pid)
}

/// This process's number; 0 outside of a process.
#[must_use]
pub fn getpid() -> u64 {
    start::pid()
}

/// The number of this process's parent: the one that started it, or init if that has ended.
#[must_use]
pub fn getppid() -> u64 {
    server().parent().unwrap_or_else(|_| start::ppid())
}

/// The system object, for programs that build address spaces themselves. Spaces that a process
/// creates die with it.
///
/// # Errors
/// `Full`, `NoMemory` when the handle finds no room.
pub fn system() -> Result<System, Error> {
    let given = server().system()?;
    Ok(System::from_raw(given.into()))
}

fn server() -> crate::Borrowed<'static, ProcdClient> {
    ProcdClient::borrow(start::procd())
}

/// The instruction-level half of fork.
#[cfg(target_os = "none")]
mod stub {
    use abi::{Call, Handle, Tag};

    use super::{KernelError, ProcdClient};
    use crate::raw;

    /// `rax` and `rdx`.
    #[repr(C)]
    struct Outcome {
        code: u64,
        word: u64,
    }

    /// Sends `FORK` with the place where the child comes back: below the saved registers, at the
    /// label 3, with nothing in its registers but its stack pointer and its pid.
    #[unsafe(naked)]
    extern "C" fn send(call: u64, tag: u64) -> Outcome {
        core::arch::naked_asm!(
            "push rbx",
            "push rbp",
            "push r12",
            "push r13",
            "push r14",
            "push r15",
            "mov rax, rdi",
            "xor edi, edi",
            "xor edx, edx", // no bytes go, none come
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "lea r12, [rip + 3f]",
            "mov r13, rsp",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "syscall",
            // In the parent. A refusal goes above the pid, which is less than 2^32.
            "mov edx, esi",
            "shl rdx, 32",
            "or rdx, r12",
            "2:",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbp",
            "pop rbx",
            "ret",
            // In the child.
            "3:",
            "sub rsp, 8", // calls want the stack at a multiple of 16
            "call {forked}",
            "add rsp, 8",
            "xor eax, eax",
            "xor edx, edx",
            "jmp 2b",
            forked = sym crate::start::forked,
        )
    }

    /// The child's pid in the parent, 0 in the child; a refusal's label in the upper half.
    pub(super) fn fork(procd: Handle) -> Result<u64, KernelError> {
        let outcome = send(
            raw::call_word(Call::Send as u32, procd),
            Tag::new(ProcdClient::FORK).0,
        );
        match KernelError::from_code(outcome.code) {
            None => Ok(outcome.word),
            Some(error) => Err(error),
        }
    }
}

#[cfg(not(target_os = "none"))]
mod stub {
    use super::KernelError;

    pub(super) fn fork(_: abi::Handle) -> Result<u64, KernelError> {
        Err(KernelError::UnknownCall)
    }
}
