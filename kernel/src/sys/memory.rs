//! The calls on spaces and their memory.

use cowslip_abi::{Error, MAX_RANGE, Perm, Rights, ShareMode};

use super::request::{Request, Values};
use super::{Answer, Done};
use crate::object::{Id, Kernel, Object, Space};
use crate::vm::{self, PageRange, PageTable};

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

pub(super) fn map(kernel: &mut Kernel, request: &Request) -> Answer {
    let space = request.space(kernel, Rights::MAP)?;
    let (range, perm) = range_and_perm(request, u64::MAX)?;
    table(kernel, space)?.map_zero(kernel.mm, range.addr(), range.len(), perm)?;
    Ok(Done::Nothing)
}

pub(super) fn unmap(kernel: &mut Kernel, request: &Request) -> Answer {
    let space = request.space(kernel, Rights::MAP)?;
    let range = PageRange::from_user(request.args[0], request.args[1], u64::MAX)?;
    table(kernel, space)?.unmap(kernel.mm, range.addr(), range.len())?;
    Ok(Done::Nothing)
}

pub(super) fn protect(kernel: &mut Kernel, request: &Request) -> Answer {
    let space = request.space(kernel, Rights::MAP)?;
    let (range, perm) = range_and_perm(request, MAX_RANGE)?;
    table(kernel, space)?.protect(kernel.mm, range.addr(), range.len(), perm)?;
    Ok(Done::Nothing)
}

pub(super) fn share(kernel: &mut Kernel, request: &Request) -> Answer {
    let [from_space, from, to, len, mode, perm] = request.args;
    let to_space = request.space(kernel, Rights::MAP)?;
    // Which rights the source needs depends on two arguments, which come after number, type and life
    // of its handle.
    request.space_or_own(kernel, from_space, Rights::empty())?;
    let mode = ShareMode::from_user(mode).ok_or(Error::BadArgument)?;
    let perm = match perm {
        0 => None,
        bits => Some(Perm::from_user(bits).ok_or(Error::BadArgument)?),
    };
    let needed = match mode {
        ShareMode::CopyOnWrite => Rights::READ,
        ShareMode::Shared if perm.is_some_and(|perm| !perm.contains(Perm::WRITE)) => Rights::READ,
        ShareMode::Shared => Rights::READ | Rights::MAP,
        ShareMode::Move => Rights::MAP,
    };
    let from_space = request.space_or_own(kernel, from_space, needed)?;

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
    )?;
    Ok(Done::Nothing)
}

fn range_and_perm(request: &Request, max: u64) -> Result<(PageRange, Perm), Error> {
    let [addr, len, perm, ..] = request.args;
    let range = PageRange::from_user(addr, len, max)?;
    Ok((range, Perm::from_user(perm).ok_or(Error::BadArgument)?))
}

fn table(kernel: &Kernel, space: Id<Space>) -> Result<&PageTable, Error> {
    Ok(&kernel.spaces.get(space).ok_or(Error::Died)?.table)
}
