//! The way into the kernel and out again, in assembly.
//!
//! From user mode the registers go straight into the running thread's [`Registers`], to whose end
//! the task state's stack pointer points. Then the stack
//! becomes the CPU's kernel stack, empty: nothing of the kernel survives from one entry to the
//! next. The Rust side returns the registers of whoever runs next.
//!
//! ```text
//!  user   --syscall-->         syscall_entry ---> messages::fast_* --(ordinary message)--> user
//!                                              |
//!                                              +--> memory::{*_page, memory_call} --> user
//!                                              |
//!                                              +--> trap::{system_call, from_user} --> resume --> user
//!  user   --vector n--> stub n --> trap_entry -+
//!  user   --#PF--> stub ----> page_fault_entry --(resolved)--> user
//!  kernel --vector n--> stub n --> trap_entry ----> trap::from_kernel --> iretq --> kernel (idle)
//!  any    --NMI, #DF, #MC--> stub --> fatal_entry ----> trap::fatal
//! ```

use core::{arch::global_asm, mem::offset_of};

use cowslip_abi::{Call, Error, PAGE_SIZE, Tag};
use kernel::object::Registers;
use x86_64::{
    PrivilegeLevel, VirtAddr,
    instructions::tables::lidt,
    registers::{
        model_specific::{Efer, EferFlags, LStar, SFMask, Star},
        rflags::RFlags,
    },
    structures::{DescriptorTablePointer, gdt::SegmentSelector},
};

use super::{
    percpu::offset,
    segments,
    trap::{self, memory, messages},
};

/// Vectors whose stub pushes no error code, because the CPU does: a bit each.
const WITH_ERROR_CODE: u64 = 0x6022_7d00;
/// Bytes from one stub to the next.
const STUB_LEN: u64 = 16;

global_asm!(
    r#"
    .pushsection .text.entry, "ax"
    .balign 16
    .global vector_stubs
vector_stubs:
    .set vector, 0
    .rept 256
    .balign {stub_len}
    .if ({with_error} >> (vector & 31)) & (vector < 32) & 1
    .else
    pushq $0
    .endif
    pushq $vector
    .if vector == 2 || vector == 8 || vector == 18
    jmp fatal_entry
    .elseif vector == 14
    jmp page_fault_entry
    .else
    jmp trap_entry
    .endif
    .set vector, vector + 1
    .endr
    .popsection
    "#,
    stub_len = const STUB_LEN,
    with_error = const WITH_ERROR_CODE,
    options(att_syntax)
);

/// Where the entry code tells of what it does: empty in kernels that do not [trace](super::trace).
///
/// `ENTER` stands where the frame has all registers that are not where the caller had them. `LEAVE` stands where the stack has
/// nothing any more, with what a call returns, and keeps `rax` and what Rust preserves.
#[cfg(not(feature = "trace"))]
macro_rules! hooks {
    () => {
        r#"
    .macro ENTER
    .endm
    .macro LEAVE result
    .endm
        "#
    };
}

#[cfg(feature = "trace")]
macro_rules! hooks {
    () => {
        r#"
    .macro ENTER
    mov rsp, gs:[{kernel_stack}]
    call trace_enter
    mov rsp, gs:[{entry_stack}]
    mov r11, [rsp + {rflags} - {len}]
    mov rax, [rsp + {rax} - {len}]
    mov rdi, [rsp + {rdi} - {len}]
    mov rsi, [rsp + {rsi} - {len}]
    mov rdx, [rsp + {rdx} - {len}]
    mov r8, [rsp + {r8} - {len}]
    mov r9, [rsp + {r9} - {len}]
    mov r10, [rsp + {r10} - {len}]
    .endm

    .macro LEAVE result
    mov rdi, \result
    mov rsp, gs:[{kernel_stack}]
    push rax
    push rax                        // The stack is aligned at calls.
    call trace_leave
    pop rax
    pop rax
    .endm
        "#
    };
}

