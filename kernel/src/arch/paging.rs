//! The kernel's half of every address space, with what its [`layout`](kernel::mm::layout) says.
//!
//! All of it is made at boot. A space copies the upper half of the root table once, so every table
//! below the root that will ever be needed exists before the first space does.

use core::{mem, ptr};

use kernel::mm::{
    Frame, PhysAddr,
    layout::{COUNT_WINDOW, DEVICE_WINDOW, DEVICE_WINDOW_LEN, DIRECT_MAP, DIRECT_MAP_LEN},
};
use spin::{Mutex, Once};

use super::cpu;
use crate::boot::{BootInfo, MemoryKind, memory::FreeRanges};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// PWT and PCD: uncached by the page-attribute table's reset value.
const UNCACHED: u64 = 3 << 3;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;

const PAGE: u64 = 1 << 12;
const LARGE_PAGE: u64 = 1 << 21;
const HUGE_PAGE: u64 = 1 << 30;

unsafe extern "C" {
    static __image_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __image_end: u8;
}

/// Virtual addresses of the image: start of text, read-only data and data, and the end.
pub fn image() -> [u64; 4] {
    [
        &raw const __image_start,
        &raw const __rodata_start,
        &raw const __data_start,
        &raw const __image_end,
    ]
    .map(|symbol| symbol as u64)
}

/// The tables in the making.
static TABLES: Mutex<Option<Tables>> = Mutex::new(None);

/// The root of the table that has nothing but the kernel's half.
static ROOT: Once<Frame> = Once::new();

/// The root of the table that has nothing but the kernel's half.
pub fn root() -> Frame {
    *ROOT.get().expect("the kernel has page tables")
}

struct Tables {
    /// Physical address of the root table.
    root: u64,
    /// Where physical address 0 is mapped at the moment.
    direct_map: u64,
    /// Where frames for tables come from.
    free: FreeRanges,
    /// The no-execute bit, if the CPU knows it.
    no_execute: u64,
}

/// Builds the kernel's tables and switches to them. `guard` is an address in the image whose page
/// is left unmapped.
pub fn init(boot: &BootInfo, free: FreeRanges, guards: &[u64]) {
    let no_execute = if cpu::features().nx { NO_EXECUTE } else { 0 };
    let mut tables = Tables {
        root: 0,
        direct_map: boot.direct_map,
        free,
        no_execute,
    };
    tables.root = tables.new_table();
    tables.map_image(boot.image, guards);
    for range in boot.ranges() {
        if range.kind != MemoryKind::Reserved {
            tables.map_memory(range.start, range.end);
        }
    }
    if let Some(archive) = &boot.archive {
        tables.map_memory(archive.start, archive.end);
    }
    // SAFETY: the tables map the image, with the stack, where it is; the direct map of the door is
    // not used after this.
    unsafe { cpu::load_page_table(PhysAddr(tables.root)) };
    tables.direct_map = DIRECT_MAP;
    ROOT.call_once(|| Frame::containing(PhysAddr(tables.root)));
    *TABLES.lock() = Some(tables);
}

/// Where the kernel reaches the `len` bytes at a physical address: in the direct map if they are
/// there, else in the device window.
///
/// # Panics
///
/// After [`finish`], if the bytes are not mapped.
pub fn reach(addr: PhysAddr, len: u64) -> *mut u8 {
    let mut tables = TABLES.lock();
    let tables = tables
        .as_mut()
        .expect("device memory is mapped at boot only");
    let end = addr.0 + len.max(1);
    let mapped = (addr.0 & !(PAGE - 1)..end)
        .step_by(PAGE as usize)
        .all(|page| tables.hole(DIRECT_MAP + page) == 0);
    if mapped {
        (DIRECT_MAP + addr.0) as *mut u8
    } else {
        tables.map_device(addr.0, end)
    }
}

/// Maps the registers of a device, uncached.
///
/// # Panics
///
/// After [`finish`].
pub fn map_device(addr: PhysAddr, len: u64) -> *mut u8 {
    let mut tables = TABLES.lock();
    tables
        .as_mut()
        .expect("devices are mapped at boot")
        .map_device(addr.0, addr.0 + len)
}

/// Maps the stacks of a CPU that is not the first.
///
/// # Panics
///
/// After [`take_free`].
pub fn map_stacks(pages: impl Iterator<Item = u64>) {
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().expect("stacks are mapped at boot");
    for page in pages {
        let frame = tables.new_table();
        let rights = tables.no_execute | WRITABLE | GLOBAL;
        tables.map(page, frame, PAGE, rights);
    }
}

/// Maps the first 2 MiB to themselves, to be executed: what a CPU needs that turns paging on.
pub fn map_start() {
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().expect("CPUs are started at boot");
    tables.map(0, 0, LARGE_PAGE, 0);
}

/// Undoes [`map_start`] in the tables.
pub fn unmap_start() {
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().expect("CPUs are started at boot");
    // SAFETY: the root is a table of 512 entries, of which this one maps only what `map_start` did.
    unsafe { tables.table(tables.root).write(0) };
}

