//! Each wrong argument has its own error, and changes nothing.

use cowslip_abi::{Call, Commit, Error, Handle, InfoTopic, Perm, Rights, SpaceField, Tag};

use super::machine::{BUFFER, Machine, Program};
use crate::object::{MAX_HANDLES_PER_SPACE, Object};
use crate::trace;

const NOTHING: [u64; 6] = [0; 6];
const KERNEL: u64 = 0xffff_8000_0000_0000;
const HOLE: u64 = 0x0000_9000_0000_0000;

/// A program with every kind of handle, each with all rights.
fn rich(machine: &mut Machine) -> (Program, [Handle; 6]) {
    let program = machine.program();
    let endpoint = machine
        .ok(program, Call::EndpointCreate, Handle::NONE, NOTHING)
        .rdi;
    let space = machine.install(program, Object::Space(program.space), Rights::SPACE);
    let thread = machine.install(program, Object::Thread(program.thread), Rights::THREAD);
    let system = machine.install(program, Object::System, Rights::SYSTEM);
    let lines = machine
        .kernel
        .install(program.space, Object::Interrupt, Rights::DEVICES, 4);
    let ports = machine.kernel.install(
        program.space,
        Object::Ports,
        Rights::DEVICES,
        0x3f8 | 8 << 16,
    );
    let handles = [
        Handle(endpoint as u32),
        space,
        thread,
        system,
        lines.unwrap(),
        ports.unwrap(),
    ];
    (program, handles)
}

/// Which of `rich`'s handles a call acts on, with the right that it needs.
fn acts_on(call: Call) -> Option<(usize, Rights)> {
    Some(match call {
        Call::Send => (0, Rights::SEND),
        Call::Recv | Call::ReplyRecv => (0, Rights::RECV),
        Call::Notify | Call::Timer => (0, Rights::NOTIFY),
        Call::Map | Call::Unmap | Call::Protect | Call::Share | Call::SpaceSet => (1, Rights::MAP),
        Call::ThreadCreate => (1, Rights::MANAGE),
        Call::ThreadStart | Call::ThreadSet | Call::Kill => (2, Rights::MANAGE),
        Call::SpaceCreate => (3, Rights::CREATE),
        Call::Log => (3, Rights::OBSERVE),
        Call::Shutdown => (3, Rights::POWER),
        Call::InterruptBind | Call::InterruptAck => (4, Rights::DEVICE),
        Call::PortIo => (5, Rights::DEVICE),
        _ => return None,
    })
}

#[test]
fn an_unknown_number_is_unknown_whatever_comes_with_it() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    for number in [27, 28, 0x7fff_ffff, 0xffff_ffff] {
        machine.raw_call(
            program.thread,
            number | u64::from(handles[0].0) << 32,
            [u64::MAX; 6],
        );
        assert_eq!(
            machine.result(program.thread),
            Some(Err(Error::UnknownCall))
        );
    }
    machine.finish();
}

#[test]
fn every_call_checks_number_type_right_and_life_of_its_handle() {
    for call in Call::ALL {
        let Some((index, right)) = acts_on(call) else {
            continue;
        };
        let mut machine = Machine::new(512);
        let (program, handles) = rich(&mut machine);
        let before = machine.free();
        for bad in [
            Handle(0x7777_7777),
            Handle(handles[index].0 ^ 0x1000),
            Handle(u32::MAX),
        ] {
            assert_eq!(
                machine.error(program, call, bad, NOTHING),
                Error::BadHandle,
                "{call:?}"
            );
        }
        if !matches!(call, Call::ThreadSet) {
            assert_eq!(
                machine.error(program, call, Handle::NONE, NOTHING),
                Error::BadHandle
            );
        }
        for (other, handle) in handles.iter().enumerate() {
            let fits = other == index || matches!((call, other), (Call::Kill, 1));
            if !fits {
                assert_eq!(
                    machine.error(program, call, *handle, NOTHING),
                    Error::WrongType
                );
            }
        }
        let entry = machine
            .kernel
            .spaces
            .get(program.space)
            .unwrap()
            .handles
            .get(handles[index]);
        let weak = machine.install(program, entry.unwrap().object, Rights::all() - right);
        assert_eq!(
            machine.error(program, call, weak, NOTHING),
            Error::Denied,
            "{call:?}"
        );
        assert_eq!(machine.free(), before);

        let dead = match index {
            0 => {
                let doomed = machine.program();
                machine.service(doomed, program, 0).1
            }
            1 => {
                let doomed = machine.program();
                machine.install(program, Object::Space(doomed.space), Rights::all())
            }
            2 => {
                let doomed = machine.program();
                machine.install(program, Object::Thread(doomed.thread), Rights::all())
            }
            _ => continue,
        };
        let mut index = 0;
        while let Some(space) = machine.kernel.spaces.next_id(index) {
            index = space.index() + 1;
            if space != program.space {
                machine.kernel.kill_space(space);
            }
        }
        if !matches!(call, Call::Recv | Call::ReplyRecv) {
            assert_eq!(
                machine.error(program, call, dead, NOTHING),
                Error::Died,
                "{call:?}"
            );
        }
        machine.finish();
    }
}

