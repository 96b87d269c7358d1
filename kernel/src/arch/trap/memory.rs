//! Calls on memory, and page faults.

use core::{hint, ptr::NonNull};

use cowslip_abi::Access;
use kernel::{
    object::{Fault, Kernel},
    sys, vm,
};
use x86_64::registers::control::Cr2;

use super::{
    super::{
        clock,
        hold::{
            Guard, KERNEL, apart, done_or_take, lock_for_thread, on_own_table, retake_only, settle,
        },
        machine::MM,
        percpu::PerCpu,
        trace,
    },
    PAGE_FAULT, Resumed, leave, switch_fast,
};

/// Bit of a page fault's error code: the access had user rights.
const USER: u64 = 1 << 2;
/// Another one: an entry has bits set that must be clear.
const RESERVED: u64 = 1 << 3;

/// A thread maps a page: if that takes no more than an entry, and there is no other CPU, returns its own registers.
pub extern "C" fn map_page() -> Resumed {
    fast(retake_only(), |kernel| {
        sys::map_page(kernel).map(NonNull::from)
    })
}

/// The same for a thread that unmaps a page.
pub extern "C" fn unmap_page() -> Resumed {
    fast(retake_only(), |kernel| {
        sys::unmap_page(kernel).map(NonNull::from)
    })
}

/// A thread shares a page: if that maps shared memory once more, returns its own registers.
pub extern "C" fn share_page() -> Resumed {
    fast(lock_for_thread(), |kernel| {
        settle();
        sys::share_page(kernel).map(NonNull::from)
    })
}

/// Does what a thread asks for, if the CPU got the kernel alone for it.
#[inline(always)]
fn fast(guard: Option<Guard>, call: impl FnOnce(&mut Kernel) -> Resumed) -> Resumed {
    let mut guard = guard?;
    // SAFETY: who retakes the kernel has not waited, and nobody takes a thread from such a CPU; otherwise it was looked at.
    unsafe { hint::assert_unchecked(guard.current().is_some()) };
    call(&mut guard)
}

/// A thread made one of the calls on memory: returns its own registers, with the result.
pub extern "C" fn memory_call() -> Resumed {
    let mut guard = match retake_only() {
        Some(guard) => guard,
        None => match memory_call_or_take() {
            // SAFETY: so it has been taken, and for this guard.
            None => unsafe { KERNEL.taken() },
            resumed => return resumed,
        },
    };
    settle();
    sys::memory_call(&mut guard).map(NonNull::from)
}

/// Makes such a call apart from the kernel, if there are other CPUs. `None`: it is to be made alone, and the kernel has been taken
/// for that. Nothing that waits may come before this.
#[cold]
#[inline(never)]
fn memory_call_or_take() -> Resumed {
    let registers = NonNull::new(PerCpu::get().registers());
    if !done_or_take(apart(sys::LockedCall::of, |call| call.make().is_some())) {
        return None;
    }
    // SAFETY: nobody takes a thread from a CPU that has not waited for the kernel since it has shared it, and nobody else uses the
    // registers of one that runs.
    unsafe { (*registers?.as_ptr()).rax = 0 };
    registers
}

/// A thread accessed a page that the page table does not let it access, or not yet, as this error code tells. Returns the
/// registers of whoever runs next; none, if the thread goes on as if nothing had happened.
pub extern "C" fn page_fault(error: u64) -> Resumed {
    let address = Cr2::read_raw();
    trace::page_fault(address, error);
    let guard = match retake_only() {
        Some(guard) => {
            // SAFETY: nobody takes a thread from a CPU that has not waited.
            unsafe { hint::assert_unchecked(guard.threads.pinned().is_some()) };
            guard
        }
        None if resolve_or_take(address, error) => return None,
        None => {
            // SAFETY: so it has been taken, and for this guard.
            let guard = unsafe { KERNEL.taken() };
            if guard.current().is_none() {
                return NonNull::new(leave(guard).cast_mut());
            }
            settle();
            guard
        }
    };
    if error & (USER | RESERVED) != USER {
        return fault_of_nobody(guard, error);
    }
    let fault = sys::page_fault(&guard, address, access(error))?;
    report(guard, fault)
}

/// A page fault that is not an access of the user's own: QEMU does the loads of a user's `iretq` with kernel rights.
#[cold]
#[inline(never)]
fn fault_of_nobody(mut guard: Guard, error: u64) -> Resumed {
    assert!(
        error & RESERVED == 0,
        "a page table has bits set that must be clear"
    );
    sys::exception(&mut guard, PAGE_FAULT);
    NonNull::new(leave(guard).cast_mut())
}

/// Resolves a page fault apart from the kernel, if there are other CPUs. `false`: it is to be done alone, and the kernel has been taken
/// for that. Nothing that waits may come before this.
#[cold]
#[inline(never)]
fn resolve_or_take(address: u64, error: u64) -> bool {
    let is_users = error & (USER | RESERVED) == USER;
    let resolve = |table: &vm::Locked<'_>| {
        vm::fault(&MM, table, address, access(error)) == vm::Fault::Resolved
    };
    done_or_take(is_users && on_own_table(resolve))
}

/// Reports a fault of the running thread; returns the registers of whoever runs next.
#[inline(never)]
fn report(mut guard: Guard, fault: Fault) -> Resumed {
    let kernel = &mut *guard;
    match kernel.here().fast_fault(fault, clock::ticks) {
        Some(special) if special.is_empty() => return kernel.threads.pinned().map(switch_fast),
        Some(_) => {}
        None => sys::report(kernel, fault),
    }
    NonNull::new(leave(guard).cast_mut())
}

/// The access that a page fault's error code tells of.
fn access(error: u64) -> Access {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    match error {
        _ if error & FETCH != 0 => Access::Execute,
        _ if error & WRITE != 0 => Access::Write,
        _ => Access::Read,
    }
}
