//! The calls on spaces and their memory.

use cowslip_abi::{Call, Commit, Error, MAX_RANGE, Perm, Rights, ShareMode, SpaceField};

use super::request::{Request, Values};
use super::{Answer, Done};
use crate::object::{Kernel, Object, Registers, SpaceRoute};
use crate::vm::{self, NO_BUDGET, PageRange, PageTable};

pub(super) fn space_create(kernel: &mut Kernel, request: &Request) -> Answer {
    request.machine(kernel, Object::System, Rights::CREATE)?;
    let death = request.optional_endpoint(kernel, request.args[0], Rights::NOTIFY)?;
    let space = kernel.create_space(Some(request.space), death)?;
    match kernel.install(request.space, Object::Space(space), Rights::SPACE, 0) {
        Ok(handle) => Ok(Values::of([handle.0.into()]).into()),
        Err(error) => {
            kernel.discard_space(space);
            Err(error)
        }
    }
}

pub(super) fn space_set(kernel: &mut Kernel, request: &Request) -> Answer {
    let route = request.space(kernel, Rights::MAP)?;
    let (id, space) = kernel.space_at(route)?;
    let [field, value, ..] = request.args;
    match SpaceField::from_user(field).ok_or(Error::BadArgument)? {
        SpaceField::Class => {
            let class = Commit::from_user(value).ok_or(Error::BadArgument)?;
            space.table.set_class(class)?;
        }
        SpaceField::Budget => {
            let budget = match value {
                0 => NO_BUDGET,
                nr_frames => nr_frames,
            };
            // A limit that its subject could lift would be none.
            if id == request.space && budget > space.table.budget() {
                return Err(Error::Denied);
            }
            space.table.set_budget(budget);
        }
    }
    Ok(Done::Nothing)
}

/// Carries out the call of the running thread, which is one of the four on memory, and returns its
/// registers with the result. Such a call neither waits nor lets another thread run.
#[inline(always)]
pub fn memory_call(kernel: &mut Kernel) -> Option<&Registers> {
    const MAP: u32 = Call::Map as u32;
    const UNMAP: u32 = Call::Unmap as u32;
    const PROTECT: u32 = Call::Protect as u32;
    const SHARE: u32 = Call::Share as u32;
    let result = match kernel.threads.pinned()?.regs.rax as u32 {
        MAP => map(kernel, &Request::of(kernel)?),
        UNMAP => unmap(kernel, &Request::of(kernel)?),
        PROTECT => protect(kernel, &Request::of(kernel)?),
        SHARE => share(kernel, &Request::of(kernel)?),
        _ => Err(Error::UnknownCall),
    };
    let regs = &mut kernel.threads.pinned_mut()?.regs;
    regs.rax = result.map_or_else(|error| error as u64, |()| 0);
    Some(regs)
}

#[inline(always)]
fn map(kernel: &mut Kernel, request: &Request) -> Result<(), Error> {
    let space = request.space(kernel, Rights::MAP)?;
    let (range, perm) = range_and_perm(request)?;
    table(kernel, space)?.map_zero(kernel.mm, range.addr(), range.len(), perm)
}

#[inline(always)]
fn unmap(kernel: &mut Kernel, request: &Request) -> Result<(), Error> {
    let space = request.space(kernel, Rights::MAP)?;
    let range = PageRange::from_user(request.args[0], request.args[1], u64::MAX)?;
    table(kernel, space)?.unmap(kernel.mm, range.addr(), range.len())?;
    vm::reap(kernel.mm);
    Ok(())
}

#[inline(always)]
fn protect(kernel: &mut Kernel, request: &Request) -> Result<(), Error> {
    let space = request.space(kernel, Rights::MAP)?;
    let (range, perm) = range_and_perm(request)?;
    table(kernel, space)?.protect(kernel.mm, range.addr(), range.len(), perm)
}

#[inline(always)]
fn share(kernel: &mut Kernel, request: &Request) -> Result<(), Error> {
    let [from_space, from, to, len, mode, perm] = request.args;
    let to_space = request.space(kernel, Rights::MAP)?;
    // Which rights the source needs depends on two arguments, which come after number, type and life
    // of its handle.
    let from_space = request.space_or_own(kernel, from_space, Rights::empty())?;
    let mode = ShareMode::from_user(mode).ok_or(Error::BadArgument)?;
    let perm = match perm {
        0 => None,
        bits => Some(Perm::from_user(bits).ok_or(Error::BadArgument)?),
    };
    let from_space = from_space.having(match mode {
        ShareMode::CopyOnWrite => Rights::READ,
        ShareMode::Shared if perm.is_some_and(|perm| !perm.contains(Perm::WRITE)) => Rights::READ,
        ShareMode::Shared => Rights::READ | Rights::MAP,
        ShareMode::Move => Rights::MAP,
    })?;

    let source = PageRange::from_user(from, len, u64::MAX)?;
    let target = PageRange::from_user(to, len, u64::MAX)?;
    let (to_table, from_table) = (table(kernel, to_space)?, table(kernel, from_space)?);
    vm::share(
        kernel.mm,
        to_table,
        target.addr(),
        from_table,
        source.addr(),
        source.len(),
        mode,
        perm,
    )
}

#[inline(always)]
fn range_and_perm(request: &Request) -> Result<(PageRange, Perm), Error> {
    let [addr, len, perm, ..] = request.args;
    let range = PageRange::from_user(addr, len, MAX_RANGE)?;
    Ok((range, Perm::from_user(perm).ok_or(Error::BadArgument)?))
}

#[inline(always)]
fn table(kernel: &Kernel, space: SpaceRoute) -> Result<&PageTable, Error> {
    Ok(&kernel.space_at(space)?.1.table)
}
