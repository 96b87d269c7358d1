//! What the kernel does, written down for `cargo xtask trace`: with the feature `trace`. Without it, nothing here has code or data.
//!
//! Whoever does something worth telling says so in one line, by one of the functions here, which take plain numbers.
//! All make a [record](cowslip_abi::TraceRecord): when, on which CPU, which thread runs there, what, and a few words.
//!
//! Records lie in an array in the kernel's image. A CPU takes the next slot by one atomic addition and fills it, so no record is
//! torn and nobody waits: CPUs that share the kernel, or work apart from it, go on doing so. Nobody empties the array: who
//! looks at the machine's memory from outside has it all, also after a panic. When it is full the rest is counted, and lost.
//!
//! The module stands below all others, so that each may tell; so objects go by their numbers here, not by their ids.

#[cfg(any(feature = "trace", test))]
mod records;

use cowslip_abi::{TRACE_ARGS, TraceKind, TracePages};

#[cfg(feature = "trace")]
pub use records::{Machine, start};

/// Whether this kernel records.
pub const IS_ON: bool = cfg!(feature = "trace");

/// The running thread made a system call: its `rax`, `rdi`, `rsi`, `rdx`, `r8`.
#[inline(always)]
pub fn call(registers: [u64; TRACE_ARGS]) {
    record(TraceKind::Call, registers);
}

/// It met a page fault, at this address and instruction.
#[inline(always)]
pub fn page_fault(address: u64, error: u64, ip: u64) {
    record(TraceKind::PageFault, [address, error, ip, 0, 0]);
}

/// It was interrupted, or met another exception.
#[inline(always)]
pub fn trap(vector: u64, ip: u64) {
    record(TraceKind::Trap, [vector, ip, 0, 0, 0]);
}

/// The CPU goes on with it in user mode; with this result, if a call returns.
#[inline(always)]
pub fn leave(result: u64) {
    record(TraceKind::Leave, [result, 0, 0, 0, 0]);
}

/// The CPU has no thread to run.
#[inline(always)]
pub fn idle() {
    record(TraceKind::Idle, [0; TRACE_ARGS]);
}

/// A message, or the report of a fault, has passed between two threads. To be said before the receiver can answer.
#[inline(always)]
pub fn message(from: u64, to: u64, endpoint: u64, tag: u64, nr_bytes: u64) {
    record(TraceKind::Message, [from, to, endpoint, tag, nr_bytes]);
}

/// A reply, or the verdict on a fault, has passed between two threads.
#[inline(always)]
pub fn reply(from: u64, to: u64, tag: u64, nr_bytes: u64) {
    record(TraceKind::Reply, [from, to, tag, nr_bytes, 0]);
}

/// Bits of an endpoint were raised.
#[inline(always)]
pub fn notify(endpoint: u64, bits: u64) {
    record(TraceKind::Notify, [endpoint, bits, 0, 0, 0]);
}

/// A thread received such bits.
#[inline(always)]
pub fn notified(thread: u64, bits: u64) {
    record(TraceKind::Notified, [thread, bits, 0, 0, 0]);
}

/// There is a space.
#[inline(always)]
pub fn space_created(space: u64, owner: u64) {
    record(TraceKind::SpaceCreated, [space, owner, 0, 0, 0]);
}

/// A space has taken over the terms of another one.
#[inline(always)]
pub fn space_like(space: u64, other: u64) {
    record(TraceKind::SpaceLike, [space, other, 0, 0, 0]);
}

/// A program gave a space a name.
#[inline(always)]
pub fn space_named(space: u64, [a, b, c]: [u64; 3]) {
    record(TraceKind::SpaceNamed, [space, a, b, c, 0]);
}

/// A space is gone.
#[inline(always)]
pub fn space_ended(space: u64) {
    record(TraceKind::SpaceEnded, [space, 0, 0, 0, 0]);
}

/// There is a thread, whose faults arrive under this badge.
#[inline(always)]
pub fn thread_created(thread: u64, space: u64, badge: u64) {
    record(TraceKind::ThreadCreated, [thread, space, badge, 0, 0]);
}

/// A thread is gone.
#[inline(always)]
pub fn thread_ended(thread: u64) {
    record(TraceKind::ThreadEnded, [thread, 0, 0, 0, 0]);
}

/// What the running thread does changed so many pages.
#[inline(always)]
pub fn pages(what: TracePages, nr_pages: u64) {
    if nr_pages > 0 && what != TracePages::Freed {
        record(TraceKind::Pages, [what as u64, nr_pages, 0, 0, 0]);
    }
}

#[cfg(feature = "trace")]
#[inline(never)]
fn record(kind: TraceKind, args: [u64; TRACE_ARGS]) {
    records::add(kind, args);
}

#[cfg(not(feature = "trace"))]
#[inline(always)]
fn record(_: TraceKind, _: [u64; TRACE_ARGS]) {}
