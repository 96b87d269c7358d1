//! How a boot ended: what the guest said, and what it means as an exit status.
//!
//! The guest says how it ends in two ways that must agree: a line on the debug port, and the
//! status with which it makes QEMU leave. A machine that merely stops, as after a triple fault
//! (QEMU's status is 0 then), has not said anything, and that is never taken for success.
//!
//! | the guest | line | QEMU leaves with | `run` leaves with |
//! | --- | --- | --- | --- |
//! | `shutdown(status)` | `exit STATUS` | 33 | the status |
//! | kernel panic | `panic` | 35 | 125 |
//! | still running at the time limit | | | 124 |
//! | anything else | | | 123 |

use std::fmt;

/// QEMU's status when the guest has left through `shutdown`.
const QEMU_EXIT: i32 = 0x10 << 1 | 1;
/// QEMU's status when the kernel has panicked.
const QEMU_PANIC: i32 = 0x11 << 1 | 1;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The program ended with this status, and the machine with it.
    Exit(u8),
    /// The kernel panicked.
    Panic,
    /// The time limit, in seconds, was up.
    Timeout(u64),
    /// The machine reset itself; where, if known.
    TripleFault(Option<u64>),
    /// The machine ended without a word; QEMU's status, if it was not killed.
    Silent(Option<i32>),
}

impl Ending {
    /// Judges by QEMU's exit status, what the guest wrote to the debug port, and QEMU's log of CPU resets.
    pub(crate) fn judge(qemu_status: Option<i32>, said: &str, resets: &str) -> Ending {
        let exit = said
            .lines()
            .filter_map(|line| line.strip_prefix("exit "))
            .next_back();
        let panicked = said.lines().any(|line| line == "panic");
        match (qemu_status, exit) {
            _ if panicked => Ending::Panic,
            (Some(QEMU_PANIC), _) => Ending::Panic,
            (Some(QEMU_EXIT), Some(status)) => Ending::Exit(exit_status(status)),
            _ if resets.contains("Triple fault") => Ending::TripleFault(faulting_ip(resets)),
            _ => Ending::Silent(qemu_status),
        }
    }

    /// The exit status of `cargo xtask run`.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Ending::Exit(status) => *status,
            Ending::Panic => 125,
            Ending::Timeout(_) => 124,
            Ending::TripleFault(_) | Ending::Silent(_) => 123,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(0) => write!(f, "the program ended well"),
            Ending::Exit(status) => match reason(*status) {
                Some(reason) => write!(f, "killed: {reason} (status {status})"),
                None => write!(f, "the program ended with status {status}"),
            },
            Ending::Panic => write!(f, "the kernel panicked"),
            Ending::Timeout(seconds) => {
                write!(
                    f,
                    "the machine was still running after {seconds} s and was stopped"
                )
            }
            Ending::TripleFault(Some(ip)) => {
                write!(f, "the machine reset itself: triple fault near {ip:#x}")
            }
            Ending::TripleFault(None) => write!(f, "the machine reset itself: triple fault"),
            Ending::Silent(Some(0)) => write!(f, "the machine was switched off without a word"),
            Ending::Silent(Some(status)) => {
                write!(
                    f,
                    "the machine ended without a word (QEMU's status {status})"
                )
            }
            Ending::Silent(None) => write!(f, "QEMU was killed"),
        }
    }
}

/// A status that the guest has written; one that does not fit a byte must not wrap to success.
fn exit_status(text: &str) -> u8 {
    text.trim()
        .parse::<u64>()
        .map_or(u8::MAX, |status| status.try_into().unwrap_or(u8::MAX))
}

/// Why a program with this status was killed: 128 plus a reason, numbered as POSIX numbers signals.
fn reason(status: u8) -> Option<&'static str> {
    Some(match status.checked_sub(128)? {
        4 => "illegal instruction",
        7 => "out of memory",
        8 => "arithmetic error",
        9 => "by request",
        11 => "bad memory access",
        _ => return None,
    })
}

/// The instruction pointer in the register dump that QEMU's reset log has for a triple fault.
fn faulting_ip(resets: &str) -> Option<u64> {
    let (_, dump) = resets.rsplit_once("Triple fault")?;
    let (_, ip) = dump.split_once("RIP=")?;
    u64::from_str_radix(ip.get(..16)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_words_are_needed_for_an_exit() {
        assert_eq!(
            Ending::judge(Some(33), "ready\nexit 0\n", ""),
            Ending::Exit(0)
        );
        assert_eq!(Ending::judge(Some(33), "exit 42\n", "").status(), 42);
        assert_eq!(Ending::judge(Some(33), "", ""), Ending::Silent(Some(33)));
        assert_eq!(
            Ending::judge(Some(0), "exit 0\n", ""),
            Ending::Silent(Some(0))
        );
        assert_eq!(Ending::judge(None, "exit 0\n", ""), Ending::Silent(None));
    }

    #[test]
    fn a_panic_outweighs_an_exit() {
        assert_eq!(Ending::judge(Some(35), "", ""), Ending::Panic);
        assert_eq!(
            Ending::judge(Some(33), "exit 0\npanic\n", ""),
            Ending::Panic
        );
        assert_eq!(Ending::Panic.status(), 125);
    }

    #[test]
    fn a_status_that_does_not_fit_is_no_success() {
        assert_eq!(Ending::judge(Some(33), "exit 256\n", ""), Ending::Exit(255));
        assert_eq!(Ending::judge(Some(33), "exit x\n", ""), Ending::Exit(255));
    }

    #[test]
    fn triple_fault_is_told_with_its_place() {
        let log = "CPU Reset (CPU 0)\nRIP=000000000000fff0\nTriple fault\nCPU Reset (CPU 0)\nRAX=00\nRIP=ffffffff80200010 RFL\n";
        let ending = Ending::judge(Some(0), "", log);
        assert_eq!(ending, Ending::TripleFault(Some(0xffff_ffff_8020_0010)));
        assert_eq!(ending.status(), 123);
    }

    #[test]
    fn reasons_are_said_in_words() {
        assert_eq!(
            Ending::Exit(139).to_string(),
            "killed: bad memory access (status 139)"
        );
        assert_eq!(
            Ending::Exit(137).to_string(),
            "killed: by request (status 137)"
        );
        assert_eq!(
            Ending::Exit(3).to_string(),
            "the program ended with status 3"
        );
        assert_eq!(
            Ending::Exit(200).to_string(),
            "the program ended with status 200"
        );
    }
}