// The names under which the hooks call Rust.
#[cfg(feature = "trace")]
global_asm!(
    r#"
    .pushsection .text.entry, "ax"
trace_enter:
    jmp {enter}
trace_leave:
    jmp {leave}
    .popsection
    "#,
    enter = sym super::trace::enter,
    leave = sym super::trace::leave,
);

global_asm!(
    hooks!(),
    r#"
    .macro SAVE_REGISTERS
    push rax
    push rcx
    push rdx
    push rdi
    push rsi
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    .endm

    .macro LOAD_REGISTERS
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rsi
    pop rdi
    pop rdx
    pop rcx
    pop rax
    .endm

    // But for `rax`, `rbx`, `rbp` and the words.
    .macro LOAD_FOR_SYSRET
    mov rcx, [rax + {rip}]
    mov r11, [rax + {rflags}]
    mov rdi, [rax + {rdi}]
    mov rsi, [rax + {rsi}]
    mov rdx, [rax + {rdx}]
    mov r8, [rax + {r8}]
    mov r9, [rax + {r9}]
    mov r10, [rax + {r10}]
    mov rsp, [rax + {rsp}]
    .endm

    // Leaves the frame for the kernel's stack. A message of more than label and words goes elsewhere.
    .macro UNLESS_PLAIN other
    mov ecx, [rsp + {rsi} + 4 - {len}]
    mov rsp, gs:[{kernel_stack}]
    or r10, r8
    or r10, rcx
    jnz \other
    .endm

    .pushsection .text.entry, "ax"

    // What the fast path leaves alone stays where it is: the callee-saved registers, with the
    // words of the message among them.
    .balign 64
    .global syscall_entry
syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{entry_stack}]
    mov [rsp + {rip} - {len}], rcx
    mov [rsp + {rflags} - {len}], r11
    mov rcx, gs:[{user_rsp}]
    mov [rsp + {rsp} - {len}], rcx
    mov [rsp + {rax} - {len}], rax
    mov [rsp + {rdi} - {len}], rdi
    mov [rsp + {rsi} - {len}], rsi
    mov [rsp + {rdx} - {len}], rdx
    mov [rsp + {r8} - {len}], r8
    mov [rsp + {r9} - {len}], r9
    mov [rsp + {r10} - {len}], r10
    mov [rsp + {rbx} - {len}], rbx
    mov [rsp + {rbp} - {len}], rbp
    ENTER
    test eax, eax
    jnz 3f
    UNLESS_PLAIN 9f
    call {fast_send}
    test rax, rax
    jz 24f

    // rax: the registers to resume with after success, but for the words.
2:  mov rbx, [rax + {rbx}]
    mov rbp, [rax + {rbp}]

    // rax: the same, where the caller goes on: Rust preserves `rbx` and `rbp`.
20: LEAVE 0
    LOAD_FOR_SYSRET
    xor eax, eax
    swapgs
    sysretq

3:  cmp eax, {reply_recv}
    jne 6f
    UNLESS_PLAIN 13f
    call {fast_reply_recv}
    test rax, rax
    jnz 2b
    call {fast_reply_recv_bound}
    test rax, rax
    jnz 2b
    jmp 4f
24: call {fast_send_bound}
    test rax, rax
    jnz 2b

4:  mov rax, gs:[{entry_stack}]
    mov qword ptr [rax + {vector} - {len}], {syscall}
    mov [rax + {r12} - {len}], r12
    mov [rax + {r13} - {len}], r13
    mov [rax + {r14} - {len}], r14
    mov [rax + {r15} - {len}], r15
    xor ebp, ebp
    call {system_call}

    // rax: the registers to resume with.
    .global resume
resume:
    cmp qword ptr [rax + {vector}], {syscall}
    jne 19f
    mov rbx, [rax + {rbx}]
    mov rbp, [rax + {rbp}]
    mov r12, [rax + {r12}]
    mov r13, [rax + {r13}]
    mov r14, [rax + {r14}]
    mov r15, [rax + {r15}]

    // rax: the same, with the result; the other registers are loaded already.
