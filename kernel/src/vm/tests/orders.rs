//! The order for several CPUs, and the orders that fail: every interleaving, in a model.
//!
//! Two spaces name one table, which names one page; both are written to. So both spaces fault: each copies
//! the table, or takes it back if it is the last owner, and then does the same with the page. Each
//! space has a second CPU, which caches what it walks through, at any time, and forgets nothing before
//! a flush of its space. Whatever the CPUs do, and whenever:
//!
//! - no CPU reaches a table or a page that is free;
//! - a space reads its own byte or the first one, and never the other space's;
//! - when one CPU of a space has written, the other one does not read what was there before;
//! - in the end every count is the number of entries, and what nobody names is free.
//!
//! The steps are those of [`open`](crate::vm::open) and [`fault`](fn@crate::vm::fault). What is one
//! step is atomic: an addition to a count, a store to an entry, one flush.

use std::collections::HashSet;

/// A step of a fault that copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Count up the page that the table names.
    CountUp,
    /// Clear W in the old table's entry.
    ClearW,
    /// Fill the copy of the table.
    Build,
    /// Let the root name the copy.
    PublishTable,
    FlushTable,
    /// Count the old table down, and release what it names if that was its last reference.
    CountTableDown,
    /// Take the page out of reach.
    Condemn,
    FlushPage,
    /// Name a copy of the page, writable.
    PublishPage,
    /// Count the old page down.
    CountPageDown,
}

use Step::*;

const TABLE_STEPS: [Step; 6] = [
    CountUp,
    ClearW,
    Build,
    PublishTable,
    FlushTable,
    CountTableDown,
];
const PAGE_STEPS: [Step; 4] = [Condemn, FlushPage, PublishPage, CountPageDown];

/// An order of steps to try.
struct Order {
    table: Vec<Step>,
    page: Vec<Step>,
    /// Whether a table whose count reaches zero releases what it names.
    drops: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            table: TABLE_STEPS.into(),
            page: PAGE_STEPS.into(),
            drops: true,
        }
    }
}

impl Order {
    fn of_table(table: [Step; 6]) -> Self {
        Self {
            table: table.into(),
            ..Self::default()
        }
    }

    fn of_page(page: &[Step]) -> Self {
        Self {
            page: page.into(),
            ..Self::default()
        }
    }
}

/// The table, and the page, that both spaces have in the beginning; those that a space makes have the
/// space's number and one.
const OLD: usize = 0;

/// The entry of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    page: Option<usize>,
    is_writable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Space {
    /// The table that the root names, and whether with W.
    root: (usize, bool),
    /// Where the fault is: in the table's steps, in the page's, or done.
    phase: Phase,
    /// What the second CPU has cached.
    cached_table: Option<usize>,
    cached_page: Option<usize>,
    has_written: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Table(usize),
    Page(usize),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    tables: [Entry; 3],
    table_counts: [u8; 3],
    /// 0: as it was in the beginning; otherwise who wrote it, and one.
    pages: [usize; 3],
    page_counts: [u8; 3],
    spaces: [Space; 2],
}

impl State {
    fn first() -> Self {
        let space = Space {
            root: (OLD, false),
            phase: Phase::Table(0),
            cached_table: None,
            cached_page: None,
            has_written: false,
        };
        let nothing = Entry {
            page: None,
            is_writable: false,
        };
        // The page's entry kept its W when the table was shared.
        let old = Entry {
            page: Some(OLD),
            is_writable: true,
        };
        Self {
            tables: [old, nothing, nothing],
            table_counts: [2, 0, 0],
            pages: [0; 3],
            page_counts: [1, 0, 0],
            spaces: [space; 2],
        }
    }

    /// All states that may follow.
    fn next(self, order: &Order) -> Result<Vec<Self>, String> {
        let mut next = Vec::new();
        for number in 0..2 {
            next.extend(self.fault_goes_on(number, order)?);
            next.extend(self.a_cpu_writes(number));
            next.extend(self.the_second_cpu_walks(number));
        }
        Ok(next)
    }

