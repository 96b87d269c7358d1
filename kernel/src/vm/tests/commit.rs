//! What is charged, what is promised, and what fails if either is left out.

use super::{
    A, B, PAGE, assert_all_free, check, copy, copy_bytes, fork, peek, put, share, slot, space,
};
use cowslip_abi::{Commit, Error, Perm, ShareMode, USER_END};

use crate::{
    mm::{Frame, Mm, PerClass, sim::Cpu, sim::SimMemory},
    vm::{
        Effort, Fault, PageTable, Sharing, Transfer, reap,
        sim::{user_read, user_write},
    },
};

const GIB: u64 = 1 << 30;

/// Runs a test with two strict spaces. At the end every frame must be free, and nothing promised.
fn with_strict_spaces(test: impl FnOnce(&Mm, &PageTable, &PageTable)) {
    let sim = SimMemory::new(128);
    let mm = sim.mm();
    let (one, two) = (strict(mm), strict(mm));
    test(mm, &one, &two);
    check(mm, &[&one, &two]);
    sim.check_tlbs();
    one.destroy(mm);
    two.destroy(mm);
    assert_all_free(mm);
    assert_eq!(mm.frames.promised(), 0);
}

fn strict(mm: &Mm) -> PageTable {
    let table = space(mm);
    table.set_class(Commit::Strict).unwrap();
    table
}

/// Takes all frames that are not promised.
fn hoard(mm: &Mm) -> Vec<Frame> {
    core::iter::from_fn(|| mm.frames.alloc()).collect()
}

fn give_back(mm: &Mm, hoard: Vec<Frame>) {
    hoard.into_iter().for_each(|frame| mm.frames.free(frame));
}

/// Two strict spaces that share a page and its tables, a message that is dead already and a gigabyte
/// nobody has touched, and an overcommit space with a page of its own. Something is spoilt; then everything
/// is counted again.
fn recount_after(spoil: impl FnOnce(&Mm, [&PageTable; 3])) {
    let sim = SimMemory::new(1024);
    let mm = sim.mm();
    let (parent, child, lazy) = (strict(mm), strict(mm), space(mm));
    parent.map_zero(mm, A, 100 * PAGE, Perm::RW).unwrap();
    (0..5).for_each(|page| put(mm, &parent, A + page * PAGE, 1));
    fork(mm, &child, &parent);
    put(mm, &child, A, 2);
    let gone = strict(mm);
    fork(mm, &gone, &child);
    gone.destroy(mm);
    lazy.map_zero(mm, 0, GIB, Perm::RW).unwrap();
    put(mm, &lazy, A, 1);
    check(mm, &[&parent, &child, &lazy]);
    spoil(mm, [&parent, &child, &lazy]);
    check(mm, &[&parent, &child, &lazy]);
}

#[test]
fn charges_and_the_promise_are_what_the_page_tables_say() {
    recount_after(|mm, [parent, child, lazy]| {
        // The dead one's root has frames that nobody is charged for.
        assert!(!mm.dead.is_empty());
        let charged = (parent.commit() + child.commit()) as i64;
        assert!(mm.frames.promised() < charged);
        assert_eq!(lazy.commit(), 1 + 1 + (1 + 512 + 512 * 512));
    });
}

#[test]
#[should_panic(expected = "is charged 105 frames, not 104")]
fn a_charge_too_many_is_seen() {
    recount_after(|mm, [parent, ..]| parent.grow(mm, 1).unwrap());
}

#[test]
#[should_panic(expected = "is charged 262658 frames, not 262659")]
fn a_charge_too_few_is_seen_in_an_overcommit_space() {
    recount_after(|mm, [.., lazy]| lazy.shrink(mm, 1));
}

/// What is unmapped again was its only page.
#[test]
#[should_panic(expected = "is charged 103 frames, not 104")]
fn a_table_that_is_taken_off_twice_is_seen() {
    recount_after(|mm, [_, child, _]| {
        child.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        child.unmap(mm, B, PAGE).unwrap();
        child.shrink(mm, 1);
    });
}

#[test]
#[should_panic(expected = "frames are promised, not")]
fn a_promise_too_many_is_seen() {
    recount_after(|mm, _| mm.frames.promise(1).unwrap());
}

#[test]
#[should_panic(expected = "frames are promised, not")]
fn a_promise_that_is_forgotten_is_seen() {
    recount_after(|mm, _| mm.frames.forgo(1));
}

#[test]
#[should_panic(expected = "is of two classes")]
fn a_page_of_two_classes_is_seen() {
    recount_after(|mm, [parent, _, lazy]| {
        let page = slot(mm, parent, A + PAGE, 0).get();
        slot(mm, lazy, A + PAGE, 0).set(page);
    });
}

