//! User code on simulated CPUs, for tests on the host.

use cowslip_abi::{Access, PAGE_SIZE};

use crate::{
    mm::{Frame, Mm, sim::Cpu},
    vm::{
        Fault, PageTable,
        access::{offset_in, pieces},
        fault, make_room,
    },
};

/// User code on `cpu` reads memory through its TLB, faulting as hardware does.
///
/// # Errors
///
/// What the fault came to, if it was not resolved.
pub fn user_read(
    mm: &Mm,
    table: &PageTable,
    cpu: Cpu,
    addr: u64,
    buf: &mut [u8],
) -> Result<(), Fault> {
    let end = addr + buf.len() as u64;
    for (page, part) in pieces(addr..end) {
        let frame = user_access(mm, table, cpu, page, Access::Read)?;
        let bytes = &mut buf[offset_in(addr, part.start)..offset_in(addr, part.end)];
        mm.map.read_bytes(frame, offset_in(page, part.start), bytes);
    }
    Ok(())
}

/// User code on `cpu` writes memory through its TLB, faulting as hardware does.
///
/// # Errors
///
/// What the fault came to, if it was not resolved. The pages before are written.
pub fn user_write(
    mm: &Mm,
    table: &PageTable,
    cpu: Cpu,
    addr: u64,
    bytes: &[u8],
) -> Result<(), Fault> {
    let end = addr + bytes.len() as u64;
    for (page, part) in pieces(addr..end) {
        let frame = user_access(mm, table, cpu, page, Access::Write)?;
        let bytes = &bytes[offset_in(addr, part.start)..offset_in(addr, part.end)];
        mm.map
            .write_bytes(frame, offset_in(page, part.start), bytes);
    }
    Ok(())
}

/// The frame that an access to one page reaches: at most two faults, of which one is spurious.
///
/// # Errors
///
/// What the fault came to, if it was not resolved.
pub fn user_access(
    mm: &Mm,
    table: &PageTable,
    cpu: Cpu,
    addr: u64,
    access: Access,
) -> Result<Frame, Fault> {
    debug_assert!(addr.is_multiple_of(PAGE_SIZE as u64));
    let mut nr_faults = 0;
    while nr_faults < 2 {
        if let Some(frame) = cpu.translate(mm, table.root(), addr, access) {
            return Ok(frame);
        }
        match fault(mm, table, addr, access) {
            Fault::Resolved => nr_faults += 1,
            Fault::OutOfMemory if make_room(mm) => {}
            failed => return Err(failed),
        }
    }
    match cpu.translate(mm, table.root(), addr, access) {
        Some(frame) => Ok(frame),
        None => panic!("a resolved fault at {addr:#x} faults for ever"),
    }
}
