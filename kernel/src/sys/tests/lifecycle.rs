//! Death on every side, and that nobody hangs and no frame is lost.

use cowslip_abi::{Access, Call, Error, FaultKind, Handle, MessageKind, Rights, Tag};

use super::machine::{BUFFER, Machine, ORDERS, Program, START, kind};
use crate::object::{HandleEntry, Object, State, Supervisor};
use crate::sys;

const NOTHING: [u64; 6] = [0; 6];

fn served(machine: &mut Machine) -> (Program, Handle, Program, Handle) {
    let (server, client) = (machine.program(), machine.program());
    let (receive, send) = machine.service(server, client, 1);
    (server, receive, client, send)
}

/// One more thread of a program.
fn another(machine: &mut Machine, program: Program) -> Program {
    let kernel = &mut machine.kernel;
    let thread = kernel.create_thread(program.space, None, 16).unwrap();
    kernel.start_thread(thread, &START).unwrap();
    Program { thread, ..program }
}

#[test]
fn a_server_that_dies_fails_those_who_wait_for_its_reply() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = served(&mut machine);
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    machine.ok(server, Call::Recv, receive, NOTHING);
    machine.kernel.kill_space(server.space);
    assert_eq!(machine.result(client.thread), Some(Err(Error::Died)));
    assert_eq!(
        machine.error(client, Call::Send, send, NOTHING),
        Error::Died
    );
    machine.finish();
}

#[test]
fn a_server_that_dies_fails_those_who_wait_to_be_received() {
    let mut machine = Machine::new(256);
    let (server, _, client, send) = served(&mut machine);
    assert!(
        machine
            .call(client, Call::Send, send, [0, 0, BUFFER, 9000, 0, 0])
            .is_none()
    );
    machine.kernel.kill_space(server.space);
    assert_eq!(machine.result(client.thread), Some(Err(Error::Died)));
    machine.finish();
}

#[test]
fn closing_the_last_receive_handle_kills_the_endpoint() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = served(&mut machine);
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    let rights = u64::from((Rights::RECV | Rights::COPY).bits());
    let copy = machine
        .ok(server, Call::HandleCopy, receive, [0, rights, 0, 0, 0, 0])
        .rdi;
    machine.ok(server, Call::HandleClose, receive, NOTHING);
    assert_eq!(machine.result(client.thread), None, "one handle is left");
    machine.ok(server, Call::HandleClose, Handle(copy as u32), NOTHING);
    assert_eq!(machine.result(client.thread), Some(Err(Error::Died)));
    machine.finish();
}

/// As many threads as one likes can wait at an endpoint. Between two steps one that was not told yet is
/// killed like any other that waits.
#[test]
fn those_who_wait_at_an_endpoint_that_died_are_told_in_steps() {
    const STEP: usize = 64;
    const NR_SENDERS: usize = 8 * STEP;
    let mut machine = Machine::new(1024);
    let (server, receive, client, send) = served(&mut machine);
    let senders: Vec<_> = (0..NR_SENDERS)
        .map(|_| {
            let sender = another(&mut machine, client);
            assert!(machine.call(sender, Call::Send, send, NOTHING).is_none());
            sender.thread
        })
        .collect();
    machine.ok(server, Call::HandleClose, receive, NOTHING);
    let nr_told = |machine: &Machine| {
        let results = senders.iter().map(|sender| machine.result(*sender));
        results
            .filter(|result| *result == Some(Err(Error::Died)))
            .count()
    };
    let told = nr_told(&machine);
    assert!((1..=4 * STEP).contains(&told), "{told} in one call");
    assert_eq!(
        machine.error(client, Call::Send, send, NOTHING),
        Error::Died
    );
    let [last, last_but_one] = [1, 2].map(|behind| senders[NR_SENDERS - behind]);
    machine.kernel.kill_thread(last_but_one);
    let mut before = nr_told(&machine);
    while !machine.kernel.reap() {
        let told = nr_told(&machine);
        assert!((1..=STEP).contains(&(told - before)));
        before = told;
    }
    assert_eq!(nr_told(&machine), NR_SENDERS - 1);
    assert_eq!(machine.result(last), Some(Err(Error::Died)));
    machine.finish();
}

#[test]
fn those_who_wait_to_receive_from_an_endpoint_that_died_are_told() {
    let mut machine = Machine::new(256);
    let (server, receive, ..) = served(&mut machine);
    let receivers = [(); 3].map(|()| another(&mut machine, server));
    for receiver in receivers {
        assert!(
            machine
                .call(receiver, Call::Recv, receive, NOTHING)
                .is_none()
        );
    }
    machine.ok(server, Call::HandleClose, receive, NOTHING);
    for receiver in receivers {
        assert_eq!(machine.result(receiver.thread), Some(Err(Error::Died)));
    }
    machine.finish();
}

