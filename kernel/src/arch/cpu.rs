//! What the CPU can do, and switching it on.

use core::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count, CpuidResult},
    },
    fmt,
};

use spin::Once;
use x86_64::{
    instructions::{hlt, interrupts},
    registers::{
        control::{Cr0, Cr0Flags, Cr4, Cr4Flags},
        model_specific::{Efer, EferFlags},
    },
};

/// What this kernel uses if the CPU has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// No-execute pages.
    pub nx: bool,
    /// Global pages: translations that survive a change of address space.
    pub pge: bool,
    /// The kernel cannot execute user pages.
    pub smep: bool,
    /// The kernel cannot touch user pages by accident.
    pub smap: bool,
    /// User code cannot read the descriptor-table registers.
    pub umip: bool,
    /// Pages of 1 GiB.
    pub huge_pages: bool,
    /// Saving more vector state than SSE's.
    pub xsave: bool,
    /// The time-stamp counter's rate does not change.
    pub invariant_tsc: bool,
    /// Hardware errors arrive as an exception.
    pub mce: bool,
    /// Local APICs with numbers of 32 bits.
    pub x2apic: bool,
    /// Translations of several address spaces in the TLB.
    pub pcid: bool,
}

static FEATURES: Once<Features> = Once::new();

/// What the CPUs of this machine have.
pub fn features() -> Features {
    FEATURES.get().copied().unwrap_or_default()
}

/// Finds out what the CPU has, and switches on what needs no more than a bit.
///
/// Must run on every CPU, and before page tables with no-execute pages are loaded.
pub fn init() {
    let features = *FEATURES.call_once(detect);
    assert!(
        features.nx,
        "this CPU has no pages that cannot be executed (NX), which memory protection needs"
    );
    // SAFETY: each bit is set only if the CPU has the feature, and none of them takes anything from
    // the kernel, which writes to no read-only page and neither runs nor touches user pages.
    unsafe {
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr0::update(|cr0| {
            cr0.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR);
            cr0.remove(Cr0Flags::ALIGNMENT_MASK | Cr0Flags::CACHE_DISABLE);
            cr0.remove(Cr0Flags::NOT_WRITE_THROUGH);
        });
        Cr4::update(|cr4| {
            cr4.remove(Cr4Flags::FSGSBASE | Cr4Flags::TIMESTAMP_DISABLE);
            cr4.remove(Cr4Flags::PERFORMANCE_MONITOR_COUNTER);
            cr4.set(Cr4Flags::PAGE_GLOBAL, features.pge);
            cr4.set(Cr4Flags::MACHINE_CHECK_EXCEPTION, features.mce);
            cr4.set(
                Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
                features.smep,
            );
            cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features.smap);
            cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
        });
    }
}

/// A leaf of `cpuid`, if the CPU has it.
pub fn leaf(number: u32, part: u32) -> Option<CpuidResult> {
    let highest = __cpuid(number & 0x8000_0000).eax;
    (number <= highest).then(|| __cpuid_count(number, part))
}

fn detect() -> Features {
    let bit = |register: Option<u32>, bit: u32| register.is_some_and(|bits| bits >> bit & 1 != 0);
    let [basic, structured, extended, power] =
        [1, 7, 0x8000_0001, 0x8000_0007].map(|number| leaf(number, 0));
    Features {
        nx: bit(extended.map(|leaf| leaf.edx), 20),
        pge: bit(basic.map(|leaf| leaf.edx), 13),
        smep: bit(structured.map(|leaf| leaf.ebx), 7),
        smap: bit(structured.map(|leaf| leaf.ebx), 20),
        umip: bit(structured.map(|leaf| leaf.ecx), 2),
        huge_pages: bit(extended.map(|leaf| leaf.edx), 26),
        xsave: bit(basic.map(|leaf| leaf.ecx), 26),
        invariant_tsc: bit(power.map(|leaf| leaf.edx), 8),
        mce: bit(basic.map(|leaf| leaf.edx), 7),
        x2apic: bit(basic.map(|leaf| leaf.ecx), 21),
        pcid: bit(basic.map(|leaf| leaf.ecx), 17),
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            ("nx", self.nx),
            ("pge", self.pge),
            ("smep", self.smep),
            ("smap", self.smap),
            ("umip", self.umip),
            ("1G-pages", self.huge_pages),
            ("xsave", self.xsave),
            ("invariant-tsc", self.invariant_tsc),
            ("mce", self.mce),
            ("x2apic", self.x2apic),
            ("pcid", self.pcid),
        ];
        f.write_str("has")?;
        named
            .iter()
            .filter(|(_, has)| *has)
            .try_for_each(|(name, _)| write!(f, " {name}"))?;
        if named.iter().any(|(_, has)| !has) {
            f.write_str("; lacks")?;
        }
        named
            .iter()
            .filter(|(_, has)| !*has)
            .try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

/// Switches to the page table with this root.
///
/// # Safety
///
/// The upper half of the table must be the kernel's.
#[inline]
pub unsafe fn load_page_table(root: kernel::mm::PhysAddr) {
    // SAFETY: as the caller promises.
    unsafe { asm!("mov cr3, {}", in(reg) root.0, options(nostack, preserves_flags)) };
}

/// Stops for ever.
pub fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Flushes what this CPU remembers of the page at an address.
#[inline]
pub fn flush_page(addr: u64) {
    // SAFETY: forgetting a translation changes nothing but time.
    unsafe { asm!("invlpg [{}]", in(reg) addr, options(nostack, preserves_flags)) };
}
