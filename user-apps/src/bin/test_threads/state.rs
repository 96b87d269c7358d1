//! What the kernel keeps for each thread beyond its general registers. This target's code does not
//! use vector registers by itself, so what the assembly here puts into them stays.

#[cfg(target_os = "none")]
use core::arch::{asm, naked_asm};

use libipc::abi::ThreadField;
use libipc::object::{clock, yield_now};
use libipc::{Thread, start};
use user_apps::scenario::memory::{SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{child, join, status_of, thread, until};

/// Stores its registers at `rdi`: `rdi rsi rdx rax rbx rcx rbp r8..r15 rsp`, and ends the thread.
#[cfg(target_os = "none")]
#[unsafe(naked)]
pub(crate) extern "C" fn report_registers() {
    naked_asm!(
        "mov [rdi], rdi",
        "mov [rdi + 8], rsi",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], rax",
        "mov [rdi + 32], rbx",
        "mov [rdi + 40], rcx",
        "mov [rdi + 48], rbp",
        "mov [rdi + 56], r8",
        "mov [rdi + 64], r9",
        "mov [rdi + 72], r10",
        "mov [rdi + 80], r11",
        "mov [rdi + 88], r12",
        "mov [rdi + 96], r13",
        "mov [rdi + 104], r14",
        "mov [rdi + 112], r15",
        "mov [rdi + 120], rsp",
        "mov eax, 17",
        "syscall",
        "ud2",
    )
}

#[cfg(not(target_os = "none"))]
pub(crate) extern "C" fn report_registers() {}

/// Fills `xmm0..xmm15`, the x87 stack's top, MXCSR and the x87 control word with values of `seed`.
#[cfg(target_os = "none")]
fn set_vectors(seed: u64) {
    let control: u32 = 0x1f80 | ((seed as u32 & 3) << 13);
    let x87: u16 = 0x037f & !(3 << 10) | ((seed as u16 & 3) << 10);
    // SAFETY: vector and x87 registers belong to nobody here; the rounding modes that change are
    // not used by integer code.
    unsafe {
        asm!(
            "movq xmm0, {seed}", "punpcklqdq xmm0, xmm0",
            "movdqa xmm1, xmm0", "paddq xmm1, xmm0",
            "movdqa xmm2, xmm1", "paddq xmm2, xmm0",
            "movdqa xmm3, xmm2", "paddq xmm3, xmm0",
            "movdqa xmm7, xmm3", "paddq xmm7, xmm0",
            "movdqa xmm15, xmm7", "paddq xmm15, xmm0",
            "ldmxcsr [{control}]",
            "fldcw [{x87}]",
            seed = in(reg) seed,
            control = in(reg) &raw const control,
            x87 = in(reg) &raw const x87,
        );
    }
}

/// Whether they still have them.
#[cfg(target_os = "none")]
fn has_vectors(seed: u64) -> bool {
    let mut found = [0_u64; 12];
    let (mut control, mut x87) = (0_u32, 0_u16);
    // SAFETY: only the variables are written.
    unsafe {
        asm!(
            "movups [{to}], xmm0", "movups [{to} + 16], xmm1", "movups [{to} + 32], xmm2",
            "movups [{to} + 48], xmm3", "movups [{to} + 64], xmm7", "movups [{to} + 80], xmm15",
            "stmxcsr [{control}]",
            "fnstcw [{x87}]",
            to = in(reg) found.as_mut_ptr(),
            control = in(reg) &raw mut control,
            x87 = in(reg) &raw mut x87,
        );
    }
    let halves = found
        .iter()
        .enumerate()
        .all(|(index, &half)| half == seed * (index as u64 / 2 + 1));
    halves && u64::from(control >> 13 & 3) == seed & 3 && u64::from(x87 >> 10 & 3) == seed & 3
}

/// Fills the upper halves of the AVX registers, if there are any.
#[cfg(target_os = "none")]
fn set_wide(seed: u64) {
    // SAFETY: as for `set_vectors`.
    unsafe {
        asm!(
            "movq xmm0, {seed}", "vpunpcklqdq xmm0, xmm0, xmm0", "vinsertf128 ymm9, ymm0, xmm0, 1",
            seed = in(reg) seed,
        );
    }
}

#[cfg(target_os = "none")]
fn has_wide(seed: u64) -> bool {
    let mut found = [0_u64; 4];
    // SAFETY: only the variable is written.
    unsafe { asm!("vmovups [{to}], ymm9", to = in(reg) found.as_mut_ptr()) };
    found == [seed; 4]
}

