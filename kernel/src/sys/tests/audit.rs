//! The recount of all frames finds nothing wrong, unless something is.

use cowslip_abi::{Call, Error, InfoTopic, Perm, Rights};

use super::machine::{BUFFER, Machine, Program};
use crate::{
    mm::{Frame, PhysAddr},
    object::Object,
    vm::{
        audit::{Flaw, Stopped},
        entry::{Entry, Kind, Slot},
    },
};

const ARGS: [u64; 6] = [InfoTopic::Audit as u64, 0, 0, 0, 0, 0];

/// A machine with a program that has handles and memory, and what `info` says of it after something
/// was spoilt.
fn values_after(spoil: impl FnOnce(&mut Machine, Program)) -> [u64; 4] {
    let mut machine = Machine::new(256);
    let program = machine.program();
    let system = machine.install(program, Object::System, Rights::OBSERVE);
    spoil(&mut machine, program);
    let regs = machine.ok(program, Call::Info, system, ARGS);
    [regs.rdi, regs.rsi, regs.rdx, regs.r8]
}

fn first_page(machine: &Machine, program: Program) -> Frame {
    let space = machine.kernel.spaces.get(program.space).unwrap();
    match space.table.lookup(machine.kernel.mm, BUFFER).kind() {
        Kind::Private(frame) => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_machine_has_no_flaw_and_the_audit_costs_no_frame() {
    let values = values_after(|machine, _| {
        let free = machine.free();
        assert_eq!(machine.kernel.audit(), Ok(()));
        assert_eq!(machine.free(), free);
    });
    assert_eq!(values, [0; 4]);
}

#[test]
fn a_count_too_many_is_found_with_its_frame() {
    let mut page = None;
    let values = values_after(|machine, program| {
        let frame = first_page(machine, program);
        machine.kernel.mm.counts.increment(frame);
        page = Some(frame);
    });
    assert_eq!(values, [1, page.unwrap().addr().0, 2, 1]);
}

#[test]
fn a_lost_frame_is_found() {
    let mut total = 0;
    let values = values_after(|machine, _| {
        let frames = &machine.kernel.mm.frames;
        total = frames.total_count();
        assert!(frames.alloc().is_some());
    });
    assert_eq!(values, [8, 0, total, total - 1]);
}

#[test]
fn a_kernel_object_in_a_page_of_a_program_is_found() {
    let mut page = None;
    let values = values_after(|machine, program| {
        let frame = first_page(machine, program);
        let thread = machine.kernel.threads.get_mut(program.thread).unwrap();
        thread.set_fpu(frame);
        page = Some(frame);
    });
    assert_eq!(values[..2], [2, page.unwrap().addr().0]);
}

#[test]
fn memory_that_nobody_is_charged_for_is_found_with_the_root_of_its_space() {
    let mut space = None;
    let values = values_after(|machine, program| {
        let kernel = &machine.kernel;
        let table = &kernel.spaces.get(program.space).unwrap().table;
        space = Some((table.root(), table.commit()));
        Slot::new(&kernel.mm.map.table(table.root())[9]).set(Entry::PLAIN_ZERO);
    });
    let (root, commit) = space.unwrap();
    let all = (1 << 27) + (1 << 18) + (1 << 9) + 1;
    assert_eq!(values, [9, root.addr().0, commit, commit + all]);
}

#[test]
fn a_wrong_promise_is_found() {
    let values = values_after(|machine, _| machine.kernel.mm.frames.promise(3).unwrap());
    assert_eq!(values, [10, 0, 3, 0]);
}

#[test]
fn vector_registers_and_kept_frames_are_accounted_for() {
    let mut machine = Machine::new(256);
    let program = machine.program();
    let mm = machine.kernel.mm;
    let registers = mm.frames.alloc().unwrap();
    machine
        .kernel
        .threads
        .get_mut(program.thread)
        .unwrap()
        .set_fpu(registers);
    assert_eq!(machine.kernel.audit(), Ok(()));

    // One that a read-only page names too, for the moment.
    let kept = mm.frames.alloc_zeroed().unwrap();
    let page = kept.addr();
    mm.keep(page, PhysAddr(page.0 + 4096));
    let table = &machine.kernel.spaces.get(program.space).unwrap().table;
    table.map_frame(mm, BUFFER - 4096, kept, Perm::R).unwrap();
    assert_eq!(machine.kernel.audit(), Ok(()));
    machine.kernel.kill_space(program.space);
    machine.free();
    assert_eq!(machine.kernel.audit(), Ok(()));
    mm.frames.free(kept);
    let total = mm.frames.total_count();
    let flaw = Flaw::Total {
        counted: total,
        found: total + 1,
    };
    assert_eq!(machine.kernel.audit(), Err(Stopped::At(flaw)));
}

#[test]
fn the_audit_needs_the_right_to_observe_and_frames_for_its_notes() {
    let mut machine = Machine::new(256);
    let program = machine.program();
    let blind = machine.install(program, Object::System, Rights::POWER);
    assert_eq!(
        machine.error(program, Call::Info, blind, ARGS),
        Error::Denied
    );
    let system = machine.install(program, Object::System, Rights::OBSERVE);
    let mm = machine.kernel.mm;
    let hoard: Vec<_> = core::iter::from_fn(|| mm.frames.alloc()).collect();
    assert_eq!(
        machine.error(program, Call::Info, system, ARGS),
        Error::NoMemory
    );
    hoard.into_iter().for_each(|frame| mm.frames.free(frame));
    machine.finish();
}
