//! The fast path of messages against the general one: the same calls, the same state and results.

use std::sync::atomic::Ordering;

use cowslip_abi::{
    Access, Call, Error, FaultVerdict, Handle, RecvFlags, Rights, Tag, pack_handles,
};
use proptest::prelude::*;

use super::machine::{BUFFER, Machine, Program, START};
use crate::object::{Id, Object, Space, Special, State, Supervisor, Thread, Way};
use crate::sys;

const PROGRAMS: usize = 5;

/// A call of whichever program runs.
#[derive(Clone, Copy, Debug)]
struct Step {
    call: Call,
    /// Which endpoint; beyond the last, a bad handle.
    endpoint: usize,
    label: u64,
    words: [u64; 4],
    /// Bytes to send, and room for bytes to receive.
    lens: (u64, u64),
    /// Whether the token is the last one seen, or a made-up one.
    good_token: bool,
    /// Whether the handle that the program was given last goes along, with nothing else.
    with_gift: bool,
    /// How long it waits at most, in nanoseconds, if there is a bound.
    patience_ns: Option<u64>,
    /// How long after the call before it, in nanoseconds.
    later_ns: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop_oneof![
        6 => Just(Call::Send),
        4 => Just(Call::ReplyRecv),
        4 => Just(Call::Recv),
        1 => Just(Call::Reply),
        1 => Just(Call::Notify),
        1 => Just(Call::Yield),
    ];
    let label = prop_oneof![
        8 => 0u64..100,
        1 => Just(Tag::new(1).with_handles(1).0),
        1 => Just(Tag::new(2).moving_pages().0),
    ];
    let len = || prop_oneof![6 => Just(0u64), 1 => 1u64..5000];
    let endpoint = prop_oneof![12 => 0..2usize, 1 => Just(2)];
    (
        call,
        endpoint,
        label,
        any::<[u64; 4]>(),
        (len(), len()),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        (
            prop::option::weighted(0.2, 0..40u64),
            prop_oneof![3 => Just(0), 1 => 0..20u64],
        ),
    )
        .prop_map(
            |(call, endpoint, label, words, lens, good_token, with_gift, time)| Step {
                call,
                endpoint,
                label,
                words,
                lens,
                good_token,
                with_gift,
                patience_ns: time.0,
                later_ns: time.1,
            },
        )
}

/// A machine that tries the fast path first, or does not.
struct World {
    machine: Machine,
    programs: Vec<Program>,
    endpoints: Vec<[Handle; PROGRAMS]>,
    tokens: [u64; PROGRAMS],
    gifts: [Handle; PROGRAMS],
    is_fast: bool,
    nr_fast: usize,
    nr_fast_with_handles: usize,
}

impl World {
    fn new(is_fast: bool, priorities: [u64; PROGRAMS]) -> Self {
        let mut machine = Machine::new(1024);
        let programs: Vec<_> = (0..PROGRAMS).map(|_| machine.program()).collect();
        machine
            .kernel
            .set_affinity(programs[PROGRAMS - 1].thread, 1);
        let endpoints: Vec<[Handle; PROGRAMS]> = (0..2)
            .map(|number| {
                let owner = programs[number];
                let made = machine.ok(owner, Call::EndpointCreate, Handle::NONE, [0; 6]);
                let entry = machine.kernel.spaces.get(owner.space).unwrap();
                let object = entry.handles.get(Handle(made.rdi as u32)).unwrap().object;
                core::array::from_fn(|i| {
                    let badge = 1 + i as u64;
                    let space = programs[i].space;
                    machine
                        .kernel
                        .install(space, object, Rights::ENDPOINT, badge)
                        .unwrap()
                })
            })
            .collect();
        for (program, priority) in programs.iter().zip(priorities) {
            let args = [0, priority, 0, 0, 0, 0];
            machine.ok(*program, Call::ThreadSet, Handle::NONE, args);
        }
        // Other threads of a space may remember what a handle named that moves away.
        for program in &programs[3..] {
            let created = machine.kernel.create_thread(program.space, None, 16);
            created.unwrap();
        }
        let tokens = [0; PROGRAMS];
        let objects = [
            Object::Space(programs[0].space),
            Object::System,
            Object::System,
        ];
        let gifts = core::array::from_fn(|i| match objects.get(i) {
            Some(object) => machine.install(programs[i], *object, Rights::COPY),
            None => endpoints[0][i],
        });
        Self {
            machine,
            programs,
            endpoints,
            tokens,
            gifts,
            is_fast,
            nr_fast: 0,
            nr_fast_with_handles: 0,
        }
    }

