//! Who runs where.

use std::sync::atomic::Ordering;

use cowslip_abi::{Call, Error, Handle, InfoTopic, Perm, Rights, SpaceField, ThreadField};

use super::machine::{BUFFER, Machine, Program};
use crate::object::{Id, Object, State, Thread};
use crate::sys;
use crate::vm::PageTable;

const NOTHING: [u64; 6] = [0; 6];

fn set(machine: &mut Machine, program: Program, field: ThreadField, value: u64) {
    let args = [field as u64, value, 0, 0, 0, 0];
    machine.ok(program, Call::ThreadSet, Handle::NONE, args);
}

fn kicked(machine: &Machine) -> u64 {
    machine.platform.kicked.swap(0, Ordering::Relaxed)
}

/// Two CPUs that have looked and found nothing.
fn two_idle() -> Machine {
    let mut machine = Machine::with_cpus(512, 2);
    assert_eq!((machine.look(1), machine.look(0)), (None, None));
    machine
}

#[test]
fn what_wakes_goes_to_an_idle_cpu_which_is_told() {
    let mut machine = two_idle();
    let a = machine.program();
    assert_eq!((machine.look(0), kicked(&machine)), (Some(a.thread), 0));
    let b = machine.program();
    assert_eq!(kicked(&machine), 0b10);
    assert_eq!(
        (machine.look(0), machine.look(1)),
        (Some(a.thread), Some(b.thread))
    );
    machine.finish();
}

#[test]
fn two_that_wake_go_to_two_idle_cpus() {
    let mut machine = Machine::with_cpus(512, 3);
    assert!((0..3).all(|cpu| machine.look(cpu).is_none()));
    machine.look(0);
    let programs = [(); 3].map(|()| machine.program().thread);
    let mut running = [0, 1, 2].map(|cpu| machine.look(cpu));
    running.sort_by_key(|thread| thread.map(|id| id.index()));
    assert_eq!(running, programs.map(Some));
    machine.finish();
}

#[test]
fn an_idle_cpu_takes_over_what_waits_for_another() {
    let mut machine = two_idle();
    let programs = [(); 3].map(|()| machine.program());
    let running = [machine.look(0), machine.look(1)].map(Option::unwrap);
    let waiting = programs
        .iter()
        .find(|program| !running.contains(&program.thread));
    let waiting = waiting.expect("two of three run").thread;
    let on_cpu_1 = programs
        .iter()
        .find(|program| program.thread == running[1])
        .unwrap();
    machine.kernel.kill_space(on_cpu_1.space);
    assert_eq!(machine.look(1), Some(waiting));
    machine.finish();
}

#[test]
fn a_cpu_that_goes_on_while_others_wait_tells_an_idle_one() {
    let mut machine = two_idle();
    let (server, client) = (machine.program(), machine.program());
    let (receive, send) = machine.service(server, client, 7);
    machine.raw_call(
        client.thread,
        Call::Send as u64 | u64::from(send.0) << 32,
        NOTHING,
    );
    machine.raw_call(
        server.thread,
        Call::Recv as u64 | u64::from(receive.0) << 32,
        NOTHING,
    );
    let token = machine.result(server.thread).unwrap().unwrap().r8;
    let here = machine.kernel.cpus.number();
    assert_eq!(machine.look(1 - here), None);
    kicked(&machine);
    machine.raw_call(server.thread, Call::Reply as u64, [token, 0, 0, 0, 0, 0]);
    assert_eq!(machine.result(server.thread).unwrap().map(|_| ()), Ok(()));
    assert_eq!(machine.kernel.current(), Some(server.thread));
    assert_eq!(kicked(&machine), 1 << (1 - here));
    assert_eq!(machine.look(1 - here), Some(client.thread));
    machine.finish();
}

#[test]
fn an_idle_cpu_is_not_told_of_what_may_not_run_there() {
    let mut machine = two_idle();
    let programs = [(); 3].map(|()| machine.program());
    programs
        .iter()
        .for_each(|program| machine.kernel.set_affinity(program.thread, 0b01));
    let running = machine.look(0).expect("one that may run here");
    assert_eq!(machine.look(1), None);
    kicked(&machine);
    assert_eq!((machine.look(0), kicked(&machine)), (Some(running), 0));
    machine.finish();
}

