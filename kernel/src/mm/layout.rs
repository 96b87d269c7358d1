//! Where things are in the kernel's half of every address space.
//!
//! | address | what | rights |
//! | --- | --- | --- |
//! | `0xffff_8000_0000_0000` | the [direct map](DIRECT_MAP): physical memory, up to 112 TiB | RW |
//! | `0xffff_f000_0000_0000` | the [count window](COUNT_WINDOW): how often each frame is named | RW |
//! | `0xffff_f800_0000_0000` | the [device window](DEVICE_WINDOW): registers at their physical address, uncached | RW |
//! | `0xffff_ff80_0000_0000` | the [stacks](STACKS) of all CPUs but the first | RW |
//! | `0xffff_ffff_8020_0000` | the image | R-X, R--, RW- |
//!
//! These are constants so that the code that uses them need not look them up. `arch` maps what is
//! here; simulated memory lies elsewhere.

/// Where physical address 0 is reached.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

/// Length of the direct map in bytes: memory at higher physical addresses is not used.
pub const DIRECT_MAP_LEN: u64 = 112 << 40;

/// Where the reference counts are: that of frame number n, 8 bytes long, is at `COUNT_WINDOW + 8 * n`.
///
/// One entry of the root makes the window, which is 256 GiB long: the entry names the highest node of
/// [`RefCounts`](super::RefCounts), and what the window shows are the lowest ones, side by side.
pub const COUNT_WINDOW: u64 = 0xffff_f000_0000_0000;

/// Where the device window starts.
pub const DEVICE_WINDOW: u64 = 0xffff_f800_0000_0000;

/// Length of the device window in bytes; it ends below the image.
pub const DEVICE_WINDOW_LEN: u64 = 7 << 40;

/// Where the stacks of CPU 0 would start; those of the others follow, each after [`STACKS_STRIDE`].
pub const STACKS: u64 = 0xffff_ff80_0000_0000;

/// Bytes from one CPU's stacks to the next one's.
pub const STACKS_STRIDE: u64 = 128 * 1024;
