//! Registers and flags across calls.

#[cfg(target_os = "none")]
use core::arch::asm;

use libipc::abi::Call;

/// Every register that a call does not name as a result keeps its value, the vector ones included.
pub(crate) fn registers_that_are_no_results_keep_their_values() {
    for call in [Call::Yield, Call::HandleClose] {
        let saved = around(call as u64);
        for (index, value) in saved.into_iter().enumerate() {
            assert_eq!(
                value,
                0x1111 * (index as u64 + 1),
                "value {index} after {call:?}"
            );
        }
    }
}

/// Makes a call with known values in registers; returns `rdi rsi rdx r8 r9 r10 r12..r15 rbx`, and
/// the halves of `xmm0` and `xmm15`.
#[cfg(target_os = "none")]
fn around(number: u64) -> [u64; 15] {
    let mut values: [u64; 15] = core::array::from_fn(|index| 0x1111 * (index as u64 + 1));
    // SAFETY: all registers that change are named, or saved and restored; the array is 15 words
    // long. The vector registers belong to nobody: this target's code does not use them.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbp, rcx",
            "mov rdi, [rbp]", "mov rsi, [rbp + 8]", "mov rdx, [rbp + 16]", "mov r8, [rbp + 24]",
            "mov r9, [rbp + 32]", "mov r10, [rbp + 40]", "mov r12, [rbp + 48]",
            "mov r13, [rbp + 56]", "mov r14, [rbp + 64]", "mov r15, [rbp + 72]",
            "mov rbx, [rbp + 80]",
            "movups xmm0, [rbp + 88]", "movups xmm15, [rbp + 104]",
            "syscall",
            "mov [rbp], rdi", "mov [rbp + 8], rsi", "mov [rbp + 16], rdx", "mov [rbp + 24], r8",
            "mov [rbp + 32], r9", "mov [rbp + 40], r10", "mov [rbp + 48], r12",
            "mov [rbp + 56], r13", "mov [rbp + 64], r14", "mov [rbp + 72], r15",
            "mov [rbp + 80], rbx",
            "movups [rbp + 88], xmm0", "movups [rbp + 104], xmm15",
            "pop rbp",
            "pop rbx",
            inout("rax") number => _,
            inout("rcx") values.as_mut_ptr() => _,
            out("rdi") _, out("rsi") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    values
}

#[cfg(not(target_os = "none"))]
fn around(_: u64) -> [u64; 15] {
    core::array::from_fn(|index| 0x1111 * (index as u64 + 1))
}

/// The direction flag (10), nested task (14) and alignment check (18) are the program's own
/// business: the kernel neither trips over them nor loses them.
pub(crate) fn flags_survive_calls() {
    for flag in [1 << 10, 1 << 14, 1 << 18] {
        for _ in 0..100 {
            assert_eq!(flags_after_call(flag) & flag, flag, "flag {flag:#x}");
        }
    }
    // Through an interrupt as well: long enough to be preempted.
    let other = user_apps::scenario::peer::thread(|| {
        loop {
            core::hint::spin_loop();
        }
    });
    for flag in [1 << 10, 1 << 14] {
        assert_eq!(
            flags_after_spin(flag) & flag,
            flag,
            "flag {flag:#x} across preemption"
        );
    }
    drop(other);
}

/// Sets flags, yields, and returns the flags that are set then.
#[cfg(target_os = "none")]
fn flags_after_call(flags: u64) -> u64 {
    let after: u64;
    // SAFETY: the flags are put back before the block ends, and nothing in between depends on them.
    unsafe {
        asm!(
            "pushfq", "pop {old}",
            "mov {after}, {old}", "or {after}, {flags}",
            "push {after}", "popfq",
            "syscall",
            "pushfq", "pop {after}",
            "push {old}", "popfq",
            old = out(reg) _,
            after = out(reg) after,
            flags = in(reg) flags,
            inout("rax") Call::Yield as u64 => _,
            in("rdi") 0_u64,
            out("rcx") _, out("r11") _,
        );
    }
    after
}

/// Sets flags, spins for longer than a time slice, and returns the flags that are set then.
#[cfg(target_os = "none")]
fn flags_after_spin(flags: u64) -> u64 {
    let after: u64;
    // SAFETY: as above.
    unsafe {
        asm!(
            "pushfq", "pop {old}",
            "mov {after}, {old}", "or {after}, {flags}",
            "push {after}", "popfq",
            "2: dec {count}", "jnz 2b",
            "pushfq", "pop {after}",
            "push {old}", "popfq",
            old = out(reg) _,
            after = out(reg) after,
            flags = in(reg) flags,
            count = inout(reg) 100_000_000_u64 => _,
        );
    }
    after
}

#[cfg(not(target_os = "none"))]
fn flags_after_call(flags: u64) -> u64 {
    flags
}

#[cfg(not(target_os = "none"))]
fn flags_after_spin(flags: u64) -> u64 {
    flags
}