#[test]
fn page_ranges_are_checked_before_anything_is_done() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    let before = machine.free();
    for call in [Call::Map, Call::Unmap, Call::Protect] {
        for (addr, len, error) in [
            (BUFFER, 0, Error::BadArgument),
            (BUFFER + 1, 4096, Error::Unaligned),
            (BUFFER, 4095, Error::Unaligned),
            (0xffff_ffff_ffff_f000, 0x2000, Error::Wraps),
            (KERNEL, 4096, Error::KernelAddress),
            (HOLE, 4096, Error::NonCanonical),
            (0x7fff_ffff_e000, 0x2000, Error::NonCanonical),
            (0x7fff_ffff_f000, 0x1000, Error::NonCanonical),
        ] {
            let args = [addr, len, 3, 0, 0, 0];
            assert_eq!(
                machine.error(program, call, handles[1], args),
                error,
                "{call:?} {addr:x}"
            );
        }
    }
    let huge = [0x1000_0000, (1 << 30) + 4096, 3, 0, 0, 0];
    assert_eq!(
        machine.error(program, Call::Protect, handles[1], huge),
        Error::TooLong
    );
    for call in [Call::Map, Call::Protect] {
        for perm in [0, 2, 4, 6, 7, 8, u64::MAX] {
            let args = [0x1000_0000, 4096, perm, 0, 0, 0];
            assert_eq!(
                machine.error(program, call, handles[1], args),
                Error::BadArgument
            );
        }
    }
    let taken = [BUFFER - 4096, 8192, 3, 0, 0, 0];
    assert_eq!(
        machine.error(program, Call::Map, handles[1], taken),
        Error::Occupied
    );
    let partly = [BUFFER - 4096, 8192, 1, 0, 0, 0];
    assert_eq!(
        machine.error(program, Call::Protect, handles[1], partly),
        Error::NotMapped
    );
    let above = [BUFFER, 4096, 5, 0, 0, 0];
    assert_eq!(
        machine.error(program, Call::Protect, handles[1], above),
        Error::Denied
    );
    assert_eq!(machine.free(), before);
    machine.finish();
}

#[test]
fn message_buffers_are_checked_before_anything_is_done() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    for (addr, len, error) in [
        (0xffff_ffff_ffff_ffff, 2, Error::Wraps),
        (KERNEL, 1, Error::KernelAddress),
        (HOLE, 1, Error::NonCanonical),
        (0x7fff_ffff_efff, 2, Error::NonCanonical),
        (BUFFER, (1 << 30) + 1, Error::TooLong),
    ] {
        let as_data = [0, 0, addr, len, 0, 0];
        let as_buffer = [0, 0, 0, 0, addr, len];
        assert_eq!(
            machine.error(program, Call::Send, handles[0], as_data),
            error
        );
        assert_eq!(
            machine.error(program, Call::Send, handles[0], as_buffer),
            error
        );
        assert_eq!(
            machine.error(program, Call::Recv, handles[0], as_buffer),
            error
        );
        assert_eq!(
            machine.error(program, Call::Reply, Handle::NONE, as_data),
            error
        );
        assert_eq!(
            machine.error(program, Call::ReplyRecv, handles[0], as_data),
            error
        );
        assert_eq!(
            machine.error(program, Call::ReplyRecv, handles[0], as_buffer),
            error
        );
    }
    for tag in [Tag::new(0).with_handles(5).0, 1 << 40, 1 << 63, 1 << 38] {
        let args = [0, tag, 0, 0, 0, 0];
        assert_eq!(
            machine.error(program, Call::Send, handles[0], args),
            Error::BadArgument
        );
    }
    for call in [Call::Reply, Call::ReplyRecv] {
        let args = [0, Tag::new(0).with_deadline().0, 0, 0, 0, 0];
        assert_eq!(
            machine.error(program, call, handles[0], args),
            Error::BadArgument,
            "a reply waits for nothing"
        );
    }
    let flags = [0, 4, 0, 0, 0, 0];
    assert_eq!(
        machine.error(program, Call::Recv, handles[0], flags),
        Error::BadArgument
    );
    machine.finish();
}

