//! The seven rules that shared tables keep. What the recount of [`audit`] says of every sequence, these
//! say of one example each; and the recount itself must find it when a rule is broken.

use super::{
    A, B, PAGE, TABLE, check, copy_bytes, entry, fork, free_count, peek, put, share, share_page,
    slot, space, table_count, with_spaces,
};
use cowslip_abi::{Access, Perm, ShareMode};

use crate::{
    mm::{
        Flush, Frame, Mm, PhysAddr,
        sim::{self, Cpu, SimMemory},
    },
    vm::{
        Fault, PageTable,
        audit::audit,
        entry::{Entry, Kind, Rights, Slot},
        fault, reap, write_user,
    },
};

/// In another table of pages than [`A`], below the same upper tables.
const NEAR_A: u64 = A + 12 * TABLE;

fn frame(mm: &Mm, table: &PageTable, addr: u64) -> Frame {
    match table.lookup(mm, addr).kind() {
        Kind::Private(frame) | Kind::Shared(frame) => frame,
        other => panic!("{other:?}"),
    }
}

/// Two pages of `one`, written to, in different tables.
fn two_pages(mm: &Mm, one: &PageTable) {
    for addr in [A, NEAR_A] {
        one.map_zero(mm, addr, PAGE, Perm::RW).unwrap();
        put(mm, one, addr, 1);
    }
}

/// The table that the entry of this level names, word by word.
fn words(mm: &Mm, table: &PageTable, addr: u64, level: u32) -> Vec<Entry> {
    let below = entry(mm, table, addr, level).table_below().unwrap();
    let places = mm.map.table(below).iter();
    places.map(|place| Slot::new(place).get()).collect()
}

/// A space with [`two_pages`], one of which is spoilt; then everything is counted again.
fn recount_after(spoil: impl FnOnce(&Mm, &PageTable)) {
    let sim = SimMemory::new(64);
    let (mm, one) = (sim.mm(), space(sim.mm()));
    two_pages(mm, &one);
    check(mm, &[&one]);
    spoil(mm, &one);
    let _ = audit(mm, [&one]);
}

#[test]
fn rule_1_a_count_is_the_number_of_entries_those_of_dead_tables_too() {
    with_spaces(|mm, one, two| {
        two_pages(mm, one);
        fork(mm, two, one);
        let upper = entry(mm, one, A, 3).table_below().unwrap();
        assert_eq!(mm.counts.get(upper), 2);
        let child = space(mm);
        fork(mm, &child, two);
        assert_eq!(mm.counts.get(upper), 3);
        // Its root is dead, and names the table until it is worked off.
        child.destroy(mm);
        assert_eq!(mm.counts.get(upper), 3);
        check(mm, &[one, two]);
        assert!(reap(mm));
        assert_eq!(mm.counts.get(upper), 2);
        check(mm, &[one, two]);
        // What is below is named once, by one table.
        assert_eq!(mm.counts.get(frame(mm, one, A)), 1);
    });
}

#[test]
#[should_panic(expected = "count of frame")]
fn rule_1_is_seen_to_be_broken() {
    recount_after(|mm, one| mm.counts.increment(frame(mm, one, A)));
}

#[test]
fn rule_2_w_means_that_there_is_no_other_entry() {
    with_spaces(|mm, one, two| {
        two_pages(mm, one);
        fork(mm, two, one);
        for space in [one, two] {
            assert!(!entry(mm, space, A, 3).is_writable());
        }
        // A copy: all that is named by both tables has lost W in both.
        put(mm, two, A, 2);
        for space in [one, two] {
            assert!(!entry(mm, space, NEAR_A, 1).is_writable());
            assert_eq!(table_count(mm, space, NEAR_A, 1), 2);
        }
        for level in 1..=3 {
            assert!(entry(mm, two, A, level).is_writable());
            assert_eq!(table_count(mm, two, A, level), 1);
        }
        // Shared pages are exempt.
        share_page(mm, two, one, ShareMode::Shared, None);
        assert_eq!(mm.counts.get(frame(mm, two, B)), 2);
        assert!(two.lookup(mm, B).is_writable() && one.lookup(mm, A).is_writable());
        check(mm, &[one, two]);
    });
}

