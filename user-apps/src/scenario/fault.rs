//! Making a thread fault on purpose, with oneself as its supervisor.

use libipc::abi::FaultVerdict;
use libipc::object::Endpoint;
use libipc::thread::{PRIORITY, Supervisor};
use libipc::{Fault, Received};

use super::peer;

/// Runs a closure in a thread, waits for the thread's fault, ends the thread, and returns the
/// report (whose token is used up).
///
/// # Panics
/// When the thread ends without a fault.
#[track_caller]
pub fn provoke(body: impl FnOnce() + 'static) -> Report {
    let endpoint = Endpoint::create().expect("endpoint");
    let survived = endpoint
        .copy(libipc::Rights::NOTIFY, 1)
        .expect("copy")
        .into_raw();
    let thread = peer::thread_with(PRIORITY, Supervisor::Endpoint(&endpoint), move || {
        body();
        let _ = Endpoint::from_raw(survived).notify();
    });
    let fault = match endpoint.recv(&mut []).expect("recv") {
        Received::Fault(fault) => fault,
        other => panic!("no fault, but {other:?}"),
    };
    let report = Report::of(&fault);
    fault.decide(FaultVerdict::Kill).expect("verdict");
    assert!(thread.is_finished(), "the verdict was to kill");
    drop(Endpoint::from_raw(survived));
    report
}

/// What a fault message said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why the thread could not go on.
    pub kind: libipc::abi::FaultKind,
    /// The address, or the exception's vector.
    pub address: u64,
    /// The instruction pointer.
    pub ip: u64,
    /// What was tried.
    pub access: libipc::abi::Access,
    /// What is mapped there.
    pub found: libipc::abi::FoundEntry,
}

impl Report {
    /// The report in a fault message.
    ///
    /// # Panics
    /// When its kind is none that the interface has.
    #[must_use]
    pub fn of(fault: &Fault) -> Self {
        Report {
            kind: fault.kind.expect("a known kind"),
            address: fault.address,
            ip: fault.ip,
            access: fault.access,
            found: fault.found,
        }
    }
}
