//! Making spaces and threads beside others.
//!
//! What a process server does again and again for each process, and a thread for its helpers, takes a few hundred instructions
//! and one or two slots of pools: to create a space, to create a thread, to start it, to close the handles when it has ended. So CPUs
//! that [share](Here) the kernel do that, too, one at a time: who has the lock of creation is the [`Creator`].
//!
//! It adds to pools, where others find an object when it is complete, and changes what is [guarded](super::Guarded): who is in a space, which
//! spaces one has created, and the handles of its own space. Those are looked at by all CPUs that run threads of the
//! space, so there must be one thread. Nothing is removed but handles: what has ended ends alone.
//!
//! All functions return `None` where that is not enough, or something is wrong: then nothing has happened, and the call is to be
//! made by who has the kernel alone.

use cowslip_abi::{Handle, Rights};

use super::token::PastTokens;
use super::{
    Authority, Endpoint, HandleEntry, Here, Id, Kernel, Object, Seat, Space, Spaces, Start, State,
    Supervisor, Thread,
};
use crate::sync::OrderedGuard;
use crate::trace;
use crate::vm::PageTable;

/// One CPU's part in the kernel while it is the one that creates.
pub struct Creator<'k> {
    here: Here<'k>,
    kernel_half: &'k [u64; 256],
    past_tokens: &'k PastTokens,
    /// Who runs here.
    caller: Id<Thread>,
    /// Its space, of which it is the only thread.
    home: Id<Space>,
    _turn: OrderedGuard<'k, ()>,
}

impl<'k> Creator<'k> {
    /// The part of the CPU whose seat this is, when no other creates. `None`: it runs no thread, or one of several of its space.
    ///
    /// # Safety
    ///
    /// As for [`Here::share`].
    pub unsafe fn share(kernel: *mut Kernel, seat: Seat) -> Option<Self> {
        // SAFETY: as the caller promises, nobody changes what is shared here.
        let (here, kernel_half, past_tokens, turn) = unsafe {
            (
                Here::share(kernel, seat),
                &(*kernel).kernel_half,
                &(*kernel).past_tokens,
                (*kernel).creation.lock(),
            )
        };
        let home = here.running.get()?.space;
        (here.spaces.get(home)?.nr_threads == 1).then_some(Self {
            caller: here.running.id()?,
            here,
            kernel_half,
            past_tokens,
            home,
            _turn: turn,
        })
    }

    /// The running thread, and who it is.
    pub(crate) fn caller(&self) -> Option<(Id<Thread>, &Thread)> {
        Some((self.caller, self.here.running.get()?))
    }

    /// What a handle of the running thread names, if it has these rights.
    pub(crate) fn entry(&self, handle: Handle, rights: Rights) -> Option<HandleEntry> {
        let (_, entry) = self.here.spaces.get(self.home)?.handles.find(handle)?;
        entry.having(rights).ok()
    }

    /// Whether an endpoint still lives.
    pub(crate) fn has_endpoint(&self, id: Id<Endpoint>) -> bool {
        self.here.endpoints.get(id).is_some()
    }

    /// Takes a handle out of the own table, if it stands for nothing that would have to be undone.
    pub(crate) fn close(&mut self, handle: Handle) -> Option<()> {
        let object = self.entry(handle, Rights::empty())?.object;
        let is_plain = match object {
            Object::Thread(_) => true,
            Object::Space(id) => self.here.spaces.get(id).is_none(),
            _ => false,
        };
        if !is_plain {
            return None;
        }
        // SAFETY: this is the creator.
        let home = unsafe { authority(self.here.spaces, self.home) }?;
        home.handles.remove(self.here.mm, handle).ok()?;
        self.here.running.get_mut()?.forget(handle, object);
        Some(())
    }