/// The page needs three tables.
#[test]
fn tables_count() {
    with_strict_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        assert_eq!(one.commit(), 1 + 3 + 1);
        // Untouched memory of a higher level has no tables yet. Each write makes its own.
        two.map_zero(mm, A, 8 << 20, Perm::RW).unwrap_err();
        two.map_zero(mm, 0, 32 * PAGE, Perm::RW).unwrap();
        share(mm, one, B, two, 0, 32 * PAGE, ShareMode::CopyOnWrite, None).unwrap();
        assert_eq!((one.commit(), two.commit()), (5 + 35, 1 + 3 + 32));
        let hoarded = hoard(mm);
        (0..32).for_each(|page| {
            put(mm, one, B + page * PAGE, 1);
            put(mm, two, page * PAGE, 2);
        });
        put(mm, one, A, 3);
        assert_eq!(mm.frames.free_count(), 0, "all of it was needed");
        give_back(mm, hoarded);
    });
}

/// A read-only page takes its frame when it is first read.
#[test]
fn read_only_pages_count() {
    with_strict_spaces(|mm, one, _| {
        one.map_zero(mm, A, 16 * PAGE, Perm::RX).unwrap();
        assert_eq!(one.commit(), 1 + 3 + 16);
        let hoarded = hoard(mm);
        (0..16).for_each(|page| assert_eq!(peek(mm, one, A + page * PAGE), 0));
        assert_eq!(mm.frames.free_count(), 0);
        give_back(mm, hoarded);
    });
}

#[test]
fn a_fork_copies_one_integer() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (parent, child) = (space(mm), space(mm));
    for gib in 0..64 {
        parent.map_zero(mm, gib * GIB, GIB, Perm::RW).unwrap();
    }
    put(mm, &parent, A, 1);
    let all = 1 + 1 + 64 * (1 + 512 + 512 * 512);
    assert_eq!(parent.commit(), all);
    fork(mm, &child, &parent);
    assert_eq!(child.commit(), all);
    // Counted instead of copied it is the same.
    let other = space(mm);
    let mode = ShareMode::CopyOnWrite;
    share(mm, &other, 0, &parent, 0, 64 * GIB, mode, None).unwrap();
    assert_eq!(other.commit(), all);
    // Half of an untouched gigabyte: the tables of its pages go, the one above them stays.
    parent.unmap(mm, 3 * GIB, GIB / 2).unwrap();
    assert_eq!(parent.commit(), all - 256 - 256 * 512);
    for table in [parent, child, other] {
        table.unmap(mm, 0, USER_END).unwrap();
        assert_eq!(table.commit(), 1);
        table.destroy(mm);
    }
    assert_all_free(mm);
}

#[test]
fn a_budget_is_an_error_that_changes_nothing() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two) = (space(mm), space(mm));
    one.map_zero(mm, A, 4 * PAGE, Perm::RW).unwrap();
    put(mm, &one, A, 1);
    two.set_budget(1 + 3 + 4);
    fork(mm, &two, &one);
    let free = mm.frames.free_count();
    assert_eq!(
        two.map_zero(mm, A + 4 * PAGE, PAGE, Perm::RW),
        Err(Error::OverBudget)
    );
    for mode in [ShareMode::CopyOnWrite, ShareMode::Shared, ShareMode::Move] {
        let more = share(mm, &two, B, &one, A, PAGE, mode, None);
        assert_eq!(more, Err(Error::OverBudget));
    }
    assert_eq!((two.commit(), mm.frames.free_count()), (8, free));
    // Below the budget, what has been there may change in every way.
    put(mm, &two, A, 2);
    copy_bytes(mm, &two, A, &one, A, 4 * PAGE).unwrap();
    two.unmap(mm, A, PAGE).unwrap();
    two.map_zero(mm, A + 4 * PAGE, PAGE, Perm::RW).unwrap();
    // A budget that is too low already allows nothing more, and takes nothing.
    two.set_budget(2);
    assert_eq!(peek(mm, &two, A + PAGE), 0);
    two.unmap(mm, A + 4 * PAGE, PAGE).unwrap();
    assert_eq!(two.map_zero(mm, A, PAGE, Perm::RW), Err(Error::OverBudget));
    one.destroy(mm);
    two.destroy(mm);
    assert_all_free(mm);
}

/// The frames of a page that goes from a strict space to another one belong to both commits; to an
/// overcommit one they would belong to none.
#[test]
fn pages_stay_in_their_class() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two, lazy) = (strict(mm), strict(mm), space(mm));
    for table in [&one, &two, &lazy] {
        table.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, table, A, 1);
    }
    put(mm, &one, A, 7);
    copy_bytes(mm, &two, A, &one, A, PAGE).unwrap();
    assert_eq!(two.statistics(mm).cow_shared, 1, "remapped");
    copy_bytes(mm, &lazy, A, &one, A, PAGE).unwrap();
    assert_eq!(lazy.statistics(mm).private, 1, "copied");
    assert_eq!(peek(mm, &lazy, A), 7);
    copy(mm, &one, A, &lazy, A, PAGE, Transfer::Move).unwrap();
    assert_eq!((peek(mm, &one, A), peek(mm, &lazy, A)), (7, 0));
    let hoarded = hoard(mm);
    assert_eq!(
        mm.frames.free_count(),
        0,
        "all that is promised has been taken"
    );
    for table in [&one, &two] {
        put(mm, table, A, 2);
    }
    give_back(mm, hoarded);
    for (mode, perm) in [(ShareMode::Shared, None), (ShareMode::Move, Some(Perm::RW))] {
        let result = share(mm, &lazy, B, &one, A, PAGE, mode, perm);
        assert_eq!(result, Err(Error::BadState));
    }
    assert_eq!(one.set_class(Commit::Overcommit), Err(Error::BadState));
    for table in [one, two, lazy] {
        table.destroy(mm);
    }
    assert_all_free(mm);
}

