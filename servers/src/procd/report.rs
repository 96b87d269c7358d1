//! What a fault means: for people some lines, for the process its exit status.

use core::fmt;

use libipc::PAGE_SIZE;
use libipc::abi::{Access, FaultKind, FoundEntry};
use libipc::backtrace;
use libipc::message::Fault;
use libipc::services::procd::Reason;

use super::look::AtFault;

/// Exception vectors that have names of their own (Intel SDM volume 3, table 6-1).
fn exception(vector: u64) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "illegal instruction",
        7 => "no floating point",
        12 => "stack fault",
        13 => "general protection fault",
        16 => "floating-point error",
        17 => "alignment error",
        19 => "vector floating-point error",
        _ => "exception",
    }
}

/// Why a process with this fault is ended.
#[must_use]
pub fn reason(fault: &Fault) -> Reason {
    match (fault.kind, fault.address) {
        (Some(FaultKind::Page), _) => Reason::BadAccess,
        (Some(FaultKind::OutOfMemory), _) => Reason::OutOfMemory,
        (Some(FaultKind::Exception), 0) => Reason::Divide,
        _ => Reason::Exception,
    }
}

/// A fault in words: what was touched, what is there, and what it may mean.
pub struct Words<'a>(pub &'a Fault);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Fault {
            kind,
            address,
            ip,
            access,
            found,
            sp,
            ..
        } = self.0;
        let access = match access {
            Access::Read => "read from",
            Access::Write => "write to",
            Access::Execute => "jump to",
        };
        match kind {
            Some(FaultKind::Page) => {
                let found = match found {
                    FoundEntry::Empty => "nothing is mapped",
                    FoundEntry::ReadOnly => "memory is read-only",
                    FoundEntry::ReadWrite => "memory is data",
                    FoundEntry::ReadExecute => "memory is code",
                    FoundEntry::NotUser => "no program has memory",
                };
                write!(f, "{access} {address:#x}, where {found}")?;
            }
            Some(FaultKind::OutOfMemory) => {
                write!(f, "out of memory: no frame for the {access} {address:#x}")?;
            }
            _ => write!(f, "{} (vector {address})", exception(address))?,
        }
        write!(f, ", at instruction {ip:#x}, stack {sp:#x}")
    }
}

/// How far from the stack pointer an access may be to be one to the stack, in bytes: the compiler touches each page of a
/// large frame.
const NEAR_STACK: u64 = 2 * PAGE_SIZE as u64;

/// What was expected of the memory that a fault is about, and what the mistake may be.
fn expectation(fault: &Fault) -> Option<&'static str> {
    if fault.kind != Some(FaultKind::Page) {
        return None;
    }
    let is_nowhere = fault.found == FoundEntry::Empty;
    Some(match fault.access {
        _ if is_nowhere && fault.address < PAGE_SIZE as u64 => "a null pointer",
        Access::Read | Access::Write
            if is_nowhere && fault.address.abs_diff(fault.sp) <= NEAR_STACK =>
        {
            "a stack overflow: the stack ends there"
        }
        Access::Read => "expected memory that may be read",
        Access::Write => "expected memory that may be written",
        Access::Execute => "expected code",
    })
}

/// What is said of a program that faulted.
pub struct Report<'a> {
    /// The process; none for a standard server.
    pub who: Option<u64>,
    /// The program's name.
    pub name: &'a str,
    /// Its fault.
    pub fault: &'a Fault,
    /// Which of its threads that was, and where it was.
    pub found: AtFault,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            who,
            name,
            fault,
            found,
        } = self;
        match who {
            Some(pid) => write!(f, "procd: process {pid} ({name}) ended: {}", Words(fault))?,
            None => write!(f, "{name}: {}", Words(fault))?,
        }
        if let Some((number, count)) = found.thread {
            write!(f, "\n  in thread {number} of {count}")?;
        }
        if let Some(expectation) = expectation(fault) {
            write!(f, "\n  {expectation}")?;
        }
        backtrace::lines(name, found.frames.iter().copied())
            .try_for_each(|line| write!(f, "\n{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libipc::ReplyToken;

    fn fault(kind: FaultKind, address: u64) -> Fault {
        Fault {
            badge: 2,
            kind: Some(kind),
            address,
            ip: 0x20_1000,
            access: Access::Write,
            found: FoundEntry::Empty,
            sp: 0x5f00,
            token: ReplyToken::from_raw(1),
        }
    }

    #[test]
    fn faults_read_well() {
        let text = |kind, address| format!("{}", Words(&fault(kind, address)));
        assert_eq!(
            text(FaultKind::Page, 0x10),
            "write to 0x10, where nothing is mapped, at instruction 0x201000, stack 0x5f00"
        );
        assert!(text(FaultKind::Exception, 6).starts_with("illegal instruction (vector 6)"));
    }

    #[test]
    fn what_was_expected_is_said() {
        let said = |address, access, found| {
            expectation(&Fault {
                access,
                found,
                ..fault(FaultKind::Page, address)
            })
        };
        let (empty, code) = (FoundEntry::Empty, FoundEntry::ReadExecute);
        assert_eq!(said(8, Access::Read, empty), Some("a null pointer"));
        let overflow = Some("a stack overflow: the stack ends there");
        assert_eq!(said(0x5ef8, Access::Write, empty), overflow);
        let written = Some("expected memory that may be written");
        assert_eq!(said(0x5ef8, Access::Write, code), written);
        assert_eq!(said(0x5ef8, Access::Execute, empty), Some("expected code"));
        assert_eq!(expectation(&fault(FaultKind::Exception, 0)), None);
    }

    #[test]
    fn a_report_names_process_thread_and_frames() {
        let mut found = AtFault {
            thread: Some((2, 3)),
            ..AtFault::default()
        };
        found.frames.extend([0x20_1000, 0x20_2000]);
        let report = Report {
            who: Some(7),
            name: "crash",
            fault: &fault(FaultKind::Page, 0x10),
            found,
        };
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("procd: process 7 (crash) ended: write to 0x10"));
        let rest = ["  in thread 2 of 3", "  a null pointer"];
        assert_eq!(lines[1..3], rest);
        assert_eq!(lines[3..], ["  #0 crash 0x201000", "  #1 crash 0x202000"]);
    }

    #[test]
    fn statuses_are_those_of_posix() {
        let status = |kind, address| reason(&fault(kind, address)).status();
        assert_eq!(status(FaultKind::Page, 0), 139);
        assert_eq!(status(FaultKind::OutOfMemory, 0), 135);
        assert_eq!(status(FaultKind::Exception, 0), 136);
        assert_eq!(status(FaultKind::Exception, 13), 132);
    }
}
