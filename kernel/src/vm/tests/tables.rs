//! The shortcuts that fail, where whole tables are shared. Each test is the shortest sequence that
//! shows the failure, with everything counted again after each step: map, write, fork, transfer.
//!
//! The two pages of a test lie in different tables of pages below one upper table, so that a write to
//! one of them copies the upper table, and leaves the other one's table where it is.

use super::{
    A, B, GIB, PAGE, TABLE, USER_END, check, copy, copy_bytes, entry, fork, free_count, peek, put,
    share, share_page, slot, space, table_count, with_spaces,
};
use cowslip_abi::{Access, Commit, Error, Perm, ShareMode};

use crate::{
    mm::{
        Mm,
        sim::{Cpu, SimMemory},
    },
    vm::{
        Fault, PageTable, Side, Transfer, copy_in_place,
        entry::{Entry, Kind, Slot},
        fault, read_user,
        sim::{user_access, user_read, user_write},
        write_user,
    },
};

/// In another table of pages than [`A`], which has the same table above it.
const NEAR_A: u64 = A + 12 * TABLE;

/// Maps the pages of a test, on either side of which there is nothing.
fn map(mm: &Mm, table: &PageTable, perm: Perm) {
    for addr in [A, NEAR_A] {
        table.map_zero(mm, addr, PAGE, perm).unwrap();
    }
}

/// Maps so many whole tables from `addr` on, and writes to a page of each.
fn map_tables(mm: &Mm, table: &PageTable, addr: u64, nr_tables: u64, byte: u8) {
    table
        .map_zero(mm, addr, nr_tables * TABLE, Perm::RW)
        .unwrap();
    for number in 0..nr_tables {
        put(mm, table, addr + number * TABLE, byte);
    }
}

#[test]
fn w_cleared_only_in_the_childs_entry() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        fork(mm, two, one);
        check(mm, &[one, two]);
        // The parent must not write into a table that is the child's too.
        put(mm, one, A, 1);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 0));
        check(mm, &[one, two]);
    });
}

#[test]
fn a_fork_takes_no_frame_even_where_user_memory_ends() {
    with_spaces(|mm, one, two| {
        let last = USER_END - PAGE;
        for addr in [A, last] {
            one.map_zero(mm, addr, PAGE, Perm::RW).unwrap();
            put(mm, one, addr, 1);
        }
        let free = free_count(mm);
        fork(mm, two, one);
        assert_eq!(free_count(mm), free);
        check(mm, &[one, two]);
        put(mm, two, last, 2);
        assert_eq!((peek(mm, one, last), peek(mm, two, last)), (1, 2));
        check(mm, &[one, two]);
    });
}

/// A write of the parent to `other` copies upper tables, down to one that [`A`] is not below. The child
/// is the last owner of the old ones, which name something that the parent's copies name as well.
fn the_other_owner_writes_after(other: u64) {
    with_spaces(|mm, one, two| {
        for addr in [A, other] {
            one.map_zero(mm, addr, PAGE, Perm::RW).unwrap();
        }
        put(mm, one, A, 1);
        fork(mm, two, one);
        put(mm, one, other, 1);
        check(mm, &[one, two]);
        put(mm, two, A, 2);
        check(mm, &[one, two]);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 2));
        assert_eq!((peek(mm, one, other), peek(mm, two, other)), (1, 0));
    });
}

#[test]
fn w_cleared_only_in_the_copy_of_a_table() {
    the_other_owner_writes_after(NEAR_A);
    the_other_owner_writes_after(A + GIB);
}

#[test]
fn w_cleared_only_in_the_copy_of_a_table_of_pages() {
    the_other_owner_writes_after(A + PAGE);
}

#[test]
fn a_page_reclaimed_on_its_own_count_alone() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        put(mm, one, A, 1);
        fork(mm, two, one);
        let Kind::Private(frame) = two.lookup(mm, A).kind() else {
            panic!()
        };
        assert_eq!(mm.counts.get(frame), 1, "one entry, in a table of two");
        put(mm, two, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 2));
        assert_eq!(mm.stats.reclaimed.get(), 0);
        check(mm, &[one, two]);
    });
}

#[test]
fn counts_read_before_the_upper_levels_are_unshared() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        put(mm, one, NEAR_A, 1);
        fork(mm, two, one);
        // Untouched, and with a frame whose count is one until its table is copied.
        for addr in [A, NEAR_A] {
            put(mm, two, addr, 2);
            assert_eq!(peek(mm, two, addr), 2);
            check(mm, &[one, two]);
        }
        assert_eq!((peek(mm, one, A), peek(mm, one, NEAR_A)), (0, 1));
    });
}

