//! Tests named after the lessons from other systems.

use super::{
    A, B, PAGE, TABLE, assert_all_free, copy_bytes, fork, peek, put, share, share_page, space,
    with_spaces,
};
use cowslip_abi::{Access, Error, PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{
        Mm,
        sim::{Cpu, SimMemory},
    },
    vm::{
        CopyError, PageTable, Side, USER_END,
        audit::audit,
        entry::Kind,
        read_user, reap,
        sim::{user_access, user_write},
        write_user,
    },
};

#[test]
fn lesson_1_a_copy_on_write_break_flushes_the_other_cpu() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, two, one);
        assert_eq!(peek(mm, one, A), 1);
        put(mm, one, A, 2);
        assert_eq!(peek(mm, one, A), 2);
        // The old frame is free for the other space to reclaim and write.
        put(mm, two, A, 3);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 3));
    });
}

/// "No flush is needed here" is for an operation to say that takes nothing away, and for no other.
#[test]
fn lesson_3_whatever_takes_rights_or_frames_away_flushes_every_cpu() {
    let taken: [fn(&Mm, &PageTable, &PageTable); 8] = [
        |mm, one, _| one.unmap(mm, A, PAGE).unwrap(),
        |mm, one, _| one.protect(mm, A, PAGE, Perm::R).unwrap(),
        |mm, one, two| share_page(mm, two, one, ShareMode::CopyOnWrite, None),
        |mm, one, two| share_page(mm, two, one, ShareMode::Move, None),
        |mm, one, two| copy_bytes(mm, two, B + PAGE, one, A, PAGE).unwrap(),
        |mm, one, two| copy_bytes(mm, one, A, two, B + PAGE, PAGE).unwrap(),
        |mm, one, two| {
            share_page(mm, two, one, ShareMode::CopyOnWrite, None);
            put(mm, one, A, 2);
        },
        |mm, one, two| {
            two.unmap(mm, 0, USER_END).unwrap();
            fork(mm, two, one);
        },
    ];
    for take in taken {
        let sim = SimMemory::new(64);
        let mm = sim.mm();
        let (one, two) = (space(mm), space(mm));
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B + PAGE, PAGE, Perm::RW).unwrap();
        for cpu in [Cpu(0), Cpu(1)] {
            for (table, addr) in [(&one, A), (&one, A + PAGE), (&two, B + PAGE)] {
                user_write(mm, table, cpu, addr, &[1]).unwrap();
            }
        }
        let _ = sim.take_flushes();
        take(mm, &one, &two);
        assert!(sim.nr_flushes() > 0);
        sim.check_tlbs();
        [one, two].into_iter().for_each(|table| table.destroy(mm));
        assert_all_free(mm);
    }
}

#[test]
fn lesson_4_kernel_writes_break_copy_on_write() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        put(mm, one, A + PAGE - 1, 1);
        put(mm, one, A + PAGE, 1);
        fork(mm, two, one);
        write_user(mm, two, A + PAGE - 1, &[7, 8]).unwrap();
        assert_eq!(
            (peek(mm, one, A + PAGE - 1), peek(mm, one, A + PAGE)),
            (1, 1)
        );
        assert_eq!(
            (peek(mm, two, A + PAGE - 1), peek(mm, two, A + PAGE)),
            (7, 8)
        );
        assert_eq!(mm.stats.cow_broken.get(), 2);
    });
}

#[test]
fn lesson_4_kernel_writes_respect_read_only_memory() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        one.protect(mm, A + PAGE, PAGE, Perm::R).unwrap();
        fork(mm, two, one);
        assert_eq!(
            write_user(mm, two, A, &[9; 2 * PAGE_SIZE]),
            Err(Error::NotWritable)
        );
        assert_eq!(write_user(mm, two, A - 1, &[9; 2]), Err(Error::NotMapped));
        assert_eq!(
            write_user(mm, two, u64::MAX, &[9; 2]),
            Err(Error::NotMapped)
        );
        assert_eq!(peek(mm, two, A), 1);
        assert_eq!(mm.stats.cow_broken.get(), 0);
        let mut byte = [0];
        assert_eq!(read_user(mm, two, A - 1, &mut byte), Err(Error::NotMapped));
        assert_eq!(read_user(mm, two, A, &mut byte), Ok(()));
        assert_eq!(byte, [1]);
    });
}

#[test]
fn lesson_6_a_message_is_a_reference() {
    with_spaces(|mm, parent, server| {
        let child = space(mm);
        parent.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        server.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        put(mm, parent, A, 1);
        fork(mm, &child, parent);
        copy_bytes(mm, server, B, &child, A, PAGE).unwrap();
        child.unmap(mm, A, PAGE).unwrap();
        put(mm, parent, A, 2);
        assert_eq!((peek(mm, server, B), peek(mm, parent, A)), (1, 2));
        put(mm, server, B, 3);
        assert_eq!((peek(mm, server, B), peek(mm, parent, A)), (3, 2));
        child.destroy(mm);
    });
}

