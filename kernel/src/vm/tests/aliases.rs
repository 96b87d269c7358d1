//! The same table in several places: sent twice, sent to oneself, sent on, moved away; and what
//! becomes of it when its owners change it or die.

use super::{
    A, B, GIB, PAGE, TABLE, assert_all_free, check, copy, copy_bytes, entry, fork, free_count,
    peek, put, share, space, table_count, with_spaces, with_spaces_in,
};
use cowslip_abi::{Error, Perm, ShareMode};

use crate::{
    mm::{Mm, sim::SimMemory},
    vm::{PageTable, Side, Transfer, entry::Kind},
};

/// A table of pages at `addr`, of which this one and the last are written.
fn map_table(mm: &Mm, table: &PageTable, addr: u64, byte: u8) {
    table.map_zero(mm, addr, TABLE, Perm::RW).unwrap();
    put(mm, table, addr, byte);
    put(mm, table, addr + TABLE - PAGE, byte);
}

fn move_bytes(mm: &Mm, dst: &PageTable, to: u64, src: &PageTable, from: u64, len: u64) {
    copy(mm, dst, to, src, from, len, Transfer::Move).unwrap();
}

/// The first and last written byte of a table.
fn ends(mm: &Mm, table: &PageTable, addr: u64) -> [u8; 2] {
    [addr, addr + TABLE - PAGE].map(|addr| peek(mm, table, addr))
}

#[test]
fn the_same_page_twice_in_one_message_from_shared_tables() {
    with_spaces(|mm, one, two| {
        let child = space(mm);
        map_table(mm, one, A, 1);
        map_table(mm, two, B, 2);
        copy_bytes(mm, one, A + PAGE, one, A, PAGE).unwrap();
        fork(mm, &child, one);
        for _ in 0..2 {
            copy_bytes(mm, two, B, &child, A, 2 * PAGE).unwrap();
            check(mm, &[one, two, &child]);
        }
        put(mm, two, B, 3);
        put(mm, &child, A, 4);
        let seen = [
            (one, A),
            (&child, A),
            (&child, A + PAGE),
            (two, B),
            (two, B + PAGE),
        ];
        assert_eq!(seen.map(|(s, addr)| peek(mm, s, addr)), [1, 4, 1, 3, 1]);
        check(mm, &[one, two, &child]);
        child.destroy(mm);
    });
}

#[test]
fn the_same_table_twice_in_one_message() {
    for transfer in [Transfer::Copy, Transfer::Move] {
        with_spaces(|mm, one, two| {
            one.map_zero(mm, A, 2 * TABLE, Perm::RW).unwrap();
            put(mm, one, A, 1);
            two.map_zero(mm, B, 4 * TABLE, Perm::RW).unwrap();
            share(mm, one, GIB, one, A, TABLE, ShareMode::CopyOnWrite, None).unwrap();
            share(
                mm,
                one,
                GIB + TABLE,
                one,
                A,
                TABLE,
                ShareMode::CopyOnWrite,
                None,
            )
            .unwrap();
            assert_eq!(table_count(mm, one, A, 1), 3);
            copy(mm, two, B, one, GIB, 2 * TABLE, transfer).unwrap();
            check(mm, &[one, two]);
            assert_eq!([B, B + TABLE].map(|addr| peek(mm, two, addr)), [1, 1]);
            put(mm, two, B, 2);
            let left = if transfer == Transfer::Copy { 1 } else { 0 };
            assert_eq!(
                [GIB, GIB + TABLE].map(|addr| peek(mm, one, addr)),
                [left; 2]
            );
            assert_eq!([B, B + TABLE].map(|addr| peek(mm, two, addr)), [2, 1]);
            // And page by page, from and to the middle of tables.
            copy(
                mm,
                two,
                B + 3 * PAGE,
                one,
                GIB + PAGE,
                2 * TABLE - PAGE,
                transfer,
            )
            .unwrap();
            check(mm, &[one, two]);
            assert_eq!(peek(mm, two, B + TABLE + 2 * PAGE), left);
        });
    }
}

