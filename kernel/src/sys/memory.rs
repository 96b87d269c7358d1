//! The calls on spaces and their memory.

use cowslip_abi::{
    Call, Commit, Error, Handle, MAX_RANGE, PAGE_SIZE, Perm, Rights, ShareMode, SpaceField,
};

use super::request::{Request, handle_argument};
use super::{Answer, Done};
use crate::mm::{Mm, PerClass};
use crate::object::{Here, Id, Kernel, Object, Place, Registers, Space, SpaceRoute, Work};
use crate::trace;
use crate::vm::{
    self, Beginning, ByteRange, Effort, Locked, NO_BUDGET, PageRange, PageTable, Sharing,
};

const PAGE: u64 = PAGE_SIZE as u64;

pub(super) fn space_create(kernel: &mut Kernel, request: &Request) -> Answer {
    request.machine(kernel, Object::System, Rights::CREATE)?;
    let [death, death_badge, like, ..] = request.args;
    let death = request.optional_endpoint(kernel, death, Rights::NOTIFY, death_badge)?;
    let like = request.optional_space(kernel, like, Rights::READ)?;
    let space = kernel.create_space(Some(request.space), death)?;
    if let Some(like) = like {
        kernel.inherit_terms(space, like);
    }
    match kernel.install(request.space, Object::Space(space), Rights::SPACE, 0) {
        Ok(handle) => Ok(Done::Handle(handle)),
        Err(error) => {
            kernel.discard_space(space);
            Err(error)
        }
    }
}

pub(super) fn space_set(kernel: &mut Kernel, request: &Request) -> Answer {
    kernel.settle_memory();
    let route = request.space(kernel, Rights::MAP)?;
    let (id, space) = kernel.space_at(route)?;
    let [field, value, b, c, ..] = request.args;
    // Nobody else has a use for names.
    let is_known = |field: &SpaceField| trace::IS_ON || *field != SpaceField::Name;
    let field = SpaceField::from_user(field).filter(is_known);
    match field.ok_or(Error::BadArgument)? {
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
        SpaceField::Name => trace::space_named(id.number(), [value, b, c]),
    }
    Ok(Done::Nothing)
}

impl Kernel {
    /// Gives a new space the class and the budget of another one.
    fn inherit_terms(&mut self, id: Id<Space>, from: SpaceRoute) {
        if let Some(new) = self.spaces.get(id)
            && let Ok((like_id, like)) = self.space_at(from)
        {
            new.table.take_terms(&like.table);
            trace::space_like(id.number(), like_id.number());
        }
    }
}

/// Carries out the call of the running thread, which is one of the four on memory, and returns its
/// registers with the result. Such a call neither waits nor lets another thread run. `None`: it takes
/// more than one step, and nothing has happened.
#[inline(always)]
pub fn memory_call(kernel: &mut Kernel) -> Option<&Registers> {
    let result = at_once(kernel, &Request::of(kernel)?);
    if matches!(result, Ok(false) | Err(Error::NoMemory)) {
        return None;
    }
    let regs = &mut kernel.threads.pinned_mut()?.regs;
    regs.rax = result.map_or_else(|error| error as u64, |_| 0);
    Some(regs)
}

/// Such a call whose page tables are locked, so that it can be made [apart](crate::sync::Apart) from the kernel.
pub struct LockedCall<'k> {
    mm: &'static Mm,
    request: Request,
    table: Locked<'k>,
    /// The source of a `share`, if it is another one.
    source: Option<Locked<'k>>,
}

impl<'k> LockedCall<'k> {
    /// Locks what the call of the running thread is about. `None`: it is in use elsewhere, or something is wrong with the call.
    pub fn of(here: &Here<'k>) -> Option<Self> {
        let request = Request::by(here.running.id()?, here.running.get()?);
        let table = named_table(here, &request, request.handle, Rights::MAP)?;
        let source = if request.number == Call::Share as u32 {
            source_table(here, &request)?
        } else {
            table
        };
        let is_other = source.root() != table.root();
        Some(Self {
            mm: here.mm,
            request,
            table: table.try_lock()?,
            source: if is_other {
                Some(source.try_lock()?)
            } else {
                None
            },
        })
    }

