//! Two spaces that share a table, and write.
//!
//! One table, named by two spaces, names one page. Each space copies the table, or takes it back if it is the
//! last owner, and then does the same with the page. `vm::tests::orders` tries the steps of this in every order
//! on a machine on which all CPUs see the same. This is the same on a machine that may let them see things
//! late. The counts and the mailboxes are the kernel's; the steps are those of `vm::open` and `vm::fault`, in
//! the words of `orders`.

use std::{cell::Cell, sync::Arc};

use kernel_models::{
    Patience, Watched, Weakness,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    check,
    mm::counts::{Count, Dropped, Flushed},
    new_mailboxes,
    sync::Mailboxes,
};
use loom::thread;

use Step::*;

/// A step of a fault that copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Count up the page that the table names.
    CountUp,
    /// Clear W in the old table's entry.
    ClearW,
    /// Fill the copy of the table.
    Build,
    /// Let the root name the copy.
    PublishTable,
    /// Make the space's other CPU forget what it knows.
    Flush,
    /// Count the old table down, and release what it names if that was its last reference.
    CountTableDown,
    /// Take the page out of reach.
    Condemn,
    /// Name a copy of the page, writable.
    PublishPage,
    /// Count the old page down.
    CountPageDown,
}

/// The steps of a fault, in the table and in the page.
type Order = ([Step; 6], [Step; 4]);

const TABLE_STEPS: [Step; 6] = [CountUp, ClearW, Build, PublishTable, Flush, CountTableDown];
const PAGE_STEPS: [Step; 4] = [Condemn, Flush, PublishPage, CountPageDown];
const SAFE: Order = (TABLE_STEPS, PAGE_STEPS);

/// The table, and the page, that both spaces have in the beginning; those that a space makes have the
/// space's number and one.
const OLD: usize = 0;

/// An entry: the number of what it names, from 1 on, and W. 0 names nothing.
const NAME_SHIFT: u32 = 1;
const W: u64 = 1;
/// What is in a frame that is free.
const GARBAGE: u64 = u64::MAX;

fn entry(number: usize, w: u64) -> u64 {
    (number as u64 + 1) << NAME_SHIFT | w
}

/// What the entry names.
fn named(entry: u64) -> Option<usize> {
    assert_ne!(entry, GARBAGE, "a free table is reachable");
    (entry >> NAME_SHIFT)
        .checked_sub(1)
        .map(|number| number as usize)
}

struct Table {
    place: AtomicU64,
    entry: AtomicU64,
}

struct Page {
    place: AtomicU64,
    /// 0: as it was in the beginning; otherwise who wrote it, and one.
    contents: Watched,
}

struct Machine {
    order: Order,
    tables: [Table; 3],
    pages: [Page; 3],
    /// By space: the root's entry, which names a table.
    roots: [AtomicU64; 2],
    /// Whether space 0 has a second CPU, which reads.
    is_watched: bool,
    mailboxes: Mailboxes<()>,
    is_done: AtomicU64,
}

/// The second CPU of space 0.
const WATCHER: usize = 2;

impl Machine {
    fn new(order: Order, is_watched: bool) -> Self {
        let machine = Self {
            order,
            tables: std::array::from_fn(|_| Table {
                place: AtomicU64::known(0),
                entry: AtomicU64::known(0),
            }),
            pages: std::array::from_fn(|_| Page {
                place: AtomicU64::known(0),
                contents: Watched::default(),
            }),
            roots: std::array::from_fn(|_| AtomicU64::known(entry(OLD, 0))),
            is_watched,
            mailboxes: new_mailboxes(|| ()),
            is_done: AtomicU64::known(0),
        };
        machine.count_of_table(OLD).increment();
        // The page's entry kept its W when the table was shared.
        machine.tables[OLD].entry.store(entry(OLD, W), Release);
        machine
    }