#[test]
fn a_take_back_that_restores_w_below() {
    // The child takes back one, two or all of the tables on the way, and not what these name.
    for other in [A + GIB, NEAR_A, A + PAGE] {
        the_other_owner_writes_after(other);
    }
    // Nobody has touched anything.
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        fork(mm, two, one);
        put(mm, one, NEAR_A, 1);
        put(mm, two, A, 2);
        check(mm, &[one, two]);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (0, 2));
    });
}

#[test]
fn a_write_that_fills_demand_zero_memory_below_a_shared_table() {
    let writes: [fn(&Mm, &PageTable); 4] = [
        |mm, two| put(mm, two, A, 2),
        |mm, two| write_user(mm, two, A, &[2]).unwrap(),
        |mm, two| {
            two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
            put(mm, two, B, 2);
            copy_bytes(mm, two, A, two, B, 1).unwrap();
        },
        |mm, two| {
            two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
            put(mm, two, B, 2);
            copy_bytes(mm, two, A, two, B, PAGE).unwrap();
        },
    ];
    for write in writes {
        with_spaces(|mm, one, two| {
            map(mm, one, Perm::RW);
            fork(mm, two, one);
            write(mm, two);
            assert_eq!((peek(mm, one, A), peek(mm, two, A)), (0, 2));
            check(mm, &[one, two]);
        });
    }
}

#[test]
fn a_read_below_a_shared_table_sees_zeros_and_stays_private() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        fork(mm, two, one);
        assert_eq!((peek(mm, two, A), peek(mm, one, A)), (0, 0));
        check(mm, &[one, two]);
        put(mm, two, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (0, 2));
        check(mm, &[one, two]);
    });
}

#[test]
fn a_whole_table_taken_over_with_the_sources_rights() {
    with_spaces(|mm, one, _| {
        map_tables(mm, one, A, 10, 1);
        one.protect(mm, A, PAGE, Perm::R).unwrap();
        copy_bytes(mm, one, A + 8 * TABLE, one, A, 2 * TABLE).unwrap();
        // The first was sent page by page, the second one whole.
        let below = |number| entry(mm, one, A + number * TABLE, 1).table_below();
        assert_ne!(below(0), below(8));
        assert_eq!(below(1), below(9));
        put(mm, one, A + 8 * TABLE, 2);
        assert_eq!((peek(mm, one, A), peek(mm, one, A + 8 * TABLE)), (1, 2));
        assert!(user_write(mm, one, Cpu(0), A, &[3]).is_err());
    });
}

#[test]
fn a_whole_table_that_holds_a_shared_page() {
    with_spaces(|mm, one, two| {
        map_tables(mm, one, A, 4, 1);
        share_page(mm, two, one, ShareMode::Shared, None);
        copy_bytes(mm, one, A + 2 * TABLE, one, A, 2 * TABLE).unwrap();
        put(mm, two, B, 2);
        assert_eq!((peek(mm, one, A), peek(mm, one, A + 2 * TABLE)), (2, 1));
        put(mm, one, A + 2 * TABLE, 3);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (2, 2));
        check(mm, &[one, two]);
    });
}

#[test]
fn shared_pages_made_copy_on_write_when_their_table_is_copied() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        share_page(mm, two, one, ShareMode::Shared, None);
        let child = space(mm);
        fork(mm, &child, one);
        // Copies the child's table of pages, which has the shared one.
        child.protect(mm, A + PAGE, PAGE, Perm::R).unwrap();
        check(mm, &[one, two, &child]);
        put(mm, &child, A, 1);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (1, 1));
        child.destroy(mm);
        put(mm, two, B, 2);
        assert_eq!(peek(mm, one, A), 2);
    });
}

#[test]
fn protect_without_unsharing() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        fork(mm, two, one);
        two.protect(mm, A, PAGE, Perm::R).unwrap();
        check(mm, &[one, two]);
        put(mm, one, A, 1);
        assert!(user_write(mm, two, Cpu(0), A, &[2]).is_err());
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 0));
    });
}

#[test]
fn unmap_without_unsharing() {
    with_spaces(|mm, one, two| {
        map_tables(mm, one, A, 1, 1);
        fork(mm, two, one);
        two.unmap(mm, A + PAGE, TABLE - PAGE).unwrap();
        check(mm, &[one, two]);
        assert_eq!((peek(mm, one, A), peek(mm, one, A + PAGE)), (1, 0));
        assert!(two.lookup(mm, A + PAGE).is_empty());
    });
}