/// A dead table names what a strict space has. Once it is worked off, no frame is missing.
#[test]
fn what_the_dead_name_is_not_missing() {
    let sim = SimMemory::new(128);
    let mm = sim.mm();
    let (parent, child) = (strict(mm), strict(mm));
    parent.map_zero(mm, A, 16 * PAGE, Perm::RW).unwrap();
    (0..16).for_each(|page| put(mm, &parent, A + page * PAGE, 1));
    fork(mm, &child, &parent);
    let hoarded = hoard(mm);
    child.destroy(mm);
    let more = hoard(mm);
    (0..16).for_each(|page| put(mm, &parent, A + page * PAGE, 2));
    give_back(mm, hoarded);
    give_back(mm, more);
    parent.destroy(mm);
    while !reap(mm) {}
    assert_all_free(mm);
}

#[test]
fn the_lazy_way_fails_when_it_is_touched_and_goes_on_when_there_is_memory() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let lazy = space(mm);
    lazy.map_zero(mm, A, 1000 * PAGE, Perm::RW).unwrap();
    put(mm, &lazy, A, 1);
    let mut hoarded = hoard(mm);
    let write = || user_write(mm, &lazy, Cpu(0), A + PAGE, &[1]);
    assert_eq!(write(), Err(Fault::OutOfMemory));
    assert_eq!(user_read(mm, &lazy, Cpu(0), A, &mut [0]), Ok(()));
    mm.frames.free(hoarded.pop().unwrap());
    assert_eq!(write(), Ok(()));
    give_back(mm, hoarded);
    lazy.destroy(mm);
    assert_all_free(mm);
}

/// What a share in parts is charged: each part is first checked, and then shared as if it were a call of
/// its own. Parts that begin in the middle of a table do not count it twice.
#[test]
fn a_share_in_parts_is_charged_what_it_would_be_at_once() {
    const FROM: u64 = (2 << 20) - 40 * PAGE;
    const LEN: u64 = (4 << 20) + 70 * PAGE;
    for holes in [false, true] {
        for (from, to, effort) in [(FROM, B, 7), (FROM, GIB - 33 * PAGE, 100), (FROM, GIB, 1)] {
            for class in [Commit::Overcommit, Commit::Strict] {
                let sim = SimMemory::new(4000);
                let mm = sim.mm();
                let (parent, child, other) = (space(mm), space(mm), space(mm));
                for table in [&parent, &child, &other] {
                    table.set_class(class).unwrap();
                }
                parent.map_zero(mm, from, LEN, Perm::RW).unwrap();
                if holes {
                    parent.unmap(mm, from + 10 * PAGE, LEN - 60 * PAGE).unwrap();
                    let middle = from + (2 << 20);
                    parent.map_zero(mm, middle, 3 * PAGE, Perm::RX).unwrap();
                }
                put(mm, &parent, from + 3 * PAGE, 1);
                let perm = (!holes).then_some(Perm::RW);
                let mode = ShareMode::CopyOnWrite;
                share(mm, &other, to, &parent, from, LEN, mode, perm).unwrap();
                let expected = other.commit() - 1;

                let limit = Effort(effort);
                let sharing = Sharing {
                    mm,
                    dst: &child,
                    to,
                    src: &parent,
                    from,
                    len: LEN,
                    mode,
                    perm,
                };
                let check = |done| sharing.check(done, limit).unwrap();
                let (mut done, mut charge, mut nr_frames) = (0, 0, PerClass::default());
                while done < LEN {
                    let part = check(done);
                    done += part.len;
                    charge += part.charge;
                    nr_frames += part.nr_frames;
                }
                assert_eq!((check(LEN).len, check(LEN).charge), (0, 0));
                assert_eq!(charge, expected, "checked {from:#x} {to:#x} {effort}");
                assert_eq!(
                    child.check_budget(charge),
                    Ok(()),
                    "there is no budget at first"
                );
                child.set_budget(1 + charge);
                mm.frames.set_aside(nr_frames).unwrap();
                let hoarded = hoard(mm);
                done = 0;
                while done < LEN {
                    done += sharing.share_some(done, limit, &mut nr_frames).unwrap();
                }
                mm.frames.give_back(nr_frames);
                assert_eq!(child.commit(), 1 + expected);
                if class == Commit::Strict {
                    assert_eq!(nr_frames, PerClass::default(), "all of it was charged");
                    (0..10).for_each(|page| put(mm, &child, to + page * PAGE, 2));
                }
                give_back(mm, hoarded);
                for table in [parent, child, other] {
                    table.destroy(mm);
                }
                while !reap(mm) {}
                assert_all_free(mm);
                assert_eq!(mm.frames.promised(), 0);
            }
        }
    }
}