    fn fault_goes_on(mut self, number: usize, order: &Order) -> Result<Option<Self>, String> {
        let space = self.spaces[number];
        let (table, entry) = (space.root.0, self.tables[space.root.0]);
        match space.phase {
            Phase::Done => return Ok(None),
            // The root's entry has no W, and nobody else has one.
            Phase::Table(0) if self.table_counts[table] == 1 => {
                self.spaces[number].root.1 = true;
                self.spaces[number].phase = Phase::Page(0);
            }
            Phase::Table(done) => {
                self.step(number, order.table[done], order)?;
                self.spaces[number].phase = match done + 1 {
                    all if all == order.table.len() => Phase::Page(0),
                    done => Phase::Table(done),
                };
            }
            Phase::Page(0) if entry.is_writable => self.spaces[number].phase = Phase::Done,
            Phase::Page(0) if self.page_counts[entry.page.unwrap()] == 1 => {
                self.tables[table].is_writable = true;
                self.spaces[number].phase = Phase::Done;
            }
            Phase::Page(done) => {
                self.step(number, order.page[done], order)?;
                self.spaces[number].phase = match done + 1 {
                    all if all == order.page.len() => Phase::Done,
                    done => Phase::Page(done),
                };
            }
        }
        Ok(Some(self))
    }

    /// A step of the space with this number, which copies what is [`OLD`].
    fn step(&mut self, number: usize, step: Step, order: &Order) -> Result<(), String> {
        let (own, space) = (number + 1, &mut self.spaces[number]);
        match step {
            CountUp => self.page_counts[OLD] += 1,
            ClearW => self.tables[OLD].is_writable = false,
            Build => {
                self.tables[own] = Entry {
                    page: self.tables[OLD].page,
                    is_writable: false,
                };
                self.table_counts[own] = 1;
            }
            PublishTable => space.root = (own, true),
            FlushTable | FlushPage => (space.cached_table, space.cached_page) = (None, None),
            CountTableDown => {
                self.table_counts[OLD] = count_down(self.table_counts[OLD])?;
                if self.table_counts[OLD] == 0 && order.drops {
                    self.page_counts[OLD] = count_down(self.page_counts[OLD])?;
                }
            }
            Condemn => self.tables[space.root.0].page = None,
            PublishPage => {
                self.pages[own] = self.pages[OLD];
                self.page_counts[own] = 1;
                self.tables[space.root.0] = Entry {
                    page: Some(own),
                    is_writable: true,
                };
            }
            CountPageDown => self.page_counts[OLD] = count_down(self.page_counts[OLD])?,
        }
        Ok(())
    }

    /// Any CPU of the space writes as soon as it can.
    fn a_cpu_writes(mut self, number: usize) -> Option<Self> {
        let space = &mut self.spaces[number];
        let (table, is_writable) = space.root;
        let entry = self.tables[table];
        let page = entry
            .page
            .filter(|_| is_writable && entry.is_writable && !space.has_written)?;
        space.has_written = true;
        self.pages[page] = number + 1;
        Some(self)
    }

    /// The second CPU of the space caches the path, from what it has cached on.
    fn the_second_cpu_walks(mut self, number: usize) -> Option<Self> {
        let space = &mut self.spaces[number];
        let table = space.cached_table.unwrap_or(space.root.0);
        let page = self.tables[table].page;
        if space.cached_table.is_some() && space.cached_page.is_some() {
            return None;
        }
        (space.cached_table, space.cached_page) = (Some(table), space.cached_page.or(page));
        Some(self)
    }

