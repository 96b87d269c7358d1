//! The system call instruction, and nothing else: the only assembly that makes calls.
//!
//! [`call`] and [`message_call`] check nothing and own nothing; tests of hostile arguments use them
//! directly, everything else goes through the typed wrappers. On the host there is no kernel
//! underneath: the same functions go to the [fake kernel](crate::fake), so that code written
//! against libipc runs unchanged in host tests.

use abi::{Call, Error, Handle, WORDS};

/// The argument and result registers `rdi rsi rdx r8 r9 r10`.
pub type Args = [u64; 6];

/// The registers of the inline words, `r12` to `r15`.
pub type Words = [u64; WORDS];

/// `rax` as a call wants it: the number below, the handle above.
#[must_use]
pub const fn call_word(number: u32, handle: Handle) -> u64 {
    number as u64 | (handle.0 as u64) << 32
}

/// A call without inline words. Returns `rax` and the result registers.
#[inline]
pub fn call(number: u32, handle: Handle, args: Args) -> (u64, Args) {
    let (code, args, _) = message_call(number, handle, args, [0; WORDS]);
    (code, args)
}

/// A call with inline words. Returns `rax`, the result registers and the words.
#[cfg(target_os = "none")]
#[inline]
pub fn message_call(number: u32, handle: Handle, args: Args, words: Words) -> (u64, Args, Words) {
    let mut code = call_word(number, handle);
    let [mut rdi, mut rsi, mut rdx, mut r8, mut r9, mut r10] = args;
    let [mut r12, mut r13, mut r14, mut r15] = words;
    // SAFETY: the operands name every register that the kernel's convention reads or changes, and
    // memory counts as changed. What a call does to the memory named by its arguments is what the
    // wrappers' slices and the callers of raw calls answer for.
    unsafe {
        core::arch::asm!(
            "syscall",
            inout("rax") code,
            inout("rdi") rdi,
            inout("rsi") rsi,
            inout("rdx") rdx,
            inout("r8") r8,
            inout("r9") r9,
            inout("r10") r10,
            inout("r12") r12,
            inout("r13") r13,
            inout("r14") r14,
            inout("r15") r15,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    (code, [rdi, rsi, rdx, r8, r9, r10], [r12, r13, r14, r15])
}

/// A call with inline words, answered by the fake kernel.
#[cfg(not(target_os = "none"))]
pub fn message_call(number: u32, handle: Handle, args: Args, words: Words) -> (u64, Args, Words) {
    crate::fake::call(number, handle, args, words)
}

/// The time-stamp counter: guest instructions under QEMU's `-icount shift=0`, else time.
#[must_use]
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reads a counter that user mode may read.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// [`call`] with its error decoded.
#[inline]
pub(crate) fn checked(call_: Call, handle: Handle, args: Args) -> Result<Args, Error> {
    let (code, results) = call(call_ as u32, handle, args);
    match Error::from_code(code) {
        None => Ok(results),
        Some(error) => Err(error),
    }
}

/// [`message_call`] with its error decoded.
#[inline]
pub(crate) fn checked_message(
    call_: Call,
    handle: Handle,
    args: Args,
    words: Words,
) -> Result<(Args, Words), Error> {
    let (code, results, words) = message_call(call_ as u32, handle, args, words);
    match Error::from_code(code) {
        None => Ok((results, words)),
        Some(error) => Err(error),
    }
}