    fn count_of_table(&self, table: usize) -> Count<'_> {
        Count::new(&self.tables[table].place)
    }

    fn count_of_page(&self, page: usize) -> Count<'_> {
        Count::new(&self.pages[page].place)
    }

    fn table_of(&self, space: usize) -> usize {
        named(self.roots[space].load(Acquire)).expect("a root names a table")
    }

    /// Makes the page of a space writable, on the CPU with the same number.
    fn fault(&self, space: usize) {
        if self.count_of_table(OLD).is_one() {
            self.roots[space].store(entry(OLD, W), Release);
        } else {
            self.order.0.iter().for_each(|&step| self.step(space, step));
        }
        let table = &self.tables[self.table_of(space)];
        let found = table.entry.load(Acquire);
        let page = named(found).expect("the page is there");
        if found & W != 0 {
            return;
        }
        if self.count_of_page(page).is_one() {
            table.entry.store(entry(page, W), Release);
        } else {
            self.order.1.iter().for_each(|&step| self.step(space, step));
        }
    }

    /// A step of the space with this number, which copies what is [`OLD`].
    fn step(&self, space: usize, step: Step) {
        let own = space + 1;
        match step {
            CountUp => {
                self.count_of_page(OLD).increment();
            }
            ClearW => self.tables[OLD].entry.store(entry(OLD, 0), Release),
            Build => self.tables[own].entry.store(entry(OLD, 0), Release),
            PublishTable => self.roots[space].store(entry(own, W), Release),
            Flush => self.flush(space),
            CountTableDown => {
                if self.count_of_table(OLD).release(&Flushed) == Dropped::Last {
                    self.tables[OLD].entry.store(GARBAGE, Release);
                    self.release_page();
                }
            }
            Condemn => self.tables[self.table_of(space)].entry.store(0, Release),
            PublishPage => {
                self.pages[own].contents.set(self.pages[OLD].contents.get());
                self.tables[self.table_of(space)]
                    .entry
                    .store(entry(own, W), Release);
            }
            CountPageDown => self.release_page(),
        }
    }

    /// Counts the old page down. Whoever frees it lets others write to it.
    fn release_page(&self) {
        if self.count_of_page(OLD).release(&Flushed) == Dropped::Last {
            self.pages[OLD].contents.set(GARBAGE);
        }
    }

    fn flush(&self, space: usize) {
        if space == 0 && self.is_watched {
            let patience = Patience::default();
            self.mailboxes
                .ask(0, 1 << WATCHER, (), |_| (), || patience.wait());
        }
    }

    /// The program of the space writes.
    fn write(&self, space: usize) {
        let found = self.tables[self.table_of(space)].entry.load(Acquire);
        self.pages[named(found).expect("the page is there")]
            .contents
            .set(space as u64 + 1);
    }

    /// The second CPU of space 0 reads, through what it has cached, until all is done.
    fn watch(&self) {
        let (table, page) = (Cell::new(None), Cell::new(None));
        let forget = || {
            table.set(None);
            page.set(None);
        };
        let read = || {
            table.set(table.get().or_else(|| Some(self.table_of(0))));
            page.set(
                page.get()
                    .or_else(|| named(self.tables[table.get()?].entry.load(Acquire))),
            );
            // What the first CPU does with the space's own page is the program's business.
            if page.get() == Some(OLD) {
                assert_eq!(self.pages[OLD].contents.get(), 0, "the other space's byte");
            }
        };
        let patience = Patience::default();
        while self.is_done.load(Acquire) == 0 {
            read();
            if self.mailboxes.is_asked(WATCHER) {
                self.mailboxes.answer(WATCHER, |()| forget());
            }
            patience.wait();
        }
    }

    /// What is there in the end: every count is the number of entries, and each space has what it wrote.
    fn check(&self, writers: &[usize]) {
        let tables = [0, 1].map(|space| self.table_of(space));
        let pages = tables.map(|table| named(self.tables[table].entry.load(Acquire)));
        for number in 0..3 {
            let nr_tables = tables.iter().filter(|&&table| table == number).count();
            let nr_pages = pages.iter().filter(|&&page| page == Some(number)).count();
            // One and none are the same count: what is free is as its next owner finds it.
            assert_eq!(self.count_of_table(number).get(), nr_tables.max(1) as u64);
            assert_eq!(self.count_of_page(number).get(), nr_pages.max(1) as u64);
        }
        for &space in writers {
            assert_eq!(
                self.pages[pages[space].unwrap()].contents.get(),
                space as u64 + 1
            );
        }
    }
}

