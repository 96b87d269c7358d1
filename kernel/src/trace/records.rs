//! The array of records.

#[cfg(feature = "trace")]
use core::sync::atomic::Ordering::Acquire;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};

#[cfg(feature = "trace")]
use cowslip_abi::TRACE_ARGS;
use cowslip_abi::{TRACE_MAGIC, TraceHeader, TraceKind, TraceRecord};
#[cfg(feature = "trace")]
use spin::Once;

/// What a record needs of the machine.
#[cfg(feature = "trace")]
#[derive(Clone, Copy)]
pub struct Machine {
    /// The time-stamp counter.
    pub ticks: fn() -> u64,
    /// The number of the CPU that acts.
    pub cpu: fn() -> usize,
    /// The number of the thread that runs there, or 0.
    pub running: fn() -> u64,
}

#[cfg(feature = "trace")]
static MACHINE: Once<Machine> = Once::new();

/// How many records there is room for: 64 MiB, on a machine.
#[cfg(feature = "trace")]
const NR_SLOTS: usize = if cfg!(target_os = "none") {
    (1 << 20) - 1
} else {
    1023
};

/// All records. It is found by its name.
#[cfg(feature = "trace")]
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
static COWSLIP_TRACE: Records<NR_SLOTS> = Records::new();

/// Records what happens from now on.
#[cfg(feature = "trace")]
pub fn start(machine: Machine, ticks_per_s: u64) {
    MACHINE.call_once(|| machine);
    COWSLIP_TRACE.start(ticks_per_s);
}

/// Records an event on the CPU that acts, once recording has [started](start).
#[cfg(feature = "trace")]
pub(super) fn add(kind: TraceKind, args: [u64; TRACE_ARGS]) {
    if COWSLIP_TRACE.magic.load(Acquire) == TRACE_MAGIC
        && let Some(machine) = MACHINE.get()
    {
        COWSLIP_TRACE.add(TraceRecord {
            ticks: (machine.ticks)(),
            what: TraceRecord::what(kind, (machine.cpu)()),
            running: (machine.running)(),
            args,
        });
    }
}

/// As a [`TraceHeader`] and so many [`TraceRecord`]s: all zeros at first, so that they take no room in the kernel's file.
#[repr(C)]
struct Records<const N: usize> {
    magic: AtomicU64,
    ticks_per_s: AtomicU64,
    nr_slots: AtomicU64,
    nr_records: AtomicU64,
    reserved: [u64; 4],
    slots: [Slot; N],
}

/// A record as words.
#[repr(C)]
struct Slot([AtomicU64; 8]);

const _: () = assert!(size_of::<Slot>() == size_of::<TraceRecord>());
const _: () = assert!(size_of::<Records<0>>() == size_of::<TraceHeader>());

impl<const N: usize> Records<N> {
    const fn new() -> Self {
        Self {
            magic: AtomicU64::new(0),
            ticks_per_s: AtomicU64::new(0),
            nr_slots: AtomicU64::new(0),
            nr_records: AtomicU64::new(0),
            reserved: [0; 4],
            slots: [const { Slot([const { AtomicU64::new(0) }; 8]) }; N],
        }
    }

    fn start(&self, ticks_per_s: u64) {
        self.ticks_per_s.store(ticks_per_s, Relaxed);
        self.nr_slots.store(N as u64, Relaxed);
        self.magic.store(TRACE_MAGIC, Release);
    }

    /// Writes a record into the next slot. If there is none, it is lost, and counted.
    fn add(&self, record: TraceRecord) {
        let number = self.nr_records.fetch_add(1, Relaxed);
        let slot = usize::try_from(number).ok();
        let Some(Slot(words)) = slot.and_then(|slot| self.slots.get(slot)) else {
            return;
        };
        let TraceRecord {
            ticks,
            what,
            running,
            args: [a, b, c, d, e],
        } = record;
        for (word, value) in words.iter().zip([ticks, 0, running, a, b, c, d, e]) {
            word.store(value, Relaxed);
        }
        words[1].store(what, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Acquire;

    use super::*;

    impl<const N: usize> Records<N> {
        fn read(&self) -> Vec<TraceRecord> {
            let words = |Slot(words): &Slot| {
                let mut read = [0; 8];
                for (read, word) in read.iter_mut().zip(words) {
                    *read = word.load(Acquire);
                }
                TraceRecord::from_words(read)
            };
            self.slots.iter().map(words).collect()
        }
    }

    fn record(ticks: u64, cpu: usize) -> TraceRecord {
        TraceRecord {
            ticks,
            what: TraceRecord::what(TraceKind::Message, cpu),
            running: ticks * 2,
            args: [ticks; 5],
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nothing_is_overwritten() {
        let records = Records::<2>::new();
        records.start(1000);
        (1..=3).for_each(|ticks| records.add(record(ticks, 0)));
        assert_eq!(records.nr_records.load(Relaxed), 3);
        assert_eq!(records.read(), [record(1, 0), record(2, 0)]);
    }

    #[test]
    fn records_of_several_cpus_are_whole() {
        const EACH: u64 = 100;
        let records = Records::<400>::new();
        std::thread::scope(|scope| {
            for cpu in 0..4 {
                let records = &records;
                scope.spawn(move || {
                    (1..=EACH).for_each(|ticks| records.add(record(ticks, cpu)));
                });
            }
        });
        let read = records.read();
        for cpu in 0..4 {
            let own = read.iter().filter(|found| found.cpu() == cpu);
            let expected = (1..=EACH).map(|ticks| record(ticks, cpu));
            assert!(own.copied().eq(expected), "of CPU {cpu}");
        }
    }
}
