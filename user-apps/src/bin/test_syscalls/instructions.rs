//! Instructions that a program may not execute, and addresses that it may not use: each ends in a
//! report about that thread.

#[cfg(target_os = "none")]
use core::arch::naked_asm;

use libipc::abi::{Access, FaultKind, FoundEntry};
use user_apps::scenario::fault::{Report, provoke};
use user_apps::scenario::memory::{PAGE, map_code, peek, poke};

const DIVIDE: u64 = 0;
const DEBUG: u64 = 1;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
const STACK: u64 = 12;
const PROTECTION: u64 = 13;

/// Functions of a few instructions, each called with an argument in `rdi`.
macro_rules! snippets {
    ($($name:ident: $($line:literal),+;)+) => {
        $(
            #[cfg(target_os = "none")]
            #[unsafe(naked)]
            extern "C" fn $name(_: u64) {
                naked_asm!($($line,)+ "ret")
            }

            #[cfg(not(target_os = "none"))]
            extern "C" fn $name(_: u64) {}
        )+
    };
}

// `iretq` is not among them: QEMU before 9.1 reads its operands with the kernel's rights.
snippets! {
    halt: "hlt";
    disable: "cli";
    enable: "sti";
    input: "in al, 0x60";
    output: "out 0x80, al";
    string_input: "mov dx, 0x3f8", "insb";
    read_msr: "mov ecx, 0xc0000080", "rdmsr";
    write_msr: "mov ecx, 0xc0000080", "xor eax, eax", "xor edx, edx", "wrmsr";
    read_control: "mov rax, cr3";
    write_control: "mov rax, 0", "mov cr0, rax";
    write_debug: "xor eax, eax", "mov dr7, rax";
    swap_gs: "swapgs";
    invalidate: "invlpg [rdi]";
    write_back: "wbinvd";
    clear_switched: "clts";
    load_table: "sub rsp, 16", "lgdt [rsp]";
    load_task: "mov ax, 0x28", "ltr ax";
    system_return: "xor ecx, ecx", "sysretq";
    gate_double: "int 8";
    gate_page: "int 14";
    gate_timer: "int 32";
    gate_linux: "int 0x80";
    gate_last: "int 255";
    bad_selector: "mov ax, 0x1000", "mov ds, ax";
    kernel_selector: "mov ax, 0x10", "mov ss, ax";
    breakpoint: "int3";
    undefined: "ud2";
    divide: "xor ecx, ecx", "xor edx, edx", "mov eax, 1", "div ecx";
    jump: "jmp rdi";
    load: "mov rax, [rdi]";
    stack_load: "mov rsp, rdi", "pop rax";
    step: "pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov eax, 18", "syscall", "nop";
}

fn run(snippet: extern "C" fn(u64), arg: u64) -> Report {
    provoke(move || snippet(arg))
}

#[track_caller]
fn expect_exception(name: &str, snippet: extern "C" fn(u64), vectors: &[u64]) {
    let report = run(snippet, 0);
    assert_eq!(report.kind, FaultKind::Exception, "{name}");
    assert!(
        vectors.contains(&report.address),
        "{name}: vector {}",
        report.address
    );
}

pub(crate) fn privileged_instructions_end_the_thread() {
    let protected: [(&str, extern "C" fn(u64)); 24] = [
        ("hlt", halt),
        ("cli", disable),
        ("sti", enable),
        ("in", input),
        ("out", output),
        ("ins", string_input),
        ("rdmsr", read_msr),
        ("wrmsr", write_msr),
        ("mov from cr3", read_control),
        ("mov to cr0", write_control),
        ("mov to dr7", write_debug),
        ("swapgs", swap_gs),
        ("invlpg", invalidate),
        ("wbinvd", write_back),
        ("clts", clear_switched),
        ("lgdt", load_table),
        ("ltr", load_task),
        ("int 8", gate_double),
        ("int 14", gate_page),
        ("int 32", gate_timer),
        ("int 0x80", gate_linux),
        ("int 255", gate_last),
        ("mov to ds", bad_selector),
        ("mov to ss", kernel_selector),
    ];
    for (name, snippet) in protected {
        expect_exception(name, snippet, &[PROTECTION]);
    }
    expect_exception("sysretq", system_return, &[PROTECTION]);
    expect_exception("int3", breakpoint, &[BREAKPOINT]);
    expect_exception("ud2", undefined, &[INVALID_OPCODE]);
    expect_exception("div", divide, &[DIVIDE]);
}

pub(crate) fn kernel_memory_cannot_be_read_written_or_run() {
    for addr in [
        0xffff_8000_0000_0000,
        0xffff_8000_0010_0000,
        0xffff_ffff_8020_0000,
        u64::MAX - 7,
    ] {
        let expected = Report {
            kind: FaultKind::Page,
            address: addr,
            ip: 0,
            access: Access::Read,
            found: FoundEntry::NotUser,
        };
        let without_ip = |report: Report| Report { ip: 0, ..report };
        let read = provoke(move || {
            let _ = peek(addr);
        });
        assert_eq!(without_ip(read), expected);
        let write = provoke(move || poke(addr, 0));
        assert_eq!(
            without_ip(write),
            Report {
                access: Access::Write,
                ..expected
            }
        );
        let execute = run(jump, addr);
        assert_eq!(
            without_ip(execute),
            Report {
                access: Access::Execute,
                ..expected
            }
        );
        assert_eq!(execute.ip, addr);
    }
}

pub(crate) fn wild_jumps_and_stacks_end_the_thread() {
    let hole = 0x1234_5678_9abc_def0;
    let jumped = run(jump, hole);
    assert_eq!(
        (jumped.kind, jumped.address),
        (FaultKind::Exception, PROTECTION)
    );
    let loaded = run(load, hole);
    assert_eq!(
        (loaded.kind, loaded.address),
        (FaultKind::Exception, PROTECTION)
    );
    let popped = run(stack_load, hole);
    assert_eq!(popped.kind, FaultKind::Exception);
    assert!([STACK, PROTECTION].contains(&popped.address));
    for addr in [0, 8, PAGE, 0x7fff_ffff_f000, 0x7fff_ffff_fff8] {
        let loaded = run(load, addr);
        assert_eq!((loaded.kind, loaded.address), (FaultKind::Page, addr));
        let popped = run(stack_load, addr);
        assert_eq!((popped.kind, popped.address), (FaultKind::Page, addr));
    }
}

/// The trap flag set in front of a call: the kernel is not stepped through, the program is.
pub(crate) fn single_steps_across_a_call_reach_the_supervisor() {
    expect_exception("a step", step, &[DEBUG]);
}

/// The last instruction of the last user page is a call: it returns to where nothing is.
pub(crate) fn a_call_at_the_end_of_user_memory_returns_to_nothing() {
    let last = 0x7fff_ffff_e000;
    // xor edi, edi; mov eax, 18 (yield); syscall
    let code = [0x31, 0xff, 0xb8, 18, 0, 0, 0, 0x0f, 0x05];
    map_code(last, PAGE as usize - code.len(), &code).expect("code");
    let report = run(jump, last + PAGE - code.len() as u64);
    assert_eq!(report.kind, FaultKind::Page);
    assert_eq!(
        (report.address, report.access),
        (last + PAGE, Access::Execute)
    );
    libipc::Space::own().unmap(last, PAGE).expect("unmap");
}