    /// Makes the call, for which 0 is to be returned. `None`: it takes more than one step, or something is wrong with it, and nothing
    /// has happened.
    pub fn make(&self) -> Option<()> {
        const MAP: u32 = Call::Map as u32;
        const UNMAP: u32 = Call::Unmap as u32;
        const PROTECT: u32 = Call::Protect as u32;
        const SHARE: u32 = Call::Share as u32;
        let Self {
            mm, request, table, ..
        } = self;
        let [addr, len, ..] = request.args;
        match request.number {
            MAP => {
                let (range, perm) = range_and_perm(request, u64::MAX).ok()?;
                table.map_zero(mm, range.addr(), range.len(), perm).ok()
            }
            UNMAP => {
                let range = PageRange::from_user(addr, len, u64::MAX).ok()?;
                table.unmap(mm, range.addr(), range.len()).ok()?;
                vm::reap(mm);
                Some(())
            }
            PROTECT => {
                let (range, perm) = range_and_perm(request, MAX_RANGE).ok()?;
                let (limit, addr, len) = (Effort::STEP, range.addr(), range.len());
                let is_done = table.protect_within(mm, limit, addr, len, perm).ok()?;
                is_done.then_some(())
            }
            SHARE => self.fork(),
            _ => None,
        }
    }

    /// A `share` that is copy-on-write, and where all pages keep their rights.
    fn fork(&self) -> Option<()> {
        let [_, from, to, len, mode, perm] = self.request.args;
        if mode != ShareMode::CopyOnWrite as u64 || perm != 0 {
            return None;
        }
        let sharing = Sharing {
            mm: self.mm,
            dst: &self.table,
            to: PageRange::from_user(to, len, u64::MAX).ok()?.addr(),
            src: self.source.as_ref().unwrap_or(&self.table),
            from: PageRange::from_user(from, len, u64::MAX).ok()?.addr(),
            len,
            mode: ShareMode::CopyOnWrite,
            perm: None,
        };
        sharing.at_once().ok()?.then_some(())
    }
}

/// The page table of the space that a handle of the caller names, which has these rights.
fn named_table<'k>(
    here: &Here<'k>,
    request: &Request,
    handle: Handle,
    rights: Rights,
) -> Option<&'k PageTable> {
    let home = here.spaces.get(request.space)?;
    let (_, entry) = home.handles.find(handle)?;
    match entry.object {
        Object::Space(id) if entry.rights.contains(rights) => {
            Some(&here.spaces.get_beside(id)?.table)
        }
        _ => None,
    }
}

/// That of the space from which a `share` takes.
fn source_table<'k>(here: &Here<'k>, request: &Request) -> Option<&'k PageTable> {
    let handle = handle_argument(request.args[0]).ok()?;
    if handle.is_none() {
        Some(&here.spaces.get(request.space)?.table)
    } else {
        named_table(here, request, handle, Rights::READ)
    }
}

/// Carries out the `map` of the running thread, for which its length must be a page, if it takes no more
/// than an entry in a table that is there. Returns the thread's registers, but for `rax`, which is to be 0.
/// `None`: it takes more, or something is wrong with it, and nothing has happened.
#[inline(always)]
pub fn map_page(kernel: &Kernel) -> Option<&Registers> {
    let (regs, addr, table) = one_page(kernel)?;
    let perm = Perm::from_user(regs.rdx)?;
    table.map_page(kernel.mm, addr, perm).then_some(regs)
}

/// The same for an `unmap`, if its page's table stays, and nothing dead is to be worked off.
#[inline(always)]
pub fn unmap_page(kernel: &Kernel) -> Option<&Registers> {
    let (regs, addr, table) = one_page(kernel)?;
    let is_done = kernel.mm.dead.is_empty() && table.unmap_page(kernel.mm, addr);
    is_done.then_some(regs)
}

