//! What a thread's supervisor and a space's creator are told, and what a space has from the start.

use cowslip_abi::{Access, Call, Commit, Error, Handle, MessageKind, Rights};

use super::machine::{Machine, Program, kind};
use crate::object::{Id, Object, Space};
use crate::vm::NO_BUDGET;

const NOTHING: [u64; 6] = [0; 6];
const START: [u64; 6] = [0x1000, 0x2000, 0, 0, 0, 0];

/// A program that may create spaces, with an endpoint.
struct Creator {
    program: Program,
    system: Handle,
    endpoint: Handle,
}

impl Creator {
    fn new(machine: &mut Machine) -> Self {
        let program = machine.program();
        let system = machine.install(program, Object::System, Rights::CREATE);
        let endpoint = machine.ok(program, Call::EndpointCreate, Handle::NONE, NOTHING);
        Self {
            program,
            system,
            endpoint: Handle(endpoint.rdi as u32),
        }
    }

    /// Another handle to the endpoint.
    fn copy(&self, machine: &mut Machine, rights: Rights, badge: u64) -> Handle {
        let args = [0, rights.bits().into(), badge, 0, 0, 0];
        let copy = machine.ok(self.program, Call::HandleCopy, self.endpoint, args);
        Handle(copy.rdi as u32)
    }

    fn space(&self, machine: &mut Machine, args: [u64; 6]) -> Handle {
        let made = machine.ok(self.program, Call::SpaceCreate, self.system, args);
        Handle(made.rdi as u32)
    }

    /// A started thread in a space.
    fn thread(&self, machine: &mut Machine, space: Handle, args: [u64; 6]) -> Handle {
        let made = machine.ok(self.program, Call::ThreadCreate, space, args);
        let thread = Handle(made.rdi as u32);
        machine.ok(self.program, Call::ThreadStart, thread, START);
        thread
    }

    /// What one of its handles names.
    fn object(&self, machine: &Machine, handle: Handle) -> Object {
        let space = machine.kernel.spaces.get(self.program.space).unwrap();
        space.handles.get(handle).unwrap().object
    }

    fn space_id(&self, machine: &Machine, handle: Handle) -> Id<Space> {
        let Object::Space(id) = self.object(machine, handle) else {
            panic!("{handle:?} is no space");
        };
        id
    }

    /// Lets a thread fault, and says with which badge its supervisor hears of it.
    fn badge_of_fault(&self, machine: &mut Machine, thread: Handle) -> u64 {
        let Object::Thread(id) = self.object(machine, thread) else {
            panic!("{thread:?} is no thread");
        };
        machine.run(id);
        machine.page_fault(0x6666_0000, Access::Read);
        let report = machine.ok(self.program, Call::Recv, self.endpoint, NOTHING);
        assert_eq!(kind(&report), MessageKind::Fault);
        report.rdi
    }

    fn class_and_budget(&self, machine: &Machine, space: Handle) -> (Commit, u64) {
        let space = machine.kernel.spaces.get(self.space_id(machine, space));
        let table = &space.unwrap().table;
        (table.class(), table.budget())
    }
}

fn word(handle: Handle) -> u64 {
    handle.0.into()
}

#[test]
fn faults_arrive_with_the_badge_that_was_chosen() {
    let mut machine = Machine::new(256);
    let creator = Creator::new(&mut machine);
    let space = creator.space(&mut machine, NOTHING);
    let marked = creator.copy(&mut machine, Rights::SEND | Rights::MINT, 5);
    let plain = creator.copy(&mut machine, Rights::SEND, 6);
    for (supervisor, badge, told) in [
        (creator.endpoint, 0, 0),
        (creator.endpoint, u64::MAX, u64::MAX),
        (marked, 0, 5),
        (marked, 9, 9),
        (plain, 0, 6),
    ] {
        let args = [word(supervisor), 1, badge, 0, 0, 0];
        let thread = creator.thread(&mut machine, space, args);
        assert_eq!(creator.badge_of_fault(&mut machine, thread), told);
    }
    machine.finish();
}

#[test]
fn a_death_raises_the_bits_that_were_chosen() {
    let mut machine = Machine::new(256);
    let creator = Creator::new(&mut machine);
    let marked = creator.copy(&mut machine, Rights::NOTIFY | Rights::MINT, 0b10);
    let plain = creator.copy(&mut machine, Rights::NOTIFY, 0b100);
    for (death, badge, raised) in [
        (creator.endpoint, 1 << 63, 1 << 63),
        (marked, 0, 0b10),
        (marked, 0b11, 0b11),
        (plain, 0, 0b100),
    ] {
        let space = creator.space(&mut machine, [word(death), badge, 0, 0, 0, 0]);
        machine.ok(creator.program, Call::Kill, space, NOTHING);
        let bits = machine.ok(creator.program, Call::Recv, creator.endpoint, NOTHING);
        assert_eq!((kind(&bits), bits.r12), (MessageKind::Notification, raised));
    }
    machine.finish();
}

