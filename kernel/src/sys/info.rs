//! The calls that ask about the system, write its log, and end it.

use cowslip_abi::{Error, InfoTopic, Rights, ThreadState};

use super::request::{Request, Values};
use super::{Answer, Done, inspect};
use crate::object::{Kernel, Object};
#[cfg(any(not(target_os = "none"), debug_assertions))]
use crate::vm::audit::Stopped;
use crate::vm::{self, ByteRange, NO_BUDGET};

/// The longest text that one call logs, in bytes.
const MAX_LOG: u64 = 1024;

pub(super) fn info(kernel: &mut Kernel, request: &Request) -> Answer {
    let topic = InfoTopic::from_user(request.args[0]).ok_or(Error::BadArgument)?;
    if matches!(
        topic,
        InfoTopic::Memory
            | InfoTopic::Space
            | InfoTopic::Commit
            | InfoTopic::Promise
            | InfoTopic::Audit
            | InfoTopic::Range
            | InfoTopic::Pages
    ) {
        kernel.settle_memory();
    }
    let values = match topic {
        InfoTopic::Clock => Values::of([
            kernel.platform.now_ns(),
            kernel.platform.ticks_per_s(),
            kernel.cpus.online_set(),
        ]),
        InfoTopic::Memory => {
            request.machine(kernel, Object::System, Rights::OBSERVE)?;
            // What waits to be worked off would be neither free nor in use.
            if !vm::reap(kernel.mm) {
                return Ok(Done::Again);
            }
            memory(kernel)
        }
        InfoTopic::Space => match space(kernel, request)? {
            Some(values) => values,
            None => return Ok(Done::Again),
        },
        InfoTopic::Thread => thread(kernel, request)?,
        InfoTopic::Commit => commit(kernel, request)?,
        InfoTopic::Promise => {
            request.machine(kernel, Object::System, Rights::OBSERVE)?;
            // Frames promised to a space that has ended are given back as its tables are worked off.
            if !vm::reap(kernel.mm) {
                return Ok(Done::Again);
            }
            Values::of([kernel.mm.frames.promised().max(0) as u64])
        }
        InfoTopic::Member => inspect::member(kernel, request)?,
        InfoTopic::Endpoint => inspect::endpoint(kernel, request)?,
        InfoTopic::Range => inspect::range(kernel, request)?,
        InfoTopic::Pages => inspect::pages(kernel, request)?,
        InfoTopic::Registers => inspect::registers(kernel, request)?,
        InfoTopic::Audit => {
            #[cfg(any(not(target_os = "none"), debug_assertions))]
            return audit(kernel, request);
            #[cfg(not(any(not(target_os = "none"), debug_assertions)))]
            return Err(Error::BadArgument);
        }
    };
    Ok(values.into())
}

#[cfg(any(not(target_os = "none"), debug_assertions))]
fn audit(kernel: &Kernel, request: &Request) -> Answer {
    request.machine(kernel, Object::System, Rights::OBSERVE)?;
    if !vm::reap(kernel.mm) {
        return Ok(Done::Again);
    }
    let words = match kernel.audit() {
        Ok(()) => [0; 4],
        Err(Stopped::At(flaw)) => flaw.to_words(),
        Err(Stopped::OutOfMemory) => return Err(Error::NoMemory),
    };
    Ok(Values::of(words).into())
}

fn memory(kernel: &Kernel) -> Values {
    let mm = kernel.mm;
    Values::of([
        mm.frames.total_count(),
        mm.frames.free_count(),
        mm.counts.shared(),
        mm.counts.nodes(),
        mm.stats.copied.get(),
        mm.stats.remapped.get(),
        mm.stats.cow_broken.get(),
        mm.stats.reclaimed.get(),
        mm.stats.zero_filled.get(),
        mm.stats.freed.get(),
    ])
}

/// What a space consists of. `None`: there is more of it than is counted in one step.
fn space(kernel: &mut Kernel, request: &Request) -> Result<Option<Values>, Error> {
    let id = inspect::space(kernel, request)?;
    let Some(space) = kernel.spaces.get(id) else {
        return Ok(Some(Values::of([0; 8])));
    };
    let mut long = kernel.long(request.thread);
    long.done = space
        .table
        .count_some(kernel.mm, long.done, &mut long.stats);
    let pages = long.stats;
    let is_done = long.done >= vm::USER_END;
    let values = Values::of([
        1,
        pages.private,
        pages.cow_shared,
        pages.shared,
        pages.zero,
        pages.tables,
        space.nr_threads.into(),
        space.handles.len() as u64,
    ]);
    kernel.note_long(request.thread, long);
    Ok(is_done.then_some(values))
}

fn commit(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let id = inspect::space(kernel, request)?;
    let Some(space) = kernel.spaces.get(id) else {
        return Ok(Values::of([0; 5]));
    };
    let budget = match space.table.budget() {
        NO_BUDGET => 0,
        nr_frames => nr_frames,
    };
    Ok(Values::of([
        1,
        space.table.class() as u64,
        space.table.commit(),
        budget,
        id.number(),
    ]))
}

fn thread(kernel: &Kernel, request: &Request) -> Result<Values, Error> {
    let entry = request.entry(kernel, request.handle)?;
    let Object::Thread(id) = entry.object else {
        return Err(Error::WrongType);
    };
    entry.having(Rights::READ)?;
    let Some(thread) = kernel.threads.get(id) else {
        return Ok(Values::of([ThreadState::Dead as u64, 0, 0, 0]));
    };
    Ok(Values::of([
        thread.abi_state() as u64,
        inspect::run_ns(kernel, id).unwrap_or(0),
        thread.base_priority.into(),
        thread.priority.into(),
    ]))
}

pub(super) fn log(kernel: &mut Kernel, request: &Request) -> Answer {
    request.machine(kernel, Object::System, Rights::OBSERVE)?;
    kernel.settle_memory();
    let [text, len, ..] = request.args;
    let text = ByteRange::from_user(text, len, MAX_LOG)?;
    let table = &kernel.spaces.get(request.space).ok_or(Error::Died)?.table;
    let mut bytes = [0; MAX_LOG as usize];
    let bytes = &mut bytes[..text.len() as usize];
    vm::read_user(kernel.mm, table, text.addr(), bytes)?;
    kernel.platform.log(bytes);
    Ok(Done::Nothing)
}

pub(super) fn shutdown(kernel: &mut Kernel, request: &Request) -> Answer {
    request.machine(kernel, Object::System, Rights::POWER)?;
    kernel.platform.shutdown(request.args[0]);
    Ok(Done::InPlace)
}
