//! The other CPUs: starting them, and asking them for something.
//!
//! A CPU starts in real mode at the beginning of a [page](TRAMPOLINE) below 1 MiB. What is there takes
//! it to long mode and to its own stack; it sets itself up, says so, and waits until there is a
//! kernel. CPUs are started one by one, as the page is the same for all. One that does not say anything
//! is left out, and so are those after it, as it may still come.

use core::{
    arch::global_asm,
    hint,
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};

use kernel::{
    mm::{Flush, Frame, PhysAddr, layout::DIRECT_MAP},
    sync::{Held, MAX_CPUS, Mailboxes, Rank},
};

use super::{
    acpi::Wiring, apic, clock, cpu, entry, fpu, hold, paging, percpu, percpu::PerCpu, roots, tlb,
    trap,
};
use crate::boot::memory::TRAMPOLINE;

/// How long a CPU may take until it says that it runs, in nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How long a CPU is given after it was reset, and between two calls to start: 10 ms and 200 µs.
const AFTER_INIT_NS: u64 = 10_000_000;
const AFTER_STARTUP_NS: u64 = 200_000;

/// The numbers by which the local APICs are called, by CPU.
static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// CPUs that take part, a bit each.
static STARTED: AtomicU64 = AtomicU64::new(1);
/// Nobody waits any more for a CPU that has not started.
static IS_TOO_LATE: AtomicBool = AtomicBool::new(false);
/// The others may go on.
static KERNEL_IS_THERE: AtomicBool = AtomicBool::new(false);

global_asm!(
    r#"
    .set TRAMPOLINE, {trampoline}

    .pushsection .text.trampoline, "ax"
    .balign 16
    .global trampoline_start, trampoline_end, trampoline_data
    .code16
trampoline_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + (trampoline_gdt_pointer - trampoline_start)
    movl $0x20, %eax                // PAE
    movl %eax, %cr4
    movl TRAMPOLINE + (trampoline_data - trampoline_start), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          // EFER
    rdmsr
    orl $0x900, %eax                // NXE, LME
    wrmsr
    movl $0x80010011, %eax          // PG, WP, ET, PE
    movl %eax, %cr0
    ljmpl $8, $(TRAMPOLINE + (1f - trampoline_start))
    .code64
1:  xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movq TRAMPOLINE + (trampoline_data - trampoline_start) + 8, %rsp
    movq TRAMPOLINE + (trampoline_data - trampoline_start) + 16, %rdi
    movq TRAMPOLINE + (trampoline_data - trampoline_start) + 24, %rax
    xorl %ebp, %ebp
    call *%rax
    ud2

    .balign 8
trampoline_gdt:
    .quad 0, 0x00af9b000000ffff
trampoline_gdt_pointer:
    .word 15
    .long TRAMPOLINE + (trampoline_gdt - trampoline_start)
    .balign 8
trampoline_data:
    .fill 4, 8, 0                   // TrampolineData
trampoline_end:
    .popsection
    "#,
    trampoline = const TRAMPOLINE,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_data: u8;
    static trampoline_end: u8;
}

/// What the code in the page is told.
#[repr(C)]
struct TrampolineData {
    /// Physical address of a root below 4 GiB that maps the page to itself.
    root: u64,
    stack: u64,
    number: usize,
    entry: extern "C" fn(usize) -> !,
}

/// Starts all other CPUs of the machine, and returns how many take part. This one must have its clock.
pub fn start_others(wiring: &Wiring) -> usize {
    let own = apic::id();
    APIC_IDS[0].store(own, Relaxed);
    let mut others = wiring.cpus().iter().filter(|&&id| id != own);
    let nr_left_out = wiring.nr_cpus() - wiring.cpus().len();
    if nr_left_out > 0 {
        log::warn!("{nr_left_out} CPUs are left out: {MAX_CPUS} are the most");
    }
    let mut number = 1;
    if others.clone().next().is_none() {
        return number;
    }
    paging::map_start();
    copy_trampoline();
    while let Some(&id) = others.next() {
        paging::map_stacks(percpu::stack_pages(number));
        APIC_IDS[number].store(id, Relaxed);
        if !start_one(id, number) {
            IS_TOO_LATE.store(true, SeqCst);
            let nr_others = others.count();
            log::warn!(
                "the CPU with local APIC {id} does not start: left out, and {nr_others} others"
            );
            // Its way into the kernel stays, where it stops.
            return number;
        }
        number += 1;
    }
    paging::unmap_start();
    number
}

fn copy_trampoline() {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    let page = (DIRECT_MAP + TRAMPOLINE) as *mut u8;
    // SAFETY: the code is in the image, shorter than a page, and nobody else uses the page.
    unsafe { page.copy_from_nonoverlapping(start, end.addr() - start.addr()) };
}

fn start_one(id: u32, number: usize) -> bool {
    tell(TrampolineData {
        root: paging::root().addr().0,
        stack: percpu::stack_top(number),
        number,
        entry: enter,
    });
    let has_started = || STARTED.load(Acquire) >> number & 1 != 0;
    apic::send_init(id);
    wait(AFTER_INIT_NS, || false);
    // The second call is for CPUs that do not hear the first.
    apic::send_startup(id, TRAMPOLINE);
    if !wait(AFTER_STARTUP_NS, has_started) {
        apic::send_startup(id, TRAMPOLINE);
    }
    wait(PATIENCE_NS, has_started)
}

