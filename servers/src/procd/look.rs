//! Looking into processes: their threads, their memory, their stacks.
//!
//! Each takes a bounded number of steps, whatever a process has made of itself: who wants to know more asks again.

use libipc::abi::{Access, Error, PAGE_SIZE, RangeKind, ThreadState, USER_END};
use libipc::backtrace::{Frames, MAX_FRAMES};
use libipc::message::Fault;
use libipc::object::{Range, SpaceInfo};
use libipc::services::Refusal;
use libipc::services::procd::{Counted, Entry, LIST_LEN, RangeEntry, Record, ThreadEntry};
use libipc::{PageBuffer, Space};

/// Parts of a space that are counted for one request: with some hundred page tables at most.
const COUNTED_PARTS: usize = 16;

/// Pieces of a space that are looked at for one request.
const PIECES: usize = 256;

/// The threads among which the one at fault is looked for.
const THREADS: usize = 256;

/// A line of the process list with what its space says.
#[must_use]
pub fn charged(entry: Entry, space: &Space) -> Entry {
    match space.charge() {
        Ok(charge) => Entry {
            commit: charge.commit,
            space: charge.number,
            ..entry
        },
        Err(_) => entry,
    }
}

/// Lists the threads behind one; returns how many bytes they are.
///
/// # Errors
/// `NotFound`: that one has ended.
pub fn threads(space: &Space, after: u64, list: &mut [u8; LIST_LEN]) -> Result<usize, Refusal> {
    let (mut last, mut count) = (after, 0);
    while count < ThreadEntry::LISTED {
        match space.member_after(last) {
            Ok(Some(member)) => {
                ThreadEntry(member).put(list, count);
                (last, count) = (member.number, count + 1);
            }
            Err(Error::Died) if count == 0 => return Err(Refusal::NotFound),
            // If the last one has ended meanwhile, the next request finds that.
            Ok(None) | Err(Error::Died) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count * ThreadEntry::LEN)
}

/// Counts pages from an address on.
///
/// # Errors
/// `BadRequest`: nothing could have ended there.
pub fn count(space: &Space, from: u64) -> Result<Counted, Refusal> {
    let (mut info, mut next) = (SpaceInfo::default(), Some(from));
    for _ in 0..COUNTED_PARTS {
        let Some(from) = next else {
            break;
        };
        let end = space.count_some(from, &mut info).map_err(refused)?;
        next = end.filter(|&end| end < USER_END);
    }
    Ok(Counted {
        next,
        private: info.private,
        shared_cow: info.shared_cow,
        shared_memory: info.shared_memory,
        untouched: info.untouched,
        tables: info.table_frames,
    })
}

/// What the caller has asked for is wrong, or else what this server has done.
fn refused(error: Error) -> Refusal {
    match error {
        Error::BadArgument | Error::Unaligned => Refusal::BadRequest,
        error => error.into(),
    }
}

/// Lists what lies where from an address on; returns how many bytes that is.
///
/// # Errors
/// `BadRequest`: no page begins there.
pub fn ranges(space: &Space, from: u64, list: &mut [u8; LIST_LEN]) -> Result<usize, Refusal> {
    let (mut open, mut at, mut count): (Option<Range>, _, _) = (None, from, 0);
    let mut put = |range: Range, count: &mut usize| {
        RangeEntry(range).put(list, *count);
        *count += 1;
    };
    for _ in 0..PIECES {
        let Some(range) = space.range_at(at).map_err(refused)? else {
            break;
        };
        at = range.end;
        if open.as_mut().is_some_and(|open| open.join(&range)) {
            continue;
        }
        if let Some(closed) = open.replace(range)
            && closed.kind != RangeKind::Empty
        {
            put(closed, &mut count);
            if count == RangeEntry::LISTED {
                return Ok(count * RangeEntry::LEN);
            }
        }
    }
    // A hole says how far this has come, unless there is nothing behind it.
    if let Some(open) = open
        && (open.kind != RangeKind::Empty || open.end < USER_END)
    {
        put(open, &mut count);
    }
    Ok(count * RangeEntry::LEN)
}

/// The frames of a stack: addresses, the innermost first.
pub type Stack = heapless::Vec<u64, MAX_FRAMES>;

/// The backtrace of a thread.
///
/// # Errors
/// `NotFound`: the space has no such thread.
pub fn stack(space: &Space, thread: u64) -> Result<Stack, Refusal> {
    let place = space.place_of(thread).map_err(|error| match error {
        Error::Died => Refusal::NotFound,
        error => error.into(),
    })?;
    let mut memory = Memory::new(space);
    Ok(Frames::new(place.ip, place.bp, |at| memory.link(at)).collect())
}

/// Which thread has faulted, and where it was.
#[derive(Clone, Debug, Default)]
pub struct AtFault {
    /// Which of how many.
    pub thread: Option<(usize, usize)>,
    /// The backtrace.
    pub frames: Stack,
}

/// Looks at the thread in a space whose fault was received.
#[must_use]
pub fn at_fault(space: &Space, fault: &Fault) -> AtFault {
    let next = |last: Option<u64>| space.member_after(last.unwrap_or(0)).ok().flatten();
    let members = core::iter::successors(next(None), |last| next(Some(last.number)));
    let (mut thread, mut count, mut bp) = (None, 0, 0);
    for member in members.take(THREADS) {
        count += 1;
        // One whose message is queued still waits at an endpoint.
        if member.state == ThreadState::Faulted && member.waits.endpoint == 0 {
            thread = Some(count);
            bp = space.place_of(member.number).map_or(0, |place| place.bp);
        }
    }
    AtFault {
        thread: thread.map(|number| (number, count)),
        frames: frames_at_fault(space, fault, bp),
    }
}

fn frames_at_fault(space: &Space, fault: &Fault, bp: u64) -> Stack {
    let mut memory = Memory::new(space);
    // Who jumps into nothing has no frame yet: who jumped is on the stack.
    let is_jump = fault.access == Access::Execute && fault.ip == fault.address;
    let jumped = is_jump.then(|| memory.word(fault.sp)).flatten();
    let jumped = jumped.and_then(|return_address| return_address.checked_sub(1));
    let walked = Frames::new(jumped.unwrap_or(fault.ip), bp, |at| memory.link(at));
    let before = jumped.map(|_| fault.ip);
    before.into_iter().chain(walked).take(MAX_FRAMES).collect()
}

/// The memory of a space, read a page at a time, and never by making a page that is not there.
struct Memory<'a> {
    space: &'a Space,
    page: Option<(u64, PageBuffer)>,
}

impl<'a> Memory<'a> {
    fn new(space: &'a Space) -> Self {
        Memory { space, page: None }
    }

    /// Where a frame says that the next one is.
    fn link(&mut self, at: u64) -> Option<[u64; 2]> {
        Some([self.word(at)?, self.word(at + 8)?])
    }

    /// The word at a multiple of 8.
    fn word(&mut self, at: u64) -> Option<u64> {
        let page = at / PAGE_SIZE as u64 * PAGE_SIZE as u64;
        if !at.is_multiple_of(8) || page >= USER_END {
            return None;
        }
        if self.page.as_ref().is_none_or(|(known, _)| *known != page) {
            let copy = PageBuffer::page_of(self.space, page).ok().flatten()?;
            self.page = Some((page, copy));
        }
        let (_, bytes) = self.page.as_ref()?;
        let (words, _) = bytes.as_chunks();
        Some(u64::from_le_bytes(words[(at - page) as usize / 8]))
    }
}
