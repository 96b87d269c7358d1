//! What a thread's handles meant when it sent or received last.
//!
//! A handle is looked up in its space's table, checked for its type and rights, and then names an
//! endpoint. Programs use the same handle again and again, so each thread remembers the answer for
//! its last send, its last receive and its last notification, and likewise which spaces its last calls on memory acted on.
//!
//! Entries of a table never change, so the answer is true until the object dies, which ends its
//! pool's epoch, or the handle leaves the table. Then the threads of its space must forget it: if there
//! is only one, it [forgets](Thread::forget) that handle; otherwise the epoch ends, and all threads
//! look again.

use cowslip_abi::{Error, Handle, Rights};

use super::{Endpoint, Hint, Id, Kernel, Object, Registers, Space, Thread};

/// Where a call names a space.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// By its handle.
    Handle,
    /// By an argument.
    Argument,
}

/// The space that a call acted on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceRoute {
    handle: Handle,
    rights: Rights,
    space: Hint<Space>,
}

impl SpaceRoute {
    /// Fits no call.
    pub(super) const NONE: Self = Self {
        handle: Handle::NONE,
        rights: Rights::empty(),
        space: Hint::NONE,
    };

    /// This route, if its handle has all these rights.
    #[inline]
    pub(crate) fn having(self, rights: Rights) -> Result<Self, Error> {
        if self.rights.contains(rights) {
            Ok(self)
        } else {
            Err(Error::Denied)
        }
    }
}

/// An endpoint that a call went to.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `rax` of the call: its number and the handle.
    call: u64,
    /// Where the call went.
    pub(crate) endpoint: Hint<Endpoint>,
    /// The handle's badge.
    pub(crate) badge: u64,
}

/// What a thread does with an endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// It sends a message there.
    Send,
    /// It receives there, perhaps after a reply.
    Receive,
    /// It raises bits there.
    Notify,
}

/// How many ways there are.
pub(super) const WAYS: usize = 3;

impl Way {
    /// The right that it takes.
    const fn right(self) -> Rights {
        match self {
            Way::Send => Rights::SEND,
            Way::Receive => Rights::RECV,
            Way::Notify => Rights::NOTIFY,
        }
    }
}

impl Thread {
    /// Where its last call of this kind went.
    #[inline(always)]
    pub(crate) fn route(&self, way: Way) -> &Route {
        &self.routes[way as usize]
    }

    /// Remembers where the call in its registers goes.
    pub(super) fn learn_way(&mut self, way: Way, endpoint: Hint<Endpoint>, badge: u64) {
        self.routes[way as usize] = Route {
            call: self.regs.rax,
            endpoint,
            badge,
        };
    }

    /// Forgets where its last call of this kind went.
    pub(super) fn forget_way(&mut self, way: Way) {
        self.routes[way as usize] = Route::NONE;
    }

    /// Forgets that a handle, which leaves the table, named an object.
    #[inline(always)]
    pub(super) fn forget(&mut self, handle: Handle, object: Object) {
        match object {
            Object::Endpoint(_) => {
                for route in &mut self.routes {
                    if route.call >> 32 == u64::from(handle.0) {
                        *route = Route::NONE;
                    }
                }
            }
            Object::Space(_) => {
                for route in &mut self.acts_on {
                    if route.handle == handle {
                        *route = SpaceRoute::NONE;
                    }
                }
            }
            _ => {}
        }
    }
}

impl Route {
    /// Fits no call.
    pub(super) const NONE: Self = Self {
        call: u64::MAX,
        endpoint: Hint::NONE,
        badge: 0,
    };

    /// Whether the call in these registers goes the same way, if the hint is still good.
    #[inline(always)]
    pub(crate) fn fits(&self, regs: &Registers) -> bool {
        self.call == regs.rax
    }
}

impl Kernel {
    /// Where a handle of the running thread led last time in the same place of a call, if it is the
    /// same handle and has these rights.
    #[inline(always)]
    pub(crate) fn known_space(
        &self,
        place: Place,
        handle: Handle,
        rights: Rights,
    ) -> Option<SpaceRoute> {
        let route = self.threads.pinned()?.acts_on[place as usize];
        if route.handle == handle
            && route.rights.contains(rights)
            && self.spaces.is_current(route.space)
        {
            Some(route)
        } else {
            None
        }
    }

    /// Remembers what a handle of the running thread names, and which rights it has.
    pub(crate) fn note_space(
        &mut self,
        place: Place,
        handle: Handle,
        rights: Rights,
        space: Id<Space>,
    ) -> Option<SpaceRoute> {
        let route = SpaceRoute {
            handle,
            rights,
            space: self.spaces.hint(space)?,
        };
        self.threads.pinned_mut()?.acts_on[place as usize] = route;
        Some(route)
    }

    /// The way to a thread's own space, with all rights.
    pub(crate) fn own_space(&self, space: Id<Space>) -> Option<SpaceRoute> {
        Some(SpaceRoute {
            handle: Handle::NONE,
            rights: Rights::all(),
            space: self.spaces.hint(space)?,
        })
    }

    /// The space that a route leads to, while no space has died since it was found.
    #[inline(always)]
    pub(crate) fn space_at(&self, route: SpaceRoute) -> Result<(Id<Space>, &Space), Error> {
        self.spaces.hinted(route.space).ok_or(Error::Died)
    }
}

impl Space {
    /// Where a call in these registers goes, for which its handle must have a right, and the handle's badge.
    pub(super) fn way(&self, way: Way, regs: &Registers) -> Option<(Id<Endpoint>, u64)> {
        let handle = Handle((regs.rax >> 32) as u32);
        let (_, entry) = self.handles.find(handle)?;
        match entry.object {
            Object::Endpoint(endpoint) if entry.rights.contains(way.right()) => {
                Some((endpoint, entry.badge))
            }
            _ => None,
        }
    }
}