#[test]
fn a_thread_that_is_killed_while_it_runs_elsewhere_is_taken_from_that_cpu() {
    let mut machine = two_idle();
    let (a, b) = (machine.program(), machine.program());
    let (Some(first), Some(second)) = (machine.look(0), machine.look(1)) else {
        panic!("both CPUs have something to run");
    };
    let (killer, victim) = if first == a.thread { (a, b) } else { (b, a) };
    assert_eq!((first, second), (killer.thread, victim.thread));
    let handle = machine.install(killer, Object::Thread(victim.thread), Rights::all());
    machine.ok(killer, Call::Kill, handle, NOTHING);
    assert_eq!(machine.platform.halted.load(Ordering::Relaxed), 0b10);
    assert_eq!(machine.look(1), None);
    machine.finish();
}

#[test]
fn a_bound_thread_runs_where_it_may_and_moves_when_that_changes() {
    let mut machine = two_idle();
    let program = machine.program();
    assert_eq!(machine.look(0), Some(program.thread));
    set(&mut machine, program, ThreadField::Affinity, 0b10);
    assert_eq!(machine.look(0), None);
    assert_eq!(kicked(&machine), 0b10);
    assert_eq!(machine.look(1), Some(program.thread));
    // Nobody takes over what may not run there.
    let other = machine.program();
    machine.look(0);
    machine.run(other.thread);
    set(&mut machine, other, ThreadField::Affinity, 0b10);
    assert_eq!(
        (machine.look(0), machine.look(1)),
        (None, Some(program.thread))
    );
    machine.finish();
}

#[test]
fn a_bound_must_leave_a_cpu_that_is_there() {
    let mut machine = two_idle();
    let program = machine.program();
    for none in [0, 0b100, 1 << 63] {
        let args = [ThreadField::Affinity as u64, none, 0, 0, 0, 0];
        let error = machine.error(program, Call::ThreadSet, Handle::NONE, args);
        assert_eq!(error, Error::BadArgument);
    }
    machine.finish();
}

/// Ends the time slices of both CPUs, and returns who runs then.
fn next_turns(machine: &mut Machine, now_ns: &mut u64) -> [Option<Id<Thread>>; 2] {
    *now_ns += 20_000_000;
    machine.platform.now_ns.store(*now_ns, Ordering::Relaxed);
    [0, 1].map(|cpu| {
        machine.kernel.enter(cpu);
        sys::tick(&mut machine.kernel);
        machine.look(cpu)
    })
}

/// However often a thread is bound to another CPU while it waits, it has as many turns as the others.
#[test]
fn a_thread_that_is_bound_back_and_forth_neither_loses_its_turn_nor_gains_one() {
    for nr_moves in [0, 1, 2, 5] {
        let mut machine = two_idle();
        let programs = [(); 6].map(|()| machine.program());
        let moved = programs[5].thread;
        for (i, program) in programs.iter().enumerate() {
            machine.kernel.set_affinity(program.thread, 1 << (i % 2));
        }
        let mut nr_turns = [0; 6];
        let mut now_ns = 0;
        let mut mask = 0b10;
        for _ in 0..60 {
            let running = next_turns(&mut machine, &mut now_ns);
            for (program, nr_turns) in programs.iter().zip(&mut nr_turns) {
                *nr_turns += u32::from(running.contains(&Some(program.thread)));
            }
            for _ in 0..nr_moves {
                mask ^= 0b11;
                if !running.contains(&Some(moved)) {
                    machine.kernel.set_affinity(moved, mask);
                }
            }
        }
        assert_eq!(nr_turns.iter().sum::<u32>(), 120);
        let is_fair = nr_turns.iter().all(|nr| (14..=26).contains(nr));
        assert!(is_fair, "{nr_moves} moves a turn: {nr_turns:?}");
        machine.finish();
    }
}

#[test]
fn a_thread_that_waits_where_it_may_keeps_its_place() {
    let mut machine = two_idle();
    let programs = [(); 4].map(|()| machine.program());
    let running = [machine.look(0), machine.look(1)];
    for cpu in [0, 1] {
        let first = machine.kernel.cpus[cpu].run_queue.first();
        let Some(waiting) = first else { continue };
        assert!(!running.contains(&Some(waiting)));
        for mask in [1 << cpu, 0b11, 1 << cpu, 0b11] {
            machine.kernel.set_affinity(waiting, mask);
            assert_eq!(machine.kernel.cpus[cpu].run_queue.first(), Some(waiting));
        }
    }
    assert!(
        programs
            .iter()
            .all(|program| machine.kernel.threads.get(program.thread).is_some())
    );
    machine.finish();
}

