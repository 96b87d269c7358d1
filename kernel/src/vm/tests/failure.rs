//! Lesson 12, reserve, then commit: an operation that runs out of memory changes nothing.

use super::{A, B, PAGE, assert_all_free, copy_bytes, put, space};
use cowslip_abi::{Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{Mm, sim::SimMemory},
    vm::{PageTable, entry::Entry, share, write_user},
};

type Operation = fn(&Mm, &PageTable, &PageTable) -> Result<(), Error>;

/// Runs `operation` with 0, 1, 2, ... free frames until it succeeds. Each failure must leave every
/// entry, count and frame as it was; only nodes of the reference counts may have been made.
fn fails_cleanly(operation: Operation) {
    let mut failures = 0;
    loop {
        let sim = SimMemory::new(128);
        let mm = sim.mm();
        let (one, two, third) = (space(mm), space(mm), space(mm));
        prepare(mm, &one, &two, &third);
        let mut hoard = Vec::new();
        while mm.frames.free_count() > failures {
            hoard.extend(mm.frames.alloc());
        }
        let before = state(mm, &one, &two);
        let result = operation(mm, &one, &two);
        let after = state(mm, &one, &two);
        if result.is_err() {
            assert_eq!(result, Err(Error::NoMemory));
            assert!(
                before == after,
                "a failure with {failures} free frames changed something"
            );
        }
        hoard.into_iter().for_each(|frame| mm.frames.free(frame));
        [one, two, third]
            .into_iter()
            .for_each(|table| table.destroy(mm));
        assert_all_free(mm);
        if result.is_ok() {
            break;
        }
        failures += 1;
    }
    assert!(failures > 0, "nothing to run out of");
}

/// In `one` at [`A`]: zero, private, copy-on-write, shared, zero. In `two` at [`B`] likewise.
fn prepare(mm: &Mm, one: &PageTable, two: &PageTable, third: &PageTable) {
    for (table, addr) in [(one, A), (two, B)] {
        table.map_zero(mm, addr + 2 * PAGE, PAGE, Perm::RW).unwrap();
        put(mm, table, addr + 2 * PAGE, 2);
        let cow = addr + 2 * PAGE;
        share(
            mm,
            third,
            cow,
            table,
            cow,
            PAGE,
            ShareMode::CopyOnWrite,
            None,
        )
        .unwrap();
        table.map_zero(mm, addr, 2 * PAGE, Perm::RW).unwrap();
        table
            .map_zero(mm, addr + 3 * PAGE, 2 * PAGE, Perm::RW)
            .unwrap();
        put(mm, table, addr + PAGE, 1);
        let to = addr + 3 * PAGE;
        share(mm, third, to, table, to, PAGE, ShareMode::Shared, None).unwrap();
    }
}

#[derive(PartialEq)]
struct State {
    entries: Vec<Entry>,
    tables: [u64; 2],
    free_and_nodes: u64,
    shared: u64,
}

fn state(mm: &Mm, one: &PageTable, two: &PageTable) -> State {
    let lookup = |table: &PageTable, addr| {
        (0..8)
            .map(move |n| addr + n * PAGE)
            .map(|a| table.lookup(mm, a))
            .collect::<Vec<_>>()
    };
    State {
        entries: [lookup(one, A), lookup(two, B), lookup(two, A)].concat(),
        tables: [one.statistics(mm).tables, two.statistics(mm).tables],
        free_and_nodes: mm.frames.free_count() + mm.counts.nodes(),
        shared: mm.counts.shared(),
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_map() {
    fails_cleanly(|mm, one, _| one.map_zero(mm, (1 << 39) - PAGE, 2 * PAGE, Perm::RW));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_fork() {
    fails_cleanly(|mm, one, two| share(mm, two, A, one, A, B - A, ShareMode::CopyOnWrite, None));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_snapshot() {
    fails_cleanly(|mm, one, two| {
        share(
            mm,
            two,
            A,
            one,
            A,
            5 * PAGE,
            ShareMode::CopyOnWrite,
            Some(Perm::RW),
        )
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_shared_memory() {
    fails_cleanly(|mm, one, two| share(mm, two, A, one, A, 5 * PAGE, ShareMode::Shared, None));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_move() {
    fails_cleanly(|mm, one, two| share(mm, two, A, one, A, 5 * PAGE, ShareMode::Move, None));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_message() {
    fails_cleanly(|mm, one, two| copy_bytes(mm, two, B, one, A, 5 * PAGE - 1).map_err(|e| e.error));
    fails_cleanly(|mm, one, two| copy_bytes(mm, two, B, one, A + 1, 4 * PAGE).map_err(|e| e.error));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_kernel_write() {
    fails_cleanly(|mm, one, _| write_user(mm, one, A + 1, &[7; 4 * PAGE_SIZE]));
}
