//! What comes through the entry code: system calls, faults, interrupts; and the switch to whoever
//! runs next.
//!
//! The kernel's objects are behind one lock. Ordinary messages, notifications, page faults and calls on memory share it with
//! other CPUs; every other entry takes it alone, and so does one that does not get what it needs. It is free while a CPU is idle or between two
//! steps of a long call, the only times when interrupts are on in the kernel. What other CPUs ask for is answered
//! without it. Where there are other CPUs, page faults are resolved and dead tables worked off [apart](sync::Apart) from it; so who has it
//! alone settles before it uses page tables.

use core::{cell::Cell, hint, mem, ptr::NonNull};

use cowslip_abi::Access;
use kernel::{
    mm::{Flush, Frame},
    object::{Creator, Fault, Here, Id, Kernel, Registers, Special, Thread, Way},
    sync::{self, Entrance, Held, Lock, Rank, Shared},
    sys, vm,
};
use x86_64::{
    VirtAddr,
    instructions::interrupts,
    registers::{control::Cr2, model_specific::FsBase},
};

use super::{
    apic, clock, cpu, entry, fpu, lines,
    machine::{MM, Machine},
    paging,
    percpu::{CpuDoors, OwnDoor, PerCpu},
    smp, tlb, trace,
};

const DEVICE_NOT_AVAILABLE: u64 = 7;
const PAGE_FAULT: u64 = 14;
/// Bit of a page fault's error code: the access had user rights.
const USER: u64 = 1 << 2;
/// Another one: an entry has bits set that must be clear.
const RESERVED: u64 = 1 << 3;
const FIRST_INTERRUPT: u64 = 32;
const REQUEST: u64 = apic::REQUEST as u64;

static KERNEL: Lock<Kernel, CpuDoors> = Lock::with_doors(Kernel::new(&MM, &Machine), CpuDoors);

type Guard = sync::Guard<'static, Kernel, CpuDoors>;

/// Waits for the kernel, to act for this CPU. The thread that ran here may be gone then.
#[inline(always)]
fn lock() -> Guard {
    KERNEL
        .retake(PerCpu::number())
        .unwrap_or_else(lock_after_others)
}

/// The same if another CPU had it last, or has it, or may share it.
#[inline(always)]
fn lock_after_others() -> Guard {
    take_after_others();
    // SAFETY: so it has been taken, and for this guard.
    unsafe { KERNEL.taken() }
}

