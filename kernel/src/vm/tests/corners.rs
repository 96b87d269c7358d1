//! What is easily left out of an operation without anything else going wrong.

use super::{
    A, B, PAGE, TABLE, assert_all_free, check, copy, copy_bytes, fork, peek, put, share,
    share_page, space, with_spaces,
};
use cowslip_abi::{Commit, Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{Mm, PerClass, sim::SimMemory},
    vm::{
        CopyError, Effort, PageTable, Passage, Sharing, Side, Transfer, copy_in_place, entry::Kind,
        read_user, share_in_place, write_user,
    },
};

fn strict(mm: &Mm) -> PageTable {
    let table = space(mm);
    table.set_class(Commit::Strict).unwrap();
    table
}

fn bytes(mm: &Mm, table: &PageTable, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    read_user(mm, table, addr, &mut bytes).unwrap();
    bytes
}

/// Page by page, where the table is there, and in another space's way.
#[test]
fn a_budget_is_used_up_to_the_last_page_and_no_further() {
    with_spaces(|mm, one, two| {
        two.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, two, A, 1);
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        one.set_budget(one.commit() + 1);
        one.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        let more = one.map_zero(mm, A + 2 * PAGE, PAGE, Perm::RW);
        assert_eq!(more, Err(Error::OverBudget));
        let mode = ShareMode::CopyOnWrite;
        let more = share(mm, one, A + 2 * PAGE, two, A, PAGE, mode, None);
        assert_eq!(more, Err(Error::OverBudget));
        assert_eq!(one.commit(), one.budget());
    });
}

#[test]
fn behind_the_end_there_is_nothing_to_charge() {
    with_spaces(|mm, one, two| {
        let len = 2 * TABLE;
        one.map_zero(mm, A, len, Perm::RW).unwrap();
        let sharing = Sharing {
            mm,
            dst: two,
            to: 0,
            src: one,
            from: A,
            len,
            mode: ShareMode::CopyOnWrite,
            perm: Some(Perm::RW),
        };
        let rest = sharing.check(len, Effort::STEP).unwrap();
        assert_eq!((rest.len, rest.charge), (0, 0));
    });
}

/// Where nothing is aligned, a page of the source goes to two pages. It is emptied with the second one.
#[test]
fn a_move_in_steps_empties_no_page_that_is_needed_again() {
    with_spaces(|mm, one, two| {
        const LEN: usize = 6 * PAGE_SIZE;
        let sent: Vec<u8> = (0..LEN).map(|n| (n / 7) as u8).collect();
        one.map_zero(mm, A, LEN as u64, Perm::RW).unwrap();
        two.map_zero(mm, B, LEN as u64 + PAGE, Perm::RW).unwrap();
        write_user(mm, one, A, &sent).unwrap();
        let passage = Passage {
            mm,
            dst: two,
            to: B + 100,
            src: one,
            from: A,
            len: LEN as u64,
            transfer: Transfer::Move,
        };
        let (mut done, mut nr_steps) = (0, 0);
        while done < LEN as u64 {
            let limit = Effort(32);
            let mut aside = passage.check(done, limit).unwrap().nr_frames;
            mm.frames.set_aside(aside).unwrap();
            done += passage.copy_some(done, limit, &mut aside).unwrap();
            mm.frames.give_back(aside);
            nr_steps += 1;
        }
        assert!(nr_steps > 1);
        assert!(bytes(mm, two, B + 100, LEN) == sent);
        assert!(bytes(mm, one, A, LEN) == [0; LEN]);
    });
}

/// Each side answers for its own tables, whatever the other one is.
#[test]
fn frames_for_tables_are_those_of_their_own_class() {
    let sim = SimMemory::new(128);
    let mm = sim.mm();
    let (one, copied, lazy) = (strict(mm), strict(mm), space(mm));
    for table in [&one, &lazy] {
        table.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, table, A, 1);
    }
    // The table of the page that is emptied is shared, so it is copied for the move.
    fork(mm, &copied, &one);
    let passage = Passage {
        mm,
        dst: &lazy,
        to: A,
        src: &one,
        from: A,
        len: PAGE,
        transfer: Transfer::Move,
    };
    let needed = passage.check(0, Effort::STEP).unwrap().nr_frames;
    assert_eq!(
        needed,
        PerClass {
            overcommit: 0,
            strict: 3
        }
    );
    for table in [one, copied, lazy] {
        table.destroy(mm);
    }
    assert_all_free(mm);
}

/// The page has neighbours with frames, so both sides go as a run.
#[test]
fn zeros_are_written_into_shared_memory_for_all_to_see() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        put(mm, one, A + PAGE, 1);
        two.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        (0..2).for_each(|page| put(mm, two, A + page * PAGE, 7));
        share_page(mm, two, two, ShareMode::Shared, None);
        copy_bytes(mm, two, A, one, A, 2 * PAGE).unwrap();
        assert_eq!((peek(mm, two, A), peek(mm, two, B)), (0, 0));
        assert!(matches!(two.lookup(mm, A).kind(), Kind::Shared(_)));
        check(mm, &[one, two]);
    });
}

/// Below a shared table a page has one reference, and two once the table is copied.
#[test]
fn a_snapshot_into_a_forked_buffer_takes_a_frame() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        share(mm, one, B, one, A, PAGE, ShareMode::Shared, None).unwrap();
        two.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, two, A, 2);
        let child = space(mm);
        fork(mm, &child, two);
        copy_bytes(mm, two, A, one, A, PAGE).unwrap();
        assert_eq!((peek(mm, two, A), peek(mm, &child, A)), (1, 2));
        check(mm, &[one, two, &child]);
        child.destroy(mm);
    });
}

