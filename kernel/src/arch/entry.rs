//! The way into the kernel and out again, in assembly.
//!
//! From user mode the registers go straight into the running thread's [`Registers`]: the task
//! state's stack pointer, and `gs:[FRAME_END]` for `syscall`, name the end of them. Then the stack
//! becomes the CPU's kernel stack, empty: nothing of the kernel survives from one entry to the
//! next. The Rust side returns the registers of whoever runs next.
//!
//! ```text
//!  user   --syscall-->         syscall_entry --+
//!                                              +--> trap::{system_call, from_user} --> resume --> user
//!  user   --vector n--> stub n --> trap_entry -+
//!  kernel --vector n--> stub n --> trap_entry ----> trap::from_kernel --> iretq --> kernel (idle)
//!  any    --NMI, #DF, #MC--> stub --> fatal_entry ----> trap::fatal
//! ```

use core::{arch::global_asm, mem::offset_of};

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

    .balign 64
    .global syscall_entry
syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{frame_end}]
    push {user_ss}
    push qword ptr gs:[{user_rsp}]
    push r11                        // rflags
    push {user_cs}
    push rcx                        // rip
    push 0
    push {syscall}
    SAVE_REGISTERS
    mov rsp, gs:[{kernel_stack}]
    xor ebp, ebp
    call {system_call}

    // rax: the registers to resume with.
    .global resume
resume:
    mov rsp, rax
    LOAD_REGISTERS
    cmp qword ptr [rsp], {syscall}
    jne 1f
    mov rcx, [rsp + 16]
    mov r11, [rsp + 32]
    mov rsp, [rsp + 40]
    swapgs
    sysretq
1:  add rsp, 16
    swapgs
    iretq

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
    frame_end = const offset::FRAME_END,
    kernel_stack = const offset::KERNEL_STACK,
    user_ss = const Registers::USER_SS,
    user_cs = const Registers::USER_CS,
    syscall = const Registers::SYSCALL,
    cs = const offset_of!(Registers, cs),
    system_call = sym trap::system_call,
    from_user = sym trap::from_user,
    from_kernel = sym trap::from_kernel,
    fatal = sym trap::fatal,
);

/// The order in which the code above pushes.
const _: () = {
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
