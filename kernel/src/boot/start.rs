//! Brings the kernel up, in order.

use kernel::{
    mm::{PhysAddr, layout::DIRECT_MAP_LEN, phys::FRAME_SIZE},
    sync::order,
};
use log::{LevelFilter, info};

use super::{
    BootInfo, MemoryKind,
    archive::Archive,
    first,
    memory::{self, FreeRanges},
};
use crate::arch::{
    acpi, apic, clock, cpu, entry, fpu, lines,
    machine::MM,
    paging,
    percpu::{self, PerCpu},
    power, serial, smp, symbols, tlb, trace, trap,
};

/// Takes over from the door, on the boot stack, and ends in the first program.
pub fn start(boot: BootInfo) -> ! {
    clock::start();
    serial::init(log_level(&boot));
    info!(
        "cowslip {}, loaded by {} at {:#x}",
        env!("CARGO_PKG_VERSION"),
        boot.door,
        boot.image
    );
    info!("command line: {:?}", boot.command_line());
    for range in boot.ranges() {
        log::debug!(
            "memory {:#014x}..{:#014x} {:?}",
            range.start,
            range.end,
            range.kind
        );
    }

    memory::check_places(&boot, image_len());
    cpu::init();
    info!("CPU {}", cpu::features());
    paging::init(
        &boot,
        free(&boot, MemoryKind::Usable),
        &percpu::boot_guards(),
    );
    percpu::init(0);
    order::identify(|| PerCpu::try_get().map(|_| PerCpu::number()));
    entry::init();
    fpu::init();

    tlb::choose_mode(boot.option("pcid"));

    let (wiring, power_off) = acpi::read(boot.rsdp);
    log::debug!("power off: {power_off:x?}");
    power::init(power_off);
    if boot.option("panic") == Some("test") {
        power::test_panic();
    }
    let wants_x2apic = boot.option("apic") == Some("x2apic");
    apic::map(wiring.local, wiring.cpus(), wants_x2apic);
    apic::init();
    let (tsc_hz, timer_hz) = apic::calibrate();
    clock::set_rate(tsc_hz);
    trace::init();
    info!(
        "time-stamp counter {} kHz, timer {} kHz",
        tsc_hz / 1000,
        timer_hz / 1000
    );
    lines::init(&wiring);
    let nr_cpus = smp::start_others(&wiring);
    info!("CPUs: {nr_cpus} of {}", wiring.nr_cpus());
    if nr_cpus > 1 || tlb::uses_asids() {
        MM.frames.stock_up(nr_cpus);
    }

    // No more page tables; and nothing of the loader's is used any more.
    let left = paging::take_free();
    let mm = &MM;
    let loader = free(&boot, MemoryKind::Loader);
    let usable = || {
        let ranges = left.iter().chain(loader.iter());
        ranges.map(|range| [range.start, range.end].map(|at| PhysAddr(at.min(DIRECT_MAP_LEN))))
    };
    usable().for_each(|[start, end]| mm.frames.add_range(start, end));
    for [start, end] in usable() {
        mm.cover(start, end).expect("there is memory at boot");
    }
    let kernel_half = paging::finish(mm.counts.top().expect("there is memory at boot"));
    if let Some(nr_pages) = boot.option("remap_min_pages").and_then(|n| n.parse().ok()) {
        mm.set_remap_min_pages(nr_pages);
        info!("pages are remapped from {nr_pages} in a row on");
    }
    let archive = Archive::take_over(mm, &boot);
    if let Some(list) = archive.file("boot/kernel.sym") {
        archive.keep(mm, list);
        symbols::init(str::from_utf8(list).unwrap_or_default());
    }
    memory::check_free(&boot, image_len(), mm.frames.free_count() * FRAME_SIZE);
    info!(
        "{} MiB in {} frames",
        mm.frames.total_count() / 256,
        mm.frames.total_count()
    );

    trap::run(|kernel| {
        kernel.set_kernel_half(&kernel_half);
        first::start(kernel, &archive, boot.command_line());
    })
}

fn log_level(boot: &BootInfo) -> LevelFilter {
    boot.option("log")
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::Info)
}

fn free(boot: &BootInfo, kind: MemoryKind) -> FreeRanges {
    FreeRanges::of_kind(boot, image_len(), kind)
}

fn image_len() -> u64 {
    let [start, .., end] = paging::image();
    end - start
}
