//! What a thread's handles meant when it sent or received last.
//!
//! A handle is looked up in its space's table, checked for its type and rights, and then names an
//! endpoint. Programs use the same handle again and again, so each thread remembers the answer for
//! its last send and its last receive. Entries of a table never change, so the answer is true until
//! a handle is closed, which ends the epoch of the pool of endpoints, or the endpoint dies, which
//! does so too.

use cowslip_abi::{Handle, Rights};

use super::{Endpoint, Hint, Kernel, Object, Registers, Thread};

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
    /// Finds the way of the running thread's call, for which its handle must have a right.
    pub(crate) fn find_route(&self, right: Rights) -> Option<Route> {
        let Thread { regs, space, .. } = self.threads.pinned()?;
        let handle = Handle((regs.rax >> 32) as u32);
        let (_, entry) = self.spaces.get(*space)?.handles.find(handle)?;
        match entry.object {
            Object::Endpoint(endpoint) if entry.rights.contains(right) => Some(Route {
                call: regs.rax,
                endpoint: self.endpoints.hint(endpoint)?,
                badge: entry.badge,
            }),
            _ => None,
        }
    }
}
