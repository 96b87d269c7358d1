//! What comes into the kernel other than by system call.

use cowslip_abi::{Access, FaultKind, FoundEntry};

use crate::object::{Fault, Kernel};
use crate::vm;

/// A page fault of the running thread, in user mode, for who has the kernel alone and has [settled](crate::platform::Platform::settle).
/// `None`: it is resolved, and the thread goes on.
#[inline(always)]
pub fn page_fault(kernel: &Kernel, address: u64, access: Access) -> Option<Fault> {
    let thread = kernel.threads.pinned()?;
    let space = kernel.spaces.get(thread.space)?;
    let (kind, found) = match vm::fault(kernel.mm, &space.table, address, access) {
        vm::Fault::Resolved => return None,
        vm::Fault::Denied(found) => (FaultKind::Page, found),
        // The thread accesses it again.
        vm::Fault::OutOfMemory if kernel.make_room() => return None,
        vm::Fault::OutOfMemory => {
            let found = space.table.lookup(kernel.mm, address).found();
            (FaultKind::OutOfMemory, found)
        }
    };
    Some(Fault {
        kind,
        address,
        access,
        found,
    })
}

/// Another processor exception of the running thread, in user mode.
pub fn exception(kernel: &mut Kernel, vector: u64) {
    let fault = Fault {
        kind: FaultKind::Exception,
        address: vector,
        access: Access::Execute,
        found: FoundEntry::Empty,
    };
    report(kernel, fault);
}

/// The running thread needs a frame for something that has no address of its own, such as room for
/// its vector registers, and there is none.
pub fn fault_out_of_memory(kernel: &mut Kernel, address: u64) {
    let fault = Fault {
        kind: FaultKind::OutOfMemory,
        address,
        access: Access::Execute,
        found: FoundEntry::Empty,
    };
    report(kernel, fault);
}

/// Reports a fault of the running thread, which cannot go on, to its supervisor.
#[inline(never)]
pub fn report(kernel: &mut Kernel, fault: Fault) {
    if let Some(id) = kernel.current() {
        kernel.report_fault(id, fault);
    }
    kernel.reap();
    kernel.switch_if_blocked();
}

/// A device interrupted. The line stays silent until its driver acknowledges.
pub fn interrupt(kernel: &mut Kernel, line: u32) {
    kernel.platform.interrupt_enable(line, false);
    let binding = kernel.interrupts.get(line as usize).copied().flatten();
    if let Some(binding) = binding {
        kernel.raise(binding.endpoint, binding.bits);
    }
}
