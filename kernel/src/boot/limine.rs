//! The Limine door: BIOS and UEFI, emulated and real machines.
//!
//! The loader maps the image at its virtual addresses, all of memory at an offset that it chooses,
//! and answers the requests below (the Limine boot protocol, base revision 2). The command line
//! comes with the executable file: loaders of version 8 know no other way.

use core::arch::naked_asm;

use limine::{
    BaseRevision,
    memory_map::EntryType,
    request::{
        ExecutableAddressRequest, ExecutableFileRequest, HhdmRequest, MemoryMapRequest,
        ModuleRequest, RequestsEndMarker, RequestsStartMarker, RsdpRequest,
    },
};

use super::{BootInfo, MemoryKind, start::start};
use crate::arch::percpu::{BOOT_STACK, BOOT_STACK_TOP};

macro_rules! request {
    ($section:literal, $($name:ident: $type:ident = $value:expr;)*) => {
        $(
            #[used]
            #[unsafe(link_section = $section)]
            static $name: $type = $value;
        )*
    };
}

request! { ".limine_requests_start",
    START: RequestsStartMarker = RequestsStartMarker::new();
}
request! { ".limine_requests",
    BASE_REVISION: BaseRevision = BaseRevision::with_revision(2);
    HHDM: HhdmRequest = HhdmRequest::new();
    MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new();
    ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new();
    FILE: ExecutableFileRequest = ExecutableFileRequest::new();
    MODULES: ModuleRequest = ModuleRequest::new();
    RSDP: RsdpRequest = RsdpRequest::new();
}
request! { ".limine_requests_end",
    END: RequestsEndMarker = RequestsEndMarker::new();
}

/// Where the loader jumps to, in long mode: leaves the loader's stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn limine_entry() -> ! {
    naked_asm!(
        "cli",
        "cld",
        "lea rsp, [rip + {stack} + {top}]",
        "xor ebp, ebp",
        "call {enter}",
        "ud2",
        stack = sym BOOT_STACK,
        top = const BOOT_STACK_TOP,
        enter = sym enter,
    )
}

extern "C" fn enter() -> ! {
    let offset = HHDM
        .get_response()
        .expect("the loader tells where memory is mapped")
        .offset();
    let image = ADDRESS
        .get_response()
        .expect("the loader tells where the kernel is");
    let mut boot = BootInfo::new("Limine", offset, image.physical_base());
    let map = MEMORY_MAP
        .get_response()
        .expect("the loader gives a memory map");
    for entry in map.entries() {
        boot.add_range(entry.base, entry.length, kind(entry.entry_type));
    }
    // With base revision 3 the root pointer is physical, before that it is in the direct map; a
    // loader that does not tell the revision it speaks knows none above 2. Physical addresses are
    // below the offset in any case.
    let physical = |addr: u64| addr.checked_sub(offset).unwrap_or(addr);
    boot.rsdp = RSDP
        .get_response()
        .map(|rsdp| physical(rsdp.address() as u64));
    boot.archive = MODULES
        .get_response()
        .and_then(|modules| modules.modules().first())
        .map(|archive| {
            let start = physical(archive.addr() as u64);
            start..start + archive.size()
        });
    if let Some(file) = FILE.get_response() {
        boot.set_command_line(file.file().string().to_bytes());
    }
    start(boot)
}

fn kind(kind: EntryType) -> MemoryKind {
    match kind {
        EntryType::USABLE => MemoryKind::Usable,
        EntryType::BOOTLOADER_RECLAIMABLE => MemoryKind::Loader,
        EntryType::ACPI_RECLAIMABLE => MemoryKind::Acpi,
        EntryType::EXECUTABLE_AND_MODULES => MemoryKind::Image,
        _ => MemoryKind::Reserved,
    }
}
