//! Loom's atomics, with two differences.
//!
//! - They can be made in constants, as the kernel's are. Loom hears of one when it is used first, and that
//!   must come before all else that is done with it: a model touches its atomics before it starts threads.
//! - They can be made [weaker](Weakness) than they say.

use std::{cell::Cell, fmt, sync::OnceLock, thread};

use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic;
pub use loom::sync::atomic::Ordering;

/// In which way atomics are weaker than they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// No load acquires.
    Acquire,
    /// No store releases.
    Release,
    /// What reads, changes and writes does so in two steps.
    Atomicity,
    /// No fence orders anything.
    Fence,
}

std::thread_local! {
    /// All threads of a model are run by one.
    static WEAKNESS: Cell<Option<Weakness>> = const { Cell::new(None) };
}

impl Weakness {
    /// Makes all atomics of the caller's test weaker from now on.
    pub fn prevails(self) {
        WEAKNESS.set(Some(self));
    }
}

fn is_weak(weakness: Weakness) -> bool {
    WEAKNESS.get() == Some(weakness)
}

/// As in `core`.
pub fn fence(order: Ordering) {
    if !is_weak(Weakness::Fence) {
        atomic::fence(order);
    }
}

/// What is left of the order that a load asks for.
fn of_load(order: Ordering) -> Ordering {
    if is_weak(Weakness::Acquire) {
        Relaxed
    } else {
        order
    }
}

/// What is left of the order that a store asks for.
fn of_store(order: Ordering) -> Ordering {
    if is_weak(Weakness::Release) {
        Relaxed
    } else {
        order
    }
}

/// What is left of the order that a load and store in one asks for.
fn of_both(order: Ordering) -> Ordering {
    match order {
        AcqRel | SeqCst if is_weak(Weakness::Acquire) => Release,
        AcqRel | SeqCst if is_weak(Weakness::Release) => Acquire,
        Acquire if is_weak(Weakness::Acquire) => Relaxed,
        Release if is_weak(Weakness::Release) => Relaxed,
        _ => order,
    }
}

/// The order of the load in a load and store in one.
fn load_of(order: Ordering) -> Ordering {
    match order {
        AcqRel => Acquire,
        Release => Relaxed,
        _ => order,
    }
}

/// The order of the store in a load and store in one.
fn store_of(order: Ordering) -> Ordering {
    match order {
        AcqRel => Release,
        Acquire => Relaxed,
        _ => order,
    }
}

/// An atomic word.
pub struct Atomic<T> {
    first: T,
    known: OnceLock<atomic::AtomicU64>,
}

/// A word of 64 bits.
pub type AtomicU64 = Atomic<u64>;
/// A word of 32 bits.
pub type AtomicU32 = Atomic<u32>;
/// The first, as a number of things.
pub type AtomicUsize = Atomic<usize>;
/// A pointer.
pub type AtomicPtr<T> = Atomic<*mut T>;

// SAFETY: `first` is never changed, and as a pointer it is only a number here.
unsafe impl<T: Word> Sync for Atomic<T> {}
// SAFETY: as above.
unsafe impl<T: Word> Send for Atomic<T> {}

/// What an atomic word can hold.
pub trait Word: Copy + fmt::Debug {
    /// As loom keeps it.
    fn to_u64(self) -> u64;
    /// The other way round.
    fn of_u64(word: u64) -> Self;
}

impl Word for u64 {
    fn to_u64(self) -> u64 {
        self
    }

    fn of_u64(word: u64) -> Self {
        word
    }
}

impl Word for u32 {
    fn to_u64(self) -> u64 {
        self.into()
    }

    fn of_u64(word: u64) -> Self {
        word as u32
    }
}

impl Word for usize {
    fn to_u64(self) -> u64 {
        self as u64
    }

    fn of_u64(word: u64) -> Self {
        word as usize
    }
}

impl<T> Word for *mut T {
    fn to_u64(self) -> u64 {
        self.addr() as u64
    }

    fn of_u64(word: u64) -> Self {
        std::ptr::without_provenance_mut(word as usize)
    }
}

