//! The calls on threads.

use cowslip_abi::{Error, Rights, ThreadField, USER_END};

use super::request::Request;
use super::{Answer, Done};
use crate::object::{
    Affinity, Id, Kernel, LINKS, MAX_PRIORITY, Object, Start, State, Supervisor, Thread,
};

pub(super) fn create(kernel: &mut Kernel, request: &Request) -> Answer {
    let space = request.space(kernel, Rights::MANAGE)?;
    let (space, _) = kernel.space_at(space)?;
    let [supervisor, priority, badge, ..] = request.args;
    let supervisor = request.optional_endpoint(kernel, supervisor, Rights::SEND, badge)?;
    let supervisor = supervisor.map(|(endpoint, badge)| Supervisor { endpoint, badge });
    let priority = allowed_priority(kernel, request, priority)?;

    let thread = kernel.create_thread(space, supervisor, priority)?;
    kernel.inherit_affinity(thread, request.thread);
    match kernel.install(request.space, Object::Thread(thread), Rights::THREAD, 0) {
        Ok(handle) => Ok(Done::Handle(handle)),
        Err(error) => {
            kernel.kill_thread(thread);
            Err(error)
        }
    }
}

pub(super) fn start(kernel: &mut Kernel, request: &Request) -> Answer {
    let thread = request.thread(kernel, Rights::MANAGE)?;
    kernel.start_thread(thread, &start_of(request)?)?;
    Ok(Done::Nothing)
}

/// What a thread shall begin with.
pub(super) fn start_of(request: &Request) -> Result<Start, Error> {
    let [ip, sp, arg0, arg1, arg2, fs_base] = request.args;
    for address in [ip, sp, fs_base] {
        user_address(address)?;
    }
    Ok(Start {
        ip,
        sp,
        args: [arg0, arg1, arg2],
        fs_base,
    })
}

pub(super) fn set(kernel: &mut Kernel, request: &Request) -> Answer {
    let thread = if request.handle.is_none() {
        request.thread
    } else {
        request.thread(kernel, Rights::MANAGE)?
    };
    let [field, value, ..] = request.args;
    match ThreadField::from_user(field).ok_or(Error::BadArgument)? {
        ThreadField::Priority => {
            let priority = allowed_priority(kernel, request, value)?;
            kernel.set_base_priority(thread, priority);
        }
        ThreadField::Affinity => {
            if value & kernel.cpus.online_set() == 0 {
                return Err(Error::BadArgument);
            }
            kernel.set_affinity(thread, value);
        }
        ThreadField::FsBase => {
            user_address(value)?;
            kernel.set_fs_base(thread, value)?;
        }
    }
    Ok(Done::Nothing)
}

pub(super) fn exit(kernel: &mut Kernel, request: &Request) -> Answer {
    kernel.kill_thread(request.thread);
    Ok(Done::InPlace)
}

pub(super) fn yield_now(kernel: &mut Kernel, request: &Request) -> Answer {
    let until_ns = request.args[0];
    if let Some(caller) = kernel.threads.pinned_mut() {
        caller.regs.rax = 0;
        if until_ns != 0 {
            caller.state = State::Sleeping;
            kernel.wait_until(request.thread, until_ns);
            return Ok(Done::InPlace);
        }
    }
    kernel.leave_cpu();
    kernel.make_runnable_last(request.thread);
    Ok(Done::InPlace)
}

pub(super) fn kill(kernel: &mut Kernel, request: &Request) -> Answer {
    let entry = request.entry(kernel, request.handle)?;
    match entry.object {
        Object::Thread(_) | Object::Space(_) => entry.having(Rights::MANAGE)?,
        _ => return Err(Error::WrongType),
    };
    if !kernel.is_alive(entry.object) {
        return Err(Error::Died);
    }
    match entry.object {
        Object::Thread(thread) => kernel.kill_thread(thread),
        Object::Space(space) => kernel.kill_space(space),
        _ => {}
    }
    Ok(Done::Nothing)
}

/// A priority that the caller may give.
fn allowed_priority(kernel: &Kernel, request: &Request, value: u64) -> Result<u8, Error> {
    let highest = kernel
        .threads
        .get(request.thread)
        .ok_or(Error::Died)?
        .base_priority;
    match u8::try_from(value) {
        Ok(priority) if priority <= highest => Ok(priority),
        Ok(priority) if priority <= MAX_PRIORITY => Err(Error::Denied),
        _ => Err(Error::BadArgument),
    }
}

/// An address that a thread may start with.
fn user_address(address: u64) -> Result<(), Error> {
    const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
    match address {
        0..USER_END => Ok(()),
        KERNEL_HALF.. => Err(Error::KernelAddress),
        _ => Err(Error::NonCanonical),
    }
}

impl Kernel {
    /// Changes a thread's own priority.
    fn set_base_priority(&mut self, id: Id<Thread>, priority: u8) {
        if let Some(thread) = self.threads.get_mut(id) {
            thread.base_priority = priority;
            self.unsettle(id, LINKS);
        }
    }

    /// Lets a new thread run where its creator may.
    fn inherit_affinity(&mut self, id: Id<Thread>, from: Id<Thread>) {
        if let Some((new, creator)) = self.threads.two_mut(id, from) {
            new.set_affinity(creator.affinity());
        }
    }

    /// Changes where a thread may run. One that waits for a CPU keeps its place if it may: who binds it again and again
    /// must not keep it from running.
    pub(super) fn set_affinity(&mut self, id: Id<Thread>, affinity: Affinity) {
        let Some(thread) = self.threads.get_mut(id) else {
            return;
        };
        thread.set_affinity(affinity);
        let is_runnable = matches!(thread.state, State::Runnable);
        if let Some(cpu) = self.cpu_of(id) {
            self.look_again(cpu);
        } else if is_runnable {
            self.move_queued(id);
        }
    }

    /// Changes the base of a thread's `fs` segment.
    fn set_fs_base(&mut self, id: Id<Thread>, base: u64) -> Result<(), Error> {
        let thread = self.threads.get_mut(id).ok_or(Error::Died)?;
        thread.set_fs_base(base);
        if let Some(cpu) = self.cpu_of(id) {
            self.look_again(cpu);
        }
        Ok(())
    }
}
