//! The kernel's executable: the machine (`arch`), the two doors (`boot`), and the order in which
//! they bring up the portable kernel, which is the library of the same name.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod boot;

/// The executable is of use on a bare machine only.
#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
use bare::main;

#[cfg(target_os = "none")]
mod bare {
    use crate::{arch, boot};
    use boot::*;
    use arch::*;

    pub fn main(boot: BootInfo) -> ! {
        let level = boot.option("log").and_then(|l| l.parse().ok()).unwrap_or(log::LevelFilter::Info);
        serial::init(level);
        cpu::init();
        log::info!("cowslip {} by {}, image at {:#x}", env!("CARGO_PKG_VERSION"), boot.door, boot.image);
        log::info!("cpu {}", cpu::features());
        let [start, _, _, end] = paging::image();
        let free = memory::FreeRanges::of_kind(&boot, end - start, MemoryKind::Usable);
        paging::init(&boot, free, &[]);
        for r in boot.ranges() { log::info!("{:#x}..{:#x} {:?}", r.start, r.end, r.kind); }
        log::info!("archive {:x?} rsdp {:x?} cmd {:?}", boot.archive, boot.rsdp, boot.command_line());
        cpu::halt()
    }
    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        serial::print_in_panic(format_args!("{info}\n"));
        cpu::halt()
    }
}
