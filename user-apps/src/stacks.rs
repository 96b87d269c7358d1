//! Where the threads of a process are, asked of the process server.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use libipc::backtrace::{self, MAX_FRAMES};
use libipc::services::Error;
use libipc::services::procd::ProcdClient;
use libipc::start;

use crate::ps;

/// The backtraces of all threads of the caller or a descendant, a line for each frame. One that runs meanwhile is where it was when it last
/// came into the kernel, or somewhere since.
///
/// # Errors
/// As for [`Procd::stack`](libipc::services::procd::Procd::stack).
pub fn of(pid: u64) -> Result<Vec<Vec<String>>, Error> {
    let procd = ProcdClient::borrow(start::procd());
    let entry = ps::entry(&procd, pid)?;
    let mut stacks = Vec::new();
    for thread in ps::threads_of(&procd, pid)? {
        let mut bytes = [0; 8 * MAX_FRAMES];
        let len = procd.stack(pid, thread.number, &mut bytes)?;
        let (frames, _) = bytes[..len].as_chunks();
        let frames = frames.iter().map(|ip| u64::from_le_bytes(*ip));
        let lines = backtrace::lines(entry.name(), frames);
        stacks.push(lines.map(|line| line.to_string()).collect());
    }
    Ok(stacks)
}
