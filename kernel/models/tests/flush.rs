//! The flush of a changed page table, against a CPU that comes to use it.
//!
//! The mailboxes and the lock are the kernel's. The rest belongs to the machine, so it is the protocol of
//! `arch::trap` and `arch::smp` in their words, with a TLB that keeps what it has until it is told to forget
//! it. `mov cr3` is a fence: it serialises. Until then the CPU may walk the table that it leaves, on its own account.

use std::{cell::Cell, sync::Arc};

use kernel_models::{
    Patience,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
    check, new_lock, new_mailboxes,
    sync::{Lock, MAX_CPUS, Mailboxes},
};
use loom::{sync::atomic::fence, thread};

/// Roots: the kernel's own, which maps nothing here, and that of a space.
const KERNEL: u64 = 0;
const SPACE: u64 = 1;

/// The frame that the space's only entry names in the beginning, and the one after it.
const OLD: u64 = 1;
const FRESH: u64 = 2;

/// Why every CPU can share the lock.
const NOBODY_ALONE: &str = "nobody has it alone";

/// What may be left out or done in another order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A CPU loads the root before it notes it.
    LoadsFirst,
    /// Loading a root does not wait until the note can be seen.
    LoadsWithoutFence,
    /// The table may still seem to be as it was when the notes are looked at.
    LooksWithoutFence,
    /// The notes are looked at before the table is changed.
    LooksFirst,
    /// The frame is free before the flush.
    FreesFirst,
    /// Nobody waits for CPUs that read.
    DoesNotWait,
    /// CPUs that read are waited for before the notes are looked at.
    WaitsFirst,
    /// A CPU that goes over to another table does not say that it reads.
    DoesNotRead,
    /// With ASIDs: the generation of a table that has changed stays.
    DoesNotReplace,
    /// It is replaced after the notes were looked at.
    ReplacesLast,
    /// A CPU reads the generation before it notes the root.
    ReadsGenerationFirst,
}

/// What a CPU does with what it knows of a table that it leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaver {
    /// It forgets that.
    Forgets,
    /// It keeps that, and finds out by the generation whether it still holds, as `mm::asid` says.
    Keeps,
}

struct Machine {
    /// The space's page table.
    entry: AtomicU64,
    /// By CPU, the root that it has noted.
    roots: [AtomicU64; MAX_CPUS],
    /// The space's generation.
    generation: AtomicU64,
    leaver: Leaver,
    mailboxes: Mailboxes<u64>,
    lock: Arc<Lock<()>>,
    old_is_free: AtomicU64,
    is_done: AtomicU64,
}

/// A CPU, and what it alone knows.
struct Cpu<'m> {
    machine: &'m Machine,
    number: usize,
    fault: Fault,
    /// The root that it uses.
    cr3: Cell<u64>,
    /// The frame that it has found in the table.
    tlb: Cell<Option<u64>>,
    /// The generation that this is of.
    known: Cell<u64>,
}

impl Machine {
    fn new(leaver: Leaver) -> Self {
        Self {
            leaver,
            generation: AtomicU64::known(1),
            entry: AtomicU64::known(OLD),
            roots: std::array::from_fn(|_| AtomicU64::known(KERNEL)),
            mailboxes: new_mailboxes(|| KERNEL),
            lock: new_lock((), MAX_CPUS),
            old_is_free: AtomicU64::known(0),
            is_done: AtomicU64::known(0),
        }
    }
}

impl<'m> Cpu<'m> {
    fn new(machine: &'m Machine, number: usize, fault: Fault) -> Self {
        Self {
            machine,
            number,
            fault,
            cr3: Cell::new(KERNEL),
            tlb: Cell::new(None),
            known: Cell::new(0),
        }
    }

    /// Goes over to another root, as with a message.
    fn switch(&self, root: u64) {
        let lock = &self.machine.lock;
        let reads = self.fault != Fault::DoesNotRead;
        let _reading = reads.then(|| lock.share(lock.door(self.number)).expect(NOBODY_ALONE));
        self.use_root(root);
    }

