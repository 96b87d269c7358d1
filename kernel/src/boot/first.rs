//! The first program: `bin/init` of the boot archive, to which everything belongs.
//!
//! It is the one program that the kernel loads; all others are started by programs.
//!
//! | address | what | rights |
//! | --- | --- | --- |
//! | as linked | text, read-only data, data and bss | RX, R, RW |
//! | up to [`STACK_TOP`] | the stack, 64 KiB | RW |
//! | [`INIT_INFO`] | what it has | R |
//! | [`INIT_ARCHIVE`] | the boot archive, in the frames that the loader put it in | R |
//!
//! Whatever goes wrong here is a mistake in the boot image, and ends in a panic that says so.

use core::ops::Range;

use cowslip_abi::{
    Error, Handle, INIT_ARCHIVE, INIT_INFO, INIT_MAGIC, InitInfo, PAGE_SIZE, Perm, Rights, USER_END,
};
use elf::{
    ElfBytes,
    abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD},
    endian::LittleEndian,
    segment::ProgramHeader,
};
use kernel::{
    mm::Mm,
    object::{Id, Kernel, Object, Space, Start},
    vm::{PageTable, entry::Kind},
};

use super::{archive::Archive, info::MAX_COMMAND_LINE};

/// Where the stack ends; the page above is not mapped.
const STACK_TOP: u64 = 0x5f00_0000_0000;
const STACK_LEN: u64 = 64 * 1024;
const PRIORITY: u8 = 24;
const PAGE: u64 = PAGE_SIZE as u64;

/// Stands for all lines in the badge of a handle to interrupts.
const ALL_LINES: u64 = u64::MAX;
/// All ports, from 0 on, in the badge of a handle to ports.
const ALL_PORTS: u64 = 0x1_0000 << 16;

/// Makes the first program and starts it.
///
/// # Panics
///
/// If the archive has no such program, it is damaged, or memory is too small for it.
pub fn start(kernel: &mut Kernel, archive: &Archive, command_line: &str) {
    let file = archive
        .file("bin/init")
        .expect("the boot archive has no bin/init");
    let enough = |error: Error| -> ! { panic!("cannot start bin/init: {error}") };
    let space = kernel
        .create_space(None, None)
        .unwrap_or_else(|error| enough(error));
    let thread = kernel
        .create_thread(space, None, PRIORITY)
        .unwrap_or_else(|error| enough(error));

    let mut install = |object, rights, badge| {
        kernel
            .install(space, object, rights, badge)
            .unwrap_or_else(|error| enough(error))
    };
    let mut info = InitInfo {
        magic: INIT_MAGIC,
        archive: INIT_ARCHIVE,
        archive_len: archive.len_bytes(),
        space: install(Object::Space(space), Rights::SPACE, 0),
        thread: install(Object::Thread(thread), Rights::THREAD, 0),
        system: install(Object::System, Rights::SYSTEM, 0),
        interrupts: install(Object::Interrupt, Rights::DEVICES, ALL_LINES),
        ports: install(Object::Ports, Rights::DEVICES, ALL_PORTS),
        command_line_len: command_line.len() as u32,
        command_line: [0; MAX_COMMAND_LINE],
    };
    info.command_line[..command_line.len()].copy_from_slice(command_line.as_bytes());

    let entry = load(kernel, space, file)
        .and_then(|entry| furnish(kernel, space, archive, &info).map(|()| entry))
        .unwrap_or_else(|error| enough(error));
    let start = Start {
        ip: entry,
        sp: STACK_TOP,
        args: [INIT_INFO, 0, 0],
        fs_base: 0,
    };
    kernel
        .start_thread(thread, &start)
        .unwrap_or_else(|error| enough(error));
    log::info!("bin/init starts at {entry:#x}");
}

/// Maps the segments of a program, and returns where it starts.
fn load(kernel: &Kernel, space: Id<Space>, file: &[u8]) -> Result<u64, Error> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).expect("bin/init is no ELF file");
    let header = elf.ehdr;
    assert!(
        header.e_machine == EM_X86_64 && header.e_type == ET_EXEC,
        "bin/init is no x86-64 executable with fixed addresses"
    );
    let segments = elf.segments().expect("bin/init has no segments");
    let table = table(kernel, space);
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let bytes = elf.segment_data(&segment).expect("bin/init is cut off");
        load_segment(kernel.mm, table, &segment, bytes)?;
    }
    assert!(
        header.e_entry < USER_END,
        "bin/init starts outside of user memory"
    );
    Ok(header.e_entry)
}