#[test]
fn lesson_17_a_client_that_dies_leaves_every_queue() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = served(&mut machine);
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    machine.kernel.kill_space(client.space);
    let flags = [0, 1, 0, 0, 0, 0];
    assert_eq!(
        machine.error(server, Call::Recv, receive, flags),
        Error::WouldBlock
    );

    let client = machine.program();
    let entry = machine
        .kernel
        .spaces
        .get(server.space)
        .unwrap()
        .handles
        .get(receive)
        .unwrap();
    let send = machine.install(client, entry.object, Rights::SEND);
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    let token = machine.ok(server, Call::Recv, receive, NOTHING).r8;
    machine.kernel.kill_space(client.space);
    let args = [token, 0, 0, 0, 0, 0];
    assert_eq!(
        machine.error(server, Call::Reply, Handle::NONE, args),
        Error::StaleToken
    );
    machine.finish();
}

#[test]
fn lesson_18_kill_wins_against_a_server_that_never_replies() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = served(&mut machine);
    let killer = machine.program();
    let victim = machine.install(killer, Object::Space(client.space), Rights::MANAGE);
    assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
    machine.ok(server, Call::Recv, receive, NOTHING);
    machine.ok(killer, Call::Kill, victim, NOTHING);
    assert!(machine.kernel.spaces.get(client.space).is_none());
    assert_eq!(
        machine.error(killer, Call::Kill, victim, NOTHING),
        Error::Died
    );
    machine.finish();
}

#[test]
fn a_thread_that_waits_to_receive_can_be_killed() {
    let mut machine = Machine::new(256);
    let (server, receive, client, send) = served(&mut machine);
    assert!(machine.call(server, Call::Recv, receive, NOTHING).is_none());
    machine.kernel.kill_thread(server.thread);
    assert!(
        machine.kernel.spaces.get(server.space).is_none(),
        "its last thread ended"
    );
    assert_eq!(
        machine.error(client, Call::Send, send, NOTHING),
        Error::Died
    );
    machine.finish();
}

#[test]
fn a_space_tells_its_creator_that_it_died() {
    let mut machine = Machine::new(256);
    let parent = machine.program();
    let system = machine.install(parent, Object::System, Rights::SYSTEM);
    let endpoint = Handle(
        machine
            .ok(parent, Call::EndpointCreate, Handle::NONE, NOTHING)
            .rdi as u32,
    );
    let rights = u64::from(Rights::NOTIFY.bits());
    let bell = machine
        .ok(
            parent,
            Call::HandleCopy,
            endpoint,
            [0, rights, 0b1000, 0, 0, 0],
        )
        .rdi;
    let space = machine
        .ok(parent, Call::SpaceCreate, system, [bell, 0, 0, 0, 0, 0])
        .rdi as u32;
    let thread = machine
        .ok(
            parent,
            Call::ThreadCreate,
            Handle(space),
            [0, 3, 0, 0, 0, 0],
        )
        .rdi as u32;
    machine.ok(
        parent,
        Call::ThreadStart,
        Handle(thread),
        [0x1000, 0x2000, 0, 0, 0, 0],
    );
    machine.ok(parent, Call::Kill, Handle(space), NOTHING);
    let bits = machine.ok(parent, Call::Recv, endpoint, NOTHING);
    assert_eq!((kind(&bits), bits.r12), (MessageKind::Notification, 0b1000));
    machine.finish();
}

#[test]
fn a_space_that_nobody_can_name_and_that_never_ran_goes_away() {
    let mut machine = Machine::new(256);
    let parent = machine.program();
    let system = machine.install(parent, Object::System, Rights::SYSTEM);
    machine.ok(parent, Call::SpaceCreate, system, NOTHING);
    let before = machine.free();
    let space = Handle(machine.ok(parent, Call::SpaceCreate, system, NOTHING).rdi as u32);
    machine.ok(parent, Call::Map, space, [BUFFER, 4096, 3, 0, 0, 0]);
    assert!(machine.free() < before);
    machine.ok(parent, Call::HandleClose, space, NOTHING);
    assert_eq!(machine.free(), before);
    machine.finish();
}

#[test]
fn spaces_die_with_their_creator_however_deep_the_tree() {
    let mut machine = Machine::new(4096);
    let root = machine.program();
    let mut parent = root.space;
    for _ in 0..200 {
        let child = machine.kernel.create_space(Some(parent), None).unwrap();
        // Each holds the only handle to the next, and a handle to itself.
        for space in [parent, child] {
            machine
                .kernel
                .install(space, Object::Space(child), Rights::SPACE, 0)
                .unwrap();
        }
        parent = child;
    }
    machine.kernel.kill_space(root.space);
    assert!(!machine.kernel.spaces.is_empty(), "all at once");
    while !machine.kernel.reap() {}
    assert!(machine.kernel.spaces.is_empty());
    machine.finish();
}