#[test]
fn map_without_unsharing() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        fork(mm, two, one);
        two.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        check(mm, &[one, two]);
        assert!(one.lookup(mm, A + PAGE).is_empty());
        let frame = mm.frames.alloc_zeroed().unwrap();
        one.map_frame(mm, A + 2 * PAGE, frame, Perm::R).unwrap();
        check(mm, &[one, two]);
        assert!(two.lookup(mm, A + 2 * PAGE).is_empty());
    });
}

#[test]
fn protect_that_sets_w_at_once_in_a_copied_table() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        put(mm, one, A, 1);
        one.protect(mm, A, PAGE, Perm::R).unwrap();
        assert_eq!(peek(mm, one, A), 1);
        fork(mm, two, one);
        one.protect(mm, A, PAGE, Perm::RW).unwrap();
        check(mm, &[one, two]);
        put(mm, one, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 1));
    });
}

#[test]
fn children_dropped_while_the_table_survives() {
    with_spaces(|mm, one, two| {
        map_tables(mm, one, A, 1, 1);
        map_tables(mm, two, A, 1, 2);
        copy_bytes(mm, two, A, one, A, TABLE).unwrap();
        assert_eq!(table_count(mm, one, A, 1), 2);
        check(mm, &[one, two]);
        // The source gives up its entry. The table lives on, and all that it names.
        map_tables(mm, one, B, 1, 3);
        copy_bytes(mm, one, A, one, B, TABLE).unwrap();
        check(mm, &[one, two]);
        super::free_count(mm);
        check(mm, &[one, two]);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (3, 1));
    });
}

#[test]
fn read_only_pages_uncounted_when_their_table_is_copied() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RX).unwrap();
        one.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        user_access(mm, one, Cpu(0), A, Access::Execute).unwrap();
        fork(mm, two, one);
        put(mm, two, A + PAGE, 1);
        let Kind::Private(frame) = one.lookup(mm, A).kind() else {
            panic!()
        };
        assert_eq!(mm.counts.get(frame), 2);
        one.unmap(mm, A, 2 * PAGE).unwrap();
        super::free_count(mm);
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 7);
        assert_eq!(peek(mm, two, A), 0);
        check(mm, &[one, two]);
    });
}

#[test]
fn a_partial_copy_that_trusts_the_pages_w() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        put(mm, one, A, 1);
        fork(mm, two, one);
        // W is set in the entry of the page, and masked by what names its table.
        assert!(two.lookup(mm, A).is_writable());
        two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        put(mm, two, B, 2);
        assert!(!copy_in_place(
            mm,
            two.root(),
            A + 3,
            one.root(),
            A + 100,
            16
        ));
        copy_bytes(mm, two, A + 3, two, B, 16).unwrap();
        check(mm, &[one, two]);
        assert_eq!((peek(mm, one, A + 3), peek(mm, two, A + 3)), (0, 2));
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 1));
    });
}

#[test]
fn a_move_without_unsharing_the_source() {
    for len in [PAGE, 2 * PAGE, TABLE] {
        with_spaces(|mm, one, two| {
            let third = space(mm);
            map_tables(mm, one, A, 1, 1);
            map_tables(mm, &third, B, 1, 9);
            fork(mm, two, one);
            copy(mm, &third, B, two, A, len, Transfer::Move).unwrap();
            check(mm, &[one, two, &third]);
            put(mm, &third, B, 2);
            put(mm, two, A, 3);
            let seen = [(one, A), (two, A), (&third, B)];
            assert_eq!(
                seen.map(|(table, addr)| peek(mm, table, addr)),
                [1, 3, 2],
                "{len} bytes"
            );
            third.destroy(mm);
        });
    }
}

#[test]
fn a_share_by_move_without_unsharing_the_source() {
    for len in [PAGE, TABLE] {
        with_spaces(|mm, one, two| {
            map_tables(mm, one, A, 1, 1);
            fork(mm, two, one);
            share(mm, two, B, two, A, len, ShareMode::Move, None).unwrap();
            check(mm, &[one, two]);
            put(mm, two, B, 2);
            assert_eq!((peek(mm, one, A), peek(mm, two, B)), (1, 2));
            assert!(two.lookup(mm, A).is_empty());
        });
    }
}

