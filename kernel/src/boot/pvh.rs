//! The direct door: `qemu -kernel`, Firecracker, Cloud Hypervisor.
//!
//! The loader puts the image at its load addresses, finds the note below, and jumps to `pvh_entry`
//! in 32-bit protected mode without paging, `ebx` holding the address of a [`StartInfo`] (Xen
//! `public/arch-x86/hvm/start_info.h`). The stub turns on long mode with tables that the assembler
//! has filled in, and that are used until the kernel has its own:
//!
//! | virtual | physical |
//! | --- | --- |
//! | `0` and `0xffff_8000_0000_0000` | the first 4 GiB |
//! | `0xffff_ffff_8000_0000` | the first 1 GiB: the kernel's image |

use core::{arch::global_asm, slice};

use kernel::mm::layout::DIRECT_MAP;

use super::{BootInfo, MemoryKind, start::start};
use crate::arch::percpu::{BOOT_STACK, BOOT_STACK_TOP};

const MAGIC: u32 = 0x336e_c578;
/// Where the linker script puts the image.
const IMAGE: u64 = 0x20_0000;

global_asm!(
    r#"
    .set PVH_OFFSET, 0xffffffff80000000     // KERNEL_OFFSET of the linker script

    .pushsection .note.xen, "a", @note
    .balign 4
    .long 4f - 3f, 6f - 5f, 18      // XEN_ELFNOTE_PHYS32_ENTRY
3:  .asciz "Xen"
4:  .balign 4
5:  .quad pvh_entry - PVH_OFFSET
6:  .balign 4
    .popsection

    .pushsection .text.boot, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    cld
    cli
    movl $(pvh_pml4 - PVH_OFFSET), %eax
    movl %eax, %cr3
    movl $0x20, %eax                // PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx          // EFER
    rdmsr
    orl $0x100, %eax                // LME
    wrmsr
    movl $0x80010011, %eax          // PG, WP, ET, PE
    movl %eax, %cr0
    lgdt pvh_gdt_pointer - PVH_OFFSET
    ljmp $8, $(1f - PVH_OFFSET)
    .code64
1:  movabsq $2f, %rax
    jmp *%rax
2:  xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movabsq ${stack} + {top}, %rsp
    movl %ebx, %edi
    xorl %ebp, %ebp
    call {enter}
    ud2

    .balign 8
pvh_gdt:
    .quad 0, 0x00af9b000000ffff
pvh_gdt_pointer:
    .word 15
    .long pvh_gdt - PVH_OFFSET
    .popsection

    .pushsection .data.pvh, "aw"
    .balign 4096
pvh_pml4:
    .quad pvh_pdpt_low - PVH_OFFSET + 3
    .fill 255, 8, 0
    .quad pvh_pdpt_low - PVH_OFFSET + 3
    .fill 254, 8, 0
    .quad pvh_pdpt_high - PVH_OFFSET + 3
pvh_pdpt_low:
    .quad pvh_pd - PVH_OFFSET + 0x0003
    .quad pvh_pd - PVH_OFFSET + 0x1003
    .quad pvh_pd - PVH_OFFSET + 0x2003
    .quad pvh_pd - PVH_OFFSET + 0x3003
    .fill 508, 8, 0
pvh_pdpt_high:
    .fill 510, 8, 0
    .quad pvh_pd - PVH_OFFSET + 3
    .quad 0
pvh_pd:
    .set page, 0x83
    .rept 2048
    .quad page
    .set page, page + 0x200000
    .endr
    .popsection
    "#,
    stack = sym BOOT_STACK,
    top = const BOOT_STACK_TOP,
    enter = sym enter,
    options(att_syntax)
);

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    // From version 1 on.
    memory_map: u64,
    nr_memory_map: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    start: u64,
    len: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
struct MapEntry {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

extern "C" fn enter(start_info: u32) -> ! {
    let mut boot = BootInfo::new("PVH", DIRECT_MAP, IMAGE);
    // SAFETY: the loader passes the address of its start info, which lies below 4 GiB.
    let info: StartInfo = unsafe { read(u64::from(start_info)) };
    assert!(
        info.magic == MAGIC && info.version >= 1,
        "the loader's start info is not PVH's"
    );
    for number in 0..u64::from(info.nr_memory_map) {
        // SAFETY: the loader says that so many entries are there; it puts them below 4 GiB, as it
        // does with everything that start info points to.
        let entry: MapEntry =
            unsafe { read(info.memory_map + number * size_of::<MapEntry>() as u64) };
        let kind = match entry.kind {
            1 => MemoryKind::Usable,
            3 => MemoryKind::Acpi,
            _ => MemoryKind::Reserved,
        };
        boot.add_range(entry.start, entry.len, kind);
    }
    boot.archive = (info.nr_modules > 0).then(|| {
        // SAFETY: as above.
        let archive: Module = unsafe { read(info.modules) };
        archive.start..archive.start + archive.len
    });
    if info.command_line != 0 {
        boot.set_command_line(command_line(info.command_line));
    }
    boot.rsdp = if info.rsdp != 0 {
        Some(info.rsdp)
    } else {
        search_rsdp()
    };
    start(boot)
}

/// The root pointer where a BIOS leaves it: on a 16-byte boundary of its read-only area.
fn search_rsdp() -> Option<u64> {
    (0xe_0000_u64..0x10_0000).step_by(16).find(|&addr| {
        // SAFETY: the first MiB is mapped, and reading the BIOS area has no effect.
        unsafe { early(addr).cast::<[u8; 8]>().read() == *b"RSD PTR " }
    })
}

/// The command line with what follows it, as far as it can matter.
fn command_line(addr: u64) -> &'static [u8] {
    // SAFETY: the first 4 GiB are mapped, and a loader's strings do not lie at the very end.
    unsafe { slice::from_raw_parts(early(addr), super::info::MAX_COMMAND_LINE) }
}

/// What lies at a physical address, which loaders do not align.
///
/// # Safety
///
/// `addr` must be the physical address, below 4 GiB, of a `T`, for which any bytes will do.
unsafe fn read<T>(addr: u64) -> T {
    // SAFETY: as the caller promises.
    unsafe { early(addr).cast::<T>().read_unaligned() }
}

/// Where the tables of the stub map a physical address below 4 GiB.
fn early(addr: u64) -> *const u8 {
    (DIRECT_MAP + addr) as *const u8
}
