//! Making spaces and threads and closing handles beside other CPUs, against the general way: the same calls, the same state.

use core::fmt::Write;

use cowslip_abi::{Call, Error, Handle, Rights};
use proptest::prelude::*;

use super::machine::{Machine, Program};
use crate::object::{Creator, Object};
use crate::sys;

const START: [u64; 6] = [0x1000, 0x2000, 1, 2, 3, 0];

/// A call of the program.
#[derive(Clone, Copy, Debug)]
struct Step {
    call: Call,
    /// Which of all handles that the program has ever had it acts on, and which it names in two arguments.
    handles: [usize; 3],
    badge: u64,
    priority: u64,
    ip: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop_oneof![
        4 => Just(Call::SpaceCreate),
        5 => Just(Call::ThreadCreate),
        4 => Just(Call::ThreadStart),
        4 => Just(Call::HandleClose),
        2 => Just(Call::Kill),
        1 => Just(Call::EndpointCreate),
    ];
    let handle = || prop_oneof![3 => 0..BASE, 5 => 0usize..40];
    (
        call,
        [handle(), handle(), handle()],
        prop_oneof![4 => Just(0), 1 => Just(5)],
        prop_oneof![4 => Just(16), 2 => Just(0), 1 => Just(17), 1 => Just(400)],
        prop_oneof![6 => Just(0x1000), 1 => Just(1 << 63)],
    )
        .prop_map(|(call, handles, badge, priority, ip)| Step {
            call,
            handles,
            badge,
            priority,
            ip,
        })
}

/// How many handles the program has in the beginning.
const BASE: usize = 7;

/// Which of them.
const SYSTEM: usize = 1;
const ENDPOINT: usize = 2;
const OTHER: usize = 4;

struct World {
    machine: Machine,
    program: Program,
    /// All that it has ever had.
    handles: Vec<Handle>,
    /// Whether calls are tried beside others first.
    is_beside: bool,
    /// How many were made so.
    nr_beside: usize,
}

impl World {
    fn new(is_beside: bool, nr_frames: usize) -> Self {
        let mut machine = Machine::new(nr_frames);
        let (program, other) = (machine.program(), machine.program());
        let system = machine.install(program, Object::System, Rights::CREATE);
        let endpoint = machine.ok(program, Call::EndpointCreate, Handle::NONE, [0; 6]);
        let endpoint = Handle(endpoint.rdi as u32);
        let rights = u64::from((Rights::NOTIFY | Rights::COPY).bits());
        let copy = machine.ok(program, Call::HandleCopy, endpoint, [0, rights, 7, 0, 0, 0]);
        let spaces = [
            (other.space, Rights::SPACE),
            (other.space, Rights::READ),
            (program.space, Rights::SPACE - Rights::MANAGE),
        ];
        let [other, weak, own] =
            spaces.map(|(id, rights)| machine.install(program, Object::Space(id), rights));
        let copy = Handle(copy.rdi as u32);
        let handles: [_; BASE] = [Handle::NONE, system, endpoint, copy, other, weak, own];
        Self {
            machine,
            program,
            handles: handles.into(),
            is_beside,
            nr_beside: 0,
        }
    }

    /// Lets the program make a call, as the entry code would.
    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let named = step
            .handles
            .map(|number| self.handles[number % self.handles.len()]);
        let [_, first, second] = named.map(|handle| u64::from(handle.0));
        let args = match step.call {
            Call::SpaceCreate => [first, step.badge, second, 0, 0, 0],
            Call::ThreadCreate => [first, step.priority, step.badge, 0, 0, 0],
            Call::ThreadStart => [step.ip, 0x2000, first, second, step.badge, 0],
            _ => [0; 6],
        };
        let before = self.snapshot();
        self.machine.run(self.program.thread);
        let kernel = &mut self.machine.kernel;
        let regs = &mut kernel.threads.get_mut(self.program.thread).unwrap().regs;
        [regs.rdi, regs.rsi, regs.rdx, regs.r8, regs.r9, regs.r10] = args;
        regs.rax = step.call as u64 | u64::from(named[0].0) << 32;
        if self.is_beside && self.is_made_beside(step.call) {
            self.nr_beside += 1;
        } else {
            prop_assert_eq!(before, self.snapshot(), "given up after a change");
            sys::syscall(&mut self.machine.kernel);
        }
        if let Ok(Some(made)) = self.result(step.call) {
            self.handles.push(made);
        }
        Ok(())
    }

    fn is_made_beside(&mut self, call: Call) -> bool {
        let kernel = &mut self.machine.kernel;
        let seat = kernel.seat(0);
        // SAFETY: the kernel is borrowed, and nobody else uses it.
        let creator = unsafe { Creator::share(kernel, seat) };
        sys::is_creation(call as u32) && creator.is_some_and(sys::create)
    }

    /// What the last call came to, with the handle that it made.
    fn result(&self, call: Call) -> Result<Option<Handle>, Error> {
        let result = self.machine.result(self.program.thread);
        let regs = result.expect("it goes on")?;
        let makes = matches!(
            call,
            Call::SpaceCreate | Call::ThreadCreate | Call::EndpointCreate
        );
        Ok(makes.then_some(Handle(regs.rdi as u32)))
    }

    /// All that there is, but for the registers of the program.
    fn snapshot(&self) -> String {
        let kernel = &self.machine.kernel;
        let mut text = format!("free {}\n", self.machine.free());
        let mut index = 0;
        while let Some(id) = kernel.spaces.next_id(index) {
            index = id.index() + 1;
            let space = kernel.spaces.get(id).unwrap();
            let (table, handles) = (&space.table, space.handles.len());
            let counts = [space.nr_threads, space.nr_started, space.nr_handles];
            let terms = (table.budget(), table.class(), table.commit());
            let family = space.family();
            let _ = writeln!(
                text,
                "{id:?} {family:?} {counts:?} {handles} {terms:?} {:?}",
                space.death
            );
        }
        index = 0;
        while let Some(id) = kernel.threads.next_id(index) {
            index = id.index() + 1;
            let thread = kernel.threads.get(id).unwrap();
            let space = kernel.spaces.get(thread.space).unwrap();
            let after = space.threads.after(&kernel.threads, id);
            let regs = (thread.regs.rip, thread.regs.rsp, thread.regs.cs);
            let _ = writeln!(
                text,
                "{id:?} {:?} {:?} {} {:?} {:?} {after:?} {:?} {}",
                thread.space,
                thread.state,
                thread.priority,
                thread.supervisor,
                thread.token,
                thread.affinity(),
                thread.cpu,
            );
            if id != self.program.thread {
                let _ = writeln!(text, "{regs:x?}");
            }
        }
        let _ = writeln!(text, "{:?}", kernel.cpus.here().run_queue);
        text
    }
}