/// Maps one segment: its bytes in frames of their own, what follows them demand-zero.
fn load_segment(
    mm: &Mm,
    table: &PageTable,
    segment: &ProgramHeader,
    bytes: &[u8],
) -> Result<(), Error> {
    let perm = match (segment.p_flags & PF_W != 0, segment.p_flags & PF_X != 0) {
        (true, true) => panic!("bin/init has a segment that is writable and executable"),
        (true, false) => Perm::RW,
        (false, true) => Perm::RX,
        (false, false) => Perm::R,
    };
    let start = segment.p_vaddr;
    let end = start
        .checked_add(segment.p_memsz)
        .filter(|end| *end <= USER_END);
    let end = end
        .expect("bin/init has a segment outside of user memory")
        .next_multiple_of(PAGE);
    let file_end = start + bytes.len() as u64;
    for page in (start & !(PAGE - 1)..end).step_by(PAGE_SIZE) {
        let part = page.max(start)..(page + PAGE).min(file_end);
        if part.is_empty() {
            make_zero(mm, table, page, perm)?;
        } else {
            let bytes = &bytes[(part.start - start) as usize..(part.end - start) as usize];
            make_bytes(mm, table, page, part, bytes, perm)?;
        }
    }
    Ok(())
}

/// What has been mapped on a page by a segment before, which must have the same rights.
fn mapped(mm: &Mm, table: &PageTable, page: u64, perm: Perm) -> Kind {
    let entry = table.lookup(mm, page);
    assert!(
        entry.is_empty() || entry.rights().perm() == perm,
        "bin/init has segments of different rights on the page at {page:#x}"
    );
    entry.kind()
}

/// Makes a page demand-zero, if there is nothing of another segment on it.
fn make_zero(mm: &Mm, table: &PageTable, page: u64, perm: Perm) -> Result<(), Error> {
    match mapped(mm, table, page, perm) {
        Kind::Empty => table.map_zero(mm, page, PAGE, perm),
        _ => Ok(()),
    }
}

/// Puts bytes on a part of a page; the rest is zeros, or another segment's.
fn make_bytes(
    mm: &Mm,
    table: &PageTable,
    page: u64,
    part: Range<u64>,
    bytes: &[u8],
    perm: Perm,
) -> Result<(), Error> {
    let offset = (part.start - page) as usize;
    match mapped(mm, table, page, perm) {
        Kind::Private(frame) => {
            mm.map.write_bytes(frame, offset, bytes);
            return Ok(());
        }
        Kind::Zero => table.unmap(mm, page, PAGE)?,
        _ => {}
    }
    let frame = mm.frames.alloc_zeroed().ok_or(Error::NoMemory)?;
    mm.map.write_bytes(frame, offset, bytes);
    table.map_frame(mm, page, frame, perm)
}

/// Maps stack, information and archive.
fn furnish(
    kernel: &Kernel,
    space: Id<Space>,
    archive: &Archive,
    info: &InitInfo,
) -> Result<(), Error> {
    let (mm, table) = (kernel.mm, table(kernel, space));
    table.map_zero(mm, STACK_TOP - STACK_LEN, STACK_LEN, Perm::RW)?;
    let bytes = info_bytes(info);
    make_bytes(
        mm,
        table,
        INIT_INFO,
        INIT_INFO..INIT_INFO + bytes.len() as u64,
        bytes,
        Perm::R,
    )?;
    for (page, frame) in (INIT_ARCHIVE..).step_by(PAGE_SIZE).zip(archive.frames()) {
        table.map_frame(mm, page, frame, Perm::R)?;
    }
    Ok(())
}

fn table(kernel: &Kernel, space: Id<Space>) -> &PageTable {
    &kernel
        .spaces
        .get(space)
        .expect("the first space is alive")
        .table
}

fn info_bytes(info: &InitInfo) -> &[u8] {
    const LEN: usize = size_of::<InitInfo>();
    const { assert!(LEN == 3 * 8 + 5 * size_of::<Handle>() + 4 + MAX_COMMAND_LINE && LEN <= PAGE_SIZE) };
    // SAFETY: the structure has no padding, as its length shows.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(info).cast(), LEN) }
}