/// Works off what is doomed; how many steps more that takes. After each one all is accounted for.
fn steps_to_the_end(machine: &mut Machine) -> usize {
    let mut nr_steps = 1;
    while !machine.kernel.reap() {
        nr_steps += 1;
        assert_eq!(machine.kernel.audit(), Ok(()));
    }
    nr_steps
}

#[test]
fn children_are_doomed_in_steps() {
    let mut machine = Machine::new(4096);
    let (parent, other) = (machine.program(), machine.program());
    for _ in 0..300 {
        machine
            .kernel
            .create_space(Some(parent.space), None)
            .unwrap();
    }
    let foster = machine
        .kernel
        .create_space(Some(other.space), None)
        .unwrap();
    machine.kernel.kill_space(parent.space);
    assert!(machine.kernel.spaces.len() > 300 - 64, "more than a step");
    assert!(steps_to_the_end(&mut machine) >= 300 / 64);
    assert_eq!(machine.kernel.spaces.len(), 2);
    assert!(machine.kernel.spaces.get(foster).is_some());
    machine.finish();
}

#[test]
fn a_child_that_died_before_is_none_of_its_owners_any_more() {
    for order in ORDERS {
        let mut machine = Machine::new(256);
        let parent = machine.program();
        let children = [(); 3].map(|()| {
            machine
                .kernel
                .create_space(Some(parent.space), None)
                .unwrap()
        });
        for nr_dead in 0..2 {
            machine.kernel.kill_space(children[order[nr_dead]]);
            assert_eq!(machine.kernel.spaces.len(), 3 - nr_dead);
        }
        // Takes the place of one that died.
        let late = machine
            .kernel
            .create_space(Some(parent.space), None)
            .unwrap();
        machine.kernel.kill_space(parent.space);
        assert!(machine.kernel.spaces.get(late).is_none());
        assert!(machine.kernel.spaces.is_empty(), "{order:?}");
        machine.finish();
    }
}

/// A server that has received a message from each of `nr_clients` threads, and replied to none.
fn server_with_callers(machine: &mut Machine, nr_clients: usize) -> (Program, Vec<Program>) {
    let (server, receive, client, send) = served(machine);
    let clients = (0..nr_clients).map(|_| {
        let thread = machine
            .kernel
            .create_thread(client.space, None, 16)
            .unwrap();
        machine.kernel.start_thread(thread, &START).unwrap();
        let client = Program { thread, ..client };
        assert!(machine.call(client, Call::Send, send, NOTHING).is_none());
        machine.ok(server, Call::Recv, receive, NOTHING);
        client
    });
    let clients = clients.collect();
    (server, clients)
}

#[test]
fn a_thread_that_is_woken_at_the_end_of_its_own_call_runs_once() {
    let mut machine = Machine::new(1024);
    let (server, receive, ..) = served(&mut machine);
    let handles = &machine.kernel.spaces.get(server.space).unwrap().handles;
    let Object::Endpoint(endpoint) = handles.get(receive).unwrap().object else {
        panic!("it is an endpoint");
    };
    let dying = machine
        .kernel
        .create_space(None, Some((endpoint, 0b1000)))
        .unwrap();
    for _ in 0..100 {
        let made = machine
            .kernel
            .install(dying, Object::System, Rights::empty(), 0);
        made.unwrap();
    }
    machine.kernel.kill_space(dying);
    assert!(
        machine.kernel.spaces.get(dying).is_some(),
        "one step is enough"
    );
    machine.call(server, Call::Recv, receive, NOTHING);
    assert!(machine.kernel.spaces.get(dying).is_none());
    let got = machine.result(server.thread).unwrap().unwrap();
    assert_eq!(got.words()[0], 0b1000);
    let waits = machine.kernel.cpus.here().run_queue.first();
    assert!(
        machine.kernel.current() != waits,
        "it runs and waits to run"
    );
    machine.finish();
}

#[test]
fn those_who_wait_for_a_reply_are_failed_in_steps() {
    let mut machine = Machine::new(4096);
    let (server, clients) = server_with_callers(&mut machine, 200);
    let nr_failed = |machine: &Machine| {
        let results = clients.iter().map(|client| machine.result(client.thread));
        results
            .filter(|result| *result == Some(Err(Error::Died)))
            .count()
    };
    machine.kernel.kill_space(server.space);
    assert!(nr_failed(&machine) < 64);
    assert!(steps_to_the_end(&mut machine) >= 200 / 64);
    assert_eq!(nr_failed(&machine), 200);
    assert!(machine.kernel.spaces.get(server.space).is_none());
    machine.finish();
}

