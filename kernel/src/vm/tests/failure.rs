//! Lesson 12, reserve, then commit: an operation that runs out of memory changes nothing.

use super::{
    A, B, GIB, PAGE, TABLE, assert_all_free, check, copy, copy_bytes, fork, put, share, space,
    user_entries,
};
use cowslip_abi::{Access, Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{Frame, Mm, sim::SimMemory},
    vm::{
        Fault, PageTable, Transfer,
        entry::{Entry, Slot},
        fault, make_room, write_user,
    },
};

type Operation = fn(&Mm, &PageTable, &PageTable) -> Result<(), Error>;
type Preparation = fn(&Mm, &PageTable, &PageTable, &PageTable);

/// Runs `operation` with 0, 1, 2, ... free frames until it succeeds. Each failure must leave every
/// entry, count and frame as it was; only nodes of the reference counts may have been made.
fn fails_cleanly(operation: Operation) {
    fails_cleanly_after(prepare, operation);
}

/// The same after another preparation. Returns how many frames the operation took.
fn fails_cleanly_after(prepare: Preparation, operation: Operation) -> u64 {
    let mut failures = 0;
    loop {
        let sim = SimMemory::new(1200);
        let mm = sim.mm();
        let (one, two, third) = (space(mm), space(mm), space(mm));
        prepare(mm, &one, &two, &third);
        let mut hoard = Vec::new();
        while mm.frames.free_count() > failures {
            hoard.extend(mm.frames.alloc());
        }
        let before = state(mm, [&one, &two, &third]);
        let result = operation(mm, &one, &two);
        let after = state(mm, [&one, &two, &third]);
        if result.is_err() {
            assert_eq!(result, Err(Error::NoMemory));
            assert!(
                before == after,
                "a failure with {failures} free frames changed something"
            );
        }
        hoard.into_iter().for_each(|frame| mm.frames.free(frame));
        check(mm, &[&one, &two, &third]);
        [one, two, third]
            .into_iter()
            .for_each(|table| table.destroy(mm));
        assert_all_free(mm);
        if result.is_ok() {
            break;
        }
        failures += 1;
        assert!(failures < 1000, "never succeeds");
    }
    assert!(failures > 0, "nothing to run out of");
    failures
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

/// In `one` at [`A`] two tables, the first of them plain, and in `two` at [`B`] the same; the tables of
/// both are shared with the third space.
fn prepare_tables(mm: &Mm, one: &PageTable, two: &PageTable, third: &PageTable) {
    for (table, addr) in [(one, A), (two, B)] {
        table.map_zero(mm, addr, 2 * TABLE, Perm::RW).unwrap();
        for page in [0, 5, 511, 512, 700] {
            put(mm, table, addr + page * PAGE, 1);
        }
        let mode = ShareMode::CopyOnWrite;
        share(mm, third, addr, table, addr, 2 * TABLE, mode, None).unwrap();
    }
    let shared = A + TABLE + 300 * PAGE;
    share(mm, third, GIB, one, shared, PAGE, ShareMode::Shared, None).unwrap();
}

/// In `one` 512 GiB that nobody has touched; `two` and the third space have the same tables.
fn prepare_lazy(mm: &Mm, one: &PageTable, two: &PageTable, third: &PageTable) {
    one.map_zero(mm, 0, 512 * GIB, Perm::RW).unwrap();
    two.map_zero(mm, A, PAGE, Perm::RW).unwrap();
    put(mm, two, A, 1);
    fork(mm, third, two);
}

/// Every entry of every table, and the numbers that add up to all of memory.
#[derive(PartialEq)]
struct State {
    entries: Vec<(u32, Entry)>,
    free_and_nodes: u64,
    shared: u64,
}

fn state(mm: &Mm, spaces: [&PageTable; 3]) -> State {
    let mut entries = Vec::new();
    for space in spaces {
        note_entries(mm, space.root(), 3, &mut entries);
    }
    State {
        entries,
        free_and_nodes: mm.frames.free_count() + mm.counts.nodes(),
        shared: mm.counts.shared(),
    }
}

fn note_entries(mm: &Mm, table: Frame, level: u32, entries: &mut Vec<(u32, Entry)>) {
    for entry in user_entries(mm, table, level).map(Slot::get) {
        entries.push((level, entry));
        if let Some(below) = entry.table_below().filter(|_| level > 0) {
            note_entries(mm, below, level - 1, entries);
        }
    }
}

/// A write fault. The thread makes it again while something can be worked off.
fn write_fault(mm: &Mm, table: &PageTable, addr: u64) -> Result<(), Error> {
    match fault(mm, table, addr, Access::Write) {
        Fault::Resolved => Ok(()),
        Fault::OutOfMemory if make_room(mm) => write_fault(mm, table, addr),
        Fault::OutOfMemory => Err(Error::NoMemory),
        denied => panic!("{denied:?}"),
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

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_splitting_tables_at_a_fault() {
    let frames = fails_cleanly_after(prepare_lazy, |mm, one, _| write_fault(mm, one, 3 * GIB));
    assert_eq!(frames, 4, "three tables and a page");
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_splitting_tables_for_a_protection() {
    let frames = fails_cleanly_after(prepare_lazy, |mm, one, _| {
        one.protect(mm, 3 * GIB - PAGE, 2 * PAGE, Perm::R)
    });
    assert_eq!(frames, 5);
    let frames = fails_cleanly_after(prepare_lazy, |mm, one, _| {
        one.unmap(mm, 3 * GIB - PAGE, GIB + TABLE + 2 * PAGE)
    });
    assert_eq!(frames, 5);
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_copying_tables_at_a_fault() {
    let frames = fails_cleanly_after(prepare_lazy, |mm, _, two| write_fault(mm, two, A));
    assert_eq!(frames, 4, "three tables and a page");
    let frames = fails_cleanly_after(prepare_tables, |mm, one, _| write_fault(mm, one, A + PAGE));
    assert_eq!(
        frames, 2,
        "a table of pages, and a page that nobody has touched"
    );
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_a_message_of_whole_tables() {
    // One plain table goes over whole, the other page by page; with ragged ends as well.
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        copy_bytes(mm, two, B, one, A, 2 * TABLE).map_err(|e| e.error)
    });
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        copy_bytes(mm, two, B + 9, one, A + 9, 2 * TABLE - 10).map_err(|e| e.error)
    });
    fails_cleanly_after(prepare_lazy, |mm, one, two| {
        copy_bytes(mm, two, A, one, 3 * GIB + A, PAGE).map_err(|e| e.error)
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_a_move_of_whole_tables() {
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        copy(mm, two, B, one, A, 2 * TABLE, Transfer::Move).map_err(|e| e.error)
    });
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        let len = TABLE + 9 * PAGE;
        copy(mm, two, B + PAGE, one, A, len, Transfer::Move).map_err(|e| e.error)
    });
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        copy(mm, two, B + 1, one, A, 3 * PAGE, Transfer::Move).map_err(|e| e.error)
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_unmapping_in_the_middle_of_shared_tables() {
    let frames = fails_cleanly_after(prepare_tables, |mm, one, _| {
        one.unmap(mm, A + PAGE, 2 * TABLE - 2 * PAGE)
    });
    assert_eq!(
        frames, 1,
        "the table at the start; that at the end was copied before"
    );
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_protecting_below_shared_tables() {
    let frames = fails_cleanly_after(prepare_tables, |mm, one, _| {
        one.protect(mm, A + PAGE, 2 * TABLE - 2 * PAGE, Perm::R)
    });
    assert_eq!(frames, 1);
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_12_sharing_by_move_out_of_shared_tables() {
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        let (from, len) = (A + PAGE, 2 * TABLE - 2 * PAGE);
        share(mm, two, A, one, from, len, ShareMode::Move, None)
    });
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        share(mm, two, A, one, A, 2 * TABLE, ShareMode::Move, None)
    });
    fails_cleanly_after(prepare_tables, |mm, one, two| {
        share(mm, two, A, one, A, TABLE, ShareMode::Shared, None)
    });
}

