//! I/O ports.

use core::arch::asm;

/// Reads a byte.
///
/// # Safety
///
/// Reading the port must have no effect that breaks memory safety.
pub unsafe fn read8(port: u16) -> u8 {
    let value;
    // SAFETY: as the caller promises.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// Reads 16 bits.
///
/// # Safety
///
/// As for [`read8`].
pub unsafe fn read16(port: u16) -> u16 {
    let value;
    // SAFETY: as the caller promises.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack)) };
    value
}

/// Reads 32 bits.
///
/// # Safety
///
/// As for [`read8`].
pub unsafe fn read32(port: u16) -> u32 {
    let value;
    // SAFETY: as the caller promises.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) };
    value
}

/// Writes a byte.
///
/// # Safety
///
/// The write must have no effect that breaks memory safety.
pub unsafe fn write8(port: u16, value: u8) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Writes 16 bits.
///
/// # Safety
///
/// As for [`write8`].
pub unsafe fn write16(port: u16, value: u16) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

/// Writes 32 bits.
///
/// # Safety
///
/// As for [`write8`].
pub unsafe fn write32(port: u16, value: u32) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) };
}
