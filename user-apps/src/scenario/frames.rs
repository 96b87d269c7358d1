//! Counting frames: what a case took must have come back.

use libipc::service::Error;
use libipc::services::Refusal;
use libipc::services::memstat::{Memory, MemstatClient};
use libipc::start;

use super::peer::wait_for;

/// How long a count may be not yet what it should be, in nanoseconds.
const FRAMES_PATIENCE_NS: u64 = 2_000_000_000;

/// The kernel's counters.
///
/// # Panics
/// When the memory statistics server does not answer.
#[must_use]
pub fn counters() -> Memory {
    MemstatClient::borrow(start::memstat())
        .query()
        .expect("memstat answers")
}

/// Has a debug build of the kernel count everything again; any other has nothing to say.
///
/// # Errors
/// What is wrong, as the numbers of the kernel's topic `audit`.
///
/// # Panics
/// When there is no verdict.
pub fn audit() -> Result<(), [u64; 4]> {
    match MemstatClient::borrow(start::memstat()).audit() {
        Ok([0, ..]) | Err(Error::Refused(Refusal::NotFound)) => Ok(()),
        Ok(flaw) => Err(flaw),
        Err(error) => panic!("no audit: {error}"),
    }
}

/// Free frames and those of the reference counts, which come and go with sharing.
#[must_use]
pub fn available() -> u64 {
    counters().available()
}

/// The comparison of frames before and after.
#[derive(Debug)]
pub struct Frames;

impl Frames {
    /// Waits until as many frames are available as before; says how many there are if they stay away.
    ///
    /// A process that somebody else waits for may end a moment after the message that told of it:
    /// then asking again, and letting it run meanwhile, is waiting for the condition itself.
    ///
    /// # Errors
    /// The number of frames that are available in the end.
    pub fn expect(before: u64) -> Result<(), u64> {
        let mut after = available();
        match wait_for(FRAMES_PATIENCE_NS, || {
            after = available();
            after == before
        }) {
            true => Ok(()),
            false => Err(after),
        }
    }
}

/// Runs `action` again and again, and fails the case unless one time costs no frame. The first times
/// are for what is touched once: pages of the stack, of the heap, of a server's tables, which may
/// depend on how threads take turns. A leak costs every time.
#[track_caller]
pub fn assert_exact(mut action: impl FnMut()) {
    action();
    let mut costs = [0; 4];
    for cost in &mut costs {
        let before = available();
        action();
        match Frames::expect(before) {
            Ok(()) => return,
            Err(after) => *cost = before as i64 - after as i64,
        }
    }
    panic!("frames lost each time: {costs:?}");
}