#[test]
#[should_panic(expected = "is writable and not sole")]
fn rule_2_is_seen_to_be_broken() {
    recount_after(|mm, one| {
        let below = entry(mm, one, A, 3);
        one.grow(mm, one.commit() - 1).unwrap();
        mm.counts.increment(below.table_below().unwrap());
        Slot::new(&mm.map.table(one.root())[9]).set(below.lent());
    });
}

#[test]
fn rule_3_w_is_what_all_entries_on_the_way_have() {
    with_spaces(|mm, one, two| {
        two_pages(mm, one);
        fork(mm, two, one);
        // Masked by the root, on either side, though everything below has it.
        for space in [one, two] {
            assert!(space.lookup(mm, A).is_writable());
            for level in 1..=2 {
                assert!(entry(mm, space, A, level).is_writable());
            }
            let write = Cpu(1).translate(mm, space.root(), A, Access::Write);
            assert_eq!(write, None);
            assert!(
                Cpu(1)
                    .translate(mm, space.root(), A, Access::Read)
                    .is_some()
            );
        }
        // One entry, and all of it can be written again.
        two.unmap(mm, 0, super::USER_END).unwrap();
        free_count(mm);
        put(mm, one, A, 2);
        assert_eq!(mm.stats.cow_broken.get(), 0);
        let write = Cpu(1).translate(mm, one.root(), NEAR_A, Access::Write);
        assert_eq!(write, Some(frame(mm, one, NEAR_A)));
    });
}

#[test]
fn rule_4_a_copy_takes_w_from_both_and_counts_before_it_lets_go() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two) = (space(mm), space(mm));
    two_pages(mm, &one);
    fork(mm, &two, &one);
    // A second CPU of the space that copies has all of the old path.
    assert_eq!(peek(mm, &two, A), 1);
    let _ = sim.take_flushes();
    put(mm, &two, A, 2);
    let copied: Vec<_> = sim.take_flushes();
    let spaces: Vec<_> = copied
        .iter()
        .flat_map(|flush| flush.spaces().map(|space| space.root).collect::<Vec<_>>())
        .collect();
    assert_eq!(spaces, [two.root()], "one flush, of the space that copied");
    for space in [&one, &two] {
        let present = words(mm, space, A, 2)
            .into_iter()
            .filter(|entry| entry.table_below().is_some());
        let of_pages: Vec<_> = present
            .map(|entry| (entry.is_writable(), entry.table_below().unwrap()))
            .collect();
        assert_eq!(of_pages.len(), 2);
    }
    // Neither of the two that name the table of the other page has W.
    assert!(!entry(mm, &one, NEAR_A, 1).is_writable());
    assert!(!entry(mm, &two, NEAR_A, 1).is_writable());
    assert_eq!(table_count(mm, &one, A, 3), 1);
    check(mm, &[&one, &two]);
    sim.check_tlbs();
    [one, two].into_iter().for_each(|space| space.destroy(mm));
    super::assert_all_free(mm);
}

#[test]
fn rule_5_a_take_back_sets_one_entry_from_the_top_down_and_flushes_nothing() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two) = (space(mm), space(mm));
    two_pages(mm, &one);
    fork(mm, &two, &one);
    put(mm, &two, NEAR_A, 2);
    // The parent is the last owner of the upper tables. They name one table that it shares.
    let (upper, middle) = (words(mm, &one, A, 3), words(mm, &one, A, 2));
    let _ = sim.take_flushes();
    assert_eq!(fault(mm, &one, NEAR_A, Access::Write), Fault::Resolved);
    assert_eq!(sim.nr_flushes(), 0);
    assert!(entry(mm, &one, A, 3).is_writable());
    let differ = |before: &[Entry], after: &[Entry]| {
        let pairs = before.iter().zip(after);
        pairs.filter(|(before, after)| before != after).count()
    };
    assert_eq!(differ(&upper, &words(mm, &one, A, 3)), 1);
    assert_eq!(differ(&middle, &words(mm, &one, A, 2)), 1);
    assert!(!entry(mm, &one, A, 1).is_writable());
    assert_eq!(mm.stats.cow_broken.get(), 1);
    check(mm, &[&one, &two]);
    [one, two].into_iter().for_each(|space| space.destroy(mm));
    super::assert_all_free(mm);
}

