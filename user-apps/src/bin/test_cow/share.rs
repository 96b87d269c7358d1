//! The call `share`: its three modes, between two spaces, and when it fails half-way.

use super::*;
use libipc::abi::Error;
use libipc::{Perm, Rights, ShareMode, Space, start};
use user_apps::scenario::assert_err;
use user_apps::scenario::fault::provoke;
use user_apps::scenario::frames::{available, counters};
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::expect_status;
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::{Gift, Twin, system};

pub(crate) fn share_copy_on_write_separates_both_sides() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let _memory = filled(NR_PAGES, 1);
    let len = NR_PAGES * PAGE;
    space
        .share(&own, SCRATCH, SCRATCH, len, ShareMode::CopyOnWrite, None)
        .expect("share");
    write_all(SCRATCH, NR_PAGES, 500);
    own.share(
        &space,
        SCRATCH,
        OTHER,
        len,
        ShareMode::CopyOnWrite,
        Some(Perm::RW),
    )
    .expect("share");
    check(OTHER, NR_PAGES, 1);
    write_all(OTHER, NR_PAGES, 900);
    own.share(&space, SCRATCH, THIRD, len, ShareMode::CopyOnWrite, None)
        .expect("share");
    check(THIRD, NR_PAGES, 1);
    check(SCRATCH, NR_PAGES, 500);
    own.unmap(OTHER, len).expect("unmap");
    own.unmap(THIRD, len).expect("unmap");
}

pub(crate) fn share_shared_joins_both_sides() {
    let _memory = filled(4, 1);
    let gifts = [Gift(start::space(), Rights::READ | Rights::MAP, 0)];
    let ready = map(SCRATCH + (1 << 24), 1);
    poke(ready.addr(), 0);
    let twin = Twin::start(&system(), &gifts, move |[parent, ..]| {
        let own = Space::own();
        let parent = Space::borrow(parent);
        own.share(
            &parent,
            SCRATCH,
            OTHER,
            4 * PAGE,
            ShareMode::Shared,
            Some(Perm::RW),
        )
        .expect("share");
        poke(OTHER + 8, 111);
        user_apps::scenario::peer::until("the other's write", || peek(OTHER + PAGE + 8) == 222);
        poke(OTHER + 2 * PAGE + 8, 333);
        // Its own copy from before is not shared.
        assert_eq!(peek(SCRATCH + 8), 0);
    });
    user_apps::scenario::peer::until("the other's write", || peek(SCRATCH + 8) == 111);
    poke(SCRATCH + PAGE + 8, 222);
    user_apps::scenario::peer::until("the other's write", || peek(SCRATCH + 2 * PAGE + 8) == 333);
    twin.join();
    check(SCRATCH, 4, 1);
    poke(SCRATCH, 5);
}

pub(crate) fn share_move_empties_the_source() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let memory = filled(NR_PAGES, 1);
    let len = NR_PAGES * PAGE;
    let before = counters();
    space
        .share(&own, SCRATCH, OTHER, len, ShareMode::Move, Some(Perm::R))
        .expect("share");
    assert_err(own.protect(SCRATCH, PAGE, Perm::R), Error::NotMapped);
    assert_eq!(
        provoke(|| poke(SCRATCH, 1)).found,
        libipc::abi::FoundEntry::Empty
    );
    own.share(&space, OTHER, SCRATCH, len, ShareMode::Move, Some(Perm::RW))
        .expect("share");
    check(SCRATCH, NR_PAGES, 1);
    write_all(SCRATCH, NR_PAGES, 2);
    let after = counters();
    assert!(after.broken - before.broken < 20, "a move made copies");
    assert_eq!(space.info().expect("info").private, 0);
    drop(memory);
}

