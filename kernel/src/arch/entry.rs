//! The way into the kernel and out again, in assembly.
//!
//! From user mode the registers go straight into the running thread's [`Registers`], to whose end
//! the task state's stack pointer points. Then the stack
//! becomes the CPU's kernel stack, empty: nothing of the kernel survives from one entry to the
//! next. The Rust side returns the registers of whoever runs next.
//!
//! ```text
//!  user   --syscall-->         syscall_entry ---> trap::fast_* --(ordinary message)--> user
//!                                              |
//!                                              +--> trap::{system_call, from_user} --> resume --> user
//!  user   --vector n--> stub n --> trap_entry -+
//!  user   --#PF--> stub ----> page_fault_entry --(resolved)--> user
//!  kernel --vector n--> stub n --> trap_entry ----> trap::from_kernel --> iretq --> kernel (idle)
//!  any    --NMI, #DF, #MC--> stub --> fatal_entry ----> trap::fatal
//! ```

use core::{arch::global_asm, mem::offset_of};

use cowslip_abi::{Call, Error};
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

use super::{percpu::offset, segments, trap};

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

/// The place of a field of [`Registers`], seen from their end.
const fn from_end(offset: usize) -> isize {
    offset as isize - size_of::<Registers>() as isize
}

global_asm!(
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

    .pushsection .text.entry, "ax"

    // What the fast path leaves alone stays where it is: the callee-saved registers, with the
    // words of the message among them.
    .balign 64
    .global syscall_entry
syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{entry_stack}]
    mov [rsp + {rip}], rcx
    mov [rsp + {rflags}], r11
    mov rcx, gs:[{user_rsp}]
    mov [rsp + {rsp}], rcx
    mov [rsp + {rax}], rax
    mov [rsp + {rdi}], rdi
    mov [rsp + {rsi}], rsi
    mov [rsp + {rdx}], rdx
    mov [rsp + {r8}], r8
    mov [rsp + {r9}], r9
    mov [rsp + {r10}], r10
    mov [rsp + {rbx}], rbx
    mov [rsp + {rbp}], rbp
    mov rsp, gs:[{kernel_stack}]
    test eax, eax
    jnz 3f
    call {fast_send}
    test rax, rax
    jz 4f

    // rax: the registers to resume with after success, but for the words.
2:  mov rbx, [rax + {load_rbx}]
    mov rbp, [rax + {load_rbp}]
    mov rcx, [rax + {load_rip}]
    mov r11, [rax + {load_rflags}]
    mov rdi, [rax + {load_rdi}]
    mov rsi, [rax + {load_rsi}]
    mov rdx, [rax + {load_rdx}]
    mov r8, [rax + {load_r8}]
    mov r9, [rax + {load_r9}]
    mov r10, [rax + {load_r10}]
    mov rsp, [rax + {load_rsp}]
    xor eax, eax
    swapgs
    sysretq

5:  mov rcx, [rax + {load_rip}]
    mov r11, [rax + {load_rflags}]
    mov rdi, [rax + {load_rdi}]
    mov rsi, [rax + {load_rsi}]
    mov rdx, [rax + {load_rdx}]
    mov r8, [rax + {load_r8}]
    mov r9, [rax + {load_r9}]
    mov r10, [rax + {load_r10}]
    mov rsp, [rax + {load_rsp}]
    mov rax, [rax + {load_rax}]
    swapgs
    sysretq

3:  cmp eax, {reply_recv}
    jne 6f
    call {fast_reply_recv}
    test rax, rax
    jnz 2b

4:  mov rax, gs:[{entry_stack}]
    mov qword ptr [rax + {vector}], {syscall}
    mov [rax + {r12}], r12
    mov [rax + {r13}], r13
    mov [rax + {r14}], r14
    mov [rax + {r15}], r15
    xor ebp, ebp
    call {system_call}

    // rax: the registers to resume with.
    .global resume
resume:
    mov rbx, [rax + {load_rbx}]
    mov rbp, [rax + {load_rbp}]
    mov r12, [rax + {load_r12}]
    mov r13, [rax + {load_r13}]
    mov r14, [rax + {load_r14}]
    mov r15, [rax + {load_r15}]
    cmp qword ptr [rax + {load_vector}], {syscall}
    je 5b
    mov rsp, rax
    LOAD_REGISTERS
    add rsp, 16
    swapgs
    iretq

6:  cmp eax, {notify}
    je 7f
    cmp eax, {recv}
    je 8f
    cmp eax, {nr_calls}
    jb 4b
    // There is no such call: all but `rcx` and `rsp` is as it was.
    mov eax, {unknown_call}
    mov rcx, gs:[{entry_stack}]
    mov rcx, [rcx + {rip}]
    mov rsp, gs:[{user_rsp}]
    swapgs
    sysretq

7:  call {fast_notify}
    test rax, rax
    jnz 2b
    jmp 4b