5:  LEAVE [rax+{rax}]
    LOAD_FOR_SYSRET
    mov rax, [rax + {rax}]
    swapgs
    sysretq

19: LEAVE [rax+{rax}]
    mov rsp, rax
    LOAD_REGISTERS
    add rsp, 16
    swapgs
    iretq

6:  mov rsp, gs:[{kernel_stack}]
    cmp eax, {notify}
    je 7f
    cmp eax, {recv}
    je 8f
    cmp eax, {nr_calls}
    jae 16f
    lea ecx, [rax - {map}]
    cmp ecx, {share} - {map}
    jae 17f

    // The caller goes on. rsi: the length.
    cmp rsi, {page}
    jne 18f
    cmp ecx, {unmap} - {map}
    ja 18f
    je 21f
    call {map_page}
    test rax, rax
    jnz 20b
    jmp 18f
21: call {unmap_page}
    test rax, rax
    jnz 20b

    // The same, with its result in the frame.
18: call {memory_call}
    test rax, rax
    jnz 5b
    jmp 4b

    // The caller goes on.
7:  call {fast_notify}
    test rax, rax
    jnz 20b
    jmp 4b

    // Whoever goes on has its words in the frame.
8:  mov rax, gs:[{entry_stack}]
    mov qword ptr [rax + {vector} - {len}], {syscall}
    call {fast_recv}
    test rax, rax
    jnz resume
    jmp 4b

    // Not label and words alone. ecx: the upper half of the tag. What has a deadline is tried as what has handles, and found
    // out of the ordinary.
9:  test ecx, {has_handles}
    jnz 11f
    test r8, r8
    jnz 10f
    call {fast_send_room}
    test rax, rax
    jnz 2b
    jmp 4b
10: cmp r8, {page}
    jae 22f
    call {fast_send_bytes}
    test rax, rax
    jnz 2b
22: call {fast_send_pages}
    test rax, rax
    jnz 2b
    jmp 4b

    // One handle is the third word, and there is no fourth.
11: mov rax, gs:[{entry_stack}]
    mov [rax + {r14} - {len}], r14
    call {fast_send_handle}
    test rax, rax
    jz 4b
12: mov r14, [rax + {r14}]
    xor r15d, r15d
    jmp 2b

    // The same for a reply that is followed by a receive.
13: test ecx, {has_handles}
    jnz 15f
    test r8, r8
    jnz 14f
    call {fast_reply_recv_room}
    test rax, rax
    jnz 2b
    jmp 4b
14: cmp r8, {page}
    jae 23f
    call {fast_reply_recv_bytes}
    test rax, rax
    jnz 2b
23: call {fast_reply_recv_pages}
    test rax, rax
    jnz 2b
    jmp 4b
15: mov rax, gs:[{entry_stack}]
    mov [rax + {r14} - {len}], r14
    call {fast_reply_recv_handle}
    test rax, rax
    jnz 12b
    jmp 4b

    // There is no such call: all but `rcx` and `rsp` is as it was.
16: mov eax, {unknown_call}
    mov rcx, gs:[{entry_stack}]
    mov rcx, [rcx + {rip} - {len}]
    mov rsp, gs:[{user_rsp}]
    swapgs
    sysretq

    // Not one of the first calls on memory. r8: the length.
17: jne 4b
    cmp r8, {page}
    jne 18b
    call {share_page}
    test rax, rax
    jnz 20b
    jmp 18b

    .balign 64
trap_entry:
    SAVE_REGISTERS
    test byte ptr [rsp + {cs}], 3
    jz 2f
    swapgs
    mov rsp, gs:[{kernel_stack}]
    push 2                          // The user's DF, AC, NT and TF mean nothing here.
    popfq
    xor ebp, ebp
    call {from_user}
    jmp resume
2:  cld
    mov rdi, rsp
    call {from_kernel}
    LOAD_REGISTERS
    add rsp, 16
    iretq

    // Most page faults are resolved at once, and then the registers that Rust preserves are still
    // the user's.
    .balign 64
