//! Demand-zero memory at every level: one entry stands for as much as it covers, and what is touched
//! splits only the path to it.

use super::{
    A, GIB, PAGE, TABLE, check, copy_bytes, entry, fork, free_count, peek, put, share, with_spaces,
};
use cowslip_abi::{Error, Perm, ShareMode, USER_END};

use crate::{
    mm::{Mm, sim::Cpu},
    vm::{PageTable, SpaceStats, entry::Kind, sim::user_write},
};

const TIB: u64 = 1024 * GIB;
/// What an entry of the root covers.
const ROOT_ENTRY: u64 = 512 * GIB;

/// How many non-empty entries the space's tables have.
fn nr_entries(mm: &Mm, space: &PageTable) -> usize {
    fn below(mm: &Mm, frame: crate::mm::Frame, level: u32) -> usize {
        let slots = super::user_entries(mm, frame, level);
        let entries = slots
            .map(|slot| slot.get())
            .filter(|entry| !entry.is_empty());
        entries
            .map(|entry| match entry.table_below().filter(|_| level > 0) {
                Some(table) => 1 + below(mm, table, level - 1),
                None => 1,
            })
            .sum()
    }
    below(mm, space.root(), 3)
}

#[test]
fn a_terabyte_is_two_entries_and_no_frame() {
    with_spaces(|mm, one, _| {
        let free = mm.frames.free_count();
        one.map_zero(mm, 2 * TIB, TIB, Perm::RW).unwrap();
        assert_eq!(mm.frames.free_count(), free);
        assert_eq!(nr_entries(mm, one), 2);
        assert_eq!(one.statistics(mm).zero, TIB / PAGE);
        let occupied = one.map_zero(mm, 3 * TIB - PAGE, PAGE, Perm::R);
        assert_eq!(occupied, Err(Error::Occupied));
        one.unmap(mm, 2 * TIB, TIB).unwrap();
        assert_eq!((free_count(mm), nr_entries(mm, one)), (free, 0));
    });
}

#[test]
fn a_ragged_terabyte_has_tables_at_its_ends_only() {
    with_spaces(|mm, one, two| {
        let free = mm.frames.free_count();
        let start = ROOT_ENTRY - PAGE;
        one.map_zero(mm, start, TIB + 2 * PAGE, Perm::RW).unwrap();
        // A page before, two entries of the root, a page behind.
        assert_eq!(mm.frames.free_count(), free - 6);
        assert_eq!(nr_entries(mm, one), 4 + 2 + 4);
        assert_eq!(one.statistics(mm).zero, TIB / PAGE + 2);
        check(mm, &[one, two]);
        one.unmap(mm, start, TIB + 2 * PAGE).unwrap();
        assert_eq!((free_count(mm), nr_entries(mm, one)), (free, 0));
        // One that ends and begins in the middle of every level.
        let start = ROOT_ENTRY + GIB + TABLE + PAGE;
        one.map_zero(mm, start, TIB, Perm::RW).unwrap();
        assert_eq!(mm.frames.free_count(), free - 6);
        assert_eq!(one.statistics(mm).zero, TIB / PAGE);
        assert!(one.lookup(mm, start - 1).is_empty());
        assert!(one.lookup(mm, start + TIB).is_empty());
        assert_eq!(one.lookup(mm, start + TIB - 1).kind(), Kind::Zero);
        check(mm, &[one, two]);
        one.unmap(mm, start, TIB).unwrap();
        assert_eq!((free_count(mm), nr_entries(mm, one)), (free, 0));
    });
}

#[test]
fn touching_three_places_splits_their_paths_and_nothing_else() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, TIB, Perm::RW).unwrap();
        let free = mm.frames.free_count();
        let mut spent = 0;
        // Three tables and a page; the page alone; one table less; everything again.
        for (addr, nr_frames) in [
            (5 * GIB, 4),
            (5 * GIB + 511 * PAGE, 1),
            (5 * GIB + 7 * TABLE, 2),
            (ROOT_ENTRY + 5 * GIB, 4),
        ] {
            put(mm, one, addr, 1);
            spent += nr_frames;
            assert_eq!(mm.frames.free_count(), free - spent, "{addr:#x}");
            check(mm, &[one, two]);
        }
        let stats = one.statistics(mm);
        assert_eq!((stats.private, stats.tables), (4, 1 + 7));
        assert_eq!(stats.zero, TIB / PAGE - 4);
        for untouched in [0, GIB, 5 * GIB + TABLE, 6 * GIB, ROOT_ENTRY] {
            assert_eq!(one.lookup(mm, untouched).kind(), Kind::Zero);
        }
        assert_eq!(entry(mm, one, 6 * GIB, 2).table_below(), None);
        one.unmap(mm, 0, TIB).unwrap();
        assert_eq!(free_count(mm), free);
    });
}