/// The registers of the running thread, and what its call of `map` or `unmap` is about if that is one
/// page, and it is known in which space.
#[inline(always)]
fn one_page(kernel: &Kernel) -> Option<(&Registers, u64, &PageTable)> {
    let regs = &kernel.threads.pinned()?.regs;
    let (addr, len) = (regs.rdi, regs.rsi);
    debug_assert!(len == PAGE);
    if !addr.is_multiple_of(PAGE) || !ByteRange::is_good(addr, PAGE) {
        return None;
    }
    let space = Handle((regs.rax >> 32) as u32);
    let space = kernel.known_space(Place::Handle, space, Rights::MAP)?;
    Some((regs, addr, table(kernel, space).ok()?))
}

/// Carries out the `share` of the running thread, for which its length must be a page, if it maps shared
/// memory once more: what a pager does about most faults. Returns the thread's registers, but for `rax`,
/// which is to be 0. `None`: it is another share, or something is wrong with it, and nothing has happened.
#[inline(always)]
pub fn share_page(kernel: &Kernel) -> Option<&Registers> {
    let regs = &kernel.threads.pinned()?.regs;
    let to_space = Handle((regs.rax >> 32) as u32);
    let from_space = Handle(regs.rdi as u32);
    let (from, to, mode) = (regs.rsi, regs.rdx, regs.r9);
    // No less than each of the two, and aligned if both are.
    let either = from | to;
    debug_assert!(regs.r8 == PAGE);
    if mode != ShareMode::Shared as u64
        || regs.rdi != from_space.0.into()
        || !either.is_multiple_of(PAGE)
        || !ByteRange::is_good(either, PAGE)
    {
        return None;
    }
    let perm = Perm::from_user(regs.r10)?;
    let to_space = kernel.known_space(Place::Handle, to_space, Rights::MAP)?;
    let rights = Rights::READ | Rights::MAP;
    let from_space = kernel.known_space(Place::Argument, from_space, rights)?;
    let (dst, src) = (
        table(kernel, to_space).ok()?,
        table(kernel, from_space).ok()?,
    );
    let is_done =
        dst.root() != src.root() && vm::share_in_place(kernel.mm, dst, to, src, from, perm);
    is_done.then_some(regs)
}

/// Returns whether it is done, which takes more than one step otherwise.
#[inline(always)]
fn at_once(kernel: &mut Kernel, request: &Request) -> Result<bool, Error> {
    const MAP: u32 = Call::Map as u32;
    const UNMAP: u32 = Call::Unmap as u32;
    const PROTECT: u32 = Call::Protect as u32;
    const SHARE: u32 = Call::Share as u32;
    match request.number {
        MAP => map(kernel, request).map(|()| true),
        UNMAP => unmap(kernel, request).map(|()| true),
        PROTECT => Protecting::asked_for(kernel, request)?.at_once(),
        SHARE => Sharing::asked_for(kernel, request)?.at_once(),
        _ => Err(Error::UnknownCall),
    }
}

/// The same, a step at a time.
pub(super) fn in_steps(kernel: &mut Kernel, request: &Request) -> Answer {
    kernel.settle_memory();
    let mut long = kernel.long(request.thread);
    let mm = kernel.mm;
    let result = match Call::from_number(request.number) {
        Some(Call::Protect) => {
            let work = Protecting::asked_for(kernel, request)?;
            long.step(mm, &work)
        }
        Some(Call::Share) => {
            let work = Sharing::asked_for(kernel, request)?;
            long.step(mm, &work)
        }
        _ => at_once(kernel, request),
    };
    kernel.set_long(request.thread, long);
    let is_done = result?;
    vm::reap(mm);
    Ok(if is_done { Done::Nothing } else { Done::Again })
}

#[inline(always)]
fn map(kernel: &mut Kernel, request: &Request) -> Result<(), Error> {
    let space = request.space(kernel, Rights::MAP)?;
    let (range, perm) = range_and_perm(request, u64::MAX)?;
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

/// What a call of `protect` is about.
struct Protecting<'k> {
    mm: &'k Mm,
    table: &'k PageTable,
    addr: u64,
    len: u64,
    perm: Perm,
}