    /// Lets whoever runs next make a call, as the entry code would.
    fn take(&mut self, step: Step) {
        let now_ns = &self.machine.platform.now_ns;
        let now = now_ns.fetch_add(step.later_ns, Ordering::Relaxed) + step.later_ns;
        sys::tick(&mut self.machine.kernel);
        let Some(id) = sys::next(&mut self.machine.kernel).thread else {
            return;
        };
        let who = self
            .programs
            .iter()
            .position(|program| program.thread == id)
            .unwrap();
        self.note_token(who, id);
        let handle = self
            .endpoints
            .get(step.endpoint)
            .map_or(Handle(0x7fff_ffff), |all| all[who]);
        let token = if step.good_token {
            self.tokens[who]
        } else {
            12345
        };
        let regs = &mut self.machine.kernel.threads.get_mut(id).unwrap().regs;
        regs.rax = step.call as u64 | u64::from(handle.0) << 32;
        [regs.rdi, regs.rsi, regs.rdx] = [token, step.label, BUFFER];
        [regs.r8, regs.r9, regs.r10] = [step.lens.0, BUFFER + 0x4000, step.lens.1];
        if step.call == Call::Recv {
            regs.rsi = 0;
        }
        let mut words = step.words;
        if step.with_gift && step.call != Call::Recv {
            regs.rsi = Tag::new(7).with_handles(1).moving_handles().0;
            (regs.r8, regs.r10) = (0, 0);
            words[2] = self.gifts[who].0.into();
        }
        let deadline = step.patience_ns.map(|patience| now + 1 + patience);
        match (step.call, deadline) {
            (Call::Yield, deadline) => regs.rdi = deadline.unwrap_or(0),
            (Call::Send, Some(deadline)) => {
                (regs.rdi, regs.rsi) = (deadline, Tag(regs.rsi).with_deadline().0);
            }
            (Call::Recv, Some(deadline)) => {
                (regs.rdi, regs.rsi) = (deadline, RecvFlags::DEADLINE.bits());
            }
            _ => {}
        }
        regs.set_words(words);
        if !self.is_fast || !self.try_fast(id, words) {
            sys::syscall(&mut self.machine.kernel);
        }
        self.machine.assert_settled();
    }

