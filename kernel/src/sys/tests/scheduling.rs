//! Who runs, and when the timer is wanted.

use std::sync::atomic::Ordering;

use cowslip_abi::{Call, Handle, MessageKind};

use super::machine::{Machine, Program, kind};
use crate::sys;

const NOTHING: [u64; 6] = [0; 6];

fn set_priority(machine: &mut Machine, program: Program, priority: u64) {
    machine.ok(
        program,
        Call::ThreadSet,
        Handle::NONE,
        [0, priority, 0, 0, 0, 0],
    );
}

#[test]
fn the_highest_priority_runs_and_lower_ones_wait() {
    let mut machine = Machine::new(256);
    let (low, high) = (machine.program(), machine.program());
    set_priority(&mut machine, low, 3);
    set_priority(&mut machine, high, 5);
    machine.run(low.thread);
    assert_eq!(sys::next(&mut machine.kernel).thread, Some(high.thread));
    machine.kernel.kill_thread(high.thread);
    assert_eq!(sys::next(&mut machine.kernel).thread, Some(low.thread));
    machine.finish();
}

#[test]
fn equal_priorities_take_turns_when_the_slice_ends_or_they_yield() {
    let mut machine = Machine::new(256);
    let (first, second) = (machine.program(), machine.program());
    machine.run(first.thread);
    assert_eq!(sys::next(&mut machine.kernel).thread, Some(first.thread));
    let timer = sys::next(&mut machine.kernel).timer.unwrap();

    machine.platform.now_ns.store(timer, Ordering::Relaxed);
    sys::tick(&mut machine.kernel);
    assert_eq!(sys::next(&mut machine.kernel).thread, Some(second.thread));
    assert!(
        machine
            .call(second, Call::Yield, Handle::NONE, NOTHING)
            .is_some()
    );
    assert_eq!(sys::next(&mut machine.kernel).thread, Some(first.thread));
    machine.finish();
}

#[test]
fn an_idle_machine_wants_no_timer() {
    let mut machine = Machine::new(256);
    let next = sys::next(&mut machine.kernel);
    assert_eq!((next.thread, next.timer), (None, None));
    machine.finish();
}

#[test]
fn a_sender_lends_its_priority_until_the_reply() {
    let mut machine = Machine::new(256);
    let (server, client) = (machine.program(), machine.program());
    let (receive, send) = machine.service(server, client, 1);
    set_priority(&mut machine, server, 2);
    assert!(machine.call(server, Call::Recv, receive, NOTHING).is_none());
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    assert_eq!(
        machine.kernel.threads.get(server.thread).unwrap().priority,
        16
    );
    let token = machine.result(server.thread).unwrap().unwrap().r8;
    machine.ok(server, Call::Reply, Handle::NONE, [token, 0, 0, 0, 0, 0]);
    assert_eq!(
        machine.kernel.threads.get(server.thread).unwrap().priority,
        2
    );
    machine.finish();
}

#[test]
fn timers_ring_in_the_order_of_their_deadlines() {
    let mut machine = Machine::new(256);
    let server = machine.program();
    let clients = [machine.program(), machine.program(), machine.program()];
    let (receive, first) = machine.service(server, clients[0], 1);
    let entry = machine
        .kernel
        .spaces
        .get(clients[0].space)
        .unwrap()
        .handles
        .get(first)
        .unwrap();
    let mut handles = [first; 3];
    for i in [1, 2] {
        let bits = 1 << i;
        let client = clients[i].space;
        handles[i] = machine
            .kernel
            .install(client, entry.object, entry.rights, bits)
            .unwrap();
    }
    for (i, deadline) in [300, 100, 200].into_iter().enumerate() {
        machine.ok(
            clients[i],
            Call::Timer,
            handles[i],
            [deadline, 0, 0, 0, 0, 0],
        );
    }
    assert_eq!(machine.kernel.next_deadline(), Some(100));
    for (now, bits) in [(150, 0b010), (299, 0b100), (300, 0b001)] {
        machine.platform.now_ns.store(now, Ordering::Relaxed);
        sys::tick(&mut machine.kernel);
        let got = machine.ok(server, Call::Recv, receive, NOTHING);
        assert_eq!((kind(&got), got.r12), (MessageKind::Notification, bits));
    }
    machine.ok(clients[0], Call::Timer, handles[0], [900, 0, 0, 0, 0, 0]);
    machine.ok(clients[0], Call::Timer, handles[0], NOTHING);
    assert_eq!(machine.kernel.next_deadline(), None, "cancelled");
    machine.finish();
}
