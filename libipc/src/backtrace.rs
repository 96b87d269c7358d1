//! Backtraces: the calls that a thread is in, by its frame pointers.
//!
//! ```text
//!   lower addresses                                   higher
//!   ... | caller's bp | return address | ... | caller's bp | return address | ... 0
//!         ^                                    ^
//!         bp -----------------------------------> next
//! ```
//!
//! Programs are built with frame pointers, and threads start with a frame pointer of 0. A stack may say anything: a frame lies above
//! the one that it was called from, so no stack is walked in a circle, and it is read by a function that may refuse.
//!
//! A frame is printed as `  #1 crash 0x61234`; on the host, `cargo xtask` knows function, file and line and writes them behind it.

use core::fmt;

use abi::USER_END;

/// The most frames of a backtrace.
pub const MAX_FRAMES: usize = 24;

/// Bytes of a frame that say where the next one is: its address, and that of the instruction to return to.
pub const LINK: u64 = 16;

/// The frames of a stack, the innermost first: addresses in the functions, within the instruction that calls or is executed.
#[derive(Debug)]
pub struct Frames<F> {
    /// Of the next frame to tell; 0 at the end.
    ip: u64,
    bp: u64,
    left: usize,
    read: F,
}

impl<F: FnMut(u64) -> Option<[u64; 2]>> Frames<F> {
    /// Those of a thread at this instruction, with this frame pointer. `read` returns the two words at an address, a
    /// multiple of 8, or nothing if they cannot be read.
    pub fn new(ip: u64, bp: u64, read: F) -> Self {
        Frames {
            ip,
            bp,
            left: MAX_FRAMES,
            read,
        }
    }

    fn next_link(&mut self) -> Option<[u64; 2]> {
        let is_frame = self.bp.is_multiple_of(8) && (1..=USER_END - LINK).contains(&self.bp);
        if is_frame { (self.read)(self.bp) } else { None }
    }
}

impl<F: FnMut(u64) -> Option<[u64; 2]>> Iterator for Frames<F> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let ip = self.ip;
        if ip == 0 {
            return None;
        }
        let [bp, return_address] = self.next_link().unwrap_or_default();
        // The call, not what follows it, which may be another function.
        self.ip = return_address.saturating_sub(1);
        self.bp = if bp > self.bp { bp } else { 0 };
        Some(ip)
    }
}

/// A frame as it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// How many frames are further in.
    pub number: usize,
    /// The program's name, without its folder.
    pub program: &'a str,
    /// The address.
    pub ip: u64,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line {
            number,
            program,
            ip,
        } = self;
        write!(f, "  #{number} {program} {ip:#x}")
    }
}

/// The lines of a program's frames, the innermost first.
pub fn lines<'a>(
    program: &'a str,
    frames: impl IntoIterator<Item = u64>,
) -> impl Iterator<Item = Line<'a>> {
    let numbered = frames.into_iter().enumerate();
    numbered.map(move |(number, ip)| Line {
        number,
        program,
        ip,
    })
}

/// The frames of the thread that calls this, which is the first of them.
#[cfg(target_os = "none")]
#[inline(never)]
pub fn of_this_thread() -> Frames<impl FnMut(u64) -> Option<[u64; 2]>> {
    let (ip, bp): (u64, u64);
    // SAFETY: copies registers.
    unsafe {
        core::arch::asm!("lea {ip}, [rip]", "mov {bp}, rbp", ip = out(reg) ip, bp = out(reg) bp, options(nomem, nostack));
    }
    Frames::new(ip, bp, read_own)
}

/// Two words of this program's memory, if something is mapped there.
#[cfg(target_os = "none")]
fn read_own(at: u64) -> Option<[u64; 2]> {
    use crate::object::Space;
    use abi::{PAGE_SIZE, RangeKind};

    const PAGE: u64 = PAGE_SIZE as u64;
    let is_mapped = |addr: u64| {
        let range = Space::own().range_at(addr / PAGE * PAGE);
        matches!(range, Ok(Some(range)) if range.kind != RangeKind::Empty)
    };
    let can_be_read = is_mapped(at) && is_mapped(at + LINK - 1);
    // SAFETY: both words are mapped, and whatever they are is a value. That another thread unmaps its panicking neighbour's stack is
    // a fault, which ends a program that is about to end.
    can_be_read.then(|| unsafe { (at as *const [u64; 2]).read_volatile() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack as pairs of an address and the two words there.
    fn walk(ip: u64, bp: u64, stack: &[(u64, [u64; 2])]) -> Vec<u64> {
        let read = |at| stack.iter().find(|link| link.0 == at).map(|link| link.1);
        Frames::new(ip, bp, read).collect()
    }

    #[test]
    fn frames_are_told_from_the_innermost_to_the_first() {
        let stack = [(0x1000, [0x1040, 0x501]), (0x1040, [0, 0x601])];
        assert_eq!(walk(0x400, 0x1000, &stack), [0x400, 0x500, 0x600]);
        assert_eq!(walk(0x400, 0, &stack), [0x400]);
    }

    #[test]
    fn hostile_stacks_come_to_an_end() {
        // To itself, downwards, in a circle.
        assert_eq!(walk(1, 0x1000, &[(0x1000, [0x1000, 3])]), [1, 2]);
        let circle = [(0x1000, [0x1010, 3]), (0x1010, [0x1000, 4])];
        assert_eq!(walk(1, 0x1000, &circle), [1, 2, 3]);
        // Unaligned, in the kernel, at the very end, nowhere.
        for bp in [
            0x1001,
            1 << 63,
            u64::MAX,
            u64::MAX - 7,
            USER_END,
            USER_END - 8,
            8,
        ] {
            let asked = core::cell::Cell::new(0);
            let read = |at: u64| {
                asked.set(asked.get() + 1);
                assert!(at.is_multiple_of(8) && at <= USER_END - LINK);
                None
            };
            assert_eq!(Frames::new(7, bp, read).collect::<Vec<_>>(), [7]);
        }
        // Without an end.
        let endless = Frames::new(1, 8, |at| Some([at + 8, 5]));
        assert_eq!(endless.count(), MAX_FRAMES);
        // A return address of 0 is the end.
        assert_eq!(walk(1, 0x1000, &[(0x1000, [0x1040, 0])]), [1]);
    }

    #[test]
    fn frames_are_printed_with_number_program_and_address() {
        let program = crate::fs::file_name("/bin/crash");
        let lines: Vec<_> = lines(program, [0x6_1234, 0x6_0001])
            .map(|line| line.to_string())
            .collect();
        assert_eq!(lines, ["  #0 crash 0x61234", "  #1 crash 0x60001"]);
    }
}
