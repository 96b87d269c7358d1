//! Messages of many pages: moved, sent again, and too short to be remapped.

use super::{A, B, PAGE, copy, copy_bytes, fork, peek, put, share, share_page, with_spaces};
use cowslip_abi::{PAGE_SIZE, Perm, ShareMode};

use crate::{
    mm::{Frame, Mm, sim::SimMemory},
    vm::{
        PageTable, Transfer,
        audit::audit,
        entry::{Kind, Rights},
        read_user, write_user,
    },
};

const NR_PAGES: u64 = 20;
const LEN: u64 = NR_PAGES * PAGE;

/// `NR_PAGES` written pages in either space, at [`A`] in one and at [`B`] in the other.
fn with_buffers(test: impl FnOnce(&Mm, &PageTable, &PageTable)) {
    with_spaces(|mm, one, two| {
        for (table, addr, byte) in [(one, A, 1), (two, B, 2)] {
            table.map_zero(mm, addr, LEN, Perm::RW).unwrap();
            (0..NR_PAGES).for_each(|n| put(mm, table, addr + n * PAGE, byte));
        }
        test(mm, one, two);
    });
}

fn move_bytes(mm: &Mm, dst: &PageTable, to: u64, src: &PageTable, from: u64, len: u64) {
    copy(mm, dst, to, src, from, len, Transfer::Move).unwrap();
}