#[test]
fn what_wakes_begins_at_once_where_a_lower_priority_runs() {
    let mut machine = two_idle();
    let (low, top, high) = (machine.program(), machine.program(), machine.program());
    for (program, priority) in [(low, 3), (top, 12), (high, 9)] {
        set(&mut machine, program, ThreadField::Priority, priority);
    }
    let endpoint = machine
        .ok(high, Call::EndpointCreate, Handle::NONE, NOTHING)
        .rdi as u32;
    let receive = Call::Recv as u64 | u64::from(endpoint) << 32;
    machine.raw_call(high.thread, receive, NOTHING);
    for (cpu, program) in [(0, top), (1, low)] {
        machine.kernel.enter(cpu);
        machine.run(program.thread);
        machine.look(cpu);
    }
    kicked(&machine);
    machine.kernel.enter(0);
    assert!(matches!(
        machine.kernel.threads.get(high.thread).unwrap().state,
        State::Receiving { .. }
    ));
    let object = machine.kernel.spaces.get(high.space).unwrap();
    let entry = object.handles.get(Handle(endpoint)).unwrap();
    let Object::Endpoint(endpoint) = entry.object else {
        panic!("an endpoint was made");
    };
    machine.kernel.raise(endpoint, 1);
    assert_eq!(kicked(&machine), 0b10, "the one that runs the lower");
    assert_eq!(
        (machine.look(0), machine.look(1)),
        (Some(top.thread), Some(high.thread))
    );
    machine.finish();
}

#[test]
fn timers_go_off_on_the_cpu_that_set_them() {
    let mut machine = two_idle();
    let program = machine.program();
    machine.look(1);
    machine.run(program.thread);
    let cpu = machine.kernel.cpus.number();
    let endpoint = machine
        .ok(program, Call::EndpointCreate, Handle::NONE, NOTHING)
        .rdi as u32;
    machine.ok(program, Call::Timer, Handle(endpoint), [100, 0, 0, 0, 0, 0]);
    assert_eq!(machine.kernel.next_deadline(), Some(100));
    machine.kernel.enter(1 - cpu);
    assert_eq!(machine.kernel.next_deadline(), None);
    sys::tick(&mut machine.kernel);
    machine.kernel.enter(cpu);
    assert_eq!(machine.kernel.next_deadline(), Some(100));
    machine.platform.now_ns.store(100, Ordering::Relaxed);
    sys::tick(&mut machine.kernel);
    assert_eq!(machine.kernel.next_deadline(), None);
    machine.finish();
}

/// A machine with two CPUs, of which the second works apart from the kernel.
fn one_apart(nr_frames: usize) -> Machine {
    let machine = Machine::with_cpus(nr_frames, 2);
    machine.platform.has_others.store(true, Ordering::Relaxed);
    machine.platform.nr_apart.store(1, Ordering::Relaxed);
    machine
}

fn is_apart(machine: &Machine) -> bool {
    machine.platform.nr_apart.load(Ordering::Relaxed) != 0
}

#[test]
fn who_has_the_kernel_alone_settles_before_it_uses_page_tables_or_counts_frames() {
    const MEMORY: [u64; 6] = [0x4000_0000, 4096, Perm::RW.bits(), 0, 0, 0];
    let about = |topic: InfoTopic| [topic as u64, 0, 0, 0, 0, 0];
    let mut machine = one_apart(512);
    let program = machine.program();
    let own = machine.install(program, Object::Space(program.space), Rights::all());
    let system = machine.install(program, Object::System, Rights::all());
    let calls = [
        (Call::Map, own, MEMORY),
        (Call::Protect, own, MEMORY),
        (Call::Unmap, own, MEMORY),
        (
            Call::SpaceSet,
            own,
            [SpaceField::Budget as u64, 100, 0, 0, 0, 0],
        ),
        (Call::Info, own, about(InfoTopic::Space)),
        (Call::Info, own, about(InfoTopic::Commit)),
        (Call::Info, system, about(InfoTopic::Memory)),
        (Call::Info, system, about(InfoTopic::Promise)),
        (Call::Info, system, about(InfoTopic::Audit)),
        (Call::Log, system, [BUFFER, 8, 0, 0, 0, 0]),
    ];
    for (call, handle, args) in calls {
        machine.platform.nr_apart.store(1, Ordering::Relaxed);
        machine.ok(program, call, handle, args);
        assert!(!is_apart(&machine), "{call:?} {args:x?}");
    }
    machine.finish();
}

