//! What several CPUs do to the same pages, objects and threads at once.
//!
//! Each case repeats a race as often as it may within [a few seconds](ROUNDS_NS), with the instants shifted from round to
//! round. All hold on one CPU too, where preemption alone mixes the threads.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod copies;
mod deaths;
mod events;
mod places;
mod rights;

use core::hint::spin_loop;
use core::sync::atomic::AtomicU64;

use libipc::object::clock;
use libipc::println;
use user_apps::scenario::memory::{PAGE, SCRATCH};
use user_apps::scenario::peer::until;
use user_apps::scenario::rng::Rng;

use copies::*;
use deaths::*;
use events::*;
use places::*;
use rights::*;

user_apps::scenarios![
    writes_survive_the_forks_of_another_thread,
    a_copy_does_not_change_while_the_original_is_written,
    two_processes_break_the_same_table_at_once,
    twins_that_fault_at_once_have_what_they_wrote,
    bytes_arrive_whole_where_others_fault_and_fork,
    after_an_unmap_no_access_gets_through,
    after_a_protect_no_store_gets_through,
    a_fork_among_threads_that_map_copies_a_state_that_was,
    a_kill_races_fork_and_exit,
    a_kill_races_send_and_reply,
    a_kill_races_a_reply_that_receives_the_next,
    a_kill_of_the_server_reaches_clients_on_every_cpu,
    two_kills_race_an_exit,
    a_kill_races_calls_on_the_memory_of_the_dying,
    a_kill_races_who_makes_spaces_and_threads,
    an_endpoint_destroyed_while_eight_send_fails_each,
    a_closed_handle_never_names_another_object,
    messages_get_through_beside_calls_that_have_the_kernel_alone,
    no_notification_of_any_cpu_is_lost,
    no_timer_of_any_cpu_is_lost,
    a_running_thread_goes_where_it_is_bound,
    a_thread_bound_from_several_cpus_at_once_goes_on,
    more_threads_than_cpus_all_make_progress,
    idle_cpus_take_work_until_all_run_at_once,
];

/// How long a case repeats its rounds, in nanoseconds, and how long it may if they are fewer than this.
const ROUNDS_NS: u64 = 1_800_000_000;
const MOST_ROUNDS_NS: u64 = 6_000_000_000;
const FEW_ROUNDS: u64 = 200;

/// What a lowest-level table covers.
const TABLE: u64 = 512 * PAGE;

/// Where [`SCRATCH`] appears a second time, congruent in every way.
const OTHER: u64 = SCRATCH + (1 << 40);

/// The numbers from 1 to `most`, as many as come in the time that a case has. In the end it says how many
/// that were.
fn rounds(most: u64) -> impl Iterator<Item = u64> {
    let begin = now();
    (1..=most).take_while(move |&round| {
        let limit_ns = if round <= FEW_ROUNDS {
            MOST_ROUNDS_NS
        } else {
            ROUNDS_NS
        };
        let goes_on = round == 1 || now() - begin < limit_ns;
        if round == most || !goes_on {
            println!("    {} rounds", round - u64::from(!goes_on));
        }
        goes_on
    })
}

fn now() -> u64 {
    clock().expect("clock").0
}

/// Lets a moment pass of up to so many turns.
fn linger(rng: &mut Rng, most: u64) {
    for _ in 0..rng.below(most) {
        spin_loop();
    }
}

/// Waits until the condition holds: at first without leaving the CPU, so that the waiters go on at
/// the same moment.
#[track_caller]
fn meet(what: &str, condition: impl Fn() -> bool) {
    /// Turns that take less than a time slice.
    const TURNS: u32 = 2000;
    for _ in 0..TURNS {
        if condition() {
            return;
        }
        spin_loop();
    }
    until(what, condition);
}

/// A word of memory that several threads use.
fn word<'a>(addr: u64) -> &'a AtomicU64 {
    // SAFETY: cases pass aligned addresses of memory that they have mapped for this.
    unsafe { AtomicU64::from_ptr(addr as *mut u64) }
}