page_fault_entry:
    test byte ptr [rsp + {cs} - {vector}], 3
    jz trap_entry
    swapgs
    SAVE_REGISTERS
    mov rdi, [rsp + {error}]
    mov rsp, gs:[{kernel_stack}]
    push 2
    popfq
    xor ebp, ebp
    call {page_fault}
    test rax, rax
    jnz resume
    LEAVE 0
    mov rsp, gs:[{entry_stack}]
    mov rbp, [rsp + {rbp} - {len}]
    mov rax, [rsp + {rax} - {len}]
    mov rcx, [rsp + {rcx} - {len}]
    mov rdx, [rsp + {rdx} - {len}]
    mov rdi, [rsp + {rdi} - {len}]
    mov rsi, [rsp + {rsi} - {len}]
    mov r8, [rsp + {r8} - {len}]
    mov r9, [rsp + {r9} - {len}]
    mov r10, [rsp + {r10} - {len}]
    mov r11, [rsp + {r11} - {len}]
    sub rsp, {len} - {rip}
    swapgs
    iretq

    // Whatever was interrupted: between an entry and its swapgs, `gs` is still the user's, whose
    // base is never negative.
    .balign 64
fatal_entry:
    SAVE_REGISTERS
    cld
    mov ecx, 0xc0000101             // base of gs
    rdmsr
    test edx, edx
    js 3f
    swapgs
3:  mov rdi, rsp
    call {fatal}
    ud2
    .popsection
    "#,
    user_rsp = const offset::USER_RSP,
    entry_stack = const offset::ENTRY_STACK,
    kernel_stack = const offset::KERNEL_STACK,
    nr_calls = const Call::ALL.len(),
    unknown_call = const Error::UnknownCall as u32,
    syscall = const Registers::SYSCALL,
    len = const size_of::<Registers>(),
    rip = const offset_of!(Registers, rip),
    rsp = const offset_of!(Registers, rsp),
    rflags = const offset_of!(Registers, rflags),
    vector = const offset_of!(Registers, vector),
    rax = const offset_of!(Registers, rax),
    rcx = const offset_of!(Registers, rcx),
    r11 = const offset_of!(Registers, r11),
    rbx = const offset_of!(Registers, rbx),
    rbp = const offset_of!(Registers, rbp),
    rdx = const offset_of!(Registers, rdx),
    rdi = const offset_of!(Registers, rdi),
    rsi = const offset_of!(Registers, rsi),
    r8 = const offset_of!(Registers, r8),
    r9 = const offset_of!(Registers, r9),
    r10 = const offset_of!(Registers, r10),
    r12 = const offset_of!(Registers, r12),
    r13 = const offset_of!(Registers, r13),
    r14 = const offset_of!(Registers, r14),
    r15 = const offset_of!(Registers, r15),
    cs = const offset_of!(Registers, cs),
    error = const offset_of!(Registers, error),
    reply_recv = const Call::ReplyRecv as u32,
    notify = const Call::Notify as u32,
    recv = const Call::Recv as u32,
    map = const Call::Map as u32,
    unmap = const Call::Unmap as u32,
    share = const Call::Share as u32,
    fast_send = sym messages::fast_send,
    fast_send_bound = sym messages::fast_send_bound,
    fast_reply_recv_bound = sym messages::fast_reply_recv_bound,
    fast_notify = sym messages::fast_notify,
    fast_recv = sym messages::fast_recv,
    fast_send_room = sym messages::fast_send_room,
    fast_reply_recv_room = sym messages::fast_reply_recv_room,
    fast_send_bytes = sym messages::fast_send_bytes,
    fast_send_pages = sym messages::fast_send_pages,
    fast_send_handle = sym messages::fast_send_handle,
    fast_reply_recv = sym messages::fast_reply_recv,
    fast_reply_recv_bytes = sym messages::fast_reply_recv_bytes,
    fast_reply_recv_pages = sym messages::fast_reply_recv_pages,
    fast_reply_recv_handle = sym messages::fast_reply_recv_handle,
    has_handles = const !(Tag(0).moving_pages().0 >> 32) as u32,
    page = const PAGE_SIZE,
    map_page = sym memory::map_page,
    unmap_page = sym memory::unmap_page,
    share_page = sym memory::share_page,
    memory_call = sym memory::memory_call,
    system_call = sym trap::system_call,
    page_fault = sym memory::page_fault,
    from_user = sym trap::from_user,
    from_kernel = sym trap::from_kernel,
    fatal = sym trap::fatal,
);