#[test]
fn the_page_in_which_the_source_begins_is_looked_at() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        let expected = CopyError::new(Side::Source, Error::NotMapped);
        let copied = copy_bytes(mm, two, B, one, A + 8, PAGE);
        assert_eq!(copied, Err(expected));
    });
}

#[test]
fn bytes_that_overlap_are_not_copied_in_place() {
    with_spaces(|mm, one, two| {
        for table in [one, two] {
            table.map_zero(mm, A, PAGE, Perm::RW).unwrap();
            put(mm, table, A, 1);
        }
        assert!(copy_in_place(mm, two.root(), A + 8, one.root(), A, 100));
        assert!(!copy_in_place(mm, one.root(), A + 8, one.root(), A, 100));
        assert_eq!(peek(mm, one, A + 8), 0);
    });
}

/// What the CPUs remember of the page is seen at the end of the test.
#[test]
fn a_page_that_is_moved_is_out_of_the_senders_reach() {
    with_spaces(|mm, one, two| {
        for table in [one, two] {
            table.map_zero(mm, A, PAGE, Perm::RW).unwrap();
            put(mm, table, A, 1);
            peek(mm, table, A);
        }
        copy(mm, two, A, one, A, PAGE, Transfer::Move).unwrap();
    });
}

#[test]
fn shared_memory_that_is_moved_stays_below_its_ceiling() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        share_page(mm, two, one, ShareMode::Shared, Some(Perm::R));
        let moved = |perm| share(mm, two, A, two, B, PAGE, ShareMode::Move, Some(perm));
        assert_eq!(moved(Perm::RW), Err(Error::Denied));
        assert_eq!(moved(Perm::R), Ok(()));
    });
}

/// Beside a page that is there, so the table is at hand.
#[test]
fn a_plain_table_that_gets_shared_memory_is_plain_no_more() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, 0, super::GIB, Perm::RW).unwrap();
        put(mm, one, A, 1);
        two.map_zero(mm, B + PAGE, PAGE, Perm::RW).unwrap();
        share_page(mm, two, one, ShareMode::Shared, None);
        check(mm, &[one, two]);
    });
}

#[test]
fn shared_memory_stays_in_its_class_also_in_place() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two, lazy) = (strict(mm), strict(mm), space(mm));
    one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
    share_page(mm, &two, &one, ShareMode::Shared, None);
    for table in [&two, &lazy] {
        table.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        put(mm, table, A + PAGE, 1);
    }
    assert!(share_in_place(mm, &two, A, &one, A, Perm::RW));
    assert!(!share_in_place(mm, &lazy, A, &one, A, Perm::RW));
    check(mm, &[&one, &two, &lazy]);
    for table in [one, two, lazy] {
        table.destroy(mm);
    }
    assert_all_free(mm);
}

/// As many pages as a step can copy, and no more.
#[test]
fn a_message_that_is_too_short_to_be_remapped_is_looked_at_for_a_step() {
    with_spaces(|mm, one, two| {
        const NR_PAGES: u64 = 20;
        for table in [one, two] {
            table.map_zero(mm, A, NR_PAGES * PAGE, Perm::RW).unwrap();
            (0..NR_PAGES).for_each(|page| put(mm, table, A + page * PAGE, 1));
        }
        // The last one cannot be written where it is.
        let last = A + (NR_PAGES - 1) * PAGE;
        copy_bytes(mm, two, last, one, last, PAGE).unwrap();
        mm.set_remap_min_pages(1000);
        let passage = Passage {
            mm,
            dst: two,
            to: A,
            src: one,
            from: A,
            len: NR_PAGES * PAGE,
            transfer: Transfer::Copy,
        };
        let nr_pages = |limit| passage.check(0, limit).unwrap().len / PAGE;
        assert_eq!(nr_pages(Effort(4 * Effort::BYTES.0)), 4, "copied");
        assert_eq!(
            nr_pages(Effort(100 * Effort::BYTES.0)),
            NR_PAGES,
            "remapped"
        );
        copy_bytes(mm, two, A, one, A, NR_PAGES * PAGE).unwrap();
        assert_eq!(mm.stats.copied.get(), 0);
    });
}

#[test]
fn a_page_that_comes_with_its_frame_is_not_promised_another() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let table = strict(mm);
    let frame = mm.frames.alloc_zeroed().unwrap();
    table.map_frame(mm, A, frame, Perm::R).unwrap();
    check(mm, &[&table]);
    assert_eq!((table.commit(), mm.frames.promised()), (1 + 3 + 1, 0));
    table.destroy(mm);
    assert_all_free(mm);
}

/// They become pages of the source first, and are promised to it already.
#[test]
fn untouched_pages_that_are_shared_take_frames_of_their_source() {
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let (one, two) = (strict(mm), strict(mm));
    one.map_zero(mm, A, 5 * PAGE, Perm::RW).unwrap();
    put(mm, &one, A, 1);
    let sharing = Sharing {
        mm,
        dst: &two,
        to: A,
        src: &one,
        from: A,
        len: 5 * PAGE,
        mode: ShareMode::Shared,
        perm: None,
    };
    let needed = sharing.check(0, Effort::STEP).unwrap();
    assert_eq!(needed.nr_frames.strict, 4);
    assert_eq!(needed.nr_frames.overcommit, needed.charge);
    for table in [one, two] {
        table.destroy(mm);
    }
    assert_all_free(mm);
}

/// Both CPUs know the page before it is replaced by a copy that is shared.
#[test]
fn a_page_that_is_copied_to_be_shared_is_out_of_reach_before() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        share_page(mm, two, one, ShareMode::CopyOnWrite, None);
        peek(mm, one, A);
        share(mm, two, A, one, A, PAGE, ShareMode::Shared, None).unwrap();
        put(mm, two, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (2, 1));
    });
}