    /// Does what the entry code does: chooses by the call and what goes along, and sees to the words.
    fn try_fast(&mut self, id: Id<Thread>, words: [u64; 4]) -> bool {
        let before = self.snapshot();
        let kernel = &mut self.machine.kernel;
        let regs = kernel.threads.get(id).unwrap().regs;
        let is_plain = regs.rsi >> 32 | regs.r8 | regs.r10 == 0;
        let has_handles = (regs.rsi & !Tag(0).moving_pages().0) >> 32 != 0;
        let call = Call::from_number(regs.rax as u32);
        let way = match call {
            Some(Call::Send) => Way::Send,
            Some(Call::Notify) => Way::Notify,
            _ => Way::Receive,
        };
        if !kernel.here().knows_way(way) {
            kernel.here().find_way(way);
        }
        let is_done = match call {
            Some(Call::Send) if is_plain => {
                let next = kernel.here().fast_send(|| 0, |_| ());
                let next = next.or_else(|| kernel.here().fast_send_bound(|| 0, |_| ()));
                next.is_some()
            }
            Some(Call::Send) if has_handles => kernel.fast_send_handle(|| 0, |_| ()).is_some(),
            Some(Call::Send) if regs.r8 == 0 => {
                kernel.here().fast_send_room(|| 0, |_| ()).is_some()
            }
            Some(Call::Send) => {
                let in_place = kernel.here().fast_send_bytes(|| 0, |_| ());
                let next = in_place.or_else(|| kernel.here().fast_send_pages(|| 0, |_| ()));
                next.is_some()
            }
            Some(Call::ReplyRecv) if is_plain => {
                let next = kernel.here().fast_reply_recv(|| 0, |_| (), |_| ());
                let next = next.or_else(|| kernel.here().fast_reply_recv_bound(|| 0, |_| ()));
                next.is_some()
            }
            Some(Call::ReplyRecv) if has_handles => {
                kernel.fast_reply_recv_handle(|| 0, |_| ()).is_some()
            }
            Some(Call::ReplyRecv) if regs.r8 == 0 => {
                kernel.here().fast_reply_recv_room(|| 0, |_| ()).is_some()
            }
            Some(Call::ReplyRecv) => kernel.here().fast_reply_recv_pages(|| 0, |_| ()).is_some(),
            Some(Call::Notify) => kernel.here().fast_notify().is_some(),
            Some(Call::Recv) => kernel.here().fast_recv(|| 0).is_some(),
            _ => return false,
        };
        if !is_done {
            assert_eq!(
                before,
                self.snapshot(),
                "the fast path gave up after a change"
            );
            return false;
        }
        let is_exchange = matches!(call, Some(Call::Send | Call::ReplyRecv));
        let regs = &mut self.machine.kernel.threads.pinned_mut().unwrap().regs;
        if is_exchange && has_handles {
            let [w0, w1, _, _] = words;
            regs.set_words([w0, w1, regs.r14, 0]);
            self.nr_fast_with_handles += 1;
        } else if call != Some(Call::Recv) {
            regs.set_words(words);
        }
        if call != Some(Call::Recv) {
            regs.rax = 0;
        }
        self.nr_fast += 1;
        true
    }

    fn note_token(&mut self, who: usize, id: Id<Thread>) {
        if let Some(Ok(regs)) = self.machine.result(id) {
            if regs.r8 > 1 << 20 {
                self.tokens[who] = regs.r8;
            }
            if Tag(regs.rsi).handles() == 1 {
                self.gifts[who] = Handle(regs.r14 as u32);
            }
        }
    }

    /// Everything that calls can see or change, but for the time.
    fn snapshot(&self) -> String {
        let kernel = &self.machine.kernel;
        let mut text = format!(
            "current {:?} free {}\n",
            kernel.current(),
            self.machine.free()
        );
        for program in &self.programs {
            let Some(thread) = kernel.threads.get(program.thread) else {
                continue;
            };
            let visible = matches!(thread.state, State::Runnable).then_some(thread.regs);
            let Thread {
                state,
                priority,
                base_priority,
                floor,
                answering,
                owed,
                token,
                ..
            } = thread;
            text += &format!(
                "{state:?} {priority} {base_priority} {floor} {answering:x} {owed:?} {token:?} {visible:x?}\n"
            );
        }
        for program in &self.programs {
            let space = kernel.spaces.get(program.space);
            text += &format!("{:?} handles\n", space.map(|space| space.handles.len()));
        }
        let mut index = 0;
        while let Some(id) = kernel.endpoints.next_id(index) {
            index = id.index() + 1;
            text += &format!("{:?}\n", kernel.endpoints.get(id).unwrap());
        }
        text + &format!("{:?}", kernel.cpus.here().run_queue)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 128 }, ..Default::default() })]

    #[test]
    fn the_fast_path_does_what_the_general_path_does(
        steps in prop::collection::vec(step(), 1..200),
        priorities in prop::array::uniform5(14u64..=16),
    ) {
        let mut worlds = [World::new(false, priorities), World::new(true, priorities)];
        for step in steps {
            for world in &mut worlds {
                world.take(step);
                sys::next(&mut world.machine.kernel);
            }
            prop_assert_eq!(worlds[0].snapshot(), worlds[1].snapshot());
        }
        for mut world in worlds {
            world.machine.finish();
        }
    }
}