#[test]
fn a_space_sends_whole_tables_to_itself() {
    with_spaces(|mm, one, two| {
        map_table(mm, one, A, 1);
        map_table(mm, one, A + 4 * TABLE, 2);
        copy_bytes(mm, one, A + 4 * TABLE, one, A, TABLE).unwrap();
        check(mm, &[one, two]);
        assert_eq!(table_count(mm, one, A, 1), 2);
        // Back again: nothing to do.
        copy_bytes(mm, one, A, one, A + 4 * TABLE, TABLE).unwrap();
        assert_eq!(table_count(mm, one, A, 1), 2);
        put(mm, one, A, 3);
        assert_eq!(
            [A, A + 4 * TABLE].map(|addr| ends(mm, one, addr)),
            [[3, 1], [1, 1]]
        );
        check(mm, &[one, two]);
        // Each is its table's last owner now; the last page still has two.
        move_bytes(mm, one, A + 4 * TABLE, one, A, TABLE);
        check(mm, &[one, two]);
        assert_eq!(
            [A, A + 4 * TABLE].map(|addr| ends(mm, one, addr)),
            [[0, 0], [3, 1]]
        );
    });
}

#[test]
fn a_gigabyte_sent_to_oneself_is_one_entry() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, GIB, Perm::RW).unwrap();
        one.map_zero(mm, 4 * GIB, GIB, Perm::RW).unwrap();
        put(mm, one, A, 1);
        let free = mm.frames.free_count();
        copy_bytes(mm, one, 4 * GIB, one, 0, GIB).unwrap();
        assert_eq!(mm.frames.free_count(), free);
        assert_eq!(table_count(mm, one, A, 2), 2);
        check(mm, &[one, two]);
        put(mm, one, 4 * GIB + A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, one, 4 * GIB + A)), (1, 2));
        check(mm, &[one, two]);
    });
}

#[test]
fn overlapping_send_and_reply_ranges_are_errors() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, A, 4 * TABLE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        for (to, from, len) in [
            (A, A, TABLE),
            (A + TABLE, A, 2 * TABLE),
            (A, A + TABLE, 2 * TABLE),
            (A + TABLE - PAGE, A, TABLE),
            (A, A + TABLE - 1, TABLE),
        ] {
            for transfer in [Transfer::Copy, Transfer::Move] {
                let error = copy(mm, one, to, one, from, len, transfer).unwrap_err();
                assert_eq!(
                    (error.side, error.error),
                    (Side::Destination, Error::Overlap)
                );
            }
        }
        assert_eq!(peek(mm, one, A), 1);
    });
}