/// Of nine tables: written since the last message, there already, or demand-zero on one side. Without a free frame
/// old ones are noted four at a time.
#[test]
fn a_message_of_tables_some_of_which_have_arrived_before() {
    const NR_TABLES: u64 = 9;
    for may_note_all in [true, false] {
        with_spaces(|mm, one, two| {
            map_tables(mm, one, A, NR_TABLES - 1, 1);
            let last = A + (NR_TABLES - 1) * TABLE;
            one.map_zero(mm, last, TABLE, Perm::RW).unwrap();
            two.map_zero(mm, B, NR_TABLES * TABLE, Perm::RW).unwrap();
            let rounds: [&[u64]; 6] = [
                &[],
                &[0, 1, 2, 3, 4, 5, 6, 7],
                &[],
                &[0, 4, 5],
                &[3, 8],
                &[7],
            ];
            for (round, written) in (2..).zip(rounds) {
                for number in written {
                    put(mm, one, A + number * TABLE, round);
                }
                // The first message makes tables, above those that go over.
                let is_first = round == 2;
                let hoard: Vec<_> = core::iter::from_fn(|| mm.frames.alloc())
                    .take(if may_note_all || is_first {
                        0
                    } else {
                        usize::MAX
                    })
                    .collect();
                copy_bytes(mm, two, B, one, A, NR_TABLES * TABLE).unwrap();
                hoard.into_iter().for_each(|frame| mm.frames.free(frame));
                check(mm, &[one, two]);
                for number in 0..NR_TABLES {
                    let (from, to) = (A + number * TABLE, B + number * TABLE);
                    let [sent, arrived] = [(one, from), (two, to)].map(|(table, addr)| {
                        let mut byte = [0];
                        read_user(mm, table, addr, &mut byte).unwrap();
                        byte[0]
                    });
                    assert_eq!(arrived, sent);
                    assert!(!written.contains(&number) || arrived == round);
                    let is_zero = number == 8 && round < 6;
                    let expected = if is_zero { 0 } else { 2 };
                    assert_eq!(nr_owners(mm, two, to), expected, "{number} in {round}");
                }
            }
        });
    }
}

/// How many entries name the table of pages for an address; 0 if there is none.
fn nr_owners(mm: &Mm, table: &PageTable, addr: u64) -> u64 {
    let below = entry(mm, table, addr, 1).table_below();
    below.map_or(0, |below| mm.counts.get(below))
}

#[test]
fn overlapping_ranges_of_whole_tables() {
    with_spaces(|mm, one, _| {
        map_tables(mm, one, A, 3, 1);
        for (to, from) in [(A + TABLE, A), (A, A + TABLE)] {
            let error = copy_bytes(mm, one, to, one, from, 2 * TABLE).unwrap_err();
            assert_eq!(
                (error.side, error.error),
                (Side::Destination, Error::Overlap)
            );
        }
        assert_eq!(table_count(mm, one, A, 1), 1);
    });
}

/// Ways to make one page of a table that says that it is plain something else.
const SPOILS: [fn(&Mm, &PageTable); 4] = [
    |mm, two| {
        two.unmap(mm, B + 4 * PAGE, PAGE).unwrap();
        two.map_zero(mm, B + 4 * PAGE, PAGE, Perm::R).unwrap();
    },
    |mm, two| two.protect(mm, B + 4 * PAGE, PAGE, Perm::R).unwrap(),
    |mm, two| {
        let to = B + 2 * TABLE;
        share(mm, two, to, two, B + 4 * PAGE, PAGE, ShareMode::Move, None).unwrap();
        two.map_zero(mm, B + 4 * PAGE, PAGE, Perm::RX).unwrap();
    },
    |mm, two| {
        two.unmap(mm, B + 4 * PAGE, 2 * PAGE).unwrap();
        let frame = mm.frames.alloc_zeroed().unwrap();
        two.map_frame(mm, B + 4 * PAGE, frame, Perm::R).unwrap();
        two.map_zero(mm, B + 5 * PAGE, PAGE, Perm::RW).unwrap();
    },
];

#[test]
fn a_plain_bit_that_is_not_cleared_lets_messages_into_read_only_memory() {
    for spoil in SPOILS {
        with_spaces(|mm, one, two| {
            map_tables(mm, one, A, 1, 1);
            map_tables(mm, two, B, 1, 2);
            assert!(entry(mm, two, B, 1).is_plain());
            spoil(mm, two);
            check(mm, &[one, two]);
            let error = copy_bytes(mm, two, B, one, A, TABLE).unwrap_err();
            assert_eq!(
                (error.side, error.error),
                (Side::Destination, Error::NotWritable)
            );
        });
    }
}

#[test]
fn a_plain_bit_that_is_not_cleared_shares_what_must_not_be() {
    with_spaces(|mm, one, two| {
        map_tables(mm, one, A, 1, 1);
        map_tables(mm, two, B, 1, 2);
        let third = space(mm);
        share(mm, &third, A, two, B, PAGE, ShareMode::Shared, None).unwrap();
        check(mm, &[one, two, &third]);
        // A buffer with a page of shared memory receives in place.
        copy_bytes(mm, two, B, one, A, TABLE).unwrap();
        assert_eq!((peek(mm, two, B), peek(mm, &third, A)), (1, 1));
        third.destroy(mm);
    });
}

