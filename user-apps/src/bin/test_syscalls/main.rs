//! System calls: every error that they promise, that nothing changes after one, and what hostile
//! registers, flags and instructions do: nothing to anybody else.
#![cfg_attr(target_os = "none", no_std, no_main)]

mod errors;
mod garbage;
mod instructions;
mod ranges;
mod registers;

use errors::*;
use garbage::*;
use instructions::*;
use ranges::*;
use registers::*;

user_apps::scenarios![
    unknown_numbers_are_unknown,
    handles_are_checked_for_number_type_right_and_life,
    page_ranges_are_checked,
    mappings_are_checked,
    message_buffers_are_checked,
    share_is_checked,
    copies_never_gain_authority,
    threads_start_once_at_user_addresses,
    what_a_creator_is_told_is_checked,
    thread_fields_are_checked,
    topics_and_logs_are_checked,
    tokens_that_were_never_given_are_stale,
    a_full_handle_table_is_an_error,
    closed_numbers_stay_errors,
    registers_that_are_no_results_keep_their_values,
    flags_survive_calls,
    garbage_in_all_registers_hurts_nobody,
    garbage_pointers_hurt_nobody,
    privileged_instructions_end_the_thread,
    kernel_memory_cannot_be_read_written_or_run,
    wild_jumps_and_stacks_end_the_thread,
    single_steps_across_a_call_reach_the_supervisor,
    a_call_at_the_end_of_user_memory_returns_to_nothing,
];