/// Whether CPU and kernel have AVX.
#[cfg(target_os = "none")]
fn wide_vectors() -> bool {
    const OSXSAVE_AVX: u32 = 1 << 27 | 1 << 28;
    if core::arch::x86_64::__cpuid(1).ecx & OSXSAVE_AVX != OSXSAVE_AVX {
        return false;
    }
    let enabled: u32;
    // SAFETY: `xgetbv` is there when OSXSAVE is.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _) };
    enabled & 6 == 6
}

#[cfg(target_os = "none")]
fn fs_word() -> u64 {
    let word: u64;
    // SAFETY: the callers have set the base to memory that is mapped.
    unsafe { asm!("mov {}, fs:[0]", out(reg) word) };
    word
}

#[cfg(not(target_os = "none"))]
mod host {
    pub(super) fn set_vectors(_: u64) {}
    pub(super) fn has_vectors(_: u64) -> bool {
        true
    }
    pub(super) fn set_wide(_: u64) {}
    pub(super) fn has_wide(_: u64) -> bool {
        true
    }
    pub(super) fn wide_vectors() -> bool {
        false
    }
    pub(super) fn fs_word() -> u64 {
        0
    }
}
#[cfg(not(target_os = "none"))]
use host::*;

/// Computes for longer than a time slice.
fn spin() {
    let now = || clock().expect("clock").0;
    let end = now() + 12_000_000;
    while now() < end {
        for step in 0..100_000 {
            core::hint::black_box(step);
        }
    }
}

/// Four threads with values of their own, through yields and preemption.
fn contend(set: fn(u64), has: fn(u64) -> bool) {
    let others = [1, 2, 3].map(|who| {
        thread(move || {
            set(0x0101_0100 + who);
            for round in 0..12 {
                if round % 3 == 2 {
                    spin()
                } else {
                    yield_now()
                }
                assert!(has(0x0101_0100 + who), "thread {who}, round {round}");
            }
        })
    });
    set(0x0707_0700);
    for round in 0..12 {
        if round % 3 == 0 {
            spin()
        } else {
            yield_now()
        }
        assert!(has(0x0707_0700), "first thread, round {round}");
    }
    others.into_iter().for_each(join);
    assert!(has(0x0707_0700));
    // A thread that starts has none of the old values.
    join(thread(move || assert!(!has(0x0707_0700))));
}

pub(crate) fn vector_registers_are_kept_for_each_thread() {
    contend(set_vectors, has_vectors);
}

pub(crate) fn wide_vector_registers_are_kept_for_each_thread() {
    if wide_vectors() {
        contend(set_wide, has_wide);
    }
}

/// A fork leaves the parent's vector registers alone, whatever the child does with its own.
pub(crate) fn vector_registers_survive_fork() {
    set_vectors(0x4242_0001);
    let pid = child(|| {
        set_vectors(0x0606_0002);
        for _ in 0..10 {
            yield_now();
        }
        i32::from(!has_vectors(0x0606_0002))
    });
    assert!(has_vectors(0x4242_0001));
    assert_eq!(status_of(pid), 0);
    assert!(has_vectors(0x4242_0001));
}

pub(crate) fn the_base_of_fs_is_kept_for_each_thread() {
    let memory = map(SCRATCH, 1);
    for who in 0..3 {
        poke(SCRATCH + who * 64, 1000 + who);
    }
    let body = |who: u64| {
        for _ in 0..50 {
            assert_eq!(fs_word(), 1000 + who);
            yield_now();
        }
        spin();
        assert_eq!(fs_word(), 1000 + who);
        poke(SCRATCH + 2048 + 8 * who, 1);
    };
    let set = |thread: &Thread, who: u64| {
        thread
            .set(ThreadField::FsBase, SCRATCH + who * 64)
            .expect("set")
    };
    let others = [1, 2].map(|who| {
        let other = thread(move || {
            until("base", || peek(SCRATCH + 1024 + 8 * who) == 1);
            body(who);
        });
        set(other.thread(), who);
        poke(SCRATCH + 1024 + 8 * who, 1);
        other
    });
    set(&Thread::borrow(start::thread()), 0);
    body(0);
    others.into_iter().for_each(join);
    assert!((0..3).all(|who| peek(SCRATCH + 2048 + 8 * who) == 1));
    drop(memory);
}