#[test]
fn share_checks_mode_rights_and_both_ranges() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    let other = machine.program();
    let read = machine.install(program, Object::Space(other.space), Rights::READ);
    let (own, read) = (handles[1], u64::from(read.0));
    let mut check = |args, error| {
        assert_eq!(
            machine.error(program, Call::Share, own, args),
            error,
            "{args:x?}"
        );
    };
    check([read, BUFFER, 0x4000_0000, 4096, 3, 0], Error::BadArgument);
    check([read, BUFFER, 0x4000_0000, 4096, 0, 9], Error::BadArgument);
    check([read, BUFFER, 0x4000_0000, 4096, 1, 3], Error::Denied);
    check([read, BUFFER, 0x4000_0000, 4096, 2, 0], Error::Denied);
    check(
        [read, BUFFER + 1, 0x4000_0000, 4096, 0, 0],
        Error::Unaligned,
    );
    check([read, BUFFER, 0x4000_0001, 4096, 0, 0], Error::Unaligned);
    check(
        [read, KERNEL, 0x4000_0000, 4096, 0, 0],
        Error::KernelAddress,
    );
    check([read, BUFFER, HOLE, 4096, 0, 0], Error::NonCanonical);
    check([read, BUFFER, BUFFER, 4096, 0, 0], Error::Occupied);
    check(
        [read, 0x5000_0000, 0x4000_0000, 4096, 0, 3],
        Error::NotMapped,
    );
    check([0, BUFFER, BUFFER + 4096, 8192, 0, 0], Error::Overlap);
    check([1 << 40, BUFFER, 0x4000_0000, 4096, 0, 0], Error::BadHandle);
    machine.ok(
        program,
        Call::Share,
        own,
        [read, BUFFER, 0x4000_0000, 4096, 0, 0],
    );
    machine.finish();
}

#[test]
fn copies_have_no_more_authority_than_the_original() {
    let mut machine = Machine::new(256);
    let (program, [endpoint, space, _, _, lines, ports]) = rich(&mut machine);
    let all = u64::from(Rights::ENDPOINT.bits());
    let send = u64::from((Rights::SEND | Rights::COPY).bits());
    let weak = machine
        .ok(program, Call::HandleCopy, endpoint, [0, send, 5, 0, 0, 0])
        .rdi;
    let weak = Handle(weak as u32);
    let mut check = |handle, args, error| {
        assert_eq!(
            machine.error(program, Call::HandleCopy, handle, args),
            error,
            "{args:x?}"
        );
    };
    check(weak, [0, all, 0, 0, 0, 0], Error::Denied);
    check(weak, [0, send, 6, 0, 0, 0], Error::Denied);
    check(endpoint, [0, 1 << 20, 0, 0, 0, 0], Error::BadArgument);
    check(endpoint, [0, 1 << 40, 0, 0, 0, 0], Error::BadArgument);
    check(endpoint, [0x999, all, 0, 0, 0, 0], Error::BadHandle);
    check(
        endpoint,
        [endpoint.0.into(), all, 0, 0, 0, 0],
        Error::WrongType,
    );
    check(space, [0, 1 << 3, 1, 0, 0, 0], Error::Denied);
    check(lines, [0, 1 << 9, 5, 0, 0, 0], Error::BadArgument);
    check(
        ports,
        [0, 1 << 9, 0x3f7 | 2 << 16, 0, 0, 0],
        Error::BadArgument,
    );
    check(
        ports,
        [0, 1 << 9, 0x3f8 | 9 << 16, 0, 0, 0],
        Error::BadArgument,
    );
    let narrow = machine.ok(
        program,
        Call::HandleCopy,
        ports,
        [0, 1 << 9, 0x3fd | 1 << 16, 0, 0, 0],
    );
    let narrow = Handle(narrow.rdi as u32);
    assert_eq!(
        machine
            .ok(program, Call::PortIo, narrow, [0x3fd, 0, 1, 0, 0, 0])
            .rdi,
        0x3fd
    );
    for (port, operation) in [(0x3fc, 1), (0x3fd, 2), (0x3fe, 1), (1 << 32 | 0x3fd, 1)] {
        let args = [port, 0, operation, 0, 0, 0];
        assert_eq!(
            machine.error(program, Call::PortIo, narrow, args),
            Error::Denied
        );
    }
    let args = [0x3fd, 0, 3, 0, 0, 0];
    assert_eq!(
        machine.error(program, Call::PortIo, narrow, args),
        Error::BadArgument
    );
    machine.finish();
}

