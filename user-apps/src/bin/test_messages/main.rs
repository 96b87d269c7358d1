//! Messages: every byte arrives where it should and nowhere else; lengths, handles and errors are
//! told to both sides.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod bytes;
mod failures;
mod inline;
mod patterns;
mod rig;

use bytes::*;
use failures::*;
use inline::*;
use patterns::*;

user_apps::scenarios![
    labels_and_words_arrive,
    badges_say_which_handle_was_used,
    handles_are_copied,
    handles_move,
    four_handles_travel_both_ways,
    handles_without_copy_do_not_travel,
    a_message_with_a_bad_handle_is_not_delivered,
    a_full_table_refuses_a_message_with_handles,
    messages_are_received_in_order,
    reply_and_receive_in_one_entry,
    errors_of_the_reply_half_receive_nothing,
    all_sizes_around_pages_arrive,
    all_alignments_arrive,
    both_sides_learn_of_truncation,
    a_reply_longer_than_its_buffer_is_cut,
    a_bad_reply_buffer_is_the_senders_fault,
    a_bad_receive_buffer_leaves_the_sender_queued,
    a_bad_source_is_told_when_the_message_is_delivered,
    lesson_14_bytes_past_the_end_stay,
    lesson_14_a_buffer_longer_than_the_message_keeps_its_rest,
    lesson_13_the_same_page_is_received_twice,
    lesson_15_untouched_pages_arrive_as_zeros,
    lesson_15_untouched_buffers_can_be_received_into,
    lesson_8_shared_memory_is_sent_as_a_snapshot,
    lesson_8_shared_memory_is_received_in_place,
    the_destination_keeps_its_rights,
    pages_of_read_only_text_become_writable,
    moved_pages_leave_zeros_behind,
    overlapping_buffers_are_an_error,
    a_space_sends_to_itself,
    a_thousand_random_messages,
    lesson_12_running_out_in_the_middle_of_a_message_changes_nothing,
];