#[test]
fn lesson_8_fork_keeps_shared_memory_shared() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        share_page(mm, two, one, ShareMode::Shared, None);
        let child = space(mm);
        fork(mm, &child, two);
        put(mm, &child, B, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (2, 2));
        child.destroy(mm);
        put(mm, one, A, 3);
        assert_eq!(peek(mm, two, B), 3);
        assert_eq!(mm.stats.cow_broken.get(), 0);
    });
}

#[test]
fn lesson_8_sending_a_shared_page_sends_a_snapshot() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        one.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        share_page(mm, two, one, ShareMode::Shared, None);
        copy_bytes(mm, one, A + PAGE, two, B, PAGE).unwrap();
        let (mode, perm) = (ShareMode::CopyOnWrite, Some(Perm::RW));
        share(mm, one, A + 2 * PAGE, two, B, PAGE, mode, perm).unwrap();
        put(mm, two, B, 2);
        let bytes = [0, 1, 2].map(|n| peek(mm, one, A + n * PAGE));
        assert_eq!(bytes, [2, 1, 1]);
    });
}

#[test]
fn lesson_8_sharing_a_copy_on_write_page_copies_it_first() {
    with_spaces(|mm, one, two| {
        let child = space(mm);
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, &child, one);
        share_page(mm, two, one, ShareMode::Shared, None);
        put(mm, two, B, 2);
        assert_eq!((peek(mm, one, A), peek(mm, &child, A)), (2, 1));
        put(mm, &child, A, 3);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (2, 2));
        child.destroy(mm);
    });
}

#[test]
fn lesson_8_a_message_into_shared_memory_is_seen_by_all() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        put(mm, one, A + PAGE, 5);
        share_page(mm, two, one, ShareMode::Shared, None);
        copy_bytes(mm, two, B, one, A + PAGE, PAGE).unwrap();
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (5, 5));
        assert!(matches!(two.lookup(mm, B).kind(), Kind::Shared(_)));
    });
}

#[test]
fn lesson_9_three_hundred_sharers() {
    let nr_sharers = if cfg!(miri) { 3 } else { 300 };
    let sim = SimMemory::new(8 + 4 * (nr_sharers + 1));
    let mm = sim.mm();
    let parent = space(mm);
    parent.map_zero(mm, A, PAGE, Perm::RW).unwrap();
    put(mm, &parent, A, 1);
    let children: Vec<_> = (0..nr_sharers).map(|_| space(mm)).collect();
    children.iter().for_each(|child| fork(mm, child, &parent));
    // All of them name one table.
    let named = audit(mm, children.iter().chain([&parent]));
    let most = named.values().map(|named| named.count).max();
    assert_eq!(most, Some(nr_sharers as u64 + 1));
    parent.destroy(mm);
    for child in children {
        assert_eq!(peek(mm, &child, A), 1);
        child.destroy(mm);
    }
    assert_all_free(mm);
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_10_generations_of_fork_do_not_chain() {
    let nr_generations = 5000;
    let sim = SimMemory::new(32);
    let mm = sim.mm();
    let mut parent = space(mm);
    parent.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
    put(mm, &parent, A, 1);
    put(mm, &parent, A + PAGE, 0);
    for n in 0..nr_generations {
        let child = space(mm);
        fork(mm, &child, &parent);
        parent.destroy(mm);
        reap(mm);
        put(mm, &child, A + PAGE, n as u8);
        parent = child;
    }
    assert_eq!(peek(mm, &parent, A), 1);
    assert_eq!(mm.stats.cow_broken.get(), 0, "the last owner reclaims");
    parent.destroy(mm);
    assert_all_free(mm);
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lesson_10_generations_that_share_whole_tables_take_no_more_frames() {
    let nr_generations = 5000;
    let sim = SimMemory::new(64);
    let mm = sim.mm();
    let mut parent = space(mm);
    // Two whole tables: one that is written in each generation, and one that is only sent on.
    parent.map_zero(mm, 0, 8 * TABLE, Perm::RW).unwrap();
    put(mm, &parent, A, 1);
    put(mm, &parent, A + TABLE, 1);
    let mut free_once = None;
    for n in 0..nr_generations {
        let child = space(mm);
        fork(mm, &child, &parent);
        // The child sends the table to itself, writes below it, and both outlive the parent.
        copy_bytes(mm, &child, 0, &child, A + TABLE, TABLE).unwrap();
        put(mm, &child, A, n as u8);
        if n % 2 == 0 {
            put(mm, &child, PAGE, n as u8);
        }
        parent.destroy(mm);
        while !reap(mm) {}
        let free = mm.frames.free_count();
        if n % 2 == 0 && n > 0 {
            assert_eq!(*free_once.get_or_insert(free), free, "generation {n}");
        }
        parent = child;
    }
    let _ = audit(mm, [&parent]);
    assert_eq!([0, A + TABLE].map(|addr| peek(mm, &parent, addr)), [1, 1]);
    parent.destroy(mm);
    assert_all_free(mm);
}

#[test]
fn lesson_13_the_same_page_twice_in_one_message() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B, 2 * PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        copy_bytes(mm, one, A + PAGE, one, A, PAGE).unwrap();
        assert_eq!(one.lookup(mm, A).kind(), one.lookup(mm, A + PAGE).kind());
        copy_bytes(mm, two, B, one, A, 2 * PAGE).unwrap();
        // And again, into pages that name the very frames that are sent.
        copy_bytes(mm, two, B, one, A, 2 * PAGE).unwrap();
        let Kind::Private(frame) = one.lookup(mm, A).kind() else {
            panic!()
        };
        assert_eq!(mm.counts.get(frame), 4);
        put(mm, two, B, 2);
        let bytes = [(one, A), (one, A + PAGE), (two, B), (two, B + PAGE)];
        assert_eq!(
            bytes.map(|(table, addr)| peek(mm, table, addr)),
            [1, 1, 2, 1]
        );
    });
}

