//! Which page table a CPU uses, and what all CPUs forget of page tables that change or go away.

use kernel::mm::{Flush, Frame};

use super::{hold::has_others, paging, percpu::PerCpu, smp, tlb};

/// Loads the page table that the CPU was to use since it last [left](PerCpu::leave_for) one. To forget all translations takes long, and
/// nobody need wait for it but who is going to free the tables of the one that is left.
#[inline(always)]
pub fn arrive() {
    // SAFETY: the table is the kernel's own, or a space's whose thread runs here: both have the kernel's half, and do not go away.
    PerCpu::get().arrive(|root| unsafe { tlb::load(root) });
}

/// Uses this page table from now on.
#[inline]
pub fn use_root(root: Frame) {
    PerCpu::get().leave_for(root.addr());
    arrive();
}

/// Makes every CPU leave a page table that is about to go away. This one still has it loaded until it [arrives](arrive) elsewhere, and
/// whoever flushes before it is worked off waits for that.
pub fn retire(root: Frame) {
    if !has_others() {
        // It is worked off at once.
        return retire_here(root);
    }
    smp::retire_others(root);
    if PerCpu::root() == root.addr() {
        // Most often another thread runs here next, whose page table is loaded then.
        PerCpu::get().leave_for(paging::root().addr());
    }
}

/// Makes this CPU leave a page table.
pub fn retire_here(root: Frame) {
    if PerCpu::root() == root.addr() {
        use_root(paging::root());
    }
}

/// Flushes what a change of page tables has made stale, on all CPUs. The kernel itself does not look at it any more, either.
#[inline]
pub fn flush(flush: &Flush) {
    tlb::flush_here(flush);
    if has_others() {
        smp::flush_others(flush);
    }
    debug_assert!(
        flush
            .spaces()
            .all(|space| PerCpu::left_by(PerCpu::number()) != Some(space.root.addr())),
        "a page table that may be worked off is still loaded"
    );
}
