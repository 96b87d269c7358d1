//! How a CPU gets hold of the kernel's objects.
//!
//! They are behind one lock. What CPUs can do at the same time [shares](go_in) it: ordinary messages, notifications, most of what creates. Where
//! there are other CPUs, page faults are resolved, most calls on memory made and dead tables worked off [apart] from it. For everything
//! else a CPU has it [alone](lock), and [settles](settle) before it uses page tables, as others may work on them apart.
//!
//! While a CPU waits for the kernel, the thread that ran there may be taken from it.

use core::mem;

use kernel::{
    object::{Here, Kernel},
    sync::{self, Entrance, Held, Lock, Rank, Shared},
    vm,
};

use super::{
    machine::{MM, Machine},
    percpu::{CpuDoors, PerCpu},
    smp, tlb,
};

pub(super) static KERNEL: Lock<Kernel, CpuDoors> =
    Lock::with_doors(Kernel::new(&MM, &Machine), CpuDoors);

pub(super) type Guard = sync::Guard<'static, Kernel, CpuDoors>;

/// Waits for the kernel, to act for this CPU. The thread that ran here may be gone then.
#[inline(always)]
pub(super) fn lock() -> Guard {
    KERNEL
        .retake(PerCpu::number())
        .unwrap_or_else(lock_after_others)
}

/// The same if another CPU had it last, or has it, or may share it.
#[inline(always)]
pub(super) fn lock_after_others() -> Guard {
    take_after_others();
    // SAFETY: so it has been taken, and for this guard.
    unsafe { KERNEL.taken() }
}

/// Takes the kernel. Who calls this has nothing to keep meanwhile, so it needs no stack.
#[cold]
#[inline(never)]
pub(super) fn take_after_others() {
    let number = PerCpu::number();
    KERNEL.take(number, smp::wait_a_little, smp::kick);
    // SAFETY: it has just been taken.
    let mut guard = unsafe { KERNEL.taken() };
    guard.enter(number);
    if guard.current().is_none() {
        PerCpu::get().lose_registers();
    }
    // It stays taken.
    mem::forget(guard);
    Held::pass_on(Rank::Kernel);
}

/// Waits for the kernel for a thread that has made a call, unless the thread has been taken from this
/// CPU meanwhile. Nothing that waits may come before this.
#[inline(always)]
pub(super) fn lock_for_thread() -> Option<Guard> {
    // Nobody takes a thread from a CPU that has not waited.
    let again = KERNEL.retake(PerCpu::number());
    again.or_else(|| {
        let guard = lock_after_others();
        guard.current().is_some().then_some(guard)
    })
}

/// Takes the kernel again if there is no other CPU.
#[inline(always)]
pub(super) fn retake_only() -> Option<Guard> {
    if has_others() {
        None
    } else {
        KERNEL.retake(PerCpu::number())
    }
}

/// Takes the kernel, to do what is not done.
#[inline(always)]
pub(super) fn done_or_take(is_done: bool) -> bool {
    if !is_done {
        take_after_others();
    }
    is_done
}

/// Waits for the kernel for a CPU that runs threads from now on.
pub(super) fn join() -> Guard {
    let number = PerCpu::number();
    let mut guard = lock_after_others();
    if tlb::uses_asids() {
        // Each flush is to be told to those that come later.
        guard.assume_several();
    }
    admit(&mut guard, true);
    PerCpu::get().set_seat(guard.seat(number));
    guard
}

/// Lets this CPU share the kernel, to run threads, or does so no longer.
pub(super) fn admit(guard: &mut Guard, may_share: bool) {
    guard.admit(PerCpu::number(), may_share);
    MM.frames.set_shared(has_others());
}

/// Waits until no CPU has the kernel alone, and shares it. The running thread may be gone then.
pub(super) fn go_in<E: Entrance + Copy>(entrance: E) -> Shared<'static, Kernel, E> {
    let shared = KERNEL.share(entrance);
    shared.unwrap_or_else(|| KERNEL.share_later(PerCpu::number(), entrance, smp::wait_a_little))
}

/// Does something to the running thread's page table apart from the kernel, if there are other CPUs. Returns whether it is done. Who has
/// the kernel alone need not have given it back, unless he has settled.
#[inline(always)]
pub(super) fn on_own_table(act: impl FnOnce(&vm::Locked<'_>) -> bool) -> bool {
    let number = PerCpu::number();
    let _apart = KERNEL
        .apart(number)
        .unwrap_or_else(|| go_in(KERNEL.door(number)).apart());
    // SAFETY: nobody takes the thread from here: who works apart does not wait for the kernel. If the CPU has waited before, and the
    // thread was taken meanwhile, there is none.
    let table = unsafe { PerCpu::seat().own_table(KERNEL.as_ptr()) };
    let locked = table.and_then(vm::PageTable::try_lock);
    has_others() && locked.is_some_and(|locked| act(&locked))
}

/// Does something to page tables apart from the kernel, if there are other CPUs: `lock` gets hold of what it takes, in the kernel, and
/// `act` does it when the CPU has come out. Returns whether it is done.
#[inline(always)]
pub(super) fn apart<T>(
    lock: impl FnOnce(&Here<'static>) -> Option<T>,
    act: impl FnOnce(&T) -> bool,
) -> bool {
    let apart;
    // SAFETY: the kernel is shared, or ours alone, and no other CPU has this seat. Page tables that are locked then may be used for longer:
    // whoever has the kernel alone waits for those who work apart before he uses a page table, or ends a space whose table is locked.
    let here = |kernel: *mut Kernel| unsafe { Here::share(kernel, PerCpu::seat()) };
    let locked = match KERNEL.retake(PerCpu::number()) {
        Some(mut guard) => {
            let locked = lock(&here(&raw mut *guard));
            apart = guard.apart(PerCpu::number());
            locked
        }
        None => {
            let shared = go_in(KERNEL.door(PerCpu::number()));
            let locked = lock(&here(shared.as_ptr()));
            apart = shared.apart();
            locked
        }
    };
    // Whoever works apart has others until it is done.
    let is_done = has_others() && locked.is_some_and(|locked| act(&locked));
    drop(apart);
    is_done
}

/// Waits until no other CPU works on page tables or frames apart from the kernel, which this CPU has alone. Returns whether one did.
#[inline]
pub fn settle() -> bool {
    has_others() && settle_others()
}

#[cold]
#[inline(never)]
fn settle_others() -> bool {
    KERNEL.settle(PerCpu::number(), smp::wait_a_little)
}

/// Waits until no CPU looks any more at what this one has replaced in page tables: for messages, which it reads them for, and on
/// the way from one table to another.
pub fn wait_for_readers() {
    KERNEL.wait_for_readers(PerCpu::number(), smp::wait_a_little);
}

/// The CPUs that run threads, a bit each. The others use the kernel's page table.
pub fn running() -> u64 {
    KERNEL.sharers()
}

/// Whether other CPUs run threads, too.
pub fn has_others() -> bool {
    KERNEL.has_several_sharers()
}

/// Waits until another CPU waits for the kernel, which this one has.
pub fn halt(number: usize) {
    if !KERNEL.is_waiting(number) {
        smp::kick(number);
        while !KERNEL.is_waiting(number) {
            smp::wait_a_little();
        }
    }
}
