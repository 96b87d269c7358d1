//! What a caller asks for, as far as it can be decoded without knowing the call.

use cowslip_abi::{Error, Handle, Rights};

use crate::object::{
    Endpoint, HandleEntry, Id, Kernel, Object, Place, Registers, Space, SpaceRoute, Thread,
};

/// A system call's registers.
pub(super) struct Request {
    /// Who asks.
    pub thread: Id<Thread>,
    /// On whose authority.
    pub space: Id<Space>,
    /// The call's number, whatever it is.
    pub number: u32,
    /// The handle that the call acts on.
    pub handle: Handle,
    /// `rdi rsi rdx r8 r9 r10`.
    pub args: [u64; 6],
}

impl Request {
    /// Reads the registers of the running thread.
    #[inline]
    pub(super) fn of(kernel: &Kernel) -> Option<Self> {
        Some(Self::by(kernel.current()?, kernel.threads.pinned()?))
    }

    /// The same of this thread.
    #[inline(always)]
    pub(super) fn by(thread: Id<Thread>, caller: &Thread) -> Self {
        let regs = &caller.regs;
        Self {
            thread,
            space: caller.space,
            number: regs.rax as u32,
            handle: Handle((regs.rax >> 32) as u32),
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r8, regs.r9, regs.r10],
        }
    }

    /// The entry of one of the caller's handles, whatever it names.
    pub(super) fn entry(&self, kernel: &Kernel, handle: Handle) -> Result<HandleEntry, Error> {
        kernel
            .spaces
            .get(self.space)
            .ok_or(Error::Died)?
            .handles
            .get(handle)
    }

    /// A handle to a live object of the type that `select` accepts, with these rights.
    fn typed<T>(
        &self,
        kernel: &Kernel,
        handle: Handle,
        rights: Rights,
        select: impl FnOnce(Object) -> Option<T>,
    ) -> Result<(T, HandleEntry), Error> {
        let entry = self.entry(kernel, handle)?;
        let object = select(entry.object).ok_or(Error::WrongType)?;
        entry.having(rights)?;
        if kernel.is_alive(entry.object) {
            Ok((object, entry))
        } else {
            Err(Error::Died)
        }
    }

    /// An endpoint and the handle's badge.
    pub(super) fn endpoint(
        &self,
        kernel: &Kernel,
        handle: Handle,
        rights: Rights,
    ) -> Result<(Id<Endpoint>, u64), Error> {
        let (endpoint, entry) = self.typed(kernel, handle, rights, endpoint_of)?;
        Ok((endpoint, entry.badge))
    }

    /// An endpoint and the [badge](HandleEntry::badge_for) that is asked for, or nothing for the handle 0. The handle
    /// number is an argument, and must fit one.
    pub(super) fn optional_endpoint(
        &self,
        kernel: &Kernel,
        argument: u64,
        rights: Rights,
        badge: u64,
    ) -> Result<Option<(Id<Endpoint>, u64)>, Error> {
        let handle = handle_argument(argument)?;
        if handle.is_none() {
            return Ok(None);
        }
        let (endpoint, entry) = self.typed(kernel, handle, rights, endpoint_of)?;
        Ok(Some((endpoint, entry.badge_for(badge)?)))
    }

    /// The way to the space that the call acts on.
    #[inline]
    pub(super) fn space(&self, kernel: &mut Kernel, rights: Rights) -> Result<SpaceRoute, Error> {
        self.space_at(kernel, Place::Handle, self.handle, rights)
    }

    /// The way to a space named by an argument, or nothing for the handle 0.
    pub(super) fn optional_space(
        &self,
        kernel: &mut Kernel,
        argument: u64,
        rights: Rights,
    ) -> Result<Option<SpaceRoute>, Error> {
        let handle = handle_argument(argument)?;
        if handle.is_none() {
            return Ok(None);
        }
        self.space_at(kernel, Place::Argument, handle, rights)
            .map(Some)
    }

    /// The way to a space named by an argument; 0 is the caller's own, with all rights.
    #[inline]
    pub(super) fn space_or_own(
        &self,
        kernel: &mut Kernel,
        argument: u64,
        rights: Rights,
    ) -> Result<SpaceRoute, Error> {
        match self.optional_space(kernel, argument, rights)? {
            Some(route) => Ok(route),
            None => kernel.own_space(self.space).ok_or(Error::Died),
        }
    }

    #[inline(always)]
    fn space_at(
        &self,
        kernel: &mut Kernel,
        place: Place,
        handle: Handle,
        rights: Rights,
    ) -> Result<SpaceRoute, Error> {
        match kernel.known_space(place, handle, rights) {
            Some(route) => Ok(route),
            None => self.find_space(kernel, place, handle, rights),
        }
    }

    #[inline(never)]
    fn find_space(
        &self,
        kernel: &mut Kernel,
        place: Place,
        handle: Handle,
        rights: Rights,
    ) -> Result<SpaceRoute, Error> {
        let (id, entry) = self.typed(kernel, handle, rights, |object| match object {
            Object::Space(id) => Some(id),
            _ => None,
        })?;
        let route = kernel.note_space(place, handle, entry.rights, id);
        route.ok_or(Error::Died)
    }

    /// A thread.
    pub(super) fn thread(&self, kernel: &Kernel, rights: Rights) -> Result<Id<Thread>, Error> {
        let thread = self.typed(kernel, self.handle, rights, |object| match object {
            Object::Thread(id) => Some(id),
            _ => None,
        });
        thread.map(|(id, _)| id)
    }

    /// The badge of a handle to an object that is not in a pool.
    pub(super) fn machine(
        &self,
        kernel: &Kernel,
        object: Object,
        rights: Rights,
    ) -> Result<u64, Error> {
        let select = |found| (found == object).then_some(());
        self.typed(kernel, self.handle, rights, select)
            .map(|((), entry)| entry.badge)
    }
}

fn endpoint_of(object: Object) -> Option<Id<Endpoint>> {
    match object {
        Object::Endpoint(id) => Some(id),
        _ => None,
    }
}

/// A handle in an argument register.
pub(super) fn handle_argument(argument: u64) -> Result<Handle, Error> {
    u32::try_from(argument)
        .map(Handle)
        .map_err(|_| Error::BadHandle)
}

/// Results, in the order of the result registers.
pub(super) struct Values {
    values: [u64; 10],
    count: usize,
}

impl Values {
    /// These results.
    pub(super) fn of<const N: usize>(values: [u64; N]) -> Self {
        let mut all = [0; 10];
        all[..N].copy_from_slice(&values);
        Self {
            values: all,
            count: N,
        }
    }

    /// Success with these results.
    pub(super) fn store(&self, regs: &mut Registers) {
        regs.rax = 0;
        let targets = [
            &mut regs.rdi,
            &mut regs.rsi,
            &mut regs.rdx,
            &mut regs.r8,
            &mut regs.r9,
            &mut regs.r10,
            &mut regs.r12,
            &mut regs.r13,
            &mut regs.r14,
            &mut regs.r15,
        ];
        for (target, value) in targets.into_iter().zip(self.values).take(self.count) {
            *target = value;
        }
    }
}