#[test]
fn the_second_count_down_that_reaches_zero_drops_the_table() {
    with_spaces(|mm, one, two| {
        map(mm, one, Perm::RW);
        put(mm, one, A, 1);
        fork(mm, two, one);
        let old = entry(mm, one, A, 3).table_below().unwrap();
        // As if the child had looked at the count before the parent's operation counted down.
        let root = slot(mm, two, A, 3);
        mm.counts.increment(old);
        put(mm, one, A, 2);
        put(mm, two, A, 3);
        assert_ne!(root.get().table_below(), Some(old));
        assert_eq!(mm.counts.get(old), 1);
        let flushed = mm.flush(&crate::mm::Flush::none());
        let dead = mm
            .release_table(old, 2, 512, Commit::Overcommit, &flushed)
            .unwrap();
        mm.bury(dead);
        super::free_count(mm);
        check(mm, &[one, two]);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 3));
    });
}

#[test]
#[should_panic(expected = "cached as the table of level 2")]
#[cfg_attr(miri, ignore = "leaks memory")]
fn a_table_counted_down_before_the_flush_is_caught() {
    let sim = SimMemory::new(64);
    let (mm, one) = (sim.mm(), space(sim.mm()));
    map(mm, &one, Perm::RW);
    put(mm, &one, A, 1);
    user_read(mm, &one, Cpu(1), A, &mut [0]).unwrap();
    let root = slot(mm, &one, A, 3);
    let table = root.get().table_below().unwrap();
    root.set(Entry::EMPTY);
    let flushed = mm.flush(&crate::mm::Flush::none());
    let _ = mm.release_table(table, 2, 512, Commit::Overcommit, &flushed);
}

#[test]
fn a_sender_below_a_shared_table_clears_w_there() {
    with_spaces(|mm, one, two| {
        let third = space(mm);
        map_tables(mm, one, A, 1, 1);
        third.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        put(mm, &third, B, 9);
        fork(mm, two, one);
        copy_bytes(mm, &third, B, two, A, PAGE).unwrap();
        check(mm, &[one, two, &third]);
        two.unmap(mm, A, TABLE).unwrap();
        super::free_count(mm);
        // The parent is the table's last owner, and not the page's.
        put(mm, one, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, &third, B)), (2, 1));
        third.destroy(mm);
    });
}

#[test]
fn tables_are_not_edited_by_who_only_reads_through_them() {
    with_spaces(|mm, one, two| {
        map_tables(mm, one, A, 1, 1);
        fork(mm, two, one);
        let table = mm.map.table(entry(mm, one, A, 1).table_below().unwrap());
        let words = || -> Vec<_> { table.iter().map(|place| Slot::new(place).get()).collect() };
        let before = words();
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 1));
        assert!(before == words());
        assert_eq!(table_count(mm, two, A, 3), 2);
    });
}

/// One page from `one`, whose tables the child shares, to a table that is there.
fn share_one_page(mode: ShareMode, dst_is_shared: bool) {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        put(mm, two, B, 2);
        let child = space(mm);
        fork(mm, &child, if dst_is_shared { two } else { one });
        share(mm, two, B + PAGE, one, A, PAGE, mode, None).unwrap();
        check(mm, &[one, two, &child]);
        assert!(child.lookup(mm, B + PAGE).is_empty());
        put(mm, two, B + PAGE, 3);
        check(mm, &[one, two, &child]);
        let expected = if mode == ShareMode::Shared { 3 } else { 1 };
        assert_eq!((peek(mm, one, A), peek(mm, two, B + PAGE)), (expected, 3));
        if !dst_is_shared {
            assert_eq!(peek(mm, &child, A), 1);
        }
        child.destroy(mm);
    });
}

#[test]
fn one_page_shared_without_unsharing_either_table() {
    for mode in [ShareMode::CopyOnWrite, ShareMode::Shared] {
        share_one_page(mode, false);
        share_one_page(mode, true);
    }
}

#[test]
fn a_stale_translation_below_a_shared_table_copies_nothing() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, two, one);
        let free = mm.frames.free_count();
        assert_eq!(fault(mm, two, A, Access::Read), Fault::Resolved);
        assert_eq!(mm.frames.free_count(), free);
        assert_eq!(table_count(mm, two, A, 3), 2);
    });
}