#[test]
fn who_may_not_mint_is_told_under_the_handles_badge_alone() {
    let mut machine = Machine::new(256);
    let creator = Creator::new(&mut machine);
    let space = creator.space(&mut machine, NOTHING);
    let rights = Rights::SEND | Rights::NOTIFY | Rights::COPY;
    let plain = word(creator.copy(&mut machine, rights, 4));
    let before = machine.free();
    for badge in [4, 5, u64::MAX] {
        let create = [plain, 1, badge, 0, 0, 0];
        let error = machine.error(creator.program, Call::ThreadCreate, space, create);
        assert_eq!(error, Error::Denied);
        let create = [plain, badge, 0, 0, 0, 0];
        let error = machine.error(creator.program, Call::SpaceCreate, creator.system, create);
        assert_eq!(error, Error::Denied);
    }
    assert_eq!(machine.free(), before);
    // Without an endpoint there is nobody to be told anything.
    creator.thread(&mut machine, space, [0, 1, 7, 0, 0, 0]);
    creator.space(&mut machine, [0, 7, 0, 0, 0, 0]);
    machine.finish();
}

#[test]
fn a_space_like_another_one_has_its_class_and_its_budget() {
    let mut machine = Machine::new(256);
    let creator = Creator::new(&mut machine);
    let child = creator.space(&mut machine, NOTHING);
    let unlimited = (Commit::Overcommit, NO_BUDGET);
    assert_eq!(creator.class_and_budget(&machine, child), unlimited);
    for (class, budget) in [
        (Commit::Overcommit, NO_BUDGET),
        (Commit::Overcommit, 7),
        (Commit::Strict, NO_BUDGET),
        (Commit::Strict, 1),
    ] {
        let original = creator.space(&mut machine, NOTHING);
        let id = creator.space_id(&machine, original);
        let table = &machine.kernel.spaces.get(id).unwrap().table;
        table.set_class(class).unwrap();
        table.set_budget(budget);
        let like = [0, 0, word(original), 0, 0, 0];
        let made = creator.space(&mut machine, like);
        assert_eq!(creator.class_and_budget(&machine, made), (class, budget));
        assert_eq!(machine.kernel.audit(), Ok(()));
        // From then on each has its own.
        let lower = [1, 3, 0, 0, 0, 0];
        machine.ok(creator.program, Call::SpaceSet, original, lower);
        assert_eq!(creator.class_and_budget(&machine, made), (class, budget));
    }
    machine.finish();
}

/// Who may create spaces is not held by a budget of its own; but it cannot raise that by one, nor see another's.
#[test]
fn only_who_may_read_a_space_makes_another_one_like_it() {
    let mut machine = Machine::new(256);
    let creator = Creator::new(&mut machine);
    let own = Object::Space(creator.program.space);
    let blind = machine.install(creator.program, own, Rights::SPACE - Rights::READ);
    let doomed = creator.space(&mut machine, NOTHING);
    machine.ok(creator.program, Call::Kill, doomed, NOTHING);
    let before = (machine.free(), machine.kernel.spaces.len());
    for (like, expected) in [
        (word(blind), Error::Denied),
        (word(doomed), Error::Died),
        (word(creator.endpoint), Error::WrongType),
        (0x7777_7777, Error::BadHandle),
        (1 << 32 | word(blind), Error::BadHandle),
        (u64::MAX, Error::BadHandle),
    ] {
        let create = [0, 0, like, 0, 0, 0];
        let error = machine.error(creator.program, Call::SpaceCreate, creator.system, create);
        assert_eq!(error, expected, "{like:#x}");
    }
    assert_eq!((machine.free(), machine.kernel.spaces.len()), before);

    let own = machine.install(creator.program, own, Rights::SPACE);
    let lower = [1, 100, 0, 0, 0, 0];
    machine.ok(creator.program, Call::SpaceSet, own, lower);
    let child = creator.space(&mut machine, [0, 0, word(own), 0, 0, 0]);
    let raise = [1, 101, 0, 0, 0, 0];
    machine.ok(creator.program, Call::SpaceSet, child, raise);
    let error = machine.error(creator.program, Call::SpaceSet, own, raise);
    assert_eq!(error, Error::Denied);
    let limits = [own, child].map(|space| creator.class_and_budget(&machine, space).1);
    assert_eq!(limits, [100, 101]);
    machine.finish();
}