#[test]
fn a_round_trip_of_words_takes_the_fast_path_both_ways() {
    let mut world = World::new(true, [16; PROGRAMS]);
    let (server, client) = (world.programs[0], world.programs[1]);
    let (receive, send) = (world.endpoints[0][0], world.endpoints[0][1]);
    assert!(
        world
            .machine
            .call(server, Call::Recv, receive, [0; 6])
            .is_none()
    );
    for round in 0..3 {
        world.machine.run(client.thread);
        let regs = &mut world
            .machine
            .kernel
            .threads
            .get_mut(client.thread)
            .unwrap()
            .regs;
        regs.rax = Call::Send as u64 | u64::from(send.0) << 32;
        [regs.rsi, regs.r8, regs.r10] = [7, 0, 0];
        assert!(world.try_fast(client.thread, [round, 2, 3, 4]));

        let got = world.machine.result(server.thread).unwrap().unwrap();
        assert_eq!((got.rdi, got.rsi, got.words()), (2, 7, [round, 2, 3, 4]));
        let regs = &mut world
            .machine
            .kernel
            .threads
            .get_mut(server.thread)
            .unwrap()
            .regs;
        regs.rax = Call::ReplyRecv as u64 | u64::from(receive.0) << 32;
        [regs.rdi, regs.rsi, regs.r8, regs.r10] = [got.r8, 8, 0, 0];
        assert!(world.try_fast(server.thread, [5, 6, 7, round]));

        let reply = world.machine.result(client.thread).unwrap().unwrap();
        assert_eq!((reply.rsi, reply.words()), (8, [5, 6, 7, round]));
    }
    assert_eq!(world.nr_fast, 6);
    world.machine.finish();
}

#[test]
fn a_handle_that_moves_takes_the_fast_path() {
    let (mut world, step) = about_to_give();
    world.take(step);
    assert_eq!(world.nr_fast_with_handles, 1);
    let got = world.machine.result(world.programs[0].thread);
    let got = got.unwrap().unwrap();
    assert_eq!(
        (Tag(got.rsi), got.r12, got.r13),
        (Tag::new(7).with_handles(1), 1, 2)
    );
    let entries = |program: usize, handle| {
        let space = world.programs[program].space;
        world
            .machine
            .kernel
            .spaces
            .get(space)
            .unwrap()
            .handles
            .get(handle)
    };
    assert_eq!(
        entries(0, Handle(got.r14 as u32)).unwrap().object,
        Object::System
    );
    assert!(entries(1, world.gifts[1]).is_err());
    world.machine.finish();
}

/// A world where the first program waits at its endpoint and the second runs, and the step with which
/// that sends there what it was given.
fn about_to_give() -> (World, Step) {
    let mut world = World::new(true, [16; PROGRAMS]);
    let (server, receive) = (world.programs[0], world.endpoints[0][0]);
    let waits = world.machine.call(server, Call::Recv, receive, [0; 6]);
    assert!(waits.is_none());
    world.machine.run(world.programs[1].thread);
    let step = Step {
        call: Call::Send,
        endpoint: 0,
        label: 0,
        words: [1, 2, 3, 4],
        lens: (0, 0),
        good_token: true,
        with_gift: true,
        patience_ns: None,
        later_ns: 0,
    };
    (world, step)
}

fn nr_handles(world: &World, program: usize) -> usize {
    let space = world.programs[program].space;
    world
        .machine
        .kernel
        .spaces
        .get(space)
        .unwrap()
        .handles
        .len()
}

#[test]
fn a_handle_that_finds_no_room_stays() {
    let (mut world, step) = about_to_give();
    let space = world.programs[0].space;
    let kernel = &mut world.machine.kernel;
    while kernel
        .install(space, Object::System, Rights::empty(), 0)
        .is_ok()
    {}
    let before = [0, 1].map(|program| nr_handles(&world, program));
    world.take(step);
    assert_eq!(world.nr_fast, 0);
    assert_eq!(
        world.machine.result(world.programs[1].thread),
        Some(Err(Error::TableFull))
    );
    assert_eq!(before, [0, 1].map(|program| nr_handles(&world, program)));
    world.machine.finish();
}

