//! What this CPU's TLB knows: page tables are loaded here, and translations forgotten.
//!
//! With the kernel option `pcid=on`, on CPUs that have process-context identifiers, a CPU that goes over to another page table keeps what
//! it knows of those that it leaves; `kernel::mm::asid` says how. With `pcid=dry` all of this is done, but the CPU is told nothing and forgets
//! everything with each page table: so it can be tried where CPUs have none.

use core::{
    arch::{asm, naked_asm},
    sync::atomic::{
        AtomicU8,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use kernel::mm::{
    Flush, FlushPages, Frame, PhysAddr, Table,
    asid::{Choice, Generations},
    phys::FRAME_SIZE,
};
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::{cpu, machine::MM, percpu::PerCpu};

/// More pages than this are not flushed one by one.
const MAX_SINGLE_FLUSHES: u64 = 32;

/// Nothing is kept.
const OFF: u8 = 0;
/// ASIDs are chosen, and not used.
const DRY: u8 = 1;
/// They are used.
const ON: u8 = 2;

static ASIDS: AtomicU8 = AtomicU8::new(OFF);

static GENERATIONS: Generations = Generations::new();

/// Lets all CPUs use ASIDs as this option says, if they have any. Once, before the others start.
pub fn choose_mode(option: Option<&str>) {
    let mode = match option {
        Some("on") if cpu::features().pcid => ON,
        Some("dry") => DRY,
        Some("on") => {
            log::warn!("pcid=on: the CPU has no process-context identifiers");
            OFF
        }
        _ => OFF,
    };
    ASIDS.store(mode, Relaxed);
    init();
}

/// Makes this CPU ready for that. What it has loaded was loaded by [`cpu::load_page_table`].
pub fn init() {
    if ASIDS.load(Relaxed) == ON {
        // SAFETY: the CPU has it, and what is loaded counts as ASID 0 from now on.
        unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::PCID)) };
    }
}

/// Whether CPUs may know page tables that they do not use.
#[inline(always)]
pub fn uses_asids() -> bool {
    ASIDS.load(Relaxed) != OFF
}

/// Loads the page table with this root, of which it was noted before that this CPU uses it.
///
/// # Safety
///
/// The upper half of the table must be the kernel's.
#[inline(always)]
pub unsafe fn load(root: PhysAddr) {
    // In the way of every message: so a call that is hardly ever made costs no register.
    // SAFETY: as the caller promises; the call changes no register.
    unsafe {
        asm!(
            "cmp byte ptr [rip + {asids}], {off}",
            "jne 2f",
            "mov cr3, {root}",
            "3:",
            ".pushsection .text.unlikely, \"ax\"",
            "2: call {load_with_asid}",
            "jmp 3b",
            ".popsection",
            asids = sym ASIDS,
            off = const OFF,
            root = in(reg) root.0,
            load_with_asid = sym load_keeping_registers,
        );
    }
}

/// Calls [`load_with_asid`], and changes no register.
#[unsafe(naked)]
extern "C" fn load_keeping_registers() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "and rsp, -16",
        "call {load_with_asid}",
        "lea rsp, [rbp - 9 * 8]",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "pop rbp",
        "ret",
        load_with_asid = sym load_with_asid,
    )
}

/// Loads the page table that it was noted this CPU uses.
extern "C" fn load_with_asid() {
    /// In what is loaded: what is known under the ASID is kept.
    const KEEP: u64 = 1 << 63;
    let root = PerCpu::root();
    // Whoever replaces the generation from here on sees the note.
    fence(SeqCst);
    let generation = GENERATIONS.of(table(Frame::containing(root)));
    let Choice { asid, keeps } = PerCpu::get().asids.choose(root, generation);
    let mut bits = 0;
    if ASIDS.load(Relaxed) == ON {
        bits = asid as u64 | if keeps { KEEP } else { 0 };
    }
    // SAFETY: as the caller of `load` promises; what is kept is as the page table is.
    unsafe { cpu::load_page_table(PhysAddr(root.0 | bits)) };
}

fn table(root: Frame) -> &'static Table {
    MM.map.table(root)
}

/// Flushes what a change of page tables has made stale, on this CPU.
#[inline]
pub fn flush_here(flush: &Flush) {
    let root = PerCpu::root();
    for space in flush.spaces() {
        if space.root.addr() == root {
            flush_pages(space.pages);
        }
    }
}

/// Lets CPUs that know these page tables and do not use them find out that they have changed. This one has [flushed](flush_here) already; if
/// it is still on the way to the page table that it uses, what it has flushed there is what it leaves, and it does not follow.
#[cold]
#[inline(never)]
pub fn renew(flush: &Flush) {
    let root = PerCpu::root();
    let has_arrived = PerCpu::left_by(PerCpu::number()).is_none();
    for space in flush.spaces() {
        let generations = GENERATIONS.replace(table(space.root));
        if has_arrived && space.root.addr() == root {
            PerCpu::get().asids.follow(root, generations);
        }
    }
}

#[inline]
fn flush_pages(pages: FlushPages) {
    let FlushPages::Range { start, end } = pages else {
        return flush_all();
    };
    if end - start > MAX_SINGLE_FLUSHES * FRAME_SIZE {
        return flush_all();
    }
    let mut page = start;
    // There is at least one.
    loop {
        cpu::flush_page(page);
        page += FRAME_SIZE;
        if page >= end {
            return;
        }
    }
}

/// Forgets all of the page table in use.
#[inline]
fn flush_all() {
    // SAFETY: forgetting translations changes nothing but time. What is read has no bit that says to keep them.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}
