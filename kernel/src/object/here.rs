//! What a CPU acts with that shares the kernel with others.
//!
//! Nothing is made, destroyed or queued then. A CPU uses what is its own ([`Cpu`], the running thread), reads what
//! nobody changes meanwhile (who has which handles), and [claims](Claims) whatever else it needs. A page table is changed by who
//! has [locked](crate::vm::PageTable::try_lock) it, [apart](crate::sync::Apart) from the kernel; messages
//! [read](crate::vm::copy_in_place) it all the same.

use core::ops::Deref;

use super::pool::{Claims, Pin, Pinned};
use super::{Affinity, Cpu, Endpoints, Kernel, MAX_CHUNKS, Spaces, Thread, Threads, Way};
use crate::mm::Mm;
use crate::sync::MAX_CPUS;
use crate::vm::PageTable;

/// Where it is said what is a CPU's own.
#[derive(Clone, Copy)]
pub struct Seat {
    /// Which thread runs there.
    pub running: *const Pin<Thread>,
    /// What the scheduler knows of it.
    pub cpu: *mut Cpu,
}

impl Seat {
    /// The page table of the space whose thread runs on this CPU, for that CPU, which need not share the kernel for this.
    ///
    /// # Safety
    ///
    /// Nobody takes the thread from the CPU as long as the page table is used: it does not wait for the kernel meanwhile, nor has it waited
    /// since the thread was there. Others may do what they like to the kernel; to the page table only what its
    /// [lock](PageTable::try_lock) lets them.
    pub unsafe fn own_table<'k>(self, kernel: *const Kernel) -> Option<&'k PageTable> {
        // SAFETY: as the caller promises, this thread runs here, and therefore it and its space stay where they are. A
        // thread stays in its space.
        unsafe {
            let thread = (*self.running).object()?;
            let space = Spaces::living(&raw const (*kernel).spaces, (*thread).space);
            Some(&(*space).table)
        }
    }
}

/// One CPU's part in the kernel.
pub struct Here<'k, S = &'k Spaces> {
    /// Physical memory.
    pub mm: &'static Mm,
    /// All spaces.
    pub spaces: S,
    /// All endpoints.
    pub endpoints: &'k Endpoints,
    /// All threads.
    pub threads: Claims<'k, Thread, MAX_CHUNKS, MAX_CPUS>,
    /// The thread that runs here.
    pub running: Pinned<'k, Thread>,
    /// What the scheduler knows of this CPU.
    pub cpu: &'k mut Cpu,
    /// The CPUs that have no thread to run, and were not told to look.
    pub(crate) idle: &'k Affinity,
}

impl<'k, S> Here<'k, S> {
    /// The part of the CPU whose seat this is, with spaces that are known elsewhere.
    ///
    /// # Safety
    ///
    /// As for [`share`](Here::share).
    #[inline(always)]
    unsafe fn with_spaces(kernel: *mut Kernel, seat: Seat, spaces: S) -> Self {
        // SAFETY: as the caller promises, nobody changes what is shared here, and the rest is the CPU's own.
        unsafe {
            let (threads, running) = Threads::share(&raw const (*kernel).threads, seat.running);
            Here {
                mm: (*kernel).mm,
                spaces,
                endpoints: &(*kernel).endpoints,
                threads,
                running,
                cpu: &mut *seat.cpu,
                idle: &(*kernel).cpus.idle,
            }
        }
    }
}

impl Here<'_> {
    /// The part of the CPU whose [seat](Kernel::seat) this is.
    ///
    /// # Safety
    ///
    /// As long as it is used, the kernel is not used but by CPUs that share it in this way, each with its own seat. As long as a page
    /// table is used that was locked meanwhile, nobody else uses it, and its space stays.
    #[inline(always)]
    pub unsafe fn share(kernel: *mut Kernel, seat: Seat) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self::with_spaces(kernel, seat, &(*kernel).spaces) }
    }
}

impl Kernel {
    /// Where it is said what is a CPU's own, as long as the kernel is not moved.
    pub fn seat(&mut self, number: usize) -> Seat {
        Seat {
            running: self.threads.pin_of(number),
            cpu: &raw mut self.cpus[number],
        }
    }

    /// The part of the CPU that acts, and has the kernel alone.
    #[inline(always)]
    pub fn here(&mut self) -> Here<'_, &mut Spaces> {
        let seat = self.seat_here();
        let kernel = &raw mut *self;
        // SAFETY: the kernel is borrowed as long as its parts are, and is ours alone.
        unsafe { Here::with_spaces(kernel, seat, &mut (*kernel).spaces) }
    }

    #[inline(always)]
    fn seat_here(&mut self) -> Seat {
        Seat {
            running: self.threads.pin_here(),
            cpu: self.cpus.here_mut(),
        }
    }
}

impl<S: Deref<Target = Spaces>> Here<'_, S> {
    /// Whether the running thread knows where its call goes.
    #[inline(always)]
    pub fn knows_way(&self, way: Way) -> bool {
        self.running.get().is_some_and(|thread| {
            let route = thread.route(way);
            route.fits(&thread.regs) && self.endpoints.is_current(route.endpoint)
        })
    }

    /// Lets the running thread find out where its call goes. Returns whether it has the right to go there.
    #[inline(never)]
    pub fn find_way(&mut self, way: Way) -> bool {
        self.try_find_way(way).is_some()
    }

    fn try_find_way(&mut self, way: Way) -> Option<()> {
        let thread = self.running.get_mut()?;
        let (endpoint, badge) = self.spaces.get(thread.space)?.way(way, &thread.regs)?;
        // To begin to serve an endpoint takes more than a CPU may do that shares the kernel.
        if matches!(way, Way::Receive) && thread.serves != Some(endpoint) {
            return None;
        }
        thread.learn_way(way, self.endpoints.hint(endpoint)?, badge);
        Some(())
    }
}