#[test]
fn a_handle_whose_object_died_moves_like_any_other() {
    let (mut world, step) = about_to_give();
    let dead = world.machine.program();
    let gift = Object::Space(dead.space);
    world.gifts[1] = world
        .machine
        .install(world.programs[1], gift, Rights::COPY | Rights::READ);
    world.machine.kernel.kill_space(dead.space);
    world.take(step);
    assert_eq!(world.nr_fast_with_handles, 1);
    let got = world.machine.result(world.programs[0].thread);
    let moved = Handle(got.unwrap().unwrap().r14 as u32);
    let server = world
        .machine
        .kernel
        .spaces
        .get(space_of(&world, 0))
        .unwrap();
    assert_eq!(server.handles.get(moved).unwrap().object, gift);
    world.machine.finish();
}

#[test]
fn a_handle_without_the_right_to_be_copied_stays() {
    let (mut world, step) = about_to_give();
    let rights = Rights::READ;
    world.gifts[1] = world
        .machine
        .install(world.programs[1], Object::System, rights);
    world.take(step);
    assert_eq!(world.nr_fast, 0);
    let result = world.machine.result(world.programs[1].thread);
    assert_eq!(result, Some(Err(Error::Denied)));
    world.machine.finish();
}

#[test]
fn a_handle_that_moves_within_its_space_gets_another_number() {
    let (mut world, step) = about_to_give();
    // A second thread of the server's space sends to the first.
    let space = space_of(&world, 0);
    let kernel = &mut world.machine.kernel;
    let thread = kernel.create_thread(space, None, 16).unwrap();
    kernel.start_thread(thread, &START).unwrap();
    world.machine.run(thread);
    let gift = world
        .machine
        .install(world.programs[0], Object::System, Rights::COPY);
    let before = nr_handles(&world, 0);
    let (to, tag) = (
        world.endpoints[0][0],
        Tag::new(7).with_handles(1).moving_handles(),
    );
    let kernel = &mut world.machine.kernel;
    let regs = &mut kernel.threads.get_mut(thread).unwrap().regs;
    regs.rax = step.call as u64 | u64::from(to.0) << 32;
    [regs.rsi, regs.r8, regs.r10] = [tag.0, 0, 0];
    regs.set_words([1, 2, gift.0.into(), 0]);
    assert!(!world.try_fast(thread, [1, 2, gift.0.into(), 0]));
    sys::syscall(&mut world.machine.kernel);
    let got = world.machine.result(world.programs[0].thread);
    let moved = Handle(got.unwrap().unwrap().r14 as u32);
    let handles = &world.machine.kernel.spaces.get(space).unwrap().handles;
    assert_eq!(handles.get(moved).unwrap().object, Object::System);
    assert!(handles.get(gift).is_err());
    assert_eq!(nr_handles(&world, 0), before);
    world.machine.finish();
}

#[test]
fn a_handle_to_a_receiver_that_died_stays() {
    let (mut world, step) = about_to_give();
    let thread = world.programs[0].thread;
    world.machine.kernel.kill_thread(thread);
    let before = nr_handles(&world, 1);
    world.take(step);
    assert_eq!(world.nr_fast, 0, "nobody receives");
    assert_eq!(nr_handles(&world, 1), before);
    world.machine.finish();
}