pub(crate) fn lesson_8_shared_memory_stays_shared_after_fork() {
    let _memory = filled(2, 1);
    let own = Space::own();
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    expect_status(0, || {
        poke(OTHER, 10);
        expect_status(0, || {
            assert_eq!(peek(SCRATCH), 10);
            poke(SCRATCH + PAGE, 20);
            0
        });
        0
    });
    assert_eq!((peek(SCRATCH), peek(OTHER)), (10, 10));
    assert_eq!((peek(SCRATCH + PAGE), peek(OTHER + PAGE)), (20, 20));
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

/// A page is copy-on-write or shared, never both (Redox 113cb5ed): what is copied or sent from
/// shared memory is a snapshot.
pub(crate) fn lesson_8_shared_memory_gives_snapshots() {
    let _memory = filled(2, 1);
    let own = Space::own();
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let copy = OTHER + (1 << 24);
    own.share(
        &own,
        SCRATCH,
        copy,
        2 * PAGE,
        ShareMode::CopyOnWrite,
        Some(Perm::RW),
    )
    .expect("share");
    poke(OTHER, 99);
    assert_eq!((peek(SCRATCH), peek(copy)), (99, 1));
    poke(copy + PAGE, 98);
    assert_eq!((peek(SCRATCH + PAGE), peek(OTHER + PAGE)), (2, 2));
    own.unmap(copy, 2 * PAGE).expect("unmap");
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

pub(crate) fn lesson_15_untouched_pages_are_shared_as_zeros() {
    let own = Space::own();
    let _memory = map(SCRATCH, 64);
    let before = available();
    own.share(
        &own,
        SCRATCH,
        OTHER,
        64 * PAGE,
        ShareMode::CopyOnWrite,
        None,
    )
    .expect("share");
    assert!(before - available() < 8, "untouched pages cost frames");
    poke(SCRATCH, 1);
    poke(OTHER + PAGE, 2);
    assert_eq!((peek(OTHER), peek(SCRATCH + PAGE)), (0, 0));
    own.unmap(OTHER, 64 * PAGE).expect("unmap");
    own.share(
        &own,
        SCRATCH + 2 * PAGE,
        OTHER,
        PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    poke(OTHER, 3);
    assert_eq!(peek(SCRATCH + 2 * PAGE), 3);
    own.unmap(OTHER, PAGE).expect("unmap");
}

/// Reserve, then commit: the last page of a long range is at fault, and the first one is untouched.
pub(crate) fn lesson_12_an_error_in_the_middle_of_a_share_changes_nothing() {
    let space = system().create_space(None).expect("space");
    let own = Space::own();
    let _memory = filled(NR_PAGES, 1);
    let len = NR_PAGES * PAGE;
    let state = || {
        (
            own.info().expect("info"),
            space.info().expect("info"),
            available(),
        )
    };
    let _ = state();
    let before = state();
    for mode in [ShareMode::CopyOnWrite, ShareMode::Shared, ShareMode::Move] {
        assert_err(
            space.share(&own, SCRATCH, SCRATCH, len + PAGE, mode, Some(Perm::RW)),
            Error::NotMapped,
        );
        assert_eq!(state(), before, "{mode:?}");
    }
    space.map(OTHER + len - PAGE, PAGE, Perm::R).expect("map");
    let before = state();
    for mode in [ShareMode::CopyOnWrite, ShareMode::Shared, ShareMode::Move] {
        assert_err(
            space.share(&own, SCRATCH, OTHER, len, mode, None),
            Error::Occupied,
        );
        assert_eq!(state(), before, "{mode:?}");
    }
    check(SCRATCH, NR_PAGES, 1);
}

/// The same with the memory used up: snapshots of shared memory need a frame each.
pub(crate) fn lesson_12_running_out_in_the_middle_of_a_share_changes_nothing() {
    let own = Space::own();
    let _memory = filled(256, 1);
    own.share(
        &own,
        SCRATCH,
        OTHER,
        256 * PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let mut rng = Rng::new(3);
    let space = system().create_space(None).expect("space");
    let hog = SCRATCH + (1 << 36);
    // Uses up memory to a few dozen frames.
    let mut used = 0;
    while counters().free > 100 {
        own.map(hog + used, 64 * PAGE, Perm::RW).expect("map");
        for page in 0..64 {
            if counters_allow(page) {
                poke(hog + used + page * PAGE, rng.word());
            }
        }
        used += 64 * PAGE;
    }
    let state = || {
        (
            own.info().expect("info"),
            space.info().expect("info"),
            counters().free,
        )
    };
    let _ = state();
    let before = state();
    assert_err(
        space.share(
            &own,
            SCRATCH,
            OTHER,
            256 * PAGE,
            ShareMode::CopyOnWrite,
            Some(Perm::RW),
        ),
        Error::NoMemory,
    );
    assert_eq!(state(), before, "a share that failed changed something");
    own.unmap(hog, used).expect("unmap");
    space
        .share(
            &own,
            SCRATCH,
            OTHER,
            256 * PAGE,
            ShareMode::CopyOnWrite,
            Some(Perm::RW),
        )
        .expect("there is memory again");
    check(SCRATCH, 256, 1);
    own.unmap(OTHER, 256 * PAGE).expect("unmap");
}

/// Looks at the counters only now and then: the loop above stops in time with 64 pages to spare.
pub(crate) fn counters_allow(page: u64) -> bool {
    !page.is_multiple_of(16) || counters().free > 60
}