#[test]
fn a_cpu_finds_the_page_table_of_what_it_runs() {
    let mut machine = two_idle();
    let found = |machine: &mut Machine, cpu| {
        let seat = machine.kernel.seat(cpu);
        // SAFETY: nobody takes the thread away before the root was read.
        unsafe { seat.own_table(&raw const machine.kernel) }.map(PageTable::root)
    };
    let programs = [machine.program(), machine.program()];
    assert!(found(&mut machine, 0).is_none());
    for cpu in [0, 1] {
        let thread = machine.look(cpu);
        let program = programs
            .iter()
            .find(|program| Some(program.thread) == thread);
        let space = program.and_then(|program| machine.kernel.spaces.get(program.space));
        let root = space.map(|space| space.table.root());
        assert!(root.is_some() && found(&mut machine, cpu) == root);
    }
    machine.finish();
}

#[test]
fn who_passes_bytes_settles_and_who_passes_none_does_not() {
    let mut machine = one_apart(512);
    let (server, client) = (machine.program(), machine.program());
    let (receive, send) = machine.service(server, client, 7);
    for len in [0, 8] {
        let buffer = [0, 0, 0, 0, BUFFER, 4096];
        assert!(machine.call(server, Call::Recv, receive, buffer).is_none());
        let message = [0, 0, BUFFER, len, BUFFER, 4096];
        assert!(machine.call(client, Call::Send, send, message).is_none());
        assert_eq!(is_apart(&machine), len == 0);
        let token = machine.kernel.threads.get(server.thread).unwrap().regs.r8;
        let reply = [token, 0, 0, 0, 0, 0];
        machine.ok(server, Call::Reply, Handle::NONE, reply);
    }
    machine.finish();
}

#[test]
fn memory_is_not_out_before_those_have_come_back_who_work_apart() {
    let mut machine = one_apart(512);
    let program = machine.program();
    let system = machine.install(program, Object::System, Rights::all());
    let mm = machine.kernel.mm;
    let mut frames: Vec<_> = std::iter::from_fn(|| mm.frames.alloc()).collect();
    // Whoever worked apart has given back what it did not need.
    machine.begin(program, Call::SpaceCreate, system, NOTHING);
    assert!(!is_apart(&machine));
    frames.drain(..4).for_each(|frame| mm.frames.free(frame));
    machine.step(program.thread);
    assert!(machine.result(program.thread).unwrap().is_ok());
    // Nobody works apart, and nothing is left.
    frames.extend(std::iter::from_fn(|| mm.frames.alloc()));
    let out = machine.error(program, Call::SpaceCreate, system, NOTHING);
    assert_eq!(out, Error::NoMemory);
    frames.into_iter().for_each(|frame| mm.frames.free(frame));
    machine.finish();
}

#[test]
fn what_dies_beside_other_cpus_is_left_to_be_worked_off_apart() {
    let mut machine = one_apart(512);
    let (dead, alive) = (machine.program(), machine.program());
    machine.kernel.kill_space(dead.space);
    assert!(!machine.kernel.mm.dead.is_empty());
    let system = machine.install(alive, Object::System, Rights::all());
    // Who asks how much is free waits for it.
    machine.ok(
        alive,
        Call::Info,
        system,
        [InfoTopic::Memory as u64, 0, 0, 0, 0, 0],
    );
    assert!(machine.kernel.mm.dead.is_empty());
    machine.finish();
}

#[test]
fn a_space_does_not_end_while_another_cpu_uses_its_page_table() {
    let mut machine = one_apart(512);
    let (first, second) = (machine.program(), machine.program());
    machine.kernel.kill_space(first.space);
    assert!(is_apart(&machine), "nobody uses its page table");
    let table = &machine.kernel.spaces.get(second.space).unwrap().table;
    // The other CPU will have come back when it is waited for.
    std::mem::forget(table.try_lock());
    machine.kernel.kill_space(second.space);
    assert!(!is_apart(&machine));
    machine.finish();
}
