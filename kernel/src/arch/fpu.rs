//! Vector registers: x87, SSE, AVX.
//!
//! The kernel uses none, and most threads of servers neither, so a thread gets room for them (a
//! frame) when it first uses one, which task-switched mode (CR0.TS) reports as exception #NM. From
//! then on the registers are saved when the thread leaves the CPU and loaded when it comes back. A
//! thread without room never runs while somebody else's values are in the registers, not even
//! hidden behind the mode: CPUs have been known to speculate past it (CVE-2018-3665).

use core::arch::asm;

use kernel::{
    mm::{Frame, Mm},
    object::{Id, Kernel, Thread},
};
use spin::Once;
use x86_64::registers::{
    control::{Cr0, Cr0Flags, Cr4, Cr4Flags},
    xcontrol::{XCr0, XCr0Flags},
};

use super::{cpu, percpu::PerCpu};

/// Bytes of the x87 and SSE state, and of the header that follows it in an area of `xsave`.
const LEGACY_LEN: usize = 512;
const HEADER_LEN: usize = 64;

/// How the registers are saved.
#[derive(Clone, Copy, Debug)]
enum Method {
    /// `fxsave`: x87 and SSE.
    Legacy,
    /// `xsave`: what is in the mask.
    Extended(XCr0Flags),
}

static METHOD: Once<Method> = Once::new();

/// The registers of a thread that has not used any.
#[repr(C, align(64))]
struct Initial([u8; LEGACY_LEN + HEADER_LEN]);

static INITIAL: Initial = Initial({
    let mut area = [0; LEGACY_LEN + HEADER_LEN];
    // Control words of x87 and SSE: all exceptions masked.
    (area[0], area[1]) = (0x7f, 0x03);
    (area[24], area[25]) = (0x80, 0x1f);
    area
});

/// Switches vector instructions on, to be reported at their first use. Must run on every CPU.
pub fn init() {
    let extended = cpu::features().xsave;
    // SAFETY: `fxsave` and SSE are part of x86-64; `xsave` is there.
    unsafe {
        Cr4::update(|cr4| {
            cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
            cr4.set(Cr4Flags::OSXSAVE, extended);
        });
        Cr0::update(|cr0| {
            cr0.insert(Cr0Flags::MONITOR_COPROCESSOR);
            cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
        });
    }
    let method = METHOD.call_once(|| if extended { choose() } else { Method::Legacy });
    if let Method::Extended(state) = method {
        // SAFETY: `choose` has written the same value on the first CPU.
        unsafe { XCr0::write(*state) };
    }
    load(&raw const INITIAL.0[0]);
    forbid();
}

/// The most state that fits a frame.
fn choose() -> Method {
    let avx = XCr0Flags::X87 | XCr0Flags::SSE | XCr0Flags::AVX;
    let avx512 = avx | XCr0Flags::OPMASK | XCr0Flags::ZMM_HI256 | XCr0Flags::HI16_ZMM;
    let leaf = |part| cpu::leaf(0xd, part);
    let has = leaf(0).map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.eax));
    let candidates = [avx512, avx, XCr0Flags::X87 | XCr0Flags::SSE];
    let chosen = candidates
        .into_iter()
        .filter(|state| has & state.bits() == state.bits());
    for state in chosen {
        // SAFETY: the CPU has the state, and these sets are legal.
        unsafe { XCr0::write(state) };
        if leaf(0).is_some_and(|leaf| leaf.ebx as usize <= 4096) {
            return Method::Extended(state);
        }
    }
    Method::Legacy
}

/// The running thread used a vector register: gives it room, if it has none. `false`: there is no
/// frame.
pub fn first_use(cpu: &PerCpu, kernel: &mut Kernel, id: Id<Thread>) -> bool {
    let mm = kernel.mm;
    let Some(thread) = kernel.threads.get_mut(id) else {
        return true;
    };
    let Some(frame) = thread.fpu().or_else(|| mm.frames.alloc_zeroed()) else {
        return false;
    };
    if thread.fpu().is_none() {
        mm.map.write_bytes(frame, 0, &INITIAL.0);
        thread.set_fpu(frame);
    }
    permit();
    load(area(mm, frame));
    cpu.fpu_owner.set(Some(id));
    true
}

/// The CPU goes over to the running thread, or to none. Whose registers are here is saved before any other
/// CPU can have it.
#[inline]
pub fn switch(cpu: &PerCpu, kernel: &Kernel, to: Option<&Thread>) {
    let owner = cpu.fpu_owner.get();
    let has_own = to.is_some_and(|to| to.fpu().is_some());
    if (owner.is_some() || has_own) && owner != kernel.current() {
        exchange(cpu, kernel, to);
    }
}

/// Saves the registers for their owner, who may be dead, and loads those of `to`.
#[inline(never)]
fn exchange(cpu: &PerCpu, kernel: &Kernel, to: Option<&Thread>) {
    let mm = kernel.mm;
    let owner = cpu.fpu_owner.take().and_then(|id| kernel.threads.get(id));
    if let Some(frame) = owner.and_then(|owner| owner.fpu()) {
        save(area(mm, frame).cast_mut());
    }
    if let Some(frame) = to.and_then(Thread::fpu) {
        permit();
        load(area(mm, frame));
        cpu.fpu_owner.set(kernel.current());
    } else {
        load(&raw const INITIAL.0[0]);
        forbid();
    }
}

fn area(mm: &Mm, frame: Frame) -> *const u8 {
    mm.map.pointer(frame.addr())
}

/// Vector instructions raise #NM.
fn forbid() {
    // SAFETY: the kernel uses no vector registers.
    unsafe { Cr0::update(|cr0| cr0.insert(Cr0Flags::TASK_SWITCHED)) };
}

/// Vector instructions work.
fn permit() {
    // SAFETY: takes nothing from the kernel.
    unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
}

fn save(area: *mut u8) {
    // SAFETY: the area is a frame that belongs to the thread whose registers these are; `init` has
    // chosen a state that fits it.
    unsafe {
        match METHOD.get() {
            Some(Method::Extended(state)) => {
                let mask = state.bits();
                asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32,
                    in("edx") (mask >> 32) as u32, options(nostack, preserves_flags));
            }
            _ => asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)),
        }
    }
}

fn load(area: *const u8) {
    // SAFETY: the area was written by `save` or is the initial state, and only the kernel writes to
    // it, so it holds nothing that the CPU refuses. The kernel uses no vector registers.
    unsafe {
        match METHOD.get() {
            Some(Method::Extended(state)) => {
                let mask = state.bits();
                asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32,
                    in("edx") (mask >> 32) as u32, options(nostack, readonly, preserves_flags));
            }
            _ => asm!("fxrstor64 [{}]", in(reg) area, options(nostack, readonly, preserves_flags)),
        }
    }
}