    fn use_root(&self, root: u64) {
        let generation = || self.machine.generation.load(Acquire);
        let early = (self.fault == Fault::ReadsGenerationFirst).then(generation);
        if self.fault == Fault::LoadsFirst {
            self.load_page_table(root, generation);
            // The CPU reads ahead.
            self.walk();
        }
        self.machine.roots[self.number].store(root, Relaxed);
        // The table that it leaves is still the one that it uses.
        self.touch();
        if self.fault != Fault::LoadsFirst {
            self.load_page_table(root, || early.unwrap_or_else(generation));
        }
    }

    fn load_page_table(&self, root: u64, generation: impl FnOnce() -> u64) {
        if self.fault != Fault::LoadsWithoutFence {
            fence(SeqCst);
        }
        let keeps = match (self.machine.leaver, root) {
            (Leaver::Forgets, _) => false,
            // Under another ASID.
            (Leaver::Keeps, KERNEL) => true,
            (Leaver::Keeps, _) => {
                let now = generation();
                self.known.replace(now) == now
            }
        };
        self.cr3.set(root);
        if !keeps {
            self.tlb.set(None);
        }
    }

    /// What the hardware does when it wants to.
    fn walk(&self) -> Option<u64> {
        if self.cr3.get() != SPACE {
            return None;
        }
        if self.tlb.get().is_none() {
            self.tlb.set(Some(self.machine.entry.load(Relaxed)));
        }
        self.tlb.get()
    }

    /// The program reads or writes.
    fn touch(&self) {
        if self.walk() == Some(OLD) {
            let is_free = self.machine.old_is_free.load(Relaxed) != 0;
            assert!(!is_free, "a CPU reaches a free frame");
        }
    }

    fn answer(&self) {
        if self.machine.mailboxes.is_asked(self.number) {
            let flush_here = |&root: &u64| {
                if self.machine.roots[self.number].load(Relaxed) == root {
                    self.tlb.set(None);
                }
            };
            self.machine.mailboxes.answer(self.number, flush_here);
        }
    }

    /// As in `smp`, for one space.
    fn ask_users(&self, root: u64, nr_cpus: usize) {
        if self.fault != Fault::LooksWithoutFence {
            fence(SeqCst);
        }
        let is_user =
            |cpu: &usize| *cpu != self.number && self.machine.roots[*cpu].load(Relaxed) == root;
        let others = (0..nr_cpus)
            .filter(is_user)
            .fold(0, |others, cpu| others | 1 << cpu);
        if others != 0 {
            let patience = Patience::default();
            let wait = || {
                self.answer();
                patience.wait();
            };
            self.machine
                .mailboxes
                .ask(self.number, others, root, |_| (), wait);
        }
    }

    /// As in `smp`: asks those who use the table, and then waits for those who read.
    fn flush(&self, nr_cpus: usize) {
        let wait_for_readers = || {
            let patience = Patience::default();
            self.machine.lock.wait_for_readers(self.number, || {
                self.answer();
                patience.wait();
            });
        };
        let replace = || self.machine.generation.store(2, Release);
        let keeps = self.machine.leaver == Leaver::Keeps;
        if keeps && ![Fault::DoesNotReplace, Fault::ReplacesLast].contains(&self.fault) {
            replace();
        }
        match self.fault {
            Fault::DoesNotWait => self.ask_users(SPACE, nr_cpus),
            Fault::WaitsFirst => {
                wait_for_readers();
                self.ask_users(SPACE, nr_cpus);
            }
            _ => {
                self.ask_users(SPACE, nr_cpus);
                wait_for_readers();
            }
        }
        if self.fault == Fault::ReplacesLast {
            replace();
        }
    }

    /// Puts another frame into the table, and frees the old one.
    fn remap(&self, nr_cpus: usize) {
        let lock = &self.machine.lock;
        let shared = lock.share(lock.door(self.number)).expect(NOBODY_ALONE);
        let apart = shared.apart();
        drop(shared);
        let free = || self.machine.old_is_free.store(1, Release);
        match self.fault {
            Fault::FreesFirst => {
                self.machine.entry.store(FRESH, Release);
                free();
                self.flush(nr_cpus);
            }
            Fault::LooksFirst => {
                self.flush(nr_cpus);
                self.machine.entry.store(FRESH, Release);
                free();
            }
            _ => {
                self.machine.entry.store(FRESH, Release);
                self.flush(nr_cpus);
                free();
            }
        }
        drop(apart);
        self.machine.is_done.store(1, Release);
    }

