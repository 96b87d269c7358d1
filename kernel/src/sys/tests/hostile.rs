//! Whatever programs do: no panic, no broken list, no lost frame.

use cowslip_abi::{Access, Call, Handle, Rights};
use proptest::prelude::*;

use super::machine::{BUFFER, BUFFER_LEN, Machine, Program};
use crate::object::{Object, State};
use crate::sys;

const NR_CPUS: usize = 3;

/// One step of the random programs.
#[derive(Clone, Debug)]
enum Step {
    /// A call with arguments that often make sense.
    Call {
        who: usize,
        number: u32,
        handle: u32,
        args: [Argument; 6],
    },
    /// A page fault.
    Fault { who: usize, address: Argument },
    /// The timer interrupts.
    Tick,
    /// A CPU looks who runs next.
    Look { cpu: usize },
}

#[derive(Clone, Copy, Debug)]
enum Argument {
    /// This value.
    Value(u64),
    /// The handle at this place in the caller's table.
    Handle(u32),
    /// An offset in the buffer.
    Buffer(u64),
    /// The reply token that the caller saw last.
    Token,
}

fn argument() -> impl Strategy<Value = Argument> {
    prop_oneof![
        4 => (0u64..8).prop_map(Argument::Value),
        1 => any::<u64>().prop_map(Argument::Value),
        3 => (0u32..12).prop_map(Argument::Handle),
        3 => (0..BUFFER_LEN / 4096).prop_map(|page| Argument::Buffer(page * 4096)),
        2 => (0..BUFFER_LEN).prop_map(Argument::Buffer),
        2 => (0u64..4).prop_map(|pages| Argument::Value(pages * 4096)),
        1 => (0u64..20_000).prop_map(Argument::Value),
        2 => Just(Argument::Token),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let args = prop::array::uniform6(argument());
    prop_oneof![
        20 => (0usize..6, 0u32..27, 0u32..12, args)
            .prop_map(|(who, number, handle, args)| Step::Call { who, number, handle, args }),
        1 => (0usize..6, argument()).prop_map(|(who, address)| Step::Fault { who, address }),
        1 => Just(Step::Tick),
        4 => (0..NR_CPUS).prop_map(|cpu| Step::Look { cpu }),
    ]
}

struct World {
    machine: Machine,
    programs: Vec<Program>,
    tokens: Vec<u64>,
}

impl World {
    /// Six programs with handles to each other and to two endpoints of each.
    fn new(nr_frames: usize) -> Self {
        let mut machine = Machine::with_cpus(nr_frames, NR_CPUS);
        let programs: Vec<_> = (0..6).map(|_| machine.program()).collect();
        for (i, program) in programs.iter().enumerate() {
            let next = programs[(i + 1) % programs.len()];
            machine.service(*program, next, 1 << i);
            let rights = Rights::all();
            machine.install(*program, Object::Space(program.space), rights);
            machine.install(*program, Object::Space(next.space), rights);
            machine.install(
                *program,
                Object::Thread(next.thread),
                Rights::READ | Rights::COPY,
            );
            machine.install(*program, Object::System, Rights::SYSTEM - Rights::POWER);
        }
        Self {
            machine,
            programs,
            tokens: vec![0; 6],
        }
    }

    fn value(&self, who: usize, argument: Argument) -> u64 {
        match argument {
            Argument::Value(value) => value,
            Argument::Handle(index) => self.handle(who, index).0.into(),
            Argument::Buffer(offset) => BUFFER + offset,
            Argument::Token => self.tokens[who],
        }
    }

    /// The handle in slot `index` of a program's table, or a bad one.
    fn handle(&self, who: usize, index: u32) -> Handle {
        let space = self.machine.kernel.spaces.get(self.programs[who].space);
        let handles = space.map(|space| &space.handles);
        let of_generation = |generation: u32| Handle(generation << 11 | index);
        let found = handles.and_then(|table| {
            (1..200)
                .map(of_generation)
                .find(|handle| table.get(*handle).is_ok())
        });
        found.unwrap_or(of_generation(1))
    }

    fn can_run(&self, who: usize) -> bool {
        let thread = self.machine.kernel.threads.get(self.programs[who].thread);
        thread.is_some_and(|thread| matches!(thread.state, State::Runnable))
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Call { who, .. } if self.machine.is_long(self.programs[who].thread) => {
                self.machine.step(self.programs[who].thread);
                self.note_token(who);
            }
            Step::Call {
                who,
                number,
                handle,
                ref args,
            } if self.can_run(who) => {
                let args = args.map(|argument| self.value(who, argument));
                let handle = u64::from(self.handle(who, handle).0);
                let thread = self.programs[who].thread;
                self.machine
                    .raw_call(thread, u64::from(number) | handle << 32, args);
                self.note_token(who);
            }
            Step::Fault { who, .. } if self.machine.is_long(self.programs[who].thread) => {}
            Step::Fault { who, address } if self.can_run(who) => {
                let thread = self.programs[who].thread;
                let address = self.value(who, address);
                self.machine.run(thread);
                self.machine.page_fault(address, Access::Write);
            }
            Step::Tick => sys::tick(&mut self.machine.kernel),
            Step::Look { cpu } => {
                self.machine.look(cpu);
            }
            Step::Call { .. } | Step::Fault { .. } => {}
        }
        self.forget_dead();
    }

    fn note_token(&mut self, who: usize) {
        if let Some(Ok(regs)) = self.machine.result(self.programs[who].thread) {
            let is_receive = [Call::Recv as u64, Call::ReplyRecv as u64];
            if is_receive.contains(&(regs.rax & 0xffff_ffff)) || regs.r8 > 1 << 24 {
                self.tokens[who] = regs.r8;
            }
        }
    }

    /// Replaces programs that died, so that there is always somebody to act.
    fn forget_dead(&mut self) {
        for i in 0..self.programs.len() {
            let program = self.programs[i];
            if self.machine.kernel.threads.get(program.thread).is_none()
                && self.machine.free() > 200
            {
                self.programs[i] = self.machine.program();
                let rights = Rights::all();
                let own = Object::Space(self.programs[i].space);
                self.machine.install(self.programs[i], own, rights);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 48 }, ..Default::default() })]

    #[test]
    fn every_argument_is_an_allegation(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World::new(2048);
        for step in &steps {
            world.take(step);
            assert_eq!(world.machine.kernel.audit(), Ok(()));
        }
        world.machine.finish();
    }

    #[test]
    fn running_out_of_memory_anywhere_loses_nothing(
        steps in prop::collection::vec(step(), 1..300),
        spare in 0usize..12,
    ) {
        let mut world = World::new(400);
        let mm = world.machine.kernel.mm;
        let mut taken = Vec::new();
        while mm.frames.free_count() > spare as u64 {
            taken.extend(mm.frames.alloc());
        }
        for step in &steps {
            world.take(step);
        }
        taken.into_iter().for_each(|frame| mm.frames.free(frame));
        world.machine.finish();
    }
}
