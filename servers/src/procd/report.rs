//! What a fault means: for people a line, for the process its exit status.

use core::fmt;

use libipc::abi::{Access, FaultKind, FoundEntry};
use libipc::message::Fault;
use libipc::services::procd::Reason;

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

/// A fault in words.
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
    fn statuses_are_those_of_posix() {
        let status = |kind, address| reason(&fault(kind, address)).status();
        assert_eq!(status(FaultKind::Page, 0), 139);
        assert_eq!(status(FaultKind::OutOfMemory, 0), 135);
        assert_eq!(status(FaultKind::Exception, 0), 136);
        assert_eq!(status(FaultKind::Exception, 13), 132);
    }
}