impl<T> Atomic<T> {
    /// A word of which loom has not heard.
    #[must_use]
    pub const fn new(first: T) -> Self {
        Self {
            first,
            known: OnceLock::new(),
        }
    }
}

impl<T: Word> Atomic<T> {
    /// A word that all threads may use which start from now on.
    #[must_use]
    pub fn known(first: T) -> Self {
        let atomic = Self::new(first);
        atomic.loom();
        atomic
    }

    fn loom(&self) -> &atomic::AtomicU64 {
        self.known
            .get_or_init(|| atomic::AtomicU64::new(self.first.to_u64()))
    }

    /// As in `core`.
    pub fn load(&self, order: Ordering) -> T {
        T::of_u64(self.loom().load(of_load(order)))
    }

    /// As in `core`; but a thread that drops a guard because the model has failed stores nothing.
    pub fn store(&self, value: T, order: Ordering) {
        if !thread::panicking() {
            self.loom().store(value.to_u64(), of_store(order));
        }
    }

    /// As in `core`, but what changes nothing does not write.
    ///
    /// Loom does not know that a store comes after the write of another thread's `swap` that has read what the store
    /// replaces.
    pub fn swap(&self, value: T, order: Ordering) -> T {
        let value = value.to_u64();
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |_| value);
        }
        self.set_if_other(|_| value, order)
    }

    fn set_if_other(&self, change: impl Fn(u64) -> u64, order: Ordering) -> T {
        let change = |found| (change(found) != found).then(|| change(found));
        let (set, fetch) = (of_both(order), of_load(load_of(order)));
        match self.loom().fetch_update(set, fetch, change) {
            Ok(found) | Err(found) => T::of_u64(found),
        }
    }

    /// As in `core`.
    pub fn compare_exchange(
        &self,
        current: T,
        value: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        let (current, value) = (current.to_u64(), value.to_u64());
        let result = if is_weak(Weakness::Atomicity) {
            let found = self.loom().load(load_of(success));
            if found == current {
                self.loom().store(value, store_of(success));
                Ok(found)
            } else {
                Err(found)
            }
        } else {
            let (success, failure) = (of_both(success), of_load(failure));
            self.loom()
                .compare_exchange(current, value, success, failure)
        };
        result.map(T::of_u64).map_err(T::of_u64)
    }

    /// As in `core`; but it fails only if the value is another one.
    pub fn compare_exchange_weak(
        &self,
        current: T,
        value: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        self.compare_exchange(current, value, success, failure)
    }

    fn in_two_steps(&self, order: Ordering, change: impl FnOnce(u64) -> u64) -> T {
        let found = self.loom().load(load_of(order));
        self.loom().store(change(found), store_of(order));
        T::of_u64(found)
    }
}

impl AtomicU64 {
    /// As in `core`.
    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |found| found.wrapping_add(value));
        }
        self.loom().fetch_add(value, of_both(order))
    }

    /// As in `core`.
    pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_add(value.wrapping_neg(), order)
    }

    /// As in `core`.
    pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |found| found | value);
        }
        self.loom().fetch_or(value, of_both(order))
    }

    /// As in `core`.
    pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |found| found & value);
        }
        self.loom().fetch_and(value, of_both(order))
    }
}

impl AtomicUsize {
    /// As in `core`; and a thread that drops a guard because the model has failed changes nothing.
    pub fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        if thread::panicking() {
            return value;
        }
        let value = value.to_u64();
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |found| found - value);
        }
        usize::of_u64(self.loom().fetch_sub(value, of_both(order)))
    }
}

impl AtomicU32 {
    /// As in `core`, but what changes nothing does not write, as in [`swap`](Self::swap).
    pub fn fetch_or(&self, value: u32, order: Ordering) -> u32 {
        let value = value.to_u64();
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |found| found | value);
        }
        self.set_if_other(|found| found | value, order)
    }

    /// The same; and a thread that drops a guard because the model has failed changes nothing.
    pub fn fetch_and(&self, value: u32, order: Ordering) -> u32 {
        if thread::panicking() {
            return value;
        }
        let value = value.to_u64();
        if is_weak(Weakness::Atomicity) {
            return self.in_two_steps(order, |found| found & value);
        }
        self.set_if_other(|found| found & value, order)
    }
}