    /// Runs a program of the space, perhaps leaves it and comes back; answers until all is done.
    fn run(&self, nr_times: u64) {
        for time in 0..nr_times {
            if time > 0 {
                self.switch(KERNEL);
            }
            self.switch(SPACE);
            self.touch();
            self.answer();
            self.touch();
        }
        let patience = Patience::default();
        while self.machine.is_done.load(Acquire) == 0 {
            self.answer();
            self.touch();
            patience.wait();
        }
        self.touch();
    }
}

/// CPU 0 remaps while others run the space's program, so many times each.
fn they_use_it(nr_times: &'static [u64], fault: Fault) {
    they_leave_it(Leaver::Forgets, nr_times, fault);
}

fn they_leave_it(leaver: Leaver, nr_times: &'static [u64], fault: Fault) {
    let machine = Arc::new(Machine::new(leaver));
    let nr_cpus = nr_times.len() + 1;
    let users: Vec<_> = (1..nr_cpus)
        .map(|number| {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                let cpu = Cpu::new(&machine, number, fault);
                cpu.run(nr_times[number - 1]);
            })
        })
        .collect();
    Cpu::new(&machine, 0, fault).remap(nr_cpus);
    users.into_iter().for_each(|user| user.join().unwrap());
}

#[test]
fn no_cpu_keeps_what_was_flushed() {
    check(4, || they_use_it(&[1], Fault::None));
}

#[test]
fn no_cpu_keeps_it_that_leaves_and_comes_back() {
    check(3, || they_use_it(&[2], Fault::None));
}

#[test]
fn no_cpu_of_two_keeps_it() {
    check(2, || they_use_it(&[1, 1], Fault::None));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn a_root_must_be_noted_before_it_is_loaded() {
    check(4, || they_use_it(&[1], Fault::LoadsFirst));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn loading_a_root_must_wait_until_the_note_is_seen() {
    check(4, || they_use_it(&[1], Fault::LoadsWithoutFence));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn the_change_must_be_seen_before_the_notes_are_looked_at() {
    check(4, || they_use_it(&[1], Fault::LooksWithoutFence));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn the_table_must_be_changed_before_the_notes_are_looked_at() {
    check(4, || they_use_it(&[1], Fault::LooksFirst));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn a_frame_must_be_freed_after_the_flush() {
    check(4, || they_use_it(&[1], Fault::FreesFirst));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn cpus_on_the_way_to_another_root_must_be_waited_for() {
    check(4, || they_use_it(&[2], Fault::DoesNotWait));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn they_must_be_waited_for_after_the_notes_were_looked_at() {
    check(4, || they_use_it(&[2], Fault::WaitsFirst));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn a_cpu_on_the_way_to_another_root_must_say_that_it_reads() {
    check(4, || they_use_it(&[2], Fault::DoesNotRead));
}

#[test]
fn a_cpu_that_keeps_what_it_leaves_knows_when_it_no_longer_holds() {
    check(3, || they_leave_it(Leaver::Keeps, &[2], Fault::None));
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn the_generation_must_be_replaced() {
    check(3, || {
        they_leave_it(Leaver::Keeps, &[2], Fault::DoesNotReplace)
    });
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn the_generation_must_be_replaced_before_the_notes_are_looked_at() {
    check(3, || {
        they_leave_it(Leaver::Keeps, &[2], Fault::ReplacesLast)
    });
}

#[test]
#[should_panic(expected = "a CPU reaches a free frame")]
fn the_generation_must_be_read_after_the_root_is_noted() {
    check(3, || {
        they_leave_it(Leaver::Keeps, &[2], Fault::ReadsGenerationFirst)
    });
}