#[test]
fn a_kill_wins_while_its_victim_waits_to_be_failed() {
    let mut machine = Machine::new(4096);
    let (server, clients) = server_with_callers(&mut machine, 200);
    machine.kernel.kill_space(server.space);
    let last = clients[199].thread;
    assert_eq!(machine.result(last), None, "it waits still");
    machine.kernel.kill_thread(last);
    assert!(machine.kernel.threads.get(last).is_none());
    machine.kernel.kill_space(clients[0].space);
    steps_to_the_end(&mut machine);
    assert!(machine.kernel.threads.is_empty() && machine.kernel.spaces.is_empty());
    machine.finish();
}

#[test]
fn a_space_that_is_being_torn_down_gets_no_threads() {
    let mut machine = Machine::new(4096);
    let (_, clients) = server_with_callers(&mut machine, 200);
    let space = clients[0].space;
    machine.kernel.kill_space(space);
    assert!(
        machine.kernel.spaces.get(space).is_some(),
        "more than a step"
    );
    let made = machine.kernel.create_thread(space, None, 16);
    assert_eq!(made, Err(Error::Died));
    steps_to_the_end(&mut machine);
    machine.finish();
}

fn supervised(machine: &mut Machine) -> (Program, Handle, Program) {
    let server = machine.program();
    let endpoint = Handle(
        machine
            .ok(server, Call::EndpointCreate, Handle::NONE, NOTHING)
            .rdi as u32,
    );
    let entry = machine
        .kernel
        .spaces
        .get(server.space)
        .unwrap()
        .handles
        .get(endpoint)
        .unwrap();
    let HandleEntry {
        object: Object::Endpoint(id),
        ..
    } = entry
    else {
        unreachable!()
    };
    let supervisor = Supervisor {
        endpoint: id,
        badge: 77,
    };
    let program = machine.supervised_program(Some(supervisor));
    (server, endpoint, program)
}

#[test]
fn a_fault_says_what_was_touched_and_what_is_there() {
    let mut machine = Machine::new(256);
    let (server, endpoint, program) = supervised(&mut machine);
    machine.run(program.thread);
    machine.page_fault(0x6666_0000, Access::Write);
    let report = machine.ok(server, Call::Recv, endpoint, NOTHING);
    assert_eq!((kind(&report), report.rdi), (MessageKind::Fault, 77));
    assert_eq!(Tag(report.rsi).label(), FaultKind::Page as u32);
    assert_eq!(
        report.words(),
        [0x6666_0000, 0x1000, Access::Write as u64, 0x2000]
    );

    // A label that is no verdict changes nothing; resuming lets the thread try again.
    let nonsense = [report.r8, 9, 0, 0, 0, 0];
    assert_eq!(
        machine.error(server, Call::Reply, Handle::NONE, nonsense),
        Error::BadArgument
    );
    machine.ok(
        server,
        Call::Reply,
        Handle::NONE,
        [report.r8, 0, 0, 0, 0, 0],
    );
    let thread = machine.kernel.threads.get(program.thread).unwrap();
    assert!(matches!(thread.state, State::Runnable) && thread.fault().is_none());
    assert_eq!(thread.regs.rip, 0x1000);
    machine.finish();
}

#[test]
fn a_supervisor_may_kill_the_faulted_thread() {
    let mut machine = Machine::new(256);
    let (server, endpoint, program) = supervised(&mut machine);
    machine.run(program.thread);
    sys::exception(&mut machine.kernel, 6);
    let report = machine.ok(server, Call::Recv, endpoint, NOTHING);
    assert_eq!(report.r12, 6);
    machine.ok(
        server,
        Call::Reply,
        Handle::NONE,
        [report.r8, 1, 0, 0, 0, 0],
    );
    assert!(machine.kernel.spaces.get(program.space).is_none());
    machine.finish();
}

#[test]
fn a_faulted_thread_dies_with_its_supervisor() {
    for received in [false, true] {
        let mut machine = Machine::new(256);
        let (server, endpoint, program) = supervised(&mut machine);
        machine.run(program.thread);
        machine.page_fault(0, Access::Read);
        if received {
            machine.ok(server, Call::Recv, endpoint, NOTHING);
        }
        machine.kernel.kill_space(server.space);
        assert!(machine.kernel.threads.get(program.thread).is_none());
        assert!(machine.kernel.spaces.get(program.space).is_none());
        machine.finish();
    }
}

#[test]
fn a_faulted_thread_without_supervisor_ends() {
    let mut machine = Machine::new(256);
    let program = machine.program();
    machine.run(program.thread);
    machine.page_fault(0, Access::Read);
    assert!(machine.kernel.spaces.get(program.space).is_none());
    machine.finish();
}
