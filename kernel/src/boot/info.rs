//! What a door hands to the kernel.

use core::ops::Range;

/// The longest memory map that is taken over; the rest of a longer one is not used.
pub const MAX_RANGES: usize = 256;

/// The longest command line in bytes, cut off beyond that.
///
/// The page of the first program has room for as much.
pub const MAX_COMMAND_LINE: usize = 2048;

/// What a range of physical addresses may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Memory that nobody uses.
    Usable,
    /// Memory that holds what the loader left: free once that has been read.
    Loader,
    /// Memory that holds ACPI tables.
    Acpi,
    /// Memory that holds the kernel's image and the boot archive.
    Image,
    /// Anything else.
    Reserved,
}

/// One line of the memory map.
#[derive(Clone, Copy, Debug)]
pub struct MemoryRange {
    /// Address of the first byte.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// What is there.
    pub kind: MemoryKind,
}

/// All that the kernel learns from whoever loaded it.
pub struct BootInfo {
    /// Name of the door, for the log.
    pub door: &'static str,
    /// Where physical address 0 can be reached until the kernel has its own page tables, which is
    /// good for the first 4 GiB.
    pub direct_map: u64,
    /// Physical address of the start of the kernel's image.
    pub image: u64,
    /// Physical address of ACPI's root pointer, if there is one.
    pub rsdp: Option<u64>,
    /// Physical addresses of the boot archive, if there is one. It starts on a page boundary.
    pub archive: Option<Range<u64>>,
    ranges: [MemoryRange; MAX_RANGES],
    nr_ranges: usize,
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_len: usize,
}

impl BootInfo {
    /// Nothing but the door.
    pub const fn new(door: &'static str, direct_map: u64, image: u64) -> Self {
        const NO_RANGE: MemoryRange = MemoryRange {
            start: 0,
            end: 0,
            kind: MemoryKind::Reserved,
        };
        Self {
            door,
            direct_map,
            image,
            rsdp: None,
            archive: None,
            ranges: [NO_RANGE; MAX_RANGES],
            nr_ranges: 0,
            command_line: [0; MAX_COMMAND_LINE],
            command_line_len: 0,
        }
    }

    /// Adds a line to the memory map. Empty ranges, and more than fit, are left out.
    pub fn add_range(&mut self, start: u64, len: u64, kind: MemoryKind) {
        let end = start.saturating_add(len);
        if len != 0 && self.nr_ranges < MAX_RANGES {
            self.ranges[self.nr_ranges] = MemoryRange { start, end, kind };
            self.nr_ranges += 1;
        }
    }

    /// The memory map, in the order in which the loader gave it.
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges[..self.nr_ranges]
    }

    /// Takes over the command line: the text before the first zero byte, as far as it fits.
    pub fn set_command_line(&mut self, bytes: &[u8]) {
        let mut bytes = &bytes[..bytes.len().min(MAX_COMMAND_LINE)];
        if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
            bytes = &bytes[..end];
        }
        if let Err(error) = str::from_utf8(bytes) {
            bytes = &bytes[..error.valid_up_to()];
        }
        self.command_line[..bytes.len()].copy_from_slice(bytes);
        self.command_line_len = bytes.len();
    }

    /// The command line.
    pub fn command_line(&self) -> &str {
        str::from_utf8(&self.command_line[..self.command_line_len]).unwrap_or_default()
    }

    /// The value of the option `name=value` among the kernel's options: those before `--`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.command_line()
            .split_ascii_whitespace()
            .take_while(|&word| word != "--")
            .filter_map(|word| word.split_once('='))
            .filter(|&(key, _)| key == name)
            .map(|(_, value)| value)
            .last()
    }
}