    /// What is wrong.
    fn check(&self) -> Result<(), String> {
        for (number, space) in self.spaces.iter().enumerate() {
            let reached = [space.cached_table, Some(space.root.0)];
            for table in reached.into_iter().flatten() {
                if self.table_counts[table] == 0 {
                    return Err("a free table is reachable".into());
                }
            }
            let live = self.tables[space.root.0].page;
            for page in [space.cached_page, live].into_iter().flatten() {
                if self.page_counts[page] == 0 {
                    return Err("a free page is reachable".into());
                }
                match self.pages[page] {
                    0 if space.has_written => return Err("a CPU reads what was before".into()),
                    byte if byte != 0 && byte != number + 1 => {
                        return Err("a space reads the other one's byte".into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What is wrong in the end.
    fn check_end(&self) -> Result<(), String> {
        let roots = self.spaces.map(|space| space.root.0);
        let nr_roots = [0, 1, 2].map(|table| roots.iter().filter(|&&root| root == table).count());
        if nr_roots.map(|count| count as u8) != self.table_counts {
            return Err("a table's count is wrong".into());
        }
        let pages = roots.map(|root| self.tables[root].page);
        let nr_pages = [0, 1, 2].map(|page| pages.iter().filter(|&&p| p == Some(page)).count());
        if nr_pages.map(|count| count as u8) != self.page_counts {
            return Err("a page's count is wrong".into());
        }
        match self.spaces.iter().all(|space| space.has_written) {
            true => Ok(()),
            false => Err("a space cannot write".into()),
        }
    }
}

fn count_down(count: u8) -> Result<u8, String> {
    count
        .checked_sub(1)
        .ok_or("a count falls below zero".into())
}

/// Tries all interleavings. Returns how many states there are.
fn explore(order: &Order) -> Result<usize, String> {
    let mut seen = HashSet::from([State::first()]);
    let mut left = vec![State::first()];
    while let Some(state) = left.pop() {
        state.check()?;
        let next = state.next(order)?;
        if next.is_empty() {
            state.check_end()?;
        }
        left.extend(next.into_iter().filter(|next| seen.insert(*next)));
    }
    Ok(seen.len())
}

fn fails(order: &Order, why: &[&str]) {
    let error = explore(order).expect_err("an order that fails");
    assert!(why.contains(&error.as_str()), "{error}");
}

#[test]
fn count_up_clear_build_publish_flush_count_down() {
    let nr_states = explore(&Order::default()).unwrap();
    assert!(nr_states > 1000, "{nr_states} states are too few");
}

#[test]
fn what_comes_before_publishing_may_come_in_any_order() {
    let orders = [
        [CountUp, ClearW, Build],
        [CountUp, Build, ClearW],
        [ClearW, CountUp, Build],
        [ClearW, Build, CountUp],
        [Build, CountUp, ClearW],
        [Build, ClearW, CountUp],
    ];
    for [a, b, c] in orders {
        let order = Order::of_table([a, b, c, PublishTable, FlushTable, CountTableDown]);
        explore(&order).unwrap();
    }
}

#[test]
fn a_table_counted_down_before_the_flush_is_reachable_when_it_is_free() {
    let order = Order::of_table([
        CountUp,
        ClearW,
        Build,
        PublishTable,
        CountTableDown,
        FlushTable,
    ]);
    fails(
        &order,
        &[
            "a free table is reachable",
            "a free page is reachable",
            "a space reads the other one's byte",
        ],
    );
}

#[test]
fn a_table_counted_down_before_its_pages_are_counted_up_has_two_writers() {
    let order = Order::of_table([
        ClearW,
        Build,
        PublishTable,
        FlushTable,
        CountTableDown,
        CountUp,
    ]);
    fails(
        &order,
        &[
            "a space reads the other one's byte",
            "a count falls below zero",
            "a free page is reachable",
        ],
    );
}

#[test]
fn w_cleared_after_the_table_is_counted_down_has_two_writers() {
    let order = Order::of_table([
        CountUp,
        Build,
        PublishTable,
        FlushTable,
        CountTableDown,
        ClearW,
    ]);
    fails(&order, &["a space reads the other one's byte"]);
}

#[test]
fn a_copy_of_a_table_published_after_the_flush_leaves_a_stale_one() {
    let order = Order::of_table([
        CountUp,
        ClearW,
        Build,
        FlushTable,
        PublishTable,
        CountTableDown,
    ]);
    fails(
        &order,
        &[
            "a free table is reachable",
            "a free page is reachable",
            "a space reads the other one's byte",
        ],
    );
}

#[test]
fn a_page_counted_down_before_the_flush_is_read_when_the_other_space_has_written() {
    let order = Order::of_page(&[Condemn, PublishPage, CountPageDown, FlushPage]);
    fails(
        &order,
        &[
            "a space reads the other one's byte",
            "a free page is reachable",
            "a CPU reads what was before",
        ],
    );
    // Also where the copy is published last.
    let order = Order::of_page(&[Condemn, CountPageDown, FlushPage, PublishPage]);
    fails(
        &order,
        &[
            "a space reads the other one's byte",
            "a free page is reachable",
        ],
    );
}

#[test]
fn a_copy_published_before_the_flush_is_written_while_the_original_is_read() {
    let order = Order::of_page(&[Condemn, PublishPage, FlushPage, CountPageDown]);
    fails(&order, &["a CPU reads what was before"]);
}

#[test]
fn a_page_that_stays_in_reach_during_the_flush_is_cached_again() {
    let order = Order::of_page(&[FlushPage, PublishPage, CountPageDown]);
    fails(
        &order,
        &[
            "a CPU reads what was before",
            "a space reads the other one's byte",
            "a free page is reachable",
        ],
    );
}

#[test]
fn a_second_count_down_without_the_drop_leaks() {
    let order = Order {
        drops: false,
        ..Order::default()
    };
    fails(&order, &["a page's count is wrong"]);
}
