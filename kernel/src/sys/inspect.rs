//! The topics of `info` that say what programs do: whom a thread waits for, what lies where in a space.
//!
//! They tell objects by [numbers](Id::number), which name nothing: who has one can compare it with others. Each takes a bounded
//! number of steps, however large a space is; a caller that wants all of it asks again, from where the last answer ends.

use cowslip_abi::{Error, Rights};

use super::request::{Request, Values};
use crate::mm::phys::FRAME_SIZE;
use crate::object::{Id, Kernel, Object, Space, Thread};
use crate::vm::{SpaceStats, TABLE_SPAN, USER_END};

/// The space that a request is about, alive or not.
pub(super) fn space(kernel: &Kernel, request: &Request) -> Result<Id<Space>, Error> {
    let entry = request.entry(kernel, request.handle)?;
    let Object::Space(id) = entry.object else {
        return Err(Error::WrongType);
    };
    entry.having(Rights::READ)?;
    Ok(id)
}

/// The thread of a space that was created next after another one.
pub(super) fn member(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let id = space(kernel, request)?;
    let Some(space) = kernel.spaces.get(id) else {
        return Ok(Values::of([0; 9]));
    };
    let next = match request.args[1] {
        0 => space.threads.first(),
        number => {
            let last = kernel.member(id, number).ok_or(Error::Died)?;
            space.threads.after(&kernel.threads, last)
        }
    };
    let told = next.and_then(|next| about(kernel, next));
    Ok(Values::of(told.unwrap_or_default()))
}

fn about(kernel: &Kernel, id: Id<Thread>) -> Option<[u64; 9]> {
    let (thread, waits) = (kernel.threads.get(id)?, kernel.waits(id)?);
    Some([
        id.number(),
        thread.abi_state() as u64,
        run_ns(kernel, id)?,
        thread.priority.into(),
        waits.endpoint,
        waits.thread,
        waits.space,
        kernel.served_by(id),
        waits.until_ns,
    ])
}

/// How long a thread has run, in nanoseconds.
pub(super) fn run_ns(kernel: &Kernel, id: Id<Thread>) -> Option<u64> {
    let runs = kernel.cpu_of(id).is_some();
    let now_ticks = runs.then(|| kernel.platform.now_ticks());
    let ticks = kernel.threads.get(id)?.ticks_run(now_ticks);
    Some(kernel.platform.ticks_to_ns(ticks))
}

pub(super) fn endpoint(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let entry = request.entry(kernel, request.handle)?;
    let Object::Endpoint(id) = entry.object else {
        return Err(Error::WrongType);
    };
    entry.having(Rights::SEND)?;
    if kernel.endpoints.get(id).is_none() {
        return Ok(Values::of([0; 3]));
    }
    let (thread, space) = kernel.whom(kernel.last_receiver(id));
    let space = space.map_or(0, Id::number);
    Ok(Values::of([id.number(), thread, space]))
}

pub(super) fn range(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let id = space(kernel, request)?;
    let addr = place(request.args[1], FRAME_SIZE)?;
    let Some(space) = kernel.spaces.get(id) else {
        return Ok(Values::of([0; 5]));
    };
    let piece = space.table.piece(kernel.mm, addr);
    Ok(Values::of([
        piece.end,
        piece.kind as u64,
        piece.perm.bits(),
        piece.sharers,
        piece.shared_table,
    ]))
}

pub(super) fn pages(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let id = space(kernel, request)?;
    let addr = place(request.args[1], TABLE_SPAN)?;
    let Some(space) = kernel.spaces.get(id) else {
        return Ok(Values::of([0; 6]));
    };
    let mut counted = SpaceStats::default();
    let end = space.table.count_some(kernel.mm, addr, &mut counted);
    Ok(Values::of([
        end.min(USER_END),
        counted.private,
        counted.cow_shared,
        counted.shared,
        counted.zero,
        counted.tables,
    ]))
}

/// An address where a topic may begin.
fn place(addr: u64, unit: u64) -> Result<u64, Error> {
    if addr >= USER_END {
        return Err(Error::BadArgument);
    }
    if addr.is_multiple_of(unit) {
        Ok(addr)
    } else {
        Err(Error::Unaligned)
    }
}

/// Where a thread is: what it takes to follow its stack.
pub(super) fn registers(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let id = space(kernel, request)?;
    if kernel.spaces.get(id).is_none() {
        return Ok(Values::of([0; 3]));
    }
    let thread = kernel.member(id, request.args[1]).ok_or(Error::Died)?;
    let regs = kernel.threads.get(thread).ok_or(Error::Died)?.regs;
    Ok(Values::of([regs.rip, regs.rsp, regs.rbp]))
}
