//! Page tables that are shared whole: by forks, by messages, by thousands, and with no memory left.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod crowds;
mod generations;
mod messages;
mod orders;
mod shortage;

use user_apps::scenario::memory::{Mapped, PAGE, SCRATCH, map, peek, poke};

use crowds::*;
use generations::*;
use messages::*;
use orders::*;
use shortage::*;

user_apps::scenarios![
    lesson_9_three_hundred_spaces_share_a_page,
    lesson_9_a_page_is_mapped_a_hundred_thousand_times,
    a_thousand_programs_share_their_text,
    lesson_10_five_thousand_generations_take_no_more_than_one,
    four_generations_write_in_every_order,
    a_parent_and_three_children_write_in_every_order,
    a_received_table_is_passed_on_a_hundred_times,
    a_message_outlives_its_sender_whatever_that_does_next,
    a_sender_killed_before_the_reply_leaves_its_message,
    a_table_received_twice_is_written_in_either_place,
    a_message_into_a_forked_buffer_leaves_the_fork_alone,
    a_table_goes_to_the_place_next_to_its_own,
    a_terabyte_is_forked_and_sent_in_part,
    lesson_12_a_fork_fails_at_every_stage_without_a_trace,
    lesson_12_a_message_fails_at_every_stage_without_a_trace,
    lesson_12_a_split_fails_at_every_stage_without_a_trace,
    lesson_12_a_write_waits_at_every_stage_for_frames,
];

/// What a lowest-level table covers, and the next one.
const TABLE: u64 = 512 * PAGE;
const DIRECTORY: u64 = 512 * TABLE;

/// Where ranges appear a second time and a third: congruent with [`SCRATCH`] in every way.
const OTHER: u64 = SCRATCH + (1 << 40);
const THIRD: u64 = OTHER + (1 << 40);

/// Pages at an address, each written with a number of its own.
fn filled(at: u64, nr_pages: u64, seed: u64) -> Mapped {
    let memory = map(at, nr_pages);
    write_all(at, nr_pages, seed);
    memory
}

fn write_all(at: u64, nr_pages: u64, seed: u64) {
    for page in 0..nr_pages {
        poke(at + page * PAGE, seed + page);
    }
}

#[track_caller]
fn check(at: u64, nr_pages: u64, seed: u64) {
    for page in 0..nr_pages {
        assert_eq!(peek(at + page * PAGE), seed + page, "page {page}");
    }
}

/// The bytes of memory that is mapped.
fn bytes(at: u64, len: u64) -> &'static mut [u8] {
    // SAFETY: cases pass memory of their own, which stays mapped as long as they look at it.
    unsafe { core::slice::from_raw_parts_mut(at as *mut u8, len as usize) }
}
