//! Time since boot, by the time-stamp counter.

use core::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

const NS_PER_S: u64 = 1_000_000_000;
/// Binary digits after the point in [`NS_PER_TICK`].
const FRACTION: u32 = 60;

/// The counter when the kernel started.
static START: AtomicU64 = AtomicU64::new(0);
static TICKS_PER_S: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds in one tick, in 2^-60.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the kernel started; 0 until the clock is [set](set_rate).
pub fn now_ns() -> u64 {
    ticks_to_ns(ticks() - START.load(Relaxed))
}

/// A number of ticks in nanoseconds.
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Relaxed))) >> FRACTION) as u64
}

/// Ticks of the counter in a second.
pub fn ticks_per_s() -> u64 {
    TICKS_PER_S.load(Relaxed)
}

/// The time-stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the counter.
    unsafe { _rdtsc() }
}

/// Time begins.
pub fn start() {
    START.store(ticks(), Relaxed);
}

/// Tells how fast the counter runs.
pub fn set_rate(ticks_per_s: u64) {
    assert!(
        ticks_per_s > NS_PER_S >> (64 - FRACTION),
        "the time-stamp counter is too slow"
    );
    TICKS_PER_S.store(ticks_per_s, Relaxed);
    let ns_per_tick = (u128::from(NS_PER_S) << FRACTION) / u128::from(ticks_per_s);
    NS_PER_TICK.store(ns_per_tick as u64, Relaxed);
}