/// Takes the steps in both ways.
fn compare(steps: &[Step], nr_frames: usize) -> Result<(), TestCaseError> {
    // A kernel is large, so they are not on the stack.
    let mut worlds = [false, true].map(|is_beside| Box::new(World::new(is_beside, nr_frames)));
    for step in steps {
        for world in &mut worlds {
            world.take(*step)?;
        }
        let [alone, beside] = &worlds;
        prop_assert_eq!(alone.result(step.call), beside.result(step.call));
        prop_assert_eq!(alone.snapshot(), beside.snapshot());
    }
    for world in &mut worlds {
        world.machine.finish();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 256 }, ..Default::default() })]

    #[test]
    fn who_creates_beside_others_does_what_he_does_alone(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 20 } else { 80 }),
        nr_frames in prop_oneof![2 => Just(512usize), 1 => 48usize..72],
    ) {
        compare(&steps, nr_frames)?;
    }
}

const STEP: Step = Step {
    call: Call::SpaceCreate,
    handles: [SYSTEM, 0, 0],
    badge: 0,
    priority: 16,
    ip: START[0],
};

impl World {
    /// Takes a step that must succeed; returns whether it was made beside others.
    fn is_beside(&mut self, step: Step) -> bool {
        let before = self.nr_beside;
        self.take(step).expect("nothing is given up half way");
        assert!(self.result(step.call).is_ok(), "{step:?}");
        self.nr_beside > before
    }

    /// A step with the newest handle but so many. No other thread has the priority.
    fn on(&self, call: Call, age: usize) -> Step {
        let handles = [self.handles.len() - 1 - age, 0, 0];
        Step {
            call,
            handles,
            priority: 3,
            ..STEP
        }
    }
}

#[test]
fn a_process_is_made_and_its_handles_are_closed_beside_others() {
    let mut world = World::new(true, 512);
    let told = Step {
        handles: [SYSTEM, ENDPOINT, OTHER],
        ..STEP
    };
    assert!(world.is_beside(told));
    for call in [Call::ThreadCreate, Call::ThreadStart] {
        assert!(world.is_beside(world.on(call, 0)));
    }
    assert!(!world.is_beside(world.on(Call::Kill, 1)), "ends are alone");
    for age in [0, 1] {
        assert!(world.is_beside(world.on(Call::HandleClose, age)));
    }
    world.machine.finish();
}

#[test]
fn what_a_handle_stood_for_is_undone_alone() {
    let mut world = World::new(true, 512);
    assert!(world.is_beside(STEP));
    assert!(!world.is_beside(world.on(Call::HandleClose, 0)), "it lives");
    let endpoint = Step {
        call: Call::HandleClose,
        handles: [ENDPOINT, 0, 0],
        ..STEP
    };
    assert!(!world.is_beside(endpoint), "it dies");
    world.machine.finish();
}

#[test]
fn whose_handles_others_may_be_looking_at_creates_alone() {
    let mut world = World::new(true, 512);
    let own = world.program.space;
    let kernel = &mut world.machine.kernel;
    let second = kernel.create_thread(own, None, 16).unwrap();
    assert!(!world.is_beside(STEP));
    world.machine.kernel.kill_thread(second);
    assert!(world.is_beside(STEP));
    world.machine.finish();
}

#[test]
fn a_thread_that_an_idle_cpu_could_run_is_started_alone() {
    let mut world = World::new(true, 512);
    for cpu in [1, 2] {
        world.machine.kernel.bring_online(cpu);
        world.machine.look(cpu);
    }
    world.is_beside(STEP);
    world.is_beside(world.on(Call::ThreadCreate, 0));
    assert!(!world.is_beside(world.on(Call::ThreadStart, 0)));
    world.machine.finish();
}
