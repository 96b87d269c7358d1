//! The shortcuts that fail, as far as they apply page by page. Each test is the shortest sequence
//! that shows the failure: map, write, fork, transfer.

use super::{A, B, PAGE, copy_bytes, fork, peek, put, share, share_page, space, with_spaces};
use cowslip_abi::{Error, Perm, ShareMode};

use crate::{
    mm::sim::Cpu,
    vm::{Side, sim::user_write},
};

#[test]
fn w_cleared_only_in_the_child() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, two, one);
        put(mm, one, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 1));
        put(mm, two, A, 3);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 3));
        assert_eq!(
            (mm.stats.cow_broken.get(), mm.stats.reclaimed.get()),
            (1, 1)
        );
    });
}

#[test]
fn untouched_pages_are_not_shared_by_fork() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        fork(mm, two, one);
        put(mm, two, A, 1);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (0, 1));
    });
}

#[test]
fn the_source_s_rights_taken_over() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, A, 2 * PAGE, Perm::RW).unwrap();
        one.map_zero(mm, B, 2 * PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        one.protect(mm, A, 2 * PAGE, Perm::R).unwrap();
        copy_bytes(mm, one, B, one, A, 2 * PAGE).unwrap();
        put(mm, one, B, 2);
        put(mm, one, B + PAGE, 2);
        assert!(user_write(mm, one, Cpu(0), A, &[1]).is_err());
        assert_eq!(peek(mm, one, A), 1);
    });
}

#[test]
fn shared_pages_made_copy_on_write() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        share_page(mm, two, one, ShareMode::Shared, None);
        let child = space(mm);
        fork(mm, &child, one);
        child.protect(mm, A, PAGE, Perm::R).unwrap();
        child.protect(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, &child, A, 1);
        assert_eq!((peek(mm, one, A), peek(mm, two, B)), (1, 1));
        child.destroy(mm);
    });
}

#[test]
fn protect_sets_w_at_once() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        one.protect(mm, A, PAGE, Perm::R).unwrap();
        fork(mm, two, one);
        one.protect(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 1));
    });
}

#[test]
fn read_only_pages_uncounted() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RX).unwrap();
        peek(mm, one, A);
        fork(mm, two, one);
        one.unmap(mm, A, PAGE).unwrap();
        // A new page must not get the frame of the child's text.
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        assert_eq!(peek(mm, two, A), 0);
    });
}

#[test]
fn a_partial_copy_trusts_w() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, two, one);
        put(mm, one, A + 100, 2);
        copy_bytes(mm, two, A + 3, one, A + 96, 16).unwrap();
        assert_eq!((peek(mm, two, A + 7), peek(mm, one, A + 7)), (2, 0));
        assert_eq!((peek(mm, two, A), peek(mm, one, A)), (1, 1));
    });
}

#[test]
fn move_assumes_a_sole_page() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, two, one);
        share(mm, two, B, one, A, PAGE, ShareMode::Move, None).unwrap();
        assert_eq!(one.statistics(mm).tables, 1);
        put(mm, two, B, 2);
        assert_eq!((peek(mm, two, A), peek(mm, two, B)), (1, 2));
    });
}

#[test]
fn a_moved_sole_page_never_faults_again() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        share_page(mm, two, one, ShareMode::Move, Some(Perm::RW));
        put(mm, two, B, 2);
        assert_eq!(
            (mm.stats.cow_broken.get(), mm.stats.reclaimed.get()),
            (0, 0)
        );
        assert!(two.lookup(mm, B).is_writable());
    });
}

#[test]
fn a_move_within_a_table_keeps_the_table() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, A, 3 * PAGE, Perm::RW).unwrap();
        put(mm, one, A, 1);
        let free = mm.frames.free_count();
        let to = A + 100 * PAGE;
        share(mm, one, to, one, A, 3 * PAGE, ShareMode::Move, None).unwrap();
        assert_eq!((mm.frames.free_count(), peek(mm, one, to)), (free, 1));
    });
}

#[test]
fn overlapping_ranges_copied_forward() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, A, 3 * PAGE, Perm::RW).unwrap();
        let error = copy_bytes(mm, one, A + PAGE, one, A, 2 * PAGE).unwrap_err();
        assert_eq!(
            (error.side, error.error),
            (Side::Destination, Error::Overlap)
        );
        let modes = [ShareMode::CopyOnWrite, ShareMode::Shared, ShareMode::Move];
        for (mode, to) in modes
            .into_iter()
            .flat_map(|mode| [(mode, A), (mode, A - PAGE)])
        {
            let result = share(mm, one, to, one, A, 3 * PAGE, mode, None);
            assert_eq!(result, Err(Error::Overlap));
        }
    });
}

#[test]
fn a_message_into_read_only_memory() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 5 * PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B, 4 * PAGE, Perm::RW).unwrap();
        two.map_zero(mm, B + 4 * PAGE, PAGE, Perm::R).unwrap();
        let error = copy_bytes(mm, two, B, one, A, 5 * PAGE).unwrap_err();
        assert_eq!(
            (error.side, error.error),
            (Side::Destination, Error::NotWritable)
        );
    });
}
