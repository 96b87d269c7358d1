//! What comes through the entry code: system calls, faults, interrupts; and the switch to whoever
//! runs next.
//!
//! Ordinary [messages], notifications, page faults and calls on [memory] have ways of their own. Every other entry takes the kernel
//! [alone](super::hold), and so does one that does not get what it needs. The kernel is free while a CPU is idle or between two
//! steps of a long call, the only times when interrupts are on in the kernel. What other CPUs ask for is answered
//! without it.

pub mod memory;
pub mod messages;

use core::{hint, ptr::NonNull};

use kernel::{
    object::{Creator, Id, Kernel, Registers, Special, Thread},
    sys, vm,
};
use x86_64::{
    VirtAddr,
    instructions::interrupts,
    registers::{control::Cr2, model_specific::FsBase},
};

use super::{
    apic, cpu, entry, fpu,
    hold::{self, Guard, KERNEL, admit, done_or_take, go_in, lock, lock_after_others},
    lines,
    machine::MM,
    paging,
    percpu::{OwnDoor, PerCpu},
    roots::{arrive, use_root},
    smp, tlb, trace,
};

const DEVICE_NOT_AVAILABLE: u64 = 7;
const PAGE_FAULT: u64 = 14;
const FIRST_INTERRUPT: u64 = 32;
const REQUEST: u64 = apic::REQUEST as u64;

/// The registers of a thread; none, if a shorter path does not do what was asked, and nothing has
/// happened.
type Resumed = Option<NonNull<Registers>>;

/// Runs threads for ever: `start` makes the first one.
pub fn run(start: impl FnOnce(&mut Kernel)) -> ! {
    let mut guard = hold::join();
    start(&mut guard);
    smp::release_others();
    let registers = leave(guard);
    // SAFETY: these are the registers of the thread that runs next, and the lock is released.
    unsafe { entry::resume(registers) }
}

/// Runs threads for ever on another CPU.
pub fn run_other() -> ! {
    let mut guard = hold::join();
    guard.bring_online(PerCpu::number());
    let registers = leave(guard);
    // SAFETY: as above.
    unsafe { entry::resume(registers) }
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
    if !sys::is_creation(number) || !hold::has_others() {
        return false;
    }
    let shared = go_in(OwnDoor);
    // SAFETY: the kernel is shared, and no other CPU has this seat.
    let creator = unsafe { Creator::share(shared.as_ptr(), PerCpu::seat()) };
    creator.is_some_and(sys::create)
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
                if hold::has_others() && !kernel.mm.dead.is_empty() {
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
