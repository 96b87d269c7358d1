//! Copy-on-write: nobody sees what another wrote after they parted, whoever writes, and however.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod family;
mod message;
mod share;
mod tour;

use libipc::abi::Error;
use libipc::{Perm, ShareMode, Space};
use user_apps::scenario::assert_err;
use user_apps::scenario::fault::provoke;
use user_apps::scenario::frames::counters;
use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::expect_status;

use family::*;
use message::*;
use share::*;
use tour::*;

user_apps::scenarios![
    a_childs_writes_stay_with_the_child,
    a_parents_writes_stay_with_the_parent,
    grandchildren_see_their_own_ancestors,
    families_write_in_every_order,
    lesson_4_messages_break_sharing_as_writes_do,
    lesson_6_a_message_in_flight_keeps_its_contents,
    lesson_11_what_has_arrived_does_not_change,
    a_received_page_outlives_its_sender,
    a_sent_page_outlives_its_receiver,
    the_last_owner_takes_pages_back_without_copying,
    four_pages_from_send_to_the_last_reference,
    read_only_stays_read_only,
    protect_never_exceeds_the_ceiling,
    share_copy_on_write_separates_both_sides,
    share_shared_joins_both_sides,
    share_move_empties_the_source,
    lesson_8_shared_memory_stays_shared_after_fork,
    lesson_8_shared_memory_gives_snapshots,
    lesson_15_untouched_pages_are_shared_as_zeros,
    lesson_12_an_error_in_the_middle_of_a_share_changes_nothing,
    lesson_12_running_out_in_the_middle_of_a_share_changes_nothing,
];

/// Where ranges appear a second time.
const OTHER: u64 = SCRATCH + (1 << 32);
const THIRD: u64 = OTHER + (1 << 32);
/// Several page tables' worth, with a page more than fits whole ones.
const NR_PAGES: u64 = 1025;

fn filled(nr_pages: u64, seed: u64) -> Mapped {
    let memory = map(SCRATCH, nr_pages);
    for page in 0..nr_pages {
        poke(SCRATCH + page * PAGE, seed + page);
    }
    memory
}

#[track_caller]
fn check(at: u64, nr_pages: u64, seed: u64) {
    for page in 0..nr_pages {
        assert_eq!(peek(at + page * PAGE), seed + page, "page {page}");
    }
}

fn write_all(at: u64, nr_pages: u64, seed: u64) {
    for page in 0..nr_pages {
        poke(at + page * PAGE, seed + page);
    }
}

/// Pages whose other owners are gone are written in place; pages that still have one are copied.
fn the_last_owner_takes_pages_back_without_copying() {
    const COUNT: u64 = 200;
    let memory = filled(COUNT, 1);
    expect_status(0, || 0);
    let before = counters();
    write_all(SCRATCH, COUNT, 2);
    let after = counters();
    // The few beyond are the stack's.
    assert!(
        after.broken - before.broken < 10,
        "{} copies",
        after.broken - before.broken
    );
    assert!(after.reclaimed - before.reclaimed <= COUNT + 10);

    expect_status(0, || {
        let before = counters();
        write_all(SCRATCH, COUNT, 3);
        let after = counters();
        assert!(
            after.broken - before.broken >= COUNT,
            "a page with two owners was not copied"
        );
        0
    });
    drop(memory);
}

fn read_only_stays_read_only() {
    let _memory = filled(2, 1);
    let own = Space::own();
    own.protect(SCRATCH, PAGE, Perm::R).expect("protect");
    own.share(
        &own,
        SCRATCH,
        OTHER,
        2 * PAGE,
        ShareMode::CopyOnWrite,
        Some(Perm::R),
    )
    .expect("share");
    expect_status(0, || {
        for at in [SCRATCH, OTHER, OTHER + PAGE] {
            let report = provoke(move || poke(at, 0));
            assert_eq!(
                (report.address, report.found),
                (at, libipc::abi::FoundEntry::ReadOnly)
            );
        }
        poke(SCRATCH + PAGE, 5);
        0
    });
    for at in [SCRATCH, OTHER, OTHER + PAGE] {
        assert_eq!(provoke(move || poke(at, 0)).address, at);
    }
    check(SCRATCH, 2, 1);
    own.unmap(OTHER, 2 * PAGE).expect("unmap");
}

fn protect_never_exceeds_the_ceiling() {
    let own = Space::own();
    let _memory = filled(1, 1);
    let share = |at, perm| {
        own.share(&own, SCRATCH, at, PAGE, ShareMode::CopyOnWrite, Some(perm))
            .expect("share");
    };
    share(OTHER, Perm::R);
    share(OTHER + PAGE, Perm::RX);
    share(OTHER + 2 * PAGE, Perm::RW);
    let check_ceilings = || {
        for (at, denied) in [
            (OTHER, Perm::RW),
            (OTHER, Perm::RX),
            (OTHER + PAGE, Perm::RW),
            (OTHER + 2 * PAGE, Perm::RX),
        ] {
            assert_err(Space::own().protect(at, PAGE, denied), Error::Denied);
        }
        // Down and up again.
        Space::own()
            .protect(OTHER + 2 * PAGE, PAGE, Perm::R)
            .expect("protect");
        assert_eq!(
            provoke(|| poke(OTHER + 2 * PAGE, 0)).address,
            OTHER + 2 * PAGE
        );
        Space::own()
            .protect(OTHER + 2 * PAGE, PAGE, Perm::RW)
            .expect("protect");
        poke(OTHER + 2 * PAGE, 3);
    };
    check_ceilings();
    expect_status(0, || {
        check_ceilings();
        0
    });
    assert_eq!(peek(SCRATCH), 1);
    own.unmap(OTHER, 3 * PAGE).expect("unmap");
}
