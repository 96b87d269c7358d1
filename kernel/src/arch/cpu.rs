//! What the CPU can do, and switching it on.

use core::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    },
    fmt,
};

use spin::Once;

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
    // SAFETY: each bit is set only if the CPU has the feature. Write protection of read-only pages
    // holds from the start. The kernel neither runs nor touches user pages.
    unsafe {
        if features.nx {
            write_msr(EFER, read_msr(EFER) | EFER_NXE);
        }
        write_cr0((read_cr0() | CR0_WP | CR0_NE | CR0_MP) & !(CR0_EM | CR0_CD | CR0_NW | CR0_AM));
        let mut cr4 = read_cr4() & !(CR4_FSGSBASE | CR4_PCE | CR4_TSD);
        for (has, bit) in [
            (features.pge, CR4_PGE),
            (features.smep, CR4_SMEP),
            (features.smap, CR4_SMAP),
            (features.umip, CR4_UMIP),
        ] {
            cr4 = if has { cr4 | bit } else { cr4 & !bit };
        }
        write_cr4(cr4);
    }
}

fn detect() -> Features {
    let leaf = |number: u32| {
        let limit = __cpuid(number & 0x8000_0000).eax;
        (number <= limit).then(|| __cpuid_count(number, 0))
    };
    let bit = |register: Option<u32>, bit: u32| register.is_some_and(|bits| bits >> bit & 1 != 0);
    let [basic, structured, extended, power] =
        [1, 7, 0x8000_0001, 0x8000_0007].map(leaf);
    Features {
        nx: bit(extended.map(|leaf| leaf.edx), 20),
        pge: bit(basic.map(|leaf| leaf.edx), 13),
        smep: bit(structured.map(|leaf| leaf.ebx), 7),
        smap: bit(structured.map(|leaf| leaf.ebx), 20),
        umip: bit(structured.map(|leaf| leaf.ecx), 2),
        huge_pages: bit(extended.map(|leaf| leaf.edx), 26),
        xsave: bit(basic.map(|leaf| leaf.ecx), 26),
        invariant_tsc: bit(power.map(|leaf| leaf.edx), 8),
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
        ];
        f.write_str("has")?;
        named.iter().filter(|(_, has)| *has).try_for_each(|(name, _)| write!(f, " {name}"))?;
        if named.iter().any(|(_, has)| !has) {
            f.write_str("; lacks")?;
        }
        named.iter().filter(|(_, has)| !*has).try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

/// Extended feature enable register.
pub const EFER: u32 = 0xc000_0080;
/// `syscall` is an instruction.
pub const EFER_SCE: u64 = 1 << 0;
const EFER_NXE: u64 = 1 << 11;

const CR0_MP: u64 = 1 << 1;
const CR0_EM: u64 = 1 << 2;
/// Vector instructions raise #NM.
pub const CR0_TS: u64 = 1 << 3;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_AM: u64 = 1 << 18;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;

const CR4_TSD: u64 = 1 << 2;
const CR4_PGE: u64 = 1 << 7;
const CR4_PCE: u64 = 1 << 8;
/// `fxsave` and SSE are usable.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// SSE exceptions arrive as #XM.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const CR4_FSGSBASE: u64 = 1 << 16;
/// `xsave` and `xsetbv` are usable.
pub const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// Reads a model-specific register.
///
/// # Safety
///
/// The CPU must have the register.
pub unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as the caller promises; reading has no side effect.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
///
/// The CPU must have the register, and the value must keep the kernel's assumptions.
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        #[doc = concat!("Reads ", $name, ".")]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: the kernel runs with privilege, and reading has no side effect.
            unsafe {
                asm!(concat!("mov {}, ", $name), out(reg) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $name, ".")]
        ///
        /// # Safety
        ///
        /// The value must be legal on this CPU, and keep the kernel's assumptions.
        pub unsafe fn $write(value: u64) {
            // SAFETY: as the caller promises.
            unsafe {
                asm!(concat!("mov ", $name, ", {}"), in(reg) value,
                    options(nostack, preserves_flags));
            }
        }
    };
}

control_register!(read_cr0, write_cr0, "cr0");
control_register!(read_cr3, write_cr3, "cr3");
control_register!(read_cr4, write_cr4, "cr4");

/// Reads the address of the last page fault.
pub fn read_cr2() -> u64 {
    let value;
    // SAFETY: the kernel runs with privilege, and reading has no side effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Drops the translation of one page.
pub fn flush_page(addr: u64) {
    // SAFETY: forgetting a translation changes nothing but speed.
    unsafe { asm!("invlpg [{}]", in(reg) addr, options(nostack, preserves_flags)) };
}

/// Stops for ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing runs on this CPU any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