#[test]
fn threads_start_once_at_user_addresses_below_the_callers_priority() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    let create = |priority| [0, priority, 0, 0, 0, 0];
    let error = |machine: &mut Machine, p| {
        machine.error(program, Call::ThreadCreate, handles[1], create(p))
    };
    assert_eq!(error(&mut machine, 17), Error::Denied);
    assert_eq!(error(&mut machine, 32), Error::BadArgument);
    assert_eq!(error(&mut machine, 1 << 32), Error::BadArgument);
    let thread = Handle(
        machine
            .ok(program, Call::ThreadCreate, handles[1], create(16))
            .rdi as u32,
    );
    for (bad, expected) in [
        (KERNEL, Error::KernelAddress),
        (HOLE, Error::NonCanonical),
        (0x7fff_ffff_f000, Error::NonCanonical),
    ] {
        for position in [0, 1, 5] {
            let mut args = [0x1000, 0x2000, 0, 0, 0, 0];
            args[position] = bad;
            assert_eq!(
                machine.error(program, Call::ThreadStart, thread, args),
                expected
            );
        }
        let fs = [1, bad, 0, 0, 0, 0];
        assert_eq!(
            machine.error(program, Call::ThreadSet, thread, fs),
            expected
        );
    }
    let good = [0x1000, 0x2000, 1, 2, 3, 0];
    machine.ok(program, Call::ThreadStart, thread, good);
    assert_eq!(
        machine.error(program, Call::ThreadStart, thread, good),
        Error::BadState
    );
    assert_eq!(
        machine.error(program, Call::ThreadSet, thread, [9, 0, 0, 0, 0, 0]),
        Error::BadArgument
    );
    machine.finish();
}

#[test]
fn devices_are_bound_by_line() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    let (endpoint, lines) = (handles[0], handles[4]);
    assert_eq!(
        machine.error(program, Call::InterruptAck, lines, NOTHING),
        Error::BadState
    );
    let all = machine
        .kernel
        .install(program.space, Object::Interrupt, Rights::DEVICES, u64::MAX);
    let bind = [endpoint.0.into(), 0, 0, 0, 0, 0];
    let all = all.unwrap();
    assert_eq!(
        machine.error(program, Call::InterruptBind, all, bind),
        Error::BadArgument
    );
    for line in [24, 64, 1 << 32] {
        let args = [0, u64::from(Rights::DEVICES.bits()), line, 0, 0, 0];
        let absent = Handle(machine.ok(program, Call::HandleCopy, all, args).rdi as u32);
        assert_eq!(
            machine.error(program, Call::InterruptBind, absent, bind),
            Error::BadArgument
        );
    }
    assert_eq!(
        machine.error(program, Call::InterruptBind, lines, NOTHING),
        Error::BadHandle
    );
    machine.ok(program, Call::InterruptBind, lines, bind);
    machine.ok(program, Call::InterruptAck, lines, NOTHING);
    machine.finish();
}