#[test]
fn splitting_keeps_what_is_said_of_a_table() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, ROOT_ENTRY, Perm::RW).unwrap();
        two.map_zero(mm, 0, ROOT_ENTRY, Perm::RX).unwrap();
        for (table, is_plain) in [(one, true), (two, false)] {
            assert_eq!(peek(mm, table, 3 * GIB), 0);
            for level in 1..=3 {
                let entry = entry(mm, table, 3 * GIB, level);
                assert_eq!((entry.is_plain(), entry.nr_used()), (is_plain, 512));
            }
        }
        check(mm, &[one, two]);
        assert!(user_write(mm, two, Cpu(0), 4 * GIB, &[1]).is_err());
    });
}

/// A range inside 512 GiB that one entry stands for, and how many frames it takes to set it off.
const CUTS: [(u64, u64, u64); 7] = [
    (3 * GIB, GIB, 1),
    (3 * GIB, 2 * GIB, 1),
    (3 * GIB + TABLE, TABLE, 2),
    (3 * GIB - TABLE, 2 * TABLE, 3),
    (3 * GIB + PAGE, PAGE, 3),
    (3 * GIB - PAGE, 2 * PAGE, 5),
    (3 * GIB - TABLE - PAGE, GIB + 2 * TABLE + 2 * PAGE, 5),
];

#[test]
fn protect_inside_a_lazy_entry_splits_no_more_than_the_ends() {
    for (addr, len, nr_frames) in CUTS {
        with_spaces(|mm, one, two| {
            one.map_zero(mm, 0, ROOT_ENTRY, Perm::RW).unwrap();
            let free = mm.frames.free_count();
            one.protect(mm, addr, len, Perm::R).unwrap();
            assert_eq!(mm.frames.free_count(), free - nr_frames, "{len:#x}");
            check(mm, &[one, two]);
            for inside in [addr, addr + len - 1] {
                assert!(!one.lookup(mm, inside).may_write());
                assert!(user_write(mm, one, Cpu(0), inside, &[1]).is_err());
            }
            for outside in [addr - 1, addr + len] {
                assert!(one.lookup(mm, outside).may_write());
                put(mm, one, outside, 1);
            }
            one.protect(mm, addr, len, Perm::RW).unwrap();
            put(mm, one, addr, 2);
            check(mm, &[one, two]);
            one.unmap(mm, 0, ROOT_ENTRY).unwrap();
            assert_eq!((free_count(mm), nr_entries(mm, one)), (free, 0));
        });
    }
}

#[test]
fn unmap_inside_a_lazy_entry_splits_no_more_than_the_ends() {
    for (addr, len, nr_frames) in CUTS {
        with_spaces(|mm, one, two| {
            one.map_zero(mm, 0, ROOT_ENTRY, Perm::RW).unwrap();
            let free = mm.frames.free_count();
            one.unmap(mm, addr, len).unwrap();
            assert_eq!(mm.frames.free_count(), free - nr_frames, "{len:#x}");
            check(mm, &[one, two]);
            for inside in [addr, addr + len - 1] {
                assert!(one.lookup(mm, inside).is_empty());
            }
            for outside in [addr - 1, addr + len] {
                assert_eq!(one.lookup(mm, outside).kind(), Kind::Zero);
            }
            assert_eq!(one.statistics(mm).zero, (ROOT_ENTRY - len) / PAGE);
            // The hole can be filled, and then emptied together with what is around it.
            one.map_zero(mm, addr, len, Perm::R).unwrap();
            check(mm, &[one, two]);
            assert_eq!(one.statistics(mm).zero, ROOT_ENTRY / PAGE);
            one.unmap(mm, 0, ROOT_ENTRY).unwrap();
            assert_eq!((free_count(mm), nr_entries(mm, one)), (free, 0));
        });
    }
}

#[test]
fn emptying_piece_by_piece_takes_every_table_away() {
    with_spaces(|mm, one, two| {
        let free = free_count(mm);
        one.map_zero(mm, 0, GIB, Perm::RW).unwrap();
        put(mm, one, 3 * TABLE + 5 * PAGE, 1);
        // The table with the page first, then all others, the odd ones before the even ones.
        for number in 0..512 {
            one.unmap(mm, 3 * TABLE + number * PAGE, PAGE).unwrap();
        }
        for number in (1..512).step_by(2).chain((0..512).step_by(2)) {
            one.unmap(mm, number * TABLE, TABLE).unwrap();
        }
        check(mm, &[one, two]);
        assert_eq!((free_count(mm), nr_entries(mm, one)), (free, 0));
    });
}

