//! What a CPU acts with that shares the kernel with others.
//!
//! Nothing is made, destroyed, queued or mapped then. A CPU uses what is its own ([`Cpu`], the running thread), reads what
//! nobody changes meanwhile (who has which handles), and [claims](Claims) whatever else it needs.

use core::ops::Deref;

use super::pool::{Claims, Pinned};
use super::{Affinity, Cpu, Cpus, Endpoint, Kernel, MAX_CHUNKS, Spaces, Thread, Way};
use crate::mm::Mm;
use crate::sync::MAX_CPUS;

/// One CPU's part in the kernel.
pub struct Here<'k, S = &'k Spaces> {
    /// Physical memory.
    pub mm: &'static Mm,
    /// All spaces.
    pub spaces: S,
    /// All endpoints.
    pub endpoints: Claims<'k, Endpoint, MAX_CHUNKS>,
    /// All threads.
    pub threads: Claims<'k, Thread, MAX_CHUNKS, MAX_CPUS>,
    /// The thread that runs here.
    pub running: Pinned<'k, Thread>,
    /// What the scheduler knows of this CPU.
    pub cpu: &'k mut Cpu,
    /// The CPUs that have no thread to run, and were not told to look.
    pub(crate) idle: &'k Affinity,
}

impl Here<'_> {
    /// The part of the CPU with this number.
    ///
    /// # Safety
    ///
    /// As long as it is used, the kernel is not used but by CPUs that share it in this way, each with its number.
    #[inline(always)]
    pub unsafe fn share(kernel: *mut Kernel, number: usize) -> Self {
        // SAFETY: as the caller promises, nobody changes what is shared here, and the rest is the CPU's own.
        unsafe {
            let (threads, running) = super::Threads::share(&raw const (*kernel).threads, number);
            let (cpu, idle) = Cpus::share(&raw mut (*kernel).cpus, number);
            Here {
                mm: (*kernel).mm,
                spaces: &(*kernel).spaces,
                endpoints: super::Endpoints::share_unpinned(&raw const (*kernel).endpoints),
                threads,
                running,
                cpu,
                idle,
            }
        }
    }
}

impl Kernel {
    /// The part of the CPU that acts, and has the kernel alone.
    #[inline(always)]
    pub fn here(&mut self) -> Here<'_, &mut Spaces> {
        let number = self.cpus.number();
        // SAFETY: the kernel is borrowed as long as its parts are, and is ours alone.
        unsafe {
            let (threads, running) = super::Threads::share(&raw const self.threads, number);
            let (cpu, idle) = Cpus::share(&raw mut self.cpus, number);
            Here {
                mm: self.mm,
                spaces: &mut self.spaces,
                endpoints: super::Endpoints::share_unpinned(&raw const self.endpoints),
                threads,
                running,
                cpu,
                idle,
            }
        }
    }
}

impl<S: Deref<Target = Spaces>> Here<'_, S> {
    /// Whether the running thread knows where its call goes.
    #[inline(always)]
    pub(crate) fn knows_way(&self, way: Way) -> bool {
        self.running.get().is_some_and(|thread| {
            let route = thread.route(way);
            route.fits(&thread.regs) && self.endpoints.is_current(route.endpoint)
        })
    }

    /// Sees to it that the running thread knows where its call goes.
    #[inline(always)]
    pub(crate) fn find_way(&mut self, way: Way) -> Option<()> {
        if !self.knows_way(way) {
            let thread = self.running.get_mut()?;
            let (endpoint, badge) = self.spaces.get(thread.space)?.way(way, &thread.regs)?;
            thread.learn_way(way, self.endpoints.hint(endpoint)?, badge);
        }
        Some(())
    }
}
