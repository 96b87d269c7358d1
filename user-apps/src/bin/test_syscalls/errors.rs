//! The error tables of the calls, line by line.

use libipc::abi::{Call, Error, FaultVerdict, Handle, Rights};
use libipc::object::copy_handle;
use libipc::{Endpoint, Received, Space, System, Thread, start};
use user_apps::scenario::frames::available;
use user_apps::scenario::memory::{PAGE, SCRATCH, map};
use user_apps::scenario::syscall::{NOTHING, arg, call, number, refused};
use user_apps::scenario::twin::system;

pub(crate) const KERNEL: u64 = 0xffff_8000_0000_0000;
pub(crate) const HOLE: u64 = 0x0000_8000_0000_0000;
/// Where nothing is mapped.
pub(crate) const NOWHERE: u64 = SCRATCH + (1 << 40);

/// One handle of each type that a process can have, with all rights.
pub(crate) struct Rich {
    pub(crate) endpoint: Endpoint,
    pub(crate) space: Space,
    pub(crate) thread: Thread,
    pub(crate) system: System,
}

impl Rich {
    pub(crate) fn new() -> Self {
        let system = system();
        let space = system.create_space(None).expect("space");
        let thread = space.create_thread(None, 1).expect("thread");
        Rich {
            endpoint: Endpoint::create().expect("endpoint"),
            space,
            thread,
            system,
        }
    }

    fn handles(&self) -> [Handle; 4] {
        [
            self.endpoint.handle(),
            self.space.handle(),
            self.thread.handle(),
            self.system.handle(),
        ]
    }
}

/// Which of the handles a call acts on, and the right that it needs.
pub(crate) fn acts_on(call: Call) -> Option<(usize, Rights)> {
    Some(match call {
        Call::Send => (0, Rights::SEND),
        Call::Recv | Call::ReplyRecv => (0, Rights::RECV),
        Call::Notify | Call::Timer => (0, Rights::NOTIFY),
        Call::Map | Call::Unmap | Call::Protect | Call::Share => (1, Rights::MAP),
        Call::ThreadCreate => (1, Rights::MANAGE),
        Call::ThreadStart | Call::ThreadSet => (2, Rights::MANAGE),
        Call::Kill => (2, Rights::MANAGE),
        Call::SpaceCreate => (3, Rights::CREATE),
        Call::Log => (3, Rights::OBSERVE),
        _ => return None,
    })
}

/// Fails the case unless `action`, made only of errors, leaves space and frames as they were. It
/// runs twice: the first time touches what is touched once.
#[track_caller]
pub(crate) fn unchanged(mut action: impl FnMut()) {
    action();
    // Frames first: the handle to ask for them with comes on demand.
    let state = || (available(), Space::own().info().expect("info"));
    let before = state();
    action();
    assert_eq!(state(), before, "an error changed something");
}

pub(crate) fn unknown_numbers_are_unknown() {
    let rich = Rich::new();
    unchanged(|| {
        for handle in rich
            .handles()
            .into_iter()
            .chain([Handle::NONE, Handle(u32::MAX)])
        {
            for unknown in [27, 28, 255, 256, 0x7fff_ffff, u32::MAX] {
                assert_eq!(
                    number(unknown, handle, [u64::MAX; 6]),
                    Err(Error::UnknownCall)
                );
            }
        }
    });
}