/// The order in which the code above pushes, and the number that it tests.
const _: () = {
    assert!(Call::Send as u32 == 0);
    assert!(Call::Map as u32 + 1 == Call::Unmap as u32);
    assert!(Call::Unmap as u32 + 1 == Call::Protect as u32);
    assert!(Call::Protect as u32 + 1 == Call::Share as u32);
    assert!(offset_of!(Registers, r15) == 0 && offset_of!(Registers, rax) == 14 * 8);
    assert!(offset_of!(Registers, rbp) == 4 * 8 && offset_of!(Registers, rdi) == 11 * 8);
    assert!(offset_of!(Registers, vector) == 15 * 8 && offset_of!(Registers, ss) == 21 * 8);
    assert!(size_of::<Registers>() == 22 * 8);
};

unsafe extern "C" {
    static vector_stubs: u8;
    fn syscall_entry();
}

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate([u64; 2]);

impl Gate {
    /// An interrupt gate, which turns interrupts off.
    const fn new(handler: u64, stack: u8, level: PrivilegeLevel) -> Self {
        let attributes = 0x8e00 | (level as u64) << 13 | stack as u64;
        let low = handler & 0xffff
            | (segments::KERNEL_CS as u64) << 16
            | attributes << 32
            | (handler >> 16 & 0xffff) << 48;
        Self([low, handler >> 32])
    }
}

/// The interrupt descriptor table, which all CPUs share.
static VECTORS: spin::Once<[Gate; 256]> = spin::Once::new();

const BREAKPOINT: usize = 3;

/// Makes this CPU take exceptions, interrupts and system calls to the entry code.
pub fn init() {
    let table = VECTORS.call_once(|| {
        core::array::from_fn(|vector| {
            let handler = &raw const vector_stubs as u64 + STUB_LEN * vector as u64;
            let level = if vector == BREAKPOINT {
                PrivilegeLevel::Ring3
            } else {
                PrivilegeLevel::Ring0
            };
            Gate::new(handler, segments::special_stack(vector), level)
        })
    });
    let pointer = DescriptorTablePointer {
        limit: (size_of_val(table) - 1) as u16,
        base: VirtAddr::from_ptr(table),
    };
    let selector = |bits: u64| SegmentSelector(bits as u16);
    // SAFETY: the table is static, and its handlers are the stubs.
    unsafe { lidt(&pointer) };
    Star::write(
        selector(Registers::USER_CS),
        selector(Registers::USER_SS),
        selector(u64::from(segments::KERNEL_CS)),
        selector(u64::from(segments::KERNEL_CS) + 8),
    )
    .expect("the selectors are in the order of sysret");
    LStar::write(VirtAddr::new(syscall_entry as *const () as u64));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK,
    );
    // SAFETY: the registers that `syscall` uses are set.
    unsafe { Efer::update(|efer| efer.insert(EferFlags::SYSTEM_CALL_EXTENSIONS)) };
}

/// Leaves the kernel with these registers.
///
/// # Safety
///
/// They must be the running thread's, and stay where they are until the next entry. No lock may be
/// held.
pub unsafe fn resume(registers: *const Registers) -> ! {
    // SAFETY: as the caller promises; `resume` never returns.
    unsafe { core::arch::asm!("jmp resume", in("rax") registers, options(noreturn)) }
}