#[test]
fn rule_5_the_last_owner_of_a_gigabyte_sets_one_entry() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two) = (space(mm), space(mm));
    two_pages(mm, &one);
    fork(mm, &two, &one);
    two.destroy(mm);
    free_count(mm);
    let below: Vec<_> = (1..=3).map(|level| words(mm, &one, A, level)).collect();
    let _ = sim.take_flushes();
    assert_eq!(fault(mm, &one, A, Access::Write), Fault::Resolved);
    let after: Vec<_> = (1..=3).map(|level| words(mm, &one, A, level)).collect();
    assert!(below == after && entry(mm, &one, A, 3).is_writable());
    assert_eq!(sim.nr_flushes(), 0);
    one.destroy(mm);
    super::assert_all_free(mm);
}

#[test]
fn rule_6_a_frame_has_one_role_at_a_time() {
    with_spaces(|mm, one, two| {
        let mut roles = std::collections::BTreeMap::new();
        for round in 0..8 {
            let addr = A + round * TABLE;
            one.map_zero(mm, addr, 3 * PAGE, Perm::RW).unwrap();
            put(mm, one, addr, 1);
            let to = addr + B - A;
            share(mm, two, to, one, addr, PAGE, ShareMode::Shared, None).unwrap();
            put(mm, one, addr + PAGE, 1);
            for (frame, named) in audit(mm, [one, two]) {
                roles.entry(frame).or_insert_with(Vec::new).push(named.role);
            }
            one.unmap(mm, addr, TABLE).unwrap();
            two.unmap(mm, to, TABLE).unwrap();
            // Others take the free frames first.
            let taken: Vec<_> = (0..round).filter_map(|_| mm.frames.alloc()).collect();
            free_count(mm);
            taken.into_iter().for_each(|frame| mm.frames.free(frame));
        }
        let changed = roles
            .values()
            .filter(|roles| roles.iter().any(|role| *role != roles[0]));
        assert!(changed.count() > 0, "no frame had a second role afterwards");
    });
}

#[test]
#[should_panic(expected = "has two roles")]
fn rule_6_is_seen_to_be_broken() {
    recount_after(|mm, one| {
        let table = entry(mm, one, A, 1).table_below().unwrap();
        let page = Entry::private(table, Rights::new(Perm::RW), false);
        slot(mm, one, A, 0).set(page);
    });
}

#[test]
fn rule_7_what_is_called_plain_is_plain() {
    let spoils: [fn(&Mm, &PageTable, &PageTable); 6] = [
        |mm, one, _| one.unmap(mm, A + PAGE, PAGE).unwrap(),
        |mm, one, _| one.unmap(mm, A + 2 * PAGE, TABLE).unwrap(),
        |mm, one, _| one.protect(mm, A + PAGE, PAGE, Perm::R).unwrap(),
        |mm, one, _| one.protect(mm, A - TABLE, 2 * TABLE, Perm::R).unwrap(),
        |mm, one, two| share_page(mm, two, one, ShareMode::Shared, None),
        |mm, one, two| share_page(mm, two, one, ShareMode::Move, None),
    ];
    for spoil in spoils {
        with_spaces(|mm, one, two| {
            one.map_zero(mm, 0, 512 * super::GIB, Perm::RW).unwrap();
            put(mm, one, A, 1);
            let says = |level| entry(mm, one, A, level).is_plain();
            assert!([1, 2, 3].map(says) == [true; 3]);
            spoil(mm, one, two);
            assert!([2, 3].map(says) == [false; 2]);
            check(mm, &[one, two]);
            // What lies beside the path is still plain.
            assert!(entry(mm, one, A + 5 * TABLE, 1).is_plain());
        });
    }
}

#[test]
fn rule_7_what_stays_plain_is_still_called_so() {
    let harmless: [fn(&Mm, &PageTable, &PageTable); 6] = [
        |mm, one, _| put(mm, one, A + PAGE, 1),
        |mm, one, _| one.protect(mm, A, 2 * PAGE, Perm::RW).unwrap(),
        |mm, one, two| fork(mm, two, one),
        |mm, one, two| {
            fork(mm, two, one);
            put(mm, one, A, 2);
        },
        |mm, one, two| {
            two.map_zero(mm, A, PAGE, Perm::RW).unwrap();
            put(mm, two, A, 2);
            copy_bytes(mm, one, A, two, A, PAGE).unwrap();
        },
        |mm, one, two| {
            two.map_zero(mm, A, PAGE, Perm::RX).unwrap();
            copy_bytes(mm, one, A + 1, two, A, 7).unwrap();
        },
    ];
    for action in harmless {
        with_spaces(|mm, one, two| {
            one.map_zero(mm, 0, super::GIB, Perm::RW).unwrap();
            put(mm, one, A, 1);
            action(mm, one, two);
            for level in 1..=2 {
                assert!(entry(mm, one, A, level).is_plain());
            }
            check(mm, &[one, two]);
        });
    }
}