#[test]
fn lesson_14_bytes_past_the_end_stay() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 4 * PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B, 4 * PAGE, Perm::RW).unwrap();
        write_user(mm, one, A, &[1; 4 * PAGE_SIZE]).unwrap();
        for (to, from, len) in [
            (5, 5, 2 * PAGE),
            (5, 9, 2 * PAGE),
            (0, 0, 5),
            (PAGE, 0, PAGE + 1),
        ] {
            write_user(mm, two, B, &[2; 4 * PAGE_SIZE]).unwrap();
            copy_bytes(mm, two, B + to, one, A + from, len).unwrap();
            let mut expected = vec![2; 4 * PAGE_SIZE];
            expected[to as usize..][..len as usize].fill(1);
            let mut bytes = vec![0; 4 * PAGE_SIZE];
            read_user(mm, two, B, &mut bytes).unwrap();
            assert!(bytes == expected, "{len} bytes to {to}");
            read_user(mm, one, A, &mut bytes).unwrap();
            assert!(bytes == [1; 4 * PAGE_SIZE]);
        }
    });
}

#[test]
fn lesson_15_untouched_pages_are_legal_in_messages() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 3 * PAGE, Perm::R).unwrap();
        two.map_zero(mm, B, 3 * PAGE, Perm::RW).unwrap();
        (0..3).for_each(|n| put(mm, two, B + n * PAGE + 100, 9));
        let free = mm.frames.free_count();
        copy_bytes(mm, two, B, one, A, 2 * PAGE + 101).unwrap();
        assert_eq!(
            mm.frames.free_count(),
            free + 2,
            "whole pages become untouched"
        );
        assert_eq!(one.statistics(mm).zero, 3);
        assert_eq!([0, 1, 2].map(|n| peek(mm, two, B + n * PAGE + 100)), [0; 3]);
        copy_bytes(mm, two, B + 1, one, A, PAGE).unwrap();
        copy_bytes(mm, two, B + PAGE, one, A, 0).unwrap();
        assert_eq!(one.statistics(mm).zero, 3);
        put(mm, two, B, 1);
    });
}

#[test]
fn a_copy_says_whose_fault_it_was() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B + PAGE, PAGE, Perm::R).unwrap();
        let attempt = |to, from, len| copy_bytes(mm, two, to, one, from, len).unwrap_err();
        let error = |side, error| CopyError { side, error };
        assert_eq!(
            attempt(B, A, 2 * PAGE),
            error(Side::Destination, Error::NotWritable)
        );
        assert_eq!(
            attempt(B, A + 2 * PAGE - 1, 2),
            error(Side::Source, Error::NotMapped)
        );
        assert_eq!(
            attempt(B - 1, A, 2),
            error(Side::Destination, Error::NotMapped)
        );
        let overlap = copy_bytes(mm, one, A + PAGE - 1, one, A, PAGE).unwrap_err();
        assert_eq!(overlap, error(Side::Destination, Error::Overlap));
        assert_eq!(copy_bytes(mm, two, 0, one, 0, 0), Ok(()));
    });
}

#[test]
fn text_stays_read_only_and_its_copy_does_not() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RX).unwrap();
        user_access(mm, one, Cpu(0), A, Access::Execute).unwrap();
        two.map_zero(mm, B, PAGE, Perm::RW).unwrap();
        copy_bytes(mm, two, B, one, A, PAGE).unwrap();
        put(mm, two, B, 1);
        assert!(user_access(mm, two, Cpu(0), B, Access::Execute).is_err());
        assert!(user_write(mm, one, Cpu(0), A, &[1]).is_err());
        assert_eq!(peek(mm, one, A), 0);
    });
}