fn frames(mm: &Mm, table: &PageTable, addr: u64) -> Vec<Frame> {
    let page = |n| table.lookup(mm, addr + n * PAGE).kind();
    (0..NR_PAGES)
        .map(|n| match page(n) {
            Kind::Private(frame) => frame,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn moved_pages_are_writable_at_once_and_the_source_is_zero() {
    with_buffers(|mm, one, two| {
        let (sent, freed) = (frames(mm, one, A), mm.stats.freed.get());
        move_bytes(mm, two, B, one, A, LEN);
        assert_eq!(frames(mm, two, B), sent);
        assert_eq!(mm.stats.freed.get() - freed, NR_PAGES);
        for n in 0..NR_PAGES {
            assert!(two.lookup(mm, B + n * PAGE).is_writable());
            assert_eq!(one.lookup(mm, A + n * PAGE).kind(), Kind::Zero);
            assert_eq!(one.lookup(mm, A + n * PAGE).rights(), Rights::new(Perm::RW));
            put(mm, two, B + n * PAGE, 3);
        }
        let breaks = (mm.stats.cow_broken.get(), mm.stats.reclaimed.get());
        assert_eq!((breaks, mm.counts.shared()), ((0, 0), 0));
        assert_eq!(peek(mm, one, A), 0);
    });
}

#[test]
fn a_move_leaves_zeros_however_the_bytes_went() {
    with_buffers(|mm, one, two| {
        // Not at the same offset in the page: copied. The last page is moved in part and stays.
        move_bytes(mm, two, B + 8, one, A, 2 * PAGE + 1);
        assert_eq!(one.lookup(mm, A).kind(), Kind::Zero);
        assert_eq!(one.lookup(mm, A + PAGE).kind(), Kind::Zero);
        assert_eq!([0, 1, 2].map(|n| peek(mm, one, A + n * PAGE)), [0, 0, 1]);
        assert_eq!([0, 1, 2].map(|n| peek(mm, two, B + n * PAGE + 8)), [1; 3]);
        assert_eq!(peek(mm, two, B), 2);
    });
}

#[test]
fn a_move_of_ragged_ends_and_shared_memory_copies_them() {
    with_buffers(|mm, one, two| {
        let other = super::space(mm);
        share(
            mm,
            &other,
            B,
            one,
            A + 2 * PAGE,
            PAGE,
            ShareMode::Shared,
            None,
        )
        .unwrap();
        move_bytes(mm, two, B + 8, one, A + 8, 4 * PAGE);
        let left = [0, 1, 2, 3, 4].map(|n| peek(mm, one, A + n * PAGE));
        assert_eq!(left, [1, 0, 1, 0, 1]);
        assert_eq!(peek(mm, &other, B), 1);
        let got = [0, 1, 2, 3, 4].map(|n| peek(mm, two, B + n * PAGE));
        assert_eq!(got, [2, 1, 1, 1, 1]);
        other.destroy(mm);
    });
}

#[test]
fn shared_frames_are_handed_on_by_a_move() {
    with_buffers(|mm, one, two| {
        let child = super::space(mm);
        fork(mm, &child, one);
        let sent = frames(mm, one, A);
        move_bytes(mm, two, B, one, A, LEN);
        assert_eq!(frames(mm, two, B), sent);
        assert_eq!((mm.counts.get(sent[0]), mm.counts.shared()), (2, NR_PAGES));
        put(mm, two, B, 3);
        assert_eq!((peek(mm, &child, A), peek(mm, two, B)), (1, 3));
        child.destroy(mm);
    });
}

#[test]
fn a_message_that_has_arrived_before_changes_nothing() {
    with_buffers(|mm, one, two| {
        copy_bytes(mm, two, B, one, A, LEN).unwrap();
        let entries = |table: &PageTable, addr| {
            (0..NR_PAGES)
                .map(|n| table.lookup(mm, addr + n * PAGE))
                .collect::<Vec<_>>()
        };
        let before = (entries(one, A), entries(two, B), mm.counts.shared());
        copy_bytes(mm, two, B, one, A, LEN).unwrap();
        assert!(before == (entries(one, A), entries(two, B), mm.counts.shared()));
        // And with one page that is not as it was.
        put(mm, one, A + 7 * PAGE, 5);
        copy_bytes(mm, two, B, one, A, LEN).unwrap();
        assert_eq!(frames(mm, one, A), frames(mm, two, B));
        assert_eq!(mm.counts.shared(), NR_PAGES);
        assert_eq!(peek(mm, two, B + 7 * PAGE), 5);
        // A move takes the second reference with it.
        move_bytes(mm, two, B, one, A, LEN);
        assert_eq!(mm.counts.shared(), 0);
        let _ = audit(mm, [one, two]);
    });
}

#[test]
fn lesson_22_short_messages_are_copied_into_pages_that_can_be_written() {
    with_buffers(|mm, one, two| {
        mm.set_remap_min_pages(3);
        let before = frames(mm, two, B);
        copy_bytes(mm, two, B, one, A, PAGE).unwrap();
        copy_bytes(mm, two, B + 5, one, A + 5, 3 * PAGE).unwrap();
        assert_eq!(frames(mm, two, B), before);
        assert_eq!((mm.counts.shared(), mm.stats.remapped.get()), (0, 0));
        // As many as the threshold, and a page that others name.
        copy_bytes(mm, two, B, one, A, 3 * PAGE).unwrap();
        assert_eq!(mm.counts.shared(), 3);
        copy_bytes(mm, two, B, one, A + 4 * PAGE, PAGE).unwrap();
        assert_eq!((mm.counts.shared(), mm.stats.remapped.get()), (3, 4));
        // The frame that is back in one pair of hands can be written again.
        put(mm, one, A + PAGE, 4);
        copy_bytes(mm, two, B + PAGE, one, A + PAGE, PAGE).unwrap();
        assert_eq!((peek(mm, two, B + PAGE), mm.stats.remapped.get()), (4, 4));
    });
}

#[test]
fn a_message_without_a_free_frame_for_a_book() {
    with_buffers(|mm, one, two| {
        let hoard: Vec<_> = core::iter::from_fn(|| mm.frames.alloc()).collect();
        copy_bytes(mm, two, B, one, A, LEN).unwrap();
        assert_eq!(mm.frames.free_count(), NR_PAGES);
        hoard.into_iter().for_each(|frame| mm.frames.free(frame));
        let mut bytes = [0; PAGE_SIZE];
        read_user(mm, two, B + LEN - PAGE, &mut bytes).unwrap();
        assert_eq!(bytes[0], 1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn a_message_of_several_books_and_blocks_of_counts() {
    let sim = SimMemory::new(8000);
    let mm = sim.mm();
    let (one, two) = (super::space(mm), super::space(mm));
    let nr_pages = 1300;
    // Neither starts where a table does.
    let (from, to) = (A + 300 * PAGE, B + 17 * PAGE);
    for table in [(&one, from), (&two, to)] {
        table
            .0
            .map_zero(mm, table.1, nr_pages * PAGE, Perm::RW)
            .unwrap();
    }
    let bytes = |round: u64| move |n: u64| (n * 7 + round) as u8;
    for round in 0..4 {
        // In an order that scatters the frames.
        for n in (0..nr_pages).map(|n| n * 613 % nr_pages) {
            write_user(mm, &one, from + n * PAGE, &[bytes(round)(n)]).unwrap();
            write_user(mm, &two, to + n * PAGE, &[99]).unwrap();
        }
        let mode = if round % 2 == 0 {
            Transfer::Copy
        } else {
            Transfer::Move
        };
        copy(mm, &two, to, &one, from, nr_pages * PAGE, mode).unwrap();
        let named = audit(mm, [&one, &two]);
        let used = named.len() as u64 + mm.counts.nodes();
        assert_eq!(mm.frames.free_count() + used, mm.frames.total_count());
        for n in 0..nr_pages {
            assert_eq!(peek(mm, &two, to + n * PAGE), bytes(round)(n));
        }
    }
    one.destroy(mm);
    two.destroy(mm);
    super::assert_all_free(mm);
}

#[test]
fn a_move_into_shared_memory_copies_and_leaves_zeros() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        share_page(mm, two, one, ShareMode::Shared, None);
        one.map_zero(mm, A + PAGE, PAGE, Perm::RW).unwrap();
        put(mm, one, A + PAGE, 6);
        move_bytes(mm, two, B, one, A + PAGE, PAGE);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (6, 6));
        assert_eq!(one.lookup(mm, A + PAGE).kind(), Kind::Zero);
    });
}