#[test]
fn a_full_handle_table_is_an_error_and_costs_nothing() {
    let mut machine = Machine::new(2048);
    let program = machine.program();
    let mut made = 0;
    let error = loop {
        match machine
            .call(program, Call::EndpointCreate, Handle::NONE, NOTHING)
            .unwrap()
        {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, made), (Error::TableFull, MAX_HANDLES_PER_SPACE));
    let before = (machine.free(), machine.kernel.endpoints.len());
    assert_eq!(
        machine.error(program, Call::EndpointCreate, Handle::NONE, NOTHING),
        Error::TableFull
    );
    assert_eq!((machine.free(), machine.kernel.endpoints.len()), before);
    machine.finish();
}

#[test]
fn only_a_kernel_that_traces_takes_names() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    let [own, system] = [handles[1], handles[3]];
    let name = [SpaceField::Name as u64, 0x61, 0, 0, 0, 0];
    if trace::IS_ON {
        machine.ok(program, Call::SpaceSet, own, name);
    } else {
        let error = machine.error(program, Call::SpaceSet, own, name);
        assert_eq!(error, Error::BadArgument);
    }
    let error = machine.error(program, Call::SpaceSet, system, name);
    assert_eq!(error, Error::WrongType);
    machine.finish();
}

#[test]
fn class_and_budget_are_checked() {
    let mut machine = Machine::new(256);
    let (program, handles) = rich(&mut machine);
    let [own, system] = [handles[1], handles[3]];
    let set = |field: SpaceField, value| [field as u64, value, 0, 0, 0, 0];
    let (class, budget) = (SpaceField::Class, SpaceField::Budget);
    let strict = Commit::Strict as u64;
    for unknown in [[3, 0, 0, 0, 0, 0], [u64::MAX; 6], set(class, 2)] {
        let error = machine.error(program, Call::SpaceSet, own, unknown);
        assert_eq!(error, Error::BadArgument);
    }
    let error = machine.error(program, Call::SpaceSet, own, set(class, strict));
    assert_eq!(error, Error::BadState, "something is mapped");

    // Its own budget may be lowered, and not raised again.
    machine.ok(program, Call::SpaceSet, own, set(budget, 100));
    for raised in [101, 0] {
        let error = machine.error(program, Call::SpaceSet, own, set(budget, raised));
        assert_eq!(error, Error::Denied);
    }
    machine.ok(program, Call::SpaceSet, own, set(budget, 5));
    let map = [0x20_0000_0000, 4096, Perm::RW.bits(), 0, 0, 0];
    let error = machine.error(program, Call::Map, own, map);
    assert_eq!(error, Error::OverBudget);

    let made = machine.ok(program, Call::SpaceCreate, system, NOTHING).rdi;
    let other = Handle(made as u32);
    machine.ok(program, Call::SpaceSet, other, set(class, strict));
    machine.ok(program, Call::SpaceSet, other, set(budget, 10));
    machine.ok(program, Call::SpaceSet, other, set(budget, 0));
    machine.ok(program, Call::SpaceSet, other, set(budget, 20));
    let promised = |machine: &mut Machine| {
        let topic = [InfoTopic::Promise as u64, 0, 0, 0, 0, 0];
        machine.ok(program, Call::Info, system, topic).rdi
    };
    assert_eq!(promised(&mut machine), 0);
    machine.ok(program, Call::Map, other, map);
    let info = machine.ok(program, Call::Info, other, [4, 0, 0, 0, 0, 0]);
    assert_eq!((info.rdi, info.rsi, info.rdx, info.r8), (1, strict, 5, 20));
    // The page: the root and the three tables are there.
    assert_eq!(promised(&mut machine), 1);
    let too_much = [0x40_0000_0000, 4096 * 15, Perm::RW.bits(), 0, 0, 0];
    let error = machine.error(program, Call::Map, other, too_much);
    assert_eq!(error, Error::OverBudget);
    machine.ok(program, Call::Kill, other, NOTHING);
    assert_eq!(promised(&mut machine), 0);
    let info = machine.ok(program, Call::Info, other, [4, 0, 0, 0, 0, 0]);
    assert_eq!(info.rdi, 0, "dead");
    machine.finish();
}
