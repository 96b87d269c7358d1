//! What the kernel hands to the first program.

use crate::Handle;

/// First word of [`InitInfo`]: `"cowslip1"` in ASCII.
pub const INIT_MAGIC: u64 = u64::from_le_bytes(*b"cowslip1");

/// Where the kernel maps [`InitInfo`], read-only, in the first program's space.
///
/// The program starts with this address in `rdi` and a stack of 64 KiB.
pub const INIT_INFO: u64 = 0x6000_0000_0000;

/// Where the kernel maps the boot archive, read-only.
pub const INIT_ARCHIVE: u64 = 0x6100_0000_0000;

/// The page that tells the first program what it has. It owns all authority.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct InitInfo {
    /// [`INIT_MAGIC`].
    pub magic: u64,
    /// Address of the boot archive (a tar file), page-aligned.
    pub archive: u64,
    /// Length of the boot archive in bytes.
    pub archive_len: u64,
    /// Its own space, all rights.
    pub space: Handle,
    /// Its own thread, all rights.
    pub thread: Handle,
    /// The system object, all rights.
    pub system: Handle,
    /// All interrupts; a copy with a badge stands for the one line that the badge names.
    pub interrupts: Handle,
    /// All I/O ports; a copy with badge `first | count << 16` stands for those.
    pub ports: Handle,
    /// Length of the command line in bytes.
    pub command_line_len: u32,
    /// The kernel command line, UTF-8.
    pub command_line: [u8; 2048],
}
