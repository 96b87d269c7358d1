//! A trace of every instruction that a machine runs, cut into the rounds of a bench program.
//!
//! QEMU writes a line for each instruction. A bench program calls one function before and one after
//! what it measures; the lines between these two addresses are a candidate. Other programs have code at the same
//! addresses, so the candidate is taken whose length is what the program has measured.

use std::collections::HashMap;
use std::io::BufRead;

use anyhow::Result;

/// How often each address was the instruction pointer.
pub(super) type Histogram = HashMap<u64, u64>;

/// The addresses of the functions that begin and end a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// What was run between two marks.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Window {
    pub(super) length: u64,
    pub(super) addresses: Histogram,
}

/// Cuts a trace. A round may have several ends, and each makes a window from its beginning.
pub(super) fn windows(mut trace: impl BufRead, marks: Marks) -> Result<Vec<Window>> {
    let mut windows = Vec::new();
    let mut open: Option<Window> = None;
    let mut line = Vec::new();
    while trace.read_until(b'\n', &mut line)? > 0 {
        if let Some(address) = address(&line) {
            if address == marks.begin {
                open = Some(Window::default());
            } else if let Some(window) = &mut open {
                if address == marks.end {
                    windows.push(Window {
                        length: window.length,
                        addresses: window.addresses.clone(),
                    });
                }
                window.length += 1;
                *window.addresses.entry(address).or_default() += 1;
            }
        }
        line.clear();
    }
    Ok(windows)
}

/// The window that is as long as what was measured, and a little longer: the marks are outside of the clock.
pub(super) fn of_length(windows: Vec<Window>, measured: u64) -> Option<Window> {
    windows
        .into_iter()
        .filter(|window| window.length >= measured)
        .min_by_key(|window| window.length)
}

/// The address in `Trace 0: 0x7f2fc000d6c0 [0000000000000000/00000000ffff0f89/000000b0/ff020201] name`.
fn address(line: &[u8]) -> Option<u64> {
    let line = line.strip_prefix(b"Trace ")?;
    let slash = line.iter().position(|&byte| byte == b'/')?;
    let digits = line.get(slash + 1..slash + 17)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { begin: 1, end: 2 };

    fn trace(addresses: &[u64]) -> String {
        let line = |address| format!("Trace 0: 0x7f [0000/{address:016x}/00b0/ff02] \n");
        addresses.iter().map(line).collect()
    }

    #[test]
    fn traces_are_cut_at_the_marks() {
        let trace = trace(&[9, 1, 7, 7, 2, 8, 2, 1, 5]);
        let windows = windows(trace.as_bytes(), MARKS).unwrap();
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[0].addresses, Histogram::from([(7, 2)]));
        assert_eq!(windows[1].length, 4);
        assert_eq!(of_length(windows, 3).unwrap().length, 4);
    }

    #[test]
    fn other_lines_are_passed_over() {
        assert_eq!(address(b"cpu_reset"), None);
        assert_eq!(address(b"Trace 0: 0x7f [00/zz"), None);
        let windows = windows(&b"garbage\nTrace 0:"[..], MARKS).unwrap();
        assert!(windows.is_empty() && of_length(windows, 0).is_none());
    }
}