/// The frames that are left: no more tables are made.
pub fn take_free() -> FreeRanges {
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().expect("the tables are in the making");
    mem::replace(&mut tables.free, FreeRanges::new())
}

/// Opens the count window onto the tree with this highest node, and returns the upper half of the
/// root table, which is final then.
pub fn finish(counts: Frame) -> [u64; 256] {
    let tables = TABLES.lock().take();
    let mut tables = tables.expect("the tables are finished once");
    tables.hang(COUNT_WINDOW, counts);
    core::array::from_fn(|index| {
        // SAFETY: the root is a table of 512 entries, which nobody changes any more.
        unsafe { tables.table(tables.root).add(256 + index).read() }
    })
}

impl Tables {
    /// The image page by page: what is executable is not writable.
    fn map_image(&mut self, image: u64, guards: &[u64]) {
        let [text, rodata, data, end] = self::image();
        for page in (text..end).step_by(PAGE as usize) {
            let rights = match page {
                _ if page < rodata => 0,
                _ if page < data => self.no_execute,
                _ => self.no_execute | WRITABLE,
            };
            if !guards.contains(&page) {
                self.map(page, image + (page - text), PAGE, rights | GLOBAL);
            }
        }
    }

    /// Memory in the direct map, in the largest pages that fit; the ends are rounded to 2 MiB.
    fn map_memory(&mut self, start: u64, end: u64) {
        let end = end.min(DIRECT_MAP_LEN).next_multiple_of(LARGE_PAGE);
        let mut addr = start & !(LARGE_PAGE - 1);
        while addr < end {
            let hole = self.hole(DIRECT_MAP + addr);
            let huge = hole >= HUGE_PAGE
                && addr.is_multiple_of(HUGE_PAGE)
                && end - addr >= HUGE_PAGE
                && cpu::features().huge_pages;
            let size = if huge { HUGE_PAGE } else { LARGE_PAGE };
            if hole != 0 {
                self.map(
                    DIRECT_MAP + addr,
                    addr,
                    size,
                    self.no_execute | WRITABLE | GLOBAL,
                );
            }
            addr += size;
        }
    }

    fn map_device(&mut self, start: u64, end: u64) -> *mut u8 {
        assert!(
            start < end && end <= DEVICE_WINDOW_LEN,
            "device outside the device window"
        );
        for page in (start & !(PAGE - 1)..end).step_by(PAGE as usize) {
            if self.hole(DEVICE_WINDOW + page) != 0 {
                let rights = self.no_execute | WRITABLE | GLOBAL | UNCACHED;
                self.map(DEVICE_WINDOW + page, page, PAGE, rights);
            }
        }
        (DEVICE_WINDOW + start) as *mut u8
    }

    /// Writes the entry for a page of `size` bytes, which must not be there.
    fn map(&mut self, virt: u64, phys: u64, size: u64, rights: u64) {
        let large = if size == PAGE { 0 } else { LARGE };
        let mut table = self.root;
        for shift in [39, 30, 21, 12] {
            // SAFETY: `table` is a table of 512 entries.
            let entry = unsafe { self.table(table).add(index(virt, shift)) };
            // SAFETY: `entry` lies in a table, and only this function changes tables.
            unsafe {
                if size == 1 << shift {
                    return entry.write(phys | rights | large | PRESENT);
                }
                if entry.read() == 0 {
                    entry.write(self.new_table() | WRITABLE | PRESENT);
                }
                table = entry.read() & ADDRESS;
            }
        }
    }

    /// Puts a table of others' making below the root, where nothing is: memory that holds no code.
    fn hang(&mut self, virt: u64, table: Frame) {
        let entry = table.addr().0 | self.no_execute | WRITABLE | PRESENT;
        // SAFETY: the root is a table of 512 entries, and this one of them is empty.
        unsafe { self.table(self.root).add(index(virt, 39)).write(entry) };
    }

    /// How much is not mapped around an address, as the bytes that the empty entry stands for; 0 if
    /// the address is mapped.
    fn hole(&self, virt: u64) -> u64 {
        let mut table = self.root;
        for shift in [39, 30, 21, 12] {
            // SAFETY: `table` is a table of 512 entries.
            let entry = unsafe { self.table(table).add(index(virt, shift)).read() };
            if entry & PRESENT == 0 {
                return 1 << shift;
            }
            if entry & LARGE != 0 {
                return 0;
            }
            table = entry & ADDRESS;
        }
        0
    }

    fn new_table(&mut self) -> u64 {
        let frame = self
            .free
            .take_low()
            .expect("there is memory for the kernel's page tables");
        // SAFETY: the frame is free memory below 4 GiB, which is mapped.
        unsafe { ptr::write_bytes(self.table(frame).cast::<u8>(), 0, PAGE as usize) };
        frame
    }

    fn table(&self, frame: u64) -> *mut u64 {
        (self.direct_map + frame) as *mut u64
    }
}

fn index(virt: u64, shift: u32) -> usize {
    (virt >> shift) as usize % 512
}