fn tell(data: TrampolineData) {
    let offset = (&raw const trampoline_data).addr() - (&raw const trampoline_start).addr();
    let place = (DIRECT_MAP + TRAMPOLINE) as usize + offset;
    // SAFETY: this is where the data are in the page, and no CPU reads them that was not called yet.
    unsafe { (place as *mut TrampolineData).write_volatile(data) };
}

/// Waits for a condition, but not for ever. Returns whether it is met.
fn wait(ns: u64, is_met: impl Fn() -> bool) -> bool {
    let end = clock::now_ns() + ns;
    while !is_met() {
        if clock::now_ns() > end {
            return false;
        }
        hint::spin_loop();
    }
    true
}

/// Where another CPU arrives, on its own stack.
extern "C" fn enter(number: usize) -> ! {
    if IS_TOO_LATE.load(SeqCst) {
        cpu::halt();
    }
    cpu::init();
    tlb::init();
    percpu::init(number);
    entry::init();
    fpu::init();
    apic::init();
    STARTED.fetch_or(1 << number, Release);
    while !KERNEL_IS_THERE.load(Acquire) {
        hint::spin_loop();
    }
    // The first 2 MiB are forgotten by this.
    roots::use_root(paging::root());
    trap::run_other()
}

/// Lets the other CPUs go on, into the kernel.
pub fn release_others() {
    KERNEL_IS_THERE.store(true, Release);
}

/// The CPUs that take part, a bit each.
pub fn started() -> u64 {
    STARTED.load(Relaxed)
}

/// What a CPU can ask others for.
enum Request {
    /// To forget translations.
    Flush(Flush),
    /// To leave a page table that is about to go away.
    Retire(Frame),
}

static MAILBOXES: Mailboxes<Request> = Mailboxes::new();

/// Does what other CPUs have asked this one for.
#[inline]
pub fn answer() {
    let me = PerCpu::number();
    if MAILBOXES.is_asked(me) {
        MAILBOXES.answer(me, |request| match request {
            Request::Flush(flush) => tlb::flush_here(flush),
            Request::Retire(root) => roots::retire_here(*root),
        });
    }
}

/// What a CPU does that waits for another one, which may wait until it has left a page table.
#[inline]
pub fn wait_a_little() {
    roots::arrive();
    answer();
    hint::spin_loop();
}

/// Flushes on all other CPUs that may know one of the spaces, and returns when they have, and when none reads page tables that
/// did before.
///
/// In this order: one that has noted another root already, and has not loaded it yet, is not asked, and reads.
#[inline(never)]
pub fn flush_others(flush: &Flush) {
    if tlb::uses_asids() {
        tlb::renew(flush);
    }
    let uses = |root: PhysAddr| flush.spaces().any(|space| space.root.addr() == root);
    ask_users(uses, || Request::Flush(*flush));
    hold::wait_for_readers();
}

/// Makes all other CPUs leave a page table.
pub fn retire_others(root: Frame) {
    ask_users(|used| used == root.addr(), || Request::Retire(root));
}

/// Asks the CPUs for something whose page table is such a one. This one has the kernel alone, or works apart; then others begin and
/// cease to run threads meanwhile.
///
/// A CPU says that it runs threads, and notes the root, before it loads that, and loading it waits until both can be seen. So either
/// they are seen here, or the CPU sees the tables as they are now. One that has ceased to run threads answers as well. One that is
/// on its way to another page table is waited for; it waits for nobody.
fn ask_users(uses: impl Fn(PhysAddr) -> bool, request: impl FnOnce() -> Request) {
    roots::arrive();
    core::sync::atomic::fence(SeqCst);
    let me = PerCpu::number();
    let mut others = 0;
    let mut rest = hold::running() & !(1 << me);
    while let Some(number) = rest.checked_ilog2() {
        rest &= !(1 << number);
        let number = number as usize;
        if uses(PerCpu::root_of(number)) {
            others |= 1 << number;
        }
        while PerCpu::left_by(number).is_some_and(&uses) {
            wait_a_little();
        }
    }
    if others != 0 {
        let notify = |number| interrupt(number, apic::REQUEST);
        let _held = Held::new(Rank::Answers);
        MAILBOXES.ask(me, others, request(), notify, wait_a_little);
    }
}

/// Lets another CPU look who runs next.
pub fn kick(number: usize) {
    interrupt(number, apic::LOOK);
}

fn interrupt(number: usize, vector: u8) {
    apic::send(APIC_IDS[number].load(Relaxed), vector);
}

/// The CPU that ends the machine; [`MAX_CPUS`] if it goes on.
static ENDING: AtomicUsize = AtomicUsize::new(MAX_CPUS);

/// Stops all other CPUs for ever. Only the first CPU that calls this returns.
pub fn stop_others() {
    if started().is_power_of_two() {
        return;
    }
    let me = PerCpu::number();
    match ENDING.compare_exchange(MAX_CPUS, me, Relaxed, Relaxed) {
        Ok(_) => apic::send_nmi_to_others(),
        Err(first) if first == me => {}
        Err(_) => cpu::halt(),
    }
}

/// Whether another CPU ends the machine, so that this one has nothing to say.
pub fn is_stopped() -> bool {
    let ending = ENDING.load(Relaxed);
    ending != MAX_CPUS && ending != PerCpu::number()
}