/// Takes the kernel. Who calls this has nothing to keep meanwhile, so it needs no stack.
#[cold]
#[inline(never)]
fn take_after_others() {
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

/// Waits for the kernel for a CPU that runs threads from now on.
fn join() -> Guard {
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
fn admit(guard: &mut Guard, may_share: bool) {
    guard.admit(PerCpu::number(), may_share);
    MM.frames.set_shared(KERNEL.has_several_sharers());
}

/// Runs threads for ever: `start` makes the first one.
pub fn run(start: impl FnOnce(&mut Kernel)) -> ! {
    let mut guard = join();
    start(&mut guard);
    smp::release_others();
    let registers = leave(guard);
    // SAFETY: these are the registers of the thread that runs next, and the lock is released.
    unsafe { entry::resume(registers) }
}

/// Runs threads for ever on another CPU.
pub fn run_other() -> ! {
    let mut guard = join();
    guard.bring_online(PerCpu::number());
    let registers = leave(guard);
    // SAFETY: as above.
    unsafe { entry::resume(registers) }
}

/// The registers of a thread; none, if a shorter path does not do what was asked, and nothing has
/// happened.
type Resumed = Option<NonNull<Registers>>;

/// A thread sends label and words: if it is an ordinary message, returns the registers of the
/// receiver, who runs next.
pub extern "C" fn fast_send() -> Resumed {
    share(Way::Send, |mut here| {
        here.fast_send(clock::ticks, switch_fast)
    })
}

/// The same if one of the two may not run on every CPU.
pub extern "C" fn fast_send_bound() -> Resumed {
    share_second(Way::Send, |mut here| {
        here.fast_send_bound(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send`] for a message without bytes, but with room for some.
pub extern "C" fn fast_send_room() -> Resumed {
    share(Way::Send, |mut here| {
        here.fast_send_room(clock::ticks, switch_fast)
    })
}

/// The same for a message with bytes that can be copied where they are.
pub extern "C" fn fast_send_bytes() -> Resumed {
    share(Way::Send, |mut here| {
        here.fast_send_bytes(clock::ticks, switch_fast)
    })
}

/// The same for a message with bytes, wherever they are.
pub extern "C" fn fast_send_pages() -> Resumed {
    alone(Way::Send, true, |kernel| {
        kernel.here().fast_send_pages(clock::ticks, switch_fast)
    })
}

/// The same for a message with handles: an ordinary one has one, which moves. The word with the
/// handle is in the frame, before and after.
pub extern "C" fn fast_send_handle() -> Resumed {
    alone(Way::Send, false, |kernel| {
        kernel.fast_send_handle(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send`] for a reply that is followed by a receive. If that lets a faulted thread go on, it does, and
/// this does not return.
pub extern "C" fn fast_reply_recv() -> Resumed {
    let has_faulted = Cell::new(false);
    let resume = |thread: &Thread| {
        has_faulted.set(true);
        switch_fast(thread)
    };
    let next = share(Way::Receive, |mut here| {
        here.fast_reply_recv(clock::ticks, switch_fast, resume)
    })?;
    if has_faulted.get() {
        // SAFETY: these are the registers of the thread that runs now, and complete. The kernel is not shared any more.
        unsafe { entry::resume(next.as_ptr()) };
    }
    Some(next)
}

/// The same if one of the two may not run on every CPU.
pub extern "C" fn fast_reply_recv_bound() -> Resumed {
    share_second(Way::Receive, |mut here| {
        here.fast_reply_recv_bound(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_room`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_room() -> Resumed {
    share(Way::Receive, |mut here| {
        here.fast_reply_recv_room(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_bytes`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_bytes() -> Resumed {
    share(Way::Receive, |mut here| {
        here.fast_reply_recv_bytes(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_pages`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_pages() -> Resumed {
    alone(Way::Receive, true, |kernel| {
        kernel
            .here()
            .fast_reply_recv_pages(clock::ticks, switch_fast)
    })
}

/// The same as [`fast_send_handle`] for a reply that is followed by a receive.
pub extern "C" fn fast_reply_recv_handle() -> Resumed {
    alone(Way::Receive, false, |kernel| {
        kernel.fast_reply_recv_handle(clock::ticks, switch_fast)
    })
}

/// A thread raises bits: if that is all there is to it, returns its own registers.
pub extern "C" fn fast_notify() -> Resumed {
    share(Way::Notify, |mut here| {
        Some(NonNull::from(&here.fast_notify()?.regs))
    })
}

/// A thread receives a notification, or waits and lets another run: returns the registers of
/// whoever runs now, which are complete.
pub extern "C" fn fast_recv() -> Resumed {
    share(Way::Receive, |mut here| {
        here.fast_recv(clock::ticks).map(switch_fast)
    })
}

/// Does what a thread asks of an endpoint at the same time as other CPUs. Nothing that waits may come before this.
#[inline(always)]
fn share(way: Way, call: impl FnOnce(Here<'_>) -> Resumed) -> Resumed {
    let mut shared = KERNEL.share(OwnDoor);
    loop {
        if let Some(shared) = shared {
            // SAFETY: the kernel is shared, and no other CPU has this seat.
            let here = unsafe { Here::share(shared.as_ptr(), PerCpu::seat()) };
            // SAFETY: nobody takes a thread from a CPU that has not waited, and `prepare` looks whether it is still here.
            unsafe { hint::assert_unchecked(here.running.id().is_some()) };
            if here.knows_way(way) {
                return call(here);
            }
        }
        if !prepare(way) {
            return None;
        }
        // SAFETY: so the CPU has gone in, and nothing stands for that yet.
        shared = Some(unsafe { KERNEL.shared(OwnDoor) });
    }
}

/// Waits until no CPU has the kernel alone, and lets the thread find out where its call goes. Returns whether it is worth to
/// try again: the thread is still here, and has the right to go there. Then the CPU shares the kernel, as it could not
/// say when it gets in again.
#[cold]
#[inline(never)]
fn prepare(way: Way) -> bool {
    let shared = go_in(OwnDoor);
    // SAFETY: as above.
    let mut here = unsafe { Here::share(shared.as_ptr(), PerCpu::seat()) };
    if here.running.id().is_none() {
        PerCpu::get().lose_registers();
        return false;
    }
    let knows_way = here.knows_way(way) || here.find_way(way);
    if knows_way {
        mem::forget(shared);
        Held::pass_on(Rank::Kernel);
    }
    knows_way
}

/// The same as [`share`] for what is tried second, when the thread may be gone.
#[inline(always)]
fn share_second(way: Way, call: impl FnOnce(Here<'_>) -> Resumed) -> Resumed {
    let shared = KERNEL.share(OwnDoor)?;
    // SAFETY: as above.
    let here = unsafe { Here::share(shared.as_ptr(), PerCpu::seat()) };
    if here.knows_way(way) {
        call(here)
    } else {
        None
    }
}

/// Does what a thread asks of an endpoint, and has the kernel alone; if it uses page tables, after having settled. What waits may come
/// before this.
#[inline(always)]
fn alone(way: Way, uses_tables: bool, call: impl FnOnce(&mut Kernel) -> Resumed) -> Resumed {
    let mut guard = lock();
    if uses_tables {
        settle();
    }
    guard.current()?;
    if guard.here().knows_way(way) || guard.here().find_way(way) {
        call(&mut guard)
    } else {
        None
    }
}

/// Does what a thread asks for, if the CPU got the kernel alone for it.
#[inline(always)]
fn fast(guard: Option<Guard>, call: impl FnOnce(&mut Kernel) -> Resumed) -> Resumed {
    let mut guard = guard?;
    // SAFETY: who retakes the kernel has not waited, and nobody takes a thread from such a CPU; otherwise it was looked at.
    unsafe { hint::assert_unchecked(guard.current().is_some()) };
    call(&mut guard)
}

/// Waits for the kernel for a thread that has made a call, unless the thread has been taken from this
/// CPU meanwhile. Nothing that waits may come before this.
#[inline(always)]
fn lock_for_thread() -> Option<Guard> {
    // Nobody takes a thread from a CPU that has not waited.
    let again = KERNEL.retake(PerCpu::number());
    again.or_else(|| {
        let guard = lock_after_others();
        guard.current().is_some().then_some(guard)
    })
}

/// Makes the CPU ready for a thread that has nothing special.
#[inline(always)]
fn switch_fast(next: &Thread) -> NonNull<Registers> {
    let root = next.root.addr();
    if PerCpu::replace_root(root.0) != root.0 {
        // SAFETY: the table is a space's, whose thread runs here.
        unsafe { tlb::load(root) };
    }
    PerCpu::set_registers(&next.regs);
    NonNull::from(&next.regs)
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

/// Takes the kernel again if there is no other CPU.
#[inline(always)]
fn retake_only() -> Option<Guard> {
    if KERNEL.has_several_sharers() {
        None
    } else {
        KERNEL.retake(PerCpu::number())
    }
}

/// A thread shares a page: if that maps shared memory once more, returns its own registers.
pub extern "C" fn share_page() -> Resumed {
    fast(lock_for_thread(), |kernel| {
        settle();
        sys::share_page(kernel).map(NonNull::from)
    })
}

/// A thread made a system call that is not an ordinary message.
pub extern "C" fn system_call() -> *const Registers {
    let mut guard = match KERNEL.retake(PerCpu::number()) {
        Some(guard) => guard,
        None => match create_or_take() {
            // SAFETY: so it has been taken, and for this guard.
            None => unsafe { KERNEL.taken() },
            Some(registers) => return registers.as_ptr(),
        },
    };
    let kernel = &mut *guard;
    sys::syscall(kernel);
    leave(guard)
}

/// Makes a call that makes objects or closes a handle beside other CPUs. `None`: it is another call, or it is to be made alone, and the
/// kernel has been taken for that. Nothing that waits may come before this.
#[cold]
#[inline(never)]
fn create_or_take() -> Resumed {
    let registers = NonNull::new(PerCpu::get().registers());
    if done_or_take(create_beside()) {
        registers
    } else {
        None
    }
}

fn create_beside() -> bool {
    // SAFETY: the entry code has just saved the registers there, and nobody else uses them.
    let number = unsafe { (*PerCpu::get().registers()).rax } as u32;
    if !sys::is_creation(number) || !KERNEL.has_several_sharers() {
        return false;
    }
    let shared = go_in(OwnDoor);
    // SAFETY: the kernel is shared, and no other CPU has this seat.
    let creator = unsafe { Creator::share(shared.as_ptr(), PerCpu::seat()) };
    creator.is_some_and(sys::create)
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

/// Takes the kernel, to do what is not done.
#[inline(always)]
fn done_or_take(is_done: bool) -> bool {
    if !is_done {
        take_after_others();
    }
    is_done
}

/// Does something to the running thread's page table apart from the kernel, if there are other CPUs. Returns whether it is done. Who has
/// the kernel alone need not have given it back, unless he has settled.
#[inline(always)]
fn on_own_table(act: impl FnOnce(&vm::Locked<'_>) -> bool) -> bool {
    let number = PerCpu::number();
    let _apart = KERNEL
        .apart(number)
        .unwrap_or_else(|| go_in(KERNEL.door(number)).apart());
    // SAFETY: nobody takes the thread from here: who works apart does not wait for the kernel. If the CPU has waited before, and the
    // thread was taken meanwhile, there is none.
    let table = unsafe { PerCpu::seat().own_table(KERNEL.as_ptr()) };
    let locked = table.and_then(vm::PageTable::try_lock);
    KERNEL.has_several_sharers() && locked.is_some_and(|locked| act(&locked))
}

/// Does something to page tables apart from the kernel, if there are other CPUs: `lock` gets hold of what it takes, in the kernel, and
/// `act` does it when the CPU has come out. Returns whether it is done.
#[inline(always)]
fn apart<T>(lock: impl FnOnce(&Here<'static>) -> Option<T>, act: impl FnOnce(&T) -> bool) -> bool {
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
    let is_done = KERNEL.has_several_sharers() && locked.is_some_and(|locked| act(&locked));
    drop(apart);
    is_done
}

/// Waits until no CPU has the kernel alone, and shares it. The running thread may be gone then.
fn go_in<E: Entrance + Copy>(entrance: E) -> Shared<'static, Kernel, E> {
    let shared = KERNEL.share(entrance);
    shared.unwrap_or_else(|| KERNEL.share_later(PerCpu::number(), entrance, smp::wait_a_little))
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

/// A thread was interrupted, or cannot go on.
pub extern "C" fn from_user() -> *const Registers {
    let cpu = PerCpu::get();
    // SAFETY: the entry code has just saved the registers there, and nobody else uses them.
    let vector = unsafe { (*cpu.registers()).vector };
    if vector == REQUEST {
        smp::answer();
        apic::end_of_interrupt();
        return cpu.registers();
    }
    trace::trap(vector);
    let mut guard = lock();
    let kernel = &mut *guard;
    let Some(id) = kernel.current() else {
        interrupt(cpu, kernel, vector);
        return leave(guard);
    };
    match vector {
        DEVICE_NOT_AVAILABLE => use_fpu(cpu, kernel, id),
        ..FIRST_INTERRUPT => sys::exception(kernel, vector),
        _ => interrupt(cpu, kernel, vector),
    }
    leave(guard)
}

/// The running thread used vector registers that it does not have yet.
#[inline(never)]
fn use_fpu(cpu: &PerCpu, kernel: &mut Kernel, id: Id<Thread>) {
    // If there may be a frame now, the thread uses them again.
    if !fpu::first_use(cpu, kernel, id) && !kernel.make_room() {
        // SAFETY: the entry code has saved the registers there, and nobody else uses them.
        let ip = unsafe { (*cpu.registers()).rip };
        sys::fault_out_of_memory(kernel, ip);
    }
}

/// The kernel was interrupted, which it is only while idle or between two steps, or has faulted, which
/// is the end.
pub extern "C" fn from_kernel(registers: &Registers) {
    match registers.vector {
        ..FIRST_INTERRUPT => fault_in_kernel(registers),
        REQUEST => {
            smp::answer();
            apic::end_of_interrupt();
        }
        vector => interrupt(PerCpu::get(), &mut lock_after_others(), vector),
    }
}

/// What no kernel survives, whoever ran: double fault, NMI, machine check.
pub extern "C" fn fatal(registers: &Registers) -> ! {
    if smp::is_stopped() {
        cpu::halt();
    }
    fault_in_kernel(registers)
}

fn fault_in_kernel(registers: &Registers) -> ! {
    let Registers {
        vector,
        error,
        rip,
        rsp,
        rbp,
        ..
    } = *registers;
    let name = match vector {
        2 => "non-maskable interrupt",
        8 => "double fault",
        13 => "general protection fault",
        PAGE_FAULT => "page fault",
        18 => "machine check",
        _ => "exception",
    };
    let address = Cr2::read_raw();
    super::panic::set_origin(rip, rbp);
    panic!(
        "{name}: vector {vector}, error {error:#x}, at {rip:#x}, stack {rsp:#x}, \
        last page fault at {address:#x}\n{registers:#x?}"
    )
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

fn interrupt(cpu: &PerCpu, kernel: &mut Kernel, vector: u64) {
    let Ok(vector @ lines::FIRST_VECTOR..) = u8::try_from(vector) else {
        return;
    };
    match vector {
        apic::SPURIOUS => return,
        // `leave` looks.
        apic::LOOK => {}
        apic::TIMER => {
            apic::timer_fired(cpu);
            sys::tick(kernel);
        }
        apic::ERROR => log::error!("local APIC: error {:#x}", apic::errors()),
        _ => {
            let line = u32::from(vector - lines::FIRST_VECTOR);
            if lines::arrived(line) {
                sys::interrupt(kernel, line);
            }
        }
    }
    apic::end_of_interrupt();
}

/// Finds out who runs next, waits until somebody can, and returns the registers to resume with.
#[inline]
fn leave(mut guard: Guard) -> *const Registers {
    let kernel = &mut *guard;
    if !kernel.cpus.here().reschedule
        && let Some(thread) = kernel.threads.pinned()
    {
        // The same place means the same thread: after the end of one, there is something to decide.
        if PerCpu::get().registers().cast_const() == &raw const thread.regs {
            return &thread.regs;
        }
        if !thread.special.contains(Special::LONG) {
            let registers = switch(PerCpu::get(), kernel, thread);
            let_go(guard);
            return registers;
        }
    }
    reschedule(guard)
}

/// The same when there is something to be decided.
#[inline(never)]
fn reschedule(mut guard: Guard) -> *const Registers {
    let cpu = PerCpu::get();
    loop {
        let next = sys::next(&mut guard);
        apic::set_timer(cpu, next.timer);
        let kernel = &mut *guard;
        fpu::switch(cpu, kernel, kernel.threads.pinned());
        match kernel.threads.pinned() {
            // In the middle of a call that takes more than one step: this is the next one.
            Some(thread) if thread.special.contains(Special::LONG) => {
                sys::syscall(kernel);
                let_go(guard);
                poll_interrupts();
                guard = lock();
                continue;
            }
            Some(thread) => {
                let registers = switch(cpu, kernel, thread);
                if KERNEL.has_several_sharers() && !kernel.mm.dead.is_empty() {
                    work_off(guard);
                } else {
                    let_go(guard);
                }
                return registers;
            }
            None => {}
        }
        if !(kernel.reap() && kernel.mm.dead.is_empty()) {
            work_off(guard);
            poll_interrupts();
            guard = lock();
            continue;
        }
        assert!(
            !kernel.is_stuck(),
            "no thread can run, and nothing will ever wake one"
        );
        trace::idle();
        // An idle CPU need not be asked to forget anything, nor be waited for.
        use_root(paging::root());
        admit(&mut guard, false);
        drop(guard);
        interrupts::enable_and_hlt();
        interrupts::disable();
        guard = lock_after_others();
        admit(&mut guard, true);
    }
}

/// Lets go of the kernel, and loads the page table that comes next.
#[inline(always)]
fn let_go(guard: Guard) {
    drop(guard);
    arrive();
}

/// Lets go of the kernel, and works off some dead tables.
#[cold]
#[inline(never)]
fn work_off(guard: Guard) {
    let _apart = guard.apart(PerCpu::number());
    let_go(guard);
    vm::reap(&MM);
}

/// Lets the interrupts in that have arrived.
fn poll_interrupts() {
    interrupts::enable();
    // Interrupts are let in only after the instruction behind the one that enables them.
    hint::spin_loop();
    interrupts::disable();
}

/// Makes the CPU ready for a thread, but for its page table: when others may have the kernel again, the CPU [arrives](arrive) there.
fn switch(cpu: &PerCpu, kernel: &Kernel, thread: &Thread) -> *const Registers {
    fpu::switch(cpu, kernel, Some(thread));
    cpu.leave_for(thread.root.addr());
    PerCpu::set_registers(&thread.regs);
    // Whoever ran last may have loaded a selector into `fs`, which makes the base 0.
    let fs_base = thread.fs_base();
    if cpu.fs_base.replace(fs_base) | fs_base != 0 {
        FsBase::write(VirtAddr::new(fs_base));
    }
    &thread.regs
}

/// Loads the page table that the CPU was to use since it last [left](PerCpu::leave_for) one. To forget all translations takes long, and
/// nobody need wait for it but who is going to free the tables of the one that is left.
#[inline(always)]
pub fn arrive() {
    // SAFETY: the table is the kernel's own, or a space's whose thread runs here: both have the kernel's half, and do not go away.
    PerCpu::get().arrive(|root| unsafe { tlb::load(root) });
}

/// Uses this page table from now on.
#[inline]
pub fn use_root(root: Frame) {
    PerCpu::get().leave_for(root.addr());
    arrive();
}

/// The CPUs that run threads, a bit each. The others use the kernel's page table.
pub fn running() -> u64 {
    KERNEL.sharers()
}

/// Waits until no CPU looks any more at what this one has replaced in page tables: for messages, which it reads them for, and on
/// the way from one table to another.
pub fn wait_for_readers() {
    KERNEL.wait_for_readers(PerCpu::number(), smp::wait_a_little);
}

/// Whether other CPUs run threads, too.
pub fn has_others() -> bool {
    KERNEL.has_several_sharers()
}

/// Waits until no other CPU works on page tables or frames apart from the kernel, which this CPU has alone. Returns whether one did.
#[inline]
pub fn settle() -> bool {
    KERNEL.has_several_sharers() && settle_others()
}

#[cold]
#[inline(never)]
fn settle_others() -> bool {
    KERNEL.settle(PerCpu::number(), smp::wait_a_little)
}

/// Makes every CPU leave a page table that is about to go away. This one still has it loaded until it [arrives](arrive) elsewhere, and
/// whoever flushes before it is worked off waits for that.
pub fn retire(root: Frame) {
    if !KERNEL.has_several_sharers() {
        // It is worked off at once.
        return retire_here(root);
    }
    smp::retire_others(root);
    if PerCpu::root() == root.addr() {
        // Most often another thread runs here next, whose page table is loaded then.
        PerCpu::get().leave_for(paging::root().addr());
    }
}

/// Makes this CPU leave a page table.
pub fn retire_here(root: Frame) {
    if PerCpu::root() == root.addr() {
        use_root(paging::root());
    }
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

/// Flushes what a change of page tables has made stale, on all CPUs. The kernel itself does not look at it any more, either.
#[inline]
pub fn flush(flush: &Flush) {
    tlb::flush_here(flush);
    if KERNEL.has_several_sharers() {
        smp::flush_others(flush);
    }
    debug_assert!(
        flush
            .spaces()
            .all(|space| PerCpu::left_by(PerCpu::number()) != Some(space.root.addr())),
        "a page table that may be worked off is still loaded"
    );
}