8:  mov rax, gs:[{entry_stack}]
    mov qword ptr [rax + {vector}], {syscall}
    call {fast_recv}
    test rax, rax
    jnz resume
    jmp 4b

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
    test byte ptr [rsp + {cs} - {load_vector}], 3
    jz trap_entry
    swapgs
    mov [rsp + {load_rax} - {load_vector}], rax
    mov [rsp + {load_rcx} - {load_vector}], rcx
    mov [rsp + {load_rdx} - {load_vector}], rdx
    mov [rsp + {load_rdi} - {load_vector}], rdi
    mov [rsp + {load_rsi} - {load_vector}], rsi
    mov [rsp + {load_r8} - {load_vector}], r8
    mov [rsp + {load_r9} - {load_vector}], r9
    mov [rsp + {load_r10} - {load_vector}], r10
    mov [rsp + {load_r11} - {load_vector}], r11
    mov [rsp + {load_rbx} - {load_vector}], rbx
    mov [rsp + {load_rbp} - {load_vector}], rbp
    mov [rsp + {load_r12} - {load_vector}], r12
    mov [rsp + {load_r13} - {load_vector}], r13
    mov [rsp + {load_r14} - {load_vector}], r14
    mov [rsp + {load_r15} - {load_vector}], r15
    mov rsp, gs:[{kernel_stack}]
    push 2
    popfq
    xor ebp, ebp
    call {page_fault}
    test edx, edx
    jz resume
    mov rsp, rax
    mov rbp, [rsp + {load_rbp}]
    mov rax, [rsp + {load_rax}]
    mov rcx, [rsp + {load_rcx}]
    mov rdx, [rsp + {load_rdx}]
    mov rdi, [rsp + {load_rdi}]
    mov rsi, [rsp + {load_rsi}]
    mov r8, [rsp + {load_r8}]
    mov r9, [rsp + {load_r9}]
    mov r10, [rsp + {load_r10}]
    mov r11, [rsp + {load_r11}]
    add rsp, {load_rip}
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
    rip = const from_end(offset_of!(Registers, rip)),
    rsp = const from_end(offset_of!(Registers, rsp)),
    rflags = const from_end(offset_of!(Registers, rflags)),
    load_rflags = const offset_of!(Registers, rflags),
    vector = const from_end(offset_of!(Registers, vector)),
    load_rcx = const offset_of!(Registers, rcx),
    load_r11 = const offset_of!(Registers, r11),
    rax = const from_end(offset_of!(Registers, rax)),
    rbx = const from_end(offset_of!(Registers, rbx)),
    rbp = const from_end(offset_of!(Registers, rbp)),
    rdx = const from_end(offset_of!(Registers, rdx)),
    rdi = const from_end(offset_of!(Registers, rdi)),
    rsi = const from_end(offset_of!(Registers, rsi)),
    r8 = const from_end(offset_of!(Registers, r8)),
    r9 = const from_end(offset_of!(Registers, r9)),
    r10 = const from_end(offset_of!(Registers, r10)),
    r12 = const from_end(offset_of!(Registers, r12)),
    r13 = const from_end(offset_of!(Registers, r13)),
    r14 = const from_end(offset_of!(Registers, r14)),
    r15 = const from_end(offset_of!(Registers, r15)),
    load_rip = const offset_of!(Registers, rip),
    load_rsp = const offset_of!(Registers, rsp),
    load_vector = const offset_of!(Registers, vector),
    load_rax = const offset_of!(Registers, rax),
    load_rbx = const offset_of!(Registers, rbx),
    load_rbp = const offset_of!(Registers, rbp),
    load_rdx = const offset_of!(Registers, rdx),
    load_rdi = const offset_of!(Registers, rdi),
    load_rsi = const offset_of!(Registers, rsi),
    load_r8 = const offset_of!(Registers, r8),
    load_r9 = const offset_of!(Registers, r9),
    load_r10 = const offset_of!(Registers, r10),
    load_r12 = const offset_of!(Registers, r12),
    load_r13 = const offset_of!(Registers, r13),
    load_r14 = const offset_of!(Registers, r14),
    load_r15 = const offset_of!(Registers, r15),
    cs = const offset_of!(Registers, cs),
    reply_recv = const Call::ReplyRecv as u32,
    notify = const Call::Notify as u32,
    recv = const Call::Recv as u32,
    fast_send = sym trap::fast_send,
    fast_notify = sym trap::fast_notify,
    fast_recv = sym trap::fast_recv,
    fast_reply_recv = sym trap::fast_reply_recv,
    system_call = sym trap::system_call,
    page_fault = sym trap::page_fault,
    from_user = sym trap::from_user,
    from_kernel = sym trap::from_kernel,
    fatal = sym trap::fatal,
);

/// The order in which the code above pushes, and the number that it tests.
const _: () = {
    assert!(Call::Send as u32 == 0);
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