/// A table goes down a chain of spaces; then these die in the order that is given.
fn chain(nr_spaces: usize, order: impl Fn(usize) -> usize) {
    let sim = SimMemory::new(16 + 4 * nr_spaces);
    let mm = sim.mm();
    let mut spaces: Vec<_> = (0..nr_spaces).map(|_| Some(space(mm))).collect();
    for table in spaces.iter().flatten() {
        table.map_zero(mm, A, TABLE, Perm::RW).unwrap();
    }
    put(mm, spaces[0].as_ref().unwrap(), A, 1);
    let free = mm.frames.free_count();
    for pair in spaces.windows(2) {
        let [Some(from), Some(to)] = pair else {
            unreachable!()
        };
        copy_bytes(mm, to, A, from, A, TABLE).unwrap();
    }
    assert_eq!(mm.frames.free_count(), free, "no frame for {nr_spaces}");
    let first = spaces[0].as_ref().unwrap();
    let table = entry(mm, first, A, 1).table_below().unwrap();
    assert_eq!(mm.counts.get(table), nr_spaces as u64);
    for number in 0..nr_spaces {
        spaces[order(number)].take().unwrap().destroy(mm);
        free_count(mm);
        let left: Vec<_> = spaces.iter().flatten().collect();
        check(mm, &left);
        if let Some(last) = left.last() {
            assert_eq!(mm.counts.get(table), left.len() as u64);
            assert_eq!(peek(mm, last, A), 1);
            assert_eq!(peek(mm, left[0], A), 1);
        }
        if let [last] = left[..] {
            put(mm, last, A, 2);
            assert_eq!(mm.stats.cow_broken.get(), 0, "the last owner takes it back");
        }
    }
    assert_all_free(mm);
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn a_table_sent_down_a_chain_of_spaces_is_shared_by_all() {
    let nr_spaces = 100;
    chain(nr_spaces, |number| number);
    chain(nr_spaces, |number| nr_spaces - 1 - number);
    chain(nr_spaces, |number| (number * 37 + 11) % nr_spaces);
}

#[test]
fn target_tables_that_are_shared_themselves() {
    for transfer in [Transfer::Copy, Transfer::Move] {
        for len in [PAGE, 3 * PAGE, TABLE] {
            with_spaces(|mm, one, two| {
                let (child, other) = (space(mm), space(mm));
                map_table(mm, one, A, 1);
                map_table(mm, two, A, 2);
                fork(mm, &child, one);
                fork(mm, &other, two);
                copy(mm, &other, A, &child, A, len, transfer).unwrap();
                let all = [one, two, &child, &other];
                check(mm, &all);
                let left = if transfer == Transfer::Copy { 1 } else { 0 };
                assert_eq!(all.map(|s| peek(mm, s, A)), [1, 2, left, 1], "{len} bytes");
                put(mm, &other, A, 4);
                put(mm, &child, A, 3);
                assert_eq!(all.map(|s| peek(mm, s, A)), [1, 2, 3, 4]);
                check(mm, &all);
                child.destroy(mm);
                other.destroy(mm);
            });
        }
    }
}

#[test]
fn sender_and_receiver_share_the_tables_of_both_buffers() {
    with_spaces(|mm, one, two| {
        map_table(mm, one, A, 1);
        map_table(mm, one, A + 4 * TABLE, 2);
        fork(mm, two, one);
        for transfer in [Transfer::Copy, Transfer::Move] {
            copy(mm, two, A + 4 * TABLE, one, A, TABLE, transfer).unwrap();
            check(mm, &[one, two]);
        }
        let seen = |s: &PageTable| [A, A + 4 * TABLE].map(|addr| peek(mm, s, addr));
        assert_eq!((seen(one), seen(two)), ([0, 2], [1, 1]));
        put(mm, two, A + 4 * TABLE, 3);
        assert_eq!((seen(one), seen(two)), ([0, 2], [1, 3]));
    });
}

#[test]
fn a_message_outlives_what_its_source_does_next() {
    let nexts: [fn(&Mm, &PageTable); 6] = [
        |mm, one| one.unmap(mm, A, TABLE).unwrap(),
        |mm, one| one.unmap(mm, A + PAGE, TABLE - PAGE).unwrap(),
        |mm, one| one.protect(mm, A, TABLE, Perm::R).unwrap(),
        |mm, one| one.protect(mm, A, PAGE, Perm::R).unwrap(),
        |mm, one| put(mm, one, A, 9),
        |mm, one| {
            one.unmap(mm, 0, super::USER_END).unwrap();
            free_count(mm);
        },
    ];
    for transfer in [Transfer::Copy, Transfer::Move] {
        for next in nexts {
            with_spaces(|mm, one, two| {
                map_table(mm, one, A, 1);
                map_table(mm, two, B, 2);
                copy(mm, two, B, one, A, TABLE, transfer).unwrap();
                next(mm, one);
                check(mm, &[one, two]);
                assert_eq!(ends(mm, two, B), [1, 1]);
                put(mm, two, B, 3);
                assert_eq!(ends(mm, two, B), [3, 1]);
                check(mm, &[one, two]);
            });
        }
    }
}

#[test]
fn a_message_outlives_its_sender() {
    for transfer in [Transfer::Copy, Transfer::Move] {
        with_spaces(|mm, one, two| {
            let sender = space(mm);
            map_table(mm, &sender, A, 1);
            fork(mm, one, &sender);
            map_table(mm, two, B, 2);
            copy(mm, two, B, &sender, A, TABLE, transfer).unwrap();
            sender.destroy(mm);
            free_count(mm);
            check(mm, &[one, two]);
            put(mm, two, B, 3);
            put(mm, one, A, 4);
            assert_eq!((ends(mm, one, A), ends(mm, two, B)), ([4, 1], [3, 1]));
            check(mm, &[one, two]);
        });
    }
}

#[test]
fn a_table_moved_by_its_only_owner_is_writable_at_once() {
    with_spaces(|mm, one, two| {
        map_table(mm, one, A, 1);
        map_table(mm, two, B, 2);
        let table = entry(mm, one, A, 1).table_below();
        move_bytes(mm, two, B, one, A, TABLE);
        assert_eq!(entry(mm, two, B, 1).table_below(), table);
        assert!(entry(mm, two, B, 1).is_writable() && two.lookup(mm, B).is_writable());
        assert_eq!(entry(mm, one, A, 1).table_below(), None);
        assert_eq!(one.lookup(mm, A).kind(), Kind::Zero);
        put(mm, two, B, 3);
        assert_eq!(
            (mm.stats.cow_broken.get(), mm.stats.reclaimed.get()),
            (0, 0)
        );
        check(mm, &[one, two]);
    });
}

#[test]
fn a_share_by_move_takes_tables_as_they_are() {
    with_spaces(|mm, one, two| {
        map_table(mm, one, A, 1);
        one.protect(mm, A + PAGE, PAGE, Perm::R).unwrap();
        let table = entry(mm, one, A, 1).table_below();
        let free = mm.frames.free_count();
        share(mm, one, A + 8 * TABLE, one, A, TABLE, ShareMode::Move, None).unwrap();
        assert_eq!(entry(mm, one, A + 8 * TABLE, 1).table_below(), table);
        assert_eq!(mm.frames.free_count(), free);
        check(mm, &[one, two]);
        assert!(!one.lookup(mm, A + 8 * TABLE + PAGE).may_write());
        assert!(one.lookup(mm, A).is_empty());
        assert_eq!(ends(mm, one, A + 8 * TABLE), [1, 1]);
        // To another space, which leaves nothing behind.
        share(mm, two, B, one, A + 8 * TABLE, TABLE, ShareMode::Move, None).unwrap();
        check(mm, &[one, two]);
        assert_eq!(one.statistics(mm).tables, 1);
        assert_eq!(ends(mm, two, B), [1, 1]);
    });
}

#[test]
fn a_dead_table_is_worked_off_in_bounded_steps_and_counts_until_then() {
    with_spaces_in(1200, |mm, one, two| {
        let free = mm.frames.free_count();
        one.map_zero(mm, A, 2 * TABLE, Perm::RW).unwrap();
        for page in 0..1024 {
            put(mm, one, A + page * PAGE, 1);
        }
        one.unmap(mm, 0, super::USER_END).unwrap();
        check(mm, &[one, two]);
        let mut nr_steps = 0;
        loop {
            let before = mm.frames.free_count();
            let is_done = crate::vm::reap_some(mm, 1);
            check(mm, &[one, two]);
            assert!(mm.frames.free_count() - before <= 513);
            nr_steps += 1;
            if is_done {
                break;
            }
        }
        assert!(nr_steps >= 4, "{nr_steps} steps");
        assert_eq!(mm.frames.free_count(), free);
    });
}

#[test]
fn looking_through_dead_tables_that_are_nearly_empty_is_bounded_too() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, 0, 40 * TABLE, Perm::RW).unwrap();
        (0..40).for_each(|table| put(mm, one, table * TABLE, 1));
        one.unmap(mm, 0, 40 * TABLE).unwrap();
        let mut nr_steps = 1;
        while !crate::vm::reap_some(mm, 640) {
            nr_steps += 1;
        }
        assert!(nr_steps >= 4, "{nr_steps} steps for 40 pages");
    });
}