/// The route to an endpoint is forgotten with the handle that moves, whether or not the space has
/// other threads that might remember it.
#[test]
fn a_handle_that_has_moved_leads_nowhere() {
    for is_shared in [false, true] {
        let (mut world, mut step) = about_to_give();
        if is_shared {
            let kernel = &mut world.machine.kernel;
            let space = world.programs[1].space;
            kernel.create_thread(space, None, 16).unwrap();
        }
        // The message takes its own way along.
        world.gifts[1] = world.endpoints[0][1];
        world.take(step);
        assert_eq!(world.nr_fast_with_handles, 1);
        let server = world.programs[0];
        let got = world.machine.result(server.thread).unwrap().unwrap();
        let args = [got.r8, 0, 0, 0, 0, 0];
        world.machine.ok(server, Call::Reply, Handle::NONE, args);

        world.machine.run(world.programs[1].thread);
        step.with_gift = false;
        world.take(step);
        assert_eq!(world.nr_fast, 1);
        let result = world.machine.result(world.programs[1].thread);
        assert_eq!(result, Some(Err(Error::BadHandle)));
        world.machine.finish();
    }
}

fn space_of(world: &World, program: usize) -> Id<Space> {
    world.programs[program].space
}

#[test]
fn a_fault_and_the_verdict_on_it_take_the_fast_path() {
    let mut machine = Machine::new(1024);
    let server = machine.program();
    let made = machine.ok(server, Call::EndpointCreate, Handle::NONE, [0; 6]);
    let receive = Handle(made.rdi as u32);
    let handles = &machine.kernel.spaces.get(server.space).unwrap().handles;
    let Object::Endpoint(endpoint) = handles.get(receive).unwrap().object else {
        panic!("no endpoint");
    };
    let badge = 77;
    let client = machine.supervised_program(Some(Supervisor { endpoint, badge }));
    assert!(machine.call(server, Call::Recv, receive, [0; 6]).is_none());
    machine.run(client.thread);
    let before = machine.kernel.threads.get(client.thread).unwrap().regs;

    let fault = sys::page_fault(&machine.kernel, 0x6666_0000, Access::Write).unwrap();
    assert_eq!(
        machine.kernel.here().fast_fault(fault, || 0),
        Some(Special::empty())
    );
    assert_eq!(machine.kernel.current(), Some(server.thread));
    let got = machine.result(server.thread).unwrap().unwrap();
    assert_eq!((got.rdi, got.r12), (badge, 0x6666_0000));

    let regs = &mut machine.kernel.threads.get_mut(server.thread).unwrap().regs;
    regs.rax = Call::ReplyRecv as u64 | u64::from(receive.0) << 32;
    let kill = Tag::new(FaultVerdict::Kill as u32);
    [regs.rdi, regs.rsi, regs.r8, regs.r10] = [got.r8, kill.0, 0, 0];
    assert!(machine.kernel.here().find_way(Way::Receive));
    let mut here = machine.kernel.here();
    let resumes = here.fast_reply_recv(|| 0, |_| false, |_| true);
    assert_eq!(resumes, None, "that takes more than a switch");
    here.running.get_mut().unwrap().regs.rsi = 0;
    let resumes = here.fast_reply_recv(|| 0, |_| false, |_| true);
    assert_eq!(resumes, Some(true));
    assert_eq!(machine.kernel.current(), Some(client.thread));
    let thread = machine.kernel.threads.get(client.thread).unwrap();
    assert_eq!((thread.regs, thread.fault()), (before, None));
    machine.finish();
}

#[test]
fn a_handle_that_is_named_twice_is_left_to_the_general_path() {
    let (mut world, _) = about_to_give();
    let (to, gift) = (world.endpoints[0][1], world.gifts[1]);
    let words = [
        1,
        2,
        pack_handles([gift, gift, Handle::NONE, Handle::NONE])[0],
        0,
    ];
    let sender = world.programs[1].thread;
    let regs = &mut world.machine.kernel.threads.get_mut(sender).unwrap().regs;
    regs.rax = Call::Send as u64 | u64::from(to.0) << 32;
    [regs.rsi, regs.r8, regs.r10] = [Tag::new(7).with_handles(2).moving_handles().0, 0, 0];
    regs.set_words(words);
    let before = [0, 1].map(|program| nr_handles(&world, program));
    assert!(!world.try_fast(sender, words));
    sys::syscall(&mut world.machine.kernel);
    let after = [0, 1].map(|program| nr_handles(&world, program));
    assert_eq!(after, [before[0] + 2, before[1] - 1]);
    world.machine.finish();
}