    /// [Creates a space](Kernel::create_space) that the own one owns, on the terms of another one.
    pub(crate) fn create_space(
        &mut self,
        death: Option<(Id<Endpoint>, u64)>,
        like: Option<Id<Space>>,
    ) -> Option<Handle> {
        let (mm, spaces) = (self.here.mm, self.here.spaces);
        let like = match like {
            Some(like) => Some((like, spaces.get(like)?)),
            None => None,
        };
        // SAFETY: this is the creator.
        let home = unsafe { authority(spaces, self.home) }?;
        let add_handle = home.handles.room_at_hand()?;
        let root = mm.frames.alloc()?;
        // SAFETY: only the creator adds.
        let Some(room) = (unsafe { spaces.room(mm) }) else {
            mm.frames.free(root);
            return None;
        };

        let table = PageTable::with_root(mm, root, self.kernel_half);
        if let Some((_, like)) = like {
            table.take_terms(&like.table);
        }
        let mut space = Space::new(table, Some(self.home), death);
        space.nr_handles = 1;
        space.siblings[0] = home.children;
        let id = room.fill(|_| space);
        let before = home.children.replace(id);
        // SAFETY: this is the creator, and it is another space.
        if let Some(before) = before.and_then(|id| unsafe { authority(spaces, id) }) {
            before.siblings[1] = Some(id);
        }
        trace::space_created(id.number(), self.home.number());
        if let Some((like, _)) = like {
            trace::space_like(id.number(), like.number());
        }
        Some(add_handle(HandleEntry {
            object: Object::Space(id),
            rights: Rights::SPACE,
            badge: 0,
        }))
    }

    /// [Creates](Kernel::create_thread) the first thread of a space. It may run where its creator may.
    pub(crate) fn create_thread(
        &mut self,
        space: Id<Space>,
        supervisor: Option<Supervisor>,
        priority: u8,
    ) -> Option<Handle> {
        let spaces = self.here.spaces;
        let affinity = self.here.running.get()?.affinity();
        let root = spaces.get(space)?.table.root();
        if space == self.home {
            return None;
        }
        // SAFETY: this is the creator.
        let members = unsafe { authority(spaces, space) }?;
        if members.nr_threads != 0 || members.doomed.is_some() {
            return None;
        }
        // SAFETY: and this is another one.
        let home = unsafe { authority(spaces, self.home) }?;
        let add_handle = home.handles.room_at_hand()?;
        // SAFETY: only the creator adds.
        let room = unsafe { self.here.threads.room(self.here.mm) }?;

        let id = room.fill(|id| {
            let mut thread = Thread::new(space, root, supervisor, priority);
            thread.token = self.past_tokens.first(id);
            thread.set_affinity(affinity);
            members.threads.push_only(&mut thread, id);
            thread
        });
        members.nr_threads = 1;
        let badge = supervisor.map_or(0, |supervisor| supervisor.badge);
        trace::thread_created(id.number(), space.number(), badge);
        Some(add_handle(HandleEntry {
            object: Object::Thread(id),
            rights: Rights::THREAD,
            badge: 0,
        }))
    }

    /// [Starts a thread](Kernel::start_thread) on this CPU, by the rules by which one is woken there that waits for
    /// [notifications](Here::fast_notify).
    pub(crate) fn start_thread(&mut self, id: Id<Thread>, start: &Start) -> Option<()> {
        let mut thread = self.here.threads.claim(id)?;
        let caller = self.here.running.get()?;
        if !matches!(thread.state, State::Stopped)
            || thread.priority > caller.priority
            || !self.here.cpu.may_run(&thread)
            || *self.here.idle & thread.affinity() != 0
        {
            return None;
        }
        // SAFETY: this is the creator.
        let members = unsafe { authority(self.here.spaces, thread.space) }?;
        if !self.here.cpu.run_queue.push_only(&mut thread, id) {
            return None;
        }
        thread.set_start(start);
        thread.state = State::Runnable;
        members.nr_started += 1;
        Some(())
    }

    /// The call of the running thread has succeeded.
    pub(crate) fn succeed(&mut self, handle: Option<Handle>) -> Option<()> {
        let regs = &mut self.here.running.get_mut()?.regs;
        regs.rax = 0;
        if let Some(handle) = handle {
            regs.rdi = handle.0.into();
        }
        Some(())
    }
}

/// What is guarded of a space, if that lives.
///
/// # Safety
///
/// The caller is the [`Creator`], and has this space's once. Other CPUs only look at handles of spaces in which they run threads: the
/// creator's is none of them, and it changes no others.
#[allow(clippy::mut_from_ref, reason = "that is what the caller promises")]
unsafe fn authority(spaces: &Spaces, id: Id<Space>) -> Option<&mut Authority> {
    // SAFETY: as the caller promises.
    Some(unsafe { spaces.get(id)?.authority.beside() })
}