pub(crate) fn handles_are_checked_for_number_type_right_and_life() {
    let rich = Rich::new();
    let handles = rich.handles();
    let weak = |which: usize, rights: Rights| {
        let all = [
            Rights::ENDPOINT,
            Rights::SPACE,
            Rights::THREAD,
            Rights::CREATE | Rights::OBSERVE,
        ][which];
        copy_handle(handles[which], Handle::NONE, all - rights, 0).expect("weak copy")
    };
    unchanged(|| {
        for which in Call::ALL {
            let Some((index, right)) = acts_on(which) else {
                continue;
            };
            for bad in [handles[index].0 ^ 0x1000, 0x7777_7777, u32::MAX] {
                refused(which, Handle(bad), NOTHING, Error::BadHandle);
            }
            if which != Call::ThreadSet {
                refused(which, Handle::NONE, NOTHING, Error::BadHandle);
            }
            for (other, &handle) in handles.iter().enumerate() {
                if other != index && (which, other) != (Call::Kill, 1) {
                    refused(which, handle, NOTHING, Error::WrongType);
                }
            }
            let weak = weak(index, right);
            refused(which, weak, NOTHING, Error::Denied);
            call(Call::HandleClose, weak, NOTHING).expect("close");
        }
        for which in [Call::InterruptBind, Call::InterruptAck, Call::PortIo] {
            for handle in handles {
                refused(which, handle, NOTHING, Error::WrongType);
            }
        }
        refused(Call::Shutdown, handles[3], NOTHING, Error::Denied);
        refused(Call::Shutdown, handles[0], NOTHING, Error::WrongType);
    });

    let [send, ..] = dead();
    for which in [Call::Send, Call::Notify, Call::Timer] {
        refused(which, send, NOTHING, Error::Died);
    }
    let [_, space, thread] = dead();
    for which in Call::ALL {
        match acts_on(which) {
            Some((1, _)) => refused(which, space, NOTHING, Error::Died),
            Some((2, _)) => refused(which, thread, NOTHING, Error::Died),
            _ => {}
        }
    }
    refused(Call::Kill, space, NOTHING, Error::Died);
    for handle in dead() {
        let rights = u64::from(Rights::COPY.bits());
        refused(
            Call::HandleCopy,
            handle,
            [0, rights, 0, 0, 0, 0],
            Error::Died,
        );
    }
}

/// Handles to an endpoint, a space and a thread that are dead.
pub(crate) fn dead() -> [Handle; 3] {
    let Rich {
        endpoint,
        space,
        thread,
        ..
    } = Rich::new();
    let rights = Rights::SEND | Rights::NOTIFY | Rights::COPY;
    let send = endpoint.copy(rights, 0).expect("copy").into_raw();
    drop(endpoint);
    space.kill().expect("kill");
    [send, space.into_raw(), thread.into_raw()]
}

pub(crate) fn copies_never_gain_authority() {
    let rich = Rich::new();
    let weak = rich
        .endpoint
        .copy(Rights::SEND | Rights::COPY, 5)
        .expect("copy");
    let bare = rich
        .endpoint
        .copy(Rights::SEND | Rights::NOTIFY, 5)
        .expect("copy");
    let bits = |rights: Rights| u64::from(rights.bits());
    let send = bits(Rights::SEND | Rights::COPY);
    unchanged(|| {
        let copy = |from: Handle, to, rights, badge, error| {
            refused(Call::HandleCopy, from, [to, rights, badge, 0, 0, 0], error);
        };
        let endpoint = rich.endpoint.handle();
        copy(weak.handle(), 0, bits(Rights::ENDPOINT), 0, Error::Denied);
        copy(weak.handle(), 0, send, 6, Error::Denied);
        copy(bare.handle(), 0, 1, 0, Error::Denied);
        copy(endpoint, 0, 1 << 12, 0, Error::BadArgument);
        copy(endpoint, 0, 1 << 40, 0, Error::BadArgument);
        copy(endpoint, 0x7777_7777, send, 0, Error::BadHandle);
        copy(endpoint, arg(endpoint), send, 0, Error::WrongType);
        copy(rich.space.handle(), 0, bits(Rights::MAP), 1, Error::Denied);
        copy(
            rich.system.handle(),
            0,
            bits(Rights::POWER),
            0,
            Error::Denied,
        );
        copy(Handle(0x7777_7777), 0, send, 0, Error::BadHandle);
    });
}