/// Both spaces write.
fn both_write(order: Order) {
    let machine = Arc::new(Machine::new(order, false));
    let fault_and_write = |machine: &Machine, space| {
        machine.fault(space);
        machine.write(space);
    };
    let other = {
        let machine = Arc::clone(&machine);
        thread::spawn(move || fault_and_write(&machine, 1))
    };
    fault_and_write(&machine, 0);
    other.join().unwrap();
    machine.check(&[0, 1]);
}

/// Space 0 makes its page writable while its second CPU reads it, and space 1 writes. One of them is first,
/// unless it is stopped.
fn one_reads(order: Order, first: usize) {
    let machine = Arc::new(Machine::new(order, true));
    let go = |machine: &Machine, space| {
        machine.fault(space);
        if space == 1 {
            machine.write(space);
        }
    };
    let watcher = {
        let machine = Arc::clone(&machine);
        thread::spawn(move || machine.watch())
    };
    let second = {
        let machine = Arc::clone(&machine);
        thread::spawn(move || go(&machine, 1 - first))
    };
    go(&machine, first);
    second.join().unwrap();
    machine.is_done.store(1, Release);
    watcher.join().unwrap();
    machine.check(&[1]);
}

#[test]
fn each_space_gets_a_page_of_its_own() {
    check(4, || both_write(SAFE));
}

#[test]
fn no_cpu_of_a_space_that_copies_reads_what_the_other_one_writes() {
    check(2, || one_reads(SAFE, 0));
}

#[test]
fn no_cpu_of_a_space_that_takes_back_reads_what_the_other_one_writes() {
    check(2, || one_reads(SAFE, 1));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn finding_a_count_at_one_must_acquire() {
    Weakness::Acquire.prevails();
    check(4, || both_write(SAFE));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn counting_down_must_release() {
    Weakness::Release.prevails();
    check(4, || both_write(SAFE));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_page_must_be_counted_up_before_the_table_is_counted_down() {
    let table = [ClearW, Build, PublishTable, Flush, CountTableDown, CountUp];
    check(4, move || both_write((table, PAGE_STEPS)));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn w_must_be_cleared_before_the_table_is_counted_down() {
    let table = [CountUp, Build, PublishTable, Flush, CountTableDown, ClearW];
    check(4, move || both_write((table, PAGE_STEPS)));
}

#[test]
#[should_panic(expected = "a free table is reachable")]
fn a_table_must_be_flushed_before_it_is_counted_down() {
    let table = [CountUp, ClearW, Build, PublishTable, CountTableDown, Flush];
    check(2, move || one_reads((table, PAGE_STEPS), 0));
}

#[test]
#[should_panic(expected = "a free table is reachable")]
fn a_table_must_be_flushed_after_its_copy_is_published() {
    let table = [CountUp, ClearW, Build, Flush, PublishTable, CountTableDown];
    check(2, move || one_reads((table, PAGE_STEPS), 0));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_page_must_be_flushed_before_it_is_counted_down() {
    let page = [Condemn, PublishPage, CountPageDown, Flush];
    check(2, move || one_reads((TABLE_STEPS, page), 1));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_page_must_be_out_of_reach_before_it_is_flushed() {
    let page = [Flush, Condemn, PublishPage, CountPageDown];
    check(2, move || one_reads((TABLE_STEPS, page), 1));
}