#[test]
#[should_panic(expected = "is not plain")]
fn rule_7_is_seen_to_be_broken() {
    recount_after(|mm, one| {
        let plain = Entry::table_full_of(
            entry(mm, one, A, 1).table_below().unwrap(),
            Entry::PLAIN_ZERO,
        );
        slot(mm, one, A, 1).set(plain.with_fewer_used(plain.nr_used() - 1));
    });
}

/// A memory whose flushes look at the counts: see [`no_count_falls_before_the_flush`].
struct Watched {
    mm: &'static Mm,
    before: Vec<(Frame, u64)>,
}

std::thread_local! {
    static WATCHED: std::cell::RefCell<Option<Watched>> = const { std::cell::RefCell::new(None) };
}

fn flush_and_look(_: &Flush) {
    WATCHED.with_borrow(|watched| {
        let Some(Watched { mm, before }) = watched else {
            return;
        };
        for (frame, count) in before {
            assert!(
                mm.counts.get(*frame) >= *count,
                "{frame:?} was counted down before the flush"
            );
        }
    });
}

/// Does one operation on three spaces. The first two share all their tables, in which there is
/// memory at [`A`], and the third has its own at [`B`].
fn no_count_falls_before_the_flush(operation: fn(&Mm, [&PageTable; 3])) {
    // They live as long as the flush may look at them.
    let sim: &'static SimMemory = Box::leak(Box::new(SimMemory::empty(256)));
    let mm: &'static Mm = Box::leak(Box::new(Mm::new(sim.mm().map, flush_and_look, sim::here)));
    mm.frames.add_range(PhysAddr(PAGE), PhysAddr(256 * PAGE));
    mm.cover(PhysAddr(0), PhysAddr(256 * PAGE)).unwrap();
    let spaces = [space(mm), space(mm), space(mm)];
    let [one, two, three] = &spaces;
    for (table, addr) in [(one, A), (three, B)] {
        table.map_zero(mm, addr, 2 * TABLE, Perm::RW).unwrap();
        for page in [0, 1, 512] {
            write_user(mm, table, addr + page * PAGE, &[1]).unwrap();
        }
    }
    fork(mm, two, one);
    let named = audit(mm, &spaces).into_iter();
    let before = named.map(|(frame, named)| (frame, named.count)).collect();
    WATCHED.set(Some(Watched { mm, before }));
    operation(mm, [one, two, three]);
    WATCHED.set(None);
    let _ = audit(mm, &spaces);
}

#[test]
#[cfg_attr(miri, ignore = "leaks memory")]
fn rule_4_no_count_falls_before_the_flush() {
    let operations: [fn(&Mm, [&PageTable; 3]); 9] = [
        |mm, [_, two, _]| assert_eq!(fault(mm, two, A, Access::Write), Fault::Resolved),
        |mm, [one, ..]| {
            let untouched = A + 5 * PAGE;
            assert_eq!(fault(mm, one, untouched, Access::Write), Fault::Resolved);
        },
        |mm, [_, two, _]| write_user(mm, two, A + PAGE - 1, &[2; 2]).unwrap(),
        |mm, [one, ..]| one.unmap(mm, A + PAGE, TABLE).unwrap(),
        |mm, [_, two, _]| two.unmap(mm, 0, super::USER_END).unwrap(),
        |mm, [one, ..]| one.protect(mm, A, PAGE, Perm::R).unwrap(),
        |mm, [one, _, three]| copy_bytes(mm, one, A, three, B, 2 * TABLE).unwrap(),
        |mm, [one, _, three]| copy_bytes(mm, three, B + 1, one, A, PAGE).unwrap(),
        |mm, [one, _, three]| {
            share(mm, three, A, one, A, PAGE, ShareMode::Move, None).unwrap();
        },
    ];
    operations
        .into_iter()
        .for_each(no_count_falls_before_the_flush);
}