pub(crate) fn threads_start_once_at_user_addresses() {
    let rich = Rich::new();
    let space = rich.space.handle();
    let thread = rich.thread.handle();
    unchanged(|| {
        for (priority, error) in [
            (17, Error::Denied),
            (31, Error::Denied),
            (32, Error::BadArgument),
            (1 << 32, Error::BadArgument),
        ] {
            refused(Call::ThreadCreate, space, [0, priority, 0, 0, 0, 0], error);
        }
        refused(
            Call::ThreadCreate,
            space,
            [0x7777_7777, 1, 0, 0, 0, 0],
            Error::BadHandle,
        );
        refused(
            Call::ThreadCreate,
            space,
            [arg(space), 1, 0, 0, 0, 0],
            Error::WrongType,
        );
        for (bad, error) in [
            (KERNEL, Error::KernelAddress),
            (u64::MAX, Error::KernelAddress),
            (HOLE, Error::NonCanonical),
            (0x7fff_ffff_f000, Error::NonCanonical),
            (0xffff_7fff_ffff_ffff, Error::NonCanonical),
        ] {
            for position in [0, 1, 5] {
                let mut args = [0x1000, 0x2000, 0, 0, 0, 0];
                args[position] = bad;
                refused(Call::ThreadStart, thread, args, error);
            }
            refused(Call::ThreadSet, thread, [1, bad, 0, 0, 0, 0], error);
            refused(Call::ThreadSet, Handle::NONE, [1, bad, 0, 0, 0, 0], error);
        }
    });
    // It faults at once, and stays where it faults, as somebody looks after it.
    let started = rich.space.create_thread(Some((&rich.endpoint, 0)), 1);
    let started = started.expect("thread");
    let handle = started.handle();
    let args = [0x1000, 0x2000, 0, 0, 0, 0];
    call(Call::ThreadStart, handle, args).expect("start");
    refused(Call::ThreadStart, handle, args, Error::BadState);
    let Ok(Received::Fault(fault)) = rich.endpoint.recv(&mut []) else {
        panic!("no fault")
    };
    refused(Call::ThreadStart, handle, args, Error::BadState);
    fault.decide(FaultVerdict::Kill).expect("verdict");
    refused(Call::ThreadStart, handle, args, Error::Died);
}

/// Badges of supervisors and deaths go by the rule for those of copies.
pub(crate) fn what_a_creator_is_told_is_checked() {
    let rich = Rich::new();
    let [endpoint, space, thread, system] = rich.handles();
    let told = Rights::SEND | Rights::NOTIFY | Rights::COPY;
    let plain = rich.endpoint.copy(told, 5).expect("copy");
    let blind = rich.space.copy(Rights::SPACE - Rights::READ, 0);
    let blind = blind.expect("copy").into_raw();
    let dead = rich.system.create_space(None).expect("space");
    dead.kill().expect("kill");
    unchanged(|| {
        let space_create = |args: [u64; 3], error| {
            let [death, badge, like] = args;
            refused(
                Call::SpaceCreate,
                system,
                [death, badge, like, 0, 0, 0],
                error,
            );
        };
        for badge in [5, 6, 1 << 63, u64::MAX] {
            let plain = arg(plain.handle());
            let create = [plain, 1, badge, 0, 0, 0];
            refused(Call::ThreadCreate, space, create, Error::Denied);
            space_create([plain, badge, 0], Error::Denied);
            // What comes first decides.
            space_create([plain, badge, 0x7777_7777], Error::Denied);
            space_create([arg(thread), badge, 0x7777_7777], Error::WrongType);
        }
        space_create([arg(endpoint), 1, 0x7777_7777], Error::BadHandle);
        space_create([0, 0, 1 << 32 | arg(space)], Error::BadHandle);
        space_create([0, 0, u64::MAX], Error::BadHandle);
        space_create([0, 0, arg(thread)], Error::WrongType);
        space_create([0, 0, arg(system)], Error::WrongType);
        space_create([0, 0, arg(blind)], Error::Denied);
        space_create([0, 0, arg(dead.handle())], Error::Died);
    });
    drop(Space::from_raw(blind));
}

pub(crate) fn thread_fields_are_checked() {
    unchanged(|| {
        for (field, value, error) in [
            (2, 0, Error::BadArgument),
            (u64::MAX, 0, Error::BadArgument),
            (0, 17, Error::Denied),
            (0, 32, Error::BadArgument),
            (0, u64::MAX, Error::BadArgument),
        ] {
            refused(
                Call::ThreadSet,
                Handle::NONE,
                [field, value, 0, 0, 0, 0],
                error,
            );
            refused(
                Call::ThreadSet,
                start::thread(),
                [field, value, 0, 0, 0, 0],
                error,
            );
        }
    });
}

