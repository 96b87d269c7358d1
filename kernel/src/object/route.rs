//! What a thread's handles meant when it sent or received last.
//!
//! A handle is looked up in its space's table, checked for its type and rights, and then names an
//! endpoint. Programs use the same handle again and again, so each thread remembers the answer for
//! its last send and its last receive. It is true for as long as no handle at all has been
//! [removed](Kernel::nr_removed_handles), as entries never change.

use cowslip_abi::{Handle, Rights};

use super::{Endpoint, Id, Kernel, Object, Registers, Thread};

/// An endpoint that a call went to.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `rax` of the call: its number and the handle.
    call: u64,
    /// [`Kernel::nr_removed_handles`] at that time.
    nr_removed_handles: u64,
    /// Where the call went.
    pub(crate) endpoint: Id<Endpoint>,
    /// The handle's badge.
    pub(crate) badge: u64,
}

impl Route {
    /// Fits no call.
    pub(super) const NONE: Self = Self {
        call: u64::MAX,
        nr_removed_handles: 0,
        endpoint: Id::NOTHING,
        badge: 0,
    };

    /// Whether the call in these registers goes the same way.
    #[inline(always)]
    pub(crate) fn fits(&self, regs: &Registers, nr_removed_handles: u64) -> bool {
        self.call == regs.rax && self.nr_removed_handles == nr_removed_handles
    }
}

impl Kernel {
    /// Finds the way of the running thread's call, for which its handle must have a right.
    #[inline(never)]
    pub(crate) fn find_route(&self, right: Rights) -> Option<Route> {
        let Thread { regs, space, .. } = self.threads.pinned()?;
        let handle = Handle((regs.rax >> 32) as u32);
        let (_, entry) = self.spaces.get(*space)?.handles.find(handle)?;
        match entry.object {
            Object::Endpoint(endpoint) if entry.rights.contains(right) => Some(Route {
                call: regs.rax,
                nr_removed_handles: self.nr_removed_handles,
                endpoint,
                badge: entry.badge,
            }),
            _ => None,
        }
    }
}