#[test]
fn memory_is_out_only_when_no_dead_table_waits() {
    let operations: [Operation; 5] = [
        |mm, one, _| one.map_zero(mm, B, PAGE, Perm::RW),
        |mm, one, _| write_fault(mm, one, A),
        |mm, one, _| one.unmap(mm, GIB + PAGE, PAGE),
        |mm, _, two| write_user(mm, two, A, &[1; 2]),
        |mm, _, _| {
            PageTable::new(mm, &[0; 256])?.destroy(mm);
            Ok(())
        },
    ];
    for operation in operations {
        let sim = SimMemory::new(128);
        let mm = sim.mm();
        let (one, two, dying) = (space(mm), space(mm), space(mm));
        for table in [&one, &two, &dying] {
            table.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
            put(mm, table, A + PAGE, 1);
        }
        one.map_zero(mm, GIB, GIB, Perm::RW).unwrap();
        dying.destroy(mm);
        let mut hoard = Vec::new();
        while let Some(frame) = mm.frames.alloc() {
            hoard.push(frame);
        }
        assert_eq!(operation(mm, &one, &two), Ok(()));
        hoard.into_iter().for_each(|frame| mm.frames.free(frame));
        check(mm, &[&one, &two]);
        [one, two].into_iter().for_each(|table| table.destroy(mm));
        assert_all_free(mm);
    }
}

#[test]
fn what_the_dead_named_need_not_be_copied_when_they_are_worked_off() {
    let sim = SimMemory::new(128);
    let mm = sim.mm();
    let (parent, child) = (space(mm), space(mm));
    parent.map_zero(mm, A, 16 * PAGE, Perm::RW).unwrap();
    (0..16).for_each(|page| put(mm, &parent, A + page * PAGE, 1));
    fork(mm, &child, &parent);
    child.destroy(mm);
    let hoard: Vec<_> = core::iter::from_fn(|| mm.frames.alloc()).collect();
    // At first sight it takes three tables and sixteen pages; the child's root is all that comes back.
    assert_eq!(write_user(mm, &parent, A, &[2; 16 * PAGE_SIZE]), Ok(()));
    assert_eq!(mm.frames.free_count(), 1);
    hoard.into_iter().for_each(|frame| mm.frames.free(frame));
    parent.destroy(mm);
    assert_all_free(mm);
}