pub(crate) fn topics_and_logs_are_checked() {
    let rich = Rich::new();
    let [endpoint, space, thread, system] = rich.handles();
    let silent = copy_handle(system, Handle::NONE, Rights::CREATE, 0).expect("copy");
    let page = map(SCRATCH, 1);
    unchanged(|| {
        let info =
            |handle, topic, error| refused(Call::Info, handle, [topic, 0, 0, 0, 0, 0], error);
        for topic in [12, 13, u64::MAX] {
            info(system, topic, Error::BadArgument);
        }
        // Kernel and programs are built alike.
        if !cfg!(debug_assertions) {
            info(system, 6, Error::BadArgument);
        }
        let inspections = [
            (7, space),
            (8, endpoint),
            (9, space),
            (10, space),
            (11, space),
        ];
        for (topic, right) in [(1, system), (2, space), (3, thread)]
            .into_iter()
            .chain(inspections)
        {
            info(Handle::NONE, topic, Error::BadHandle);
            for other in [endpoint, space, thread, system] {
                if other != right {
                    info(other, topic, Error::WrongType);
                }
            }
        }
        info(silent, 1, Error::Denied);
        let at =
            |topic, place, error| refused(Call::Info, space, [topic, place, 0, 0, 0, 0], error);
        at(9, 1, Error::Unaligned);
        at(10, PAGE, Error::Unaligned);
        for topic in [9, 10] {
            at(topic, libipc::abi::USER_END, Error::BadArgument);
            at(topic, KERNEL, Error::BadArgument);
        }
        for topic in [7, 11] {
            at(topic, 1, Error::Died);
            at(topic, u64::MAX, Error::Died);
        }
        at(11, 0, Error::Died);
        if cfg!(debug_assertions) {
            info(silent, 6, Error::Denied);
        }
        let log = |addr, len, error| refused(Call::Log, system, [addr, len, 0, 0, 0, 0], error);
        log(page.addr(), 1025, Error::TooLong);
        log(NOWHERE, 1, Error::NotMapped);
        log(page.addr() + PAGE - 1, 2, Error::NotMapped);
        log(KERNEL, 1, Error::KernelAddress);
        log(HOLE, 1, Error::NonCanonical);
        log(u64::MAX, 2, Error::Wraps);
        call(Call::Log, system, [HOLE, 0, 0, 0, 0, 0]).expect("an empty range is anywhere");
    });
    let info = rich.thread.info().expect("info");
    assert_eq!(info.state, libipc::abi::ThreadState::Stopped);
    rich.space.kill().expect("kill");
    assert!(!rich.space.info().expect("the dead answer").alive);
    let info = rich.thread.info().expect("the dead answer");
    assert_eq!(info.state, libipc::abi::ThreadState::Dead);
}

pub(crate) fn tokens_that_were_never_given_are_stale() {
    let endpoint = Endpoint::create().expect("endpoint");
    unchanged(|| {
        for token in [
            0,
            1,
            1 << 24,
            1 << 40,
            0xffff_ffff,
            u64::MAX,
            u64::MAX << 24,
        ] {
            refused(
                Call::Reply,
                Handle::NONE,
                [token, 0, 0, 0, 0, 0],
                Error::StaleToken,
            );
            refused(
                Call::ReplyRecv,
                endpoint.handle(),
                [token, 0, 0, 0, 0, 0],
                Error::StaleToken,
            );
        }
    });
}

pub(crate) fn a_full_handle_table_is_an_error() {
    let rich = Rich::new();
    // The handle that frames are asked for with is there before the table is full.
    let _ = available();
    let mut count = 0;
    while let Ok(results) = call(Call::EndpointCreate, Handle::NONE, NOTHING) {
        assert_ne!(results[0], 0);
        count += 1;
    }
    assert!(count > 1000, "{count} handles");
    unchanged(|| {
        refused(
            Call::EndpointCreate,
            Handle::NONE,
            NOTHING,
            Error::TableFull,
        );
        refused(
            Call::SpaceCreate,
            rich.system.handle(),
            NOTHING,
            Error::TableFull,
        );
        refused(
            Call::ThreadCreate,
            rich.space.handle(),
            [0, 1, 0, 0, 0, 0],
            Error::TableFull,
        );
        let copy = [0, 1, 0, 0, 0, 0];
        refused(
            Call::HandleCopy,
            rich.endpoint.handle(),
            copy,
            Error::TableFull,
        );
    });
}

pub(crate) fn closed_numbers_stay_errors() {
    let first = Endpoint::create().expect("endpoint").into_raw();
    call(Call::HandleClose, first, NOTHING).expect("close");
    for _ in 0..5000 {
        let next = Endpoint::create().expect("endpoint");
        assert_ne!(next.handle(), first, "a closed number was given out again");
    }
    refused(Call::HandleClose, first, NOTHING, Error::BadHandle);
    refused(Call::HandleClose, Handle::NONE, NOTHING, Error::BadHandle);
}