impl<'k> Protecting<'k> {
    #[inline(always)]
    fn asked_for(kernel: &'k mut Kernel, request: &Request) -> Result<Self, Error> {
        let space = request.space(kernel, Rights::MAP)?;
        let (range, perm) = range_and_perm(request, MAX_RANGE)?;
        Ok(Self {
            mm: kernel.mm,
            table: table(kernel, space)?,
            addr: range.addr(),
            len: range.len(),
            perm,
        })
    }
}

impl Work for Protecting<'_> {
    type Error = Error;

    fn nr_bytes(&self) -> u64 {
        self.len
    }

    #[inline(always)]
    fn at_once(&self) -> Result<bool, Error> {
        let limit = Effort::STEP;
        self.table
            .protect_within(self.mm, limit, self.addr, self.len, self.perm)
    }

    fn check(&self, done: u64) -> Result<Beginning, Error> {
        let (addr, rest) = (self.addr + done, self.len - done);
        self.table
            .check_protect(self.mm, Effort::STEP, addr, rest, self.perm)
    }

    fn perform(&self, done: u64, aside: &mut PerClass) -> Result<u64, Error> {
        let (addr, rest) = (self.addr + done, self.len - done);
        self.table
            .protect_some(self.mm, Effort::STEP, addr, rest, self.perm, aside)
    }
}

impl<'k> Sharing<'k> {
    /// What a call of `share` is about.
    #[inline(always)]
    fn asked_for(kernel: &'k mut Kernel, request: &Request) -> Result<Self, Error> {
        let [from_space, from, to, len, mode, perm] = request.args;
        let to_space = request.space(kernel, Rights::MAP)?;
        // Which rights the source needs depends on two arguments, which come after number, type and
        // life of its handle.
        let from_space = request.space_or_own(kernel, from_space, Rights::empty())?;
        let mode = ShareMode::from_user(mode).ok_or(Error::BadArgument)?;
        let perm = match perm {
            0 => None,
            bits => Some(Perm::from_user(bits).ok_or(Error::BadArgument)?),
        };
        let may_write = perm.is_none_or(|perm| perm.contains(Perm::WRITE));
        let from_space = from_space.having(match mode {
            ShareMode::CopyOnWrite => Rights::READ,
            ShareMode::Shared if !may_write => Rights::READ,
            ShareMode::Shared => Rights::READ | Rights::MAP,
            ShareMode::Move => Rights::MAP,
        })?;

        let source = PageRange::from_user(from, len, u64::MAX)?;
        let target = PageRange::from_user(to, len, u64::MAX)?;
        Ok(Self {
            mm: kernel.mm,
            dst: table(kernel, to_space)?,
            to: target.addr(),
            src: table(kernel, from_space)?,
            from: source.addr(),
            len,
            mode,
            perm,
        })
    }
}

impl Work for Sharing<'_> {
    type Error = Error;

    fn nr_bytes(&self) -> u64 {
        self.len
    }

    #[inline(always)]
    fn at_once(&self) -> Result<bool, Error> {
        self.share_within(Effort::STEP)
    }

    fn check(&self, done: u64) -> Result<Beginning, Error> {
        Sharing::check(self, done, Effort::STEP)
    }

    fn check_charge(&self, charge: u64) -> Result<(), Error> {
        self.dst.check_budget(charge)
    }

    fn perform(&self, done: u64, aside: &mut PerClass) -> Result<u64, Error> {
        self.share_some(done, Effort::STEP, aside)
    }
}

#[inline(always)]
fn range_and_perm(request: &Request, max: u64) -> Result<(PageRange, Perm), Error> {
    let [addr, len, perm, ..] = request.args;
    let range = PageRange::from_user(addr, len, max)?;
    Ok((range, Perm::from_user(perm).ok_or(Error::BadArgument)?))
}

#[inline(always)]
fn table(kernel: &Kernel, space: SpaceRoute) -> Result<&PageTable, Error> {
    Ok(&kernel.space_at(space)?.1.table)
}