#[test]
fn an_error_at_the_end_of_a_lazy_range_changes_nothing() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, GIB, GIB, Perm::RW).unwrap();
        one.map_zero(mm, 3 * GIB, GIB, Perm::R).unwrap();
        let (free, entries) = (mm.frames.free_count(), nr_entries(mm, one));
        let protect = |addr, len, perm| one.protect(mm, addr, len, perm);
        assert_eq!(protect(GIB + PAGE, GIB, Perm::R), Err(Error::NotMapped));
        assert_eq!(
            protect(3 * GIB + TABLE, TABLE, Perm::RW),
            Err(Error::Denied)
        );
        assert_eq!(
            one.map_zero(mm, 2 * GIB - PAGE, GIB, Perm::RW),
            Err(Error::Occupied)
        );
        assert_eq!(
            one.map_zero(mm, 2 * GIB, GIB + PAGE, Perm::RW),
            Err(Error::Occupied)
        );
        let error = copy_bytes(mm, one, 3 * GIB, one, GIB, GIB).unwrap_err();
        assert_eq!(error.error, Error::NotWritable);
        let error = copy_bytes(mm, one, GIB, one, 2 * GIB, GIB).unwrap_err();
        assert_eq!(error.error, Error::NotMapped);
        assert_eq!(
            (mm.frames.free_count(), nr_entries(mm, one)),
            (free, entries)
        );
        check(mm, &[one, two]);
    });
}

#[test]
fn lazy_memory_is_forked_by_its_entries() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, TIB, Perm::RW).unwrap();
        let free = mm.frames.free_count();
        fork(mm, two, one);
        assert_eq!(mm.frames.free_count(), free);
        put(mm, one, A, 1);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (1, 0));
        check(mm, &[one, two]);
        two.unmap(mm, 0, USER_END).unwrap();
        assert_eq!(nr_entries(mm, two), 0);
    });
}

#[test]
fn a_lazy_gigabyte_is_sent_as_one_entry() {
    lazy_gigabyte_is_one_entry(4 * GIB);
}

#[test]
fn a_lazy_gigabyte_is_sent_as_one_entry_to_the_next_gigabyte() {
    lazy_gigabyte_is_one_entry(2 * GIB);
}

/// A message from the second gigabyte of a space to this address in another.
fn lazy_gigabyte_is_one_entry(to: u64) {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, GIB, GIB, Perm::RW).unwrap();
        two.map_zero(mm, to, GIB, Perm::RW).unwrap();
        put(mm, two, to + 5 * TABLE, 1);
        let free = mm.frames.free_count();
        copy_bytes(mm, two, to, one, GIB, GIB).unwrap();
        // The page that was there goes, and both of its tables.
        assert_eq!(entry(mm, two, to, 2).table_below(), None);
        assert_eq!(free_count(mm), free + 3);
        assert_eq!(peek(mm, two, to + 5 * TABLE), 0);
        check(mm, &[one, two]);
    });
}

#[test]
fn a_share_that_memory_cannot_hold_is_not_counted_to_the_end() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, TIB, Perm::RW).unwrap();
        // Looking at all of it would take a test like this one for hours.
        let result = share(mm, two, 0, one, 0, TIB, ShareMode::Shared, None);
        assert_eq!(result, Err(Error::NoMemory));
    });
}

#[test]
fn the_statistics_of_aliased_tables_are_counted_in_steps() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, 0, TABLE, Perm::RW).unwrap();
        put(mm, one, 0, 1);
        // One table of pages, for everything up to the end of user memory: a few frames.
        let mut len = TABLE;
        while len < 64 * GIB {
            share(mm, one, len, one, 0, len, ShareMode::CopyOnWrite, None).unwrap();
            len *= 2;
        }
        let (mut stats, mut addr, mut nr_steps) = (SpaceStats::default(), 0, 0);
        while addr < USER_END {
            addr = one.count_some(mm, addr, &mut stats);
            nr_steps += 1;
        }
        assert_eq!(stats.zero + stats.cow_shared, len / PAGE);
        assert!(nr_steps as u64 >= len / TABLE / 8, "{nr_steps} steps");
    });
}
