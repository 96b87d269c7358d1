//! What `info` tells of threads, endpoints and ranges.

use cowslip_abi::{
    Access, Call, Error, Handle, InfoTopic, Perm, RangeKind, Rights, Tag, ThreadState,
};

use super::machine::{BUFFER, BUFFER_LEN, Machine, Program};
use crate::object::{Object, Supervisor};
use crate::vm::USER_END;

const NOTHING: [u64; 6] = [0; 6];

/// A thread as topic `Member` tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    number: u64,
    state: ThreadState,
    endpoint: u64,
    thread: u64,
    space: u64,
    serves: u64,
    until_ns: u64,
}

/// A server, a client, and somebody who looks at them.
struct Scene {
    machine: Machine,
    server: Program,
    client: Program,
    watcher: Program,
    receive: Handle,
    send: Handle,
}

impl Scene {
    fn new() -> Self {
        let mut machine = Machine::new(1000);
        let [server, client, watcher] = [(); 3].map(|()| machine.program());
        let (receive, send) = machine.service(server, client, 7);
        Scene {
            machine,
            server,
            client,
            watcher,
            receive,
            send,
        }
    }

    fn endpoint(&mut self) -> [u64; 3] {
        let topic = [InfoTopic::Endpoint as u64, 0, 0, 0, 0, 0];
        let regs = self.machine.ok(self.client, Call::Info, self.send, topic);
        [regs.rdi, regs.rsi, regs.rdx]
    }

    /// What the watcher is told of the thread behind this one, by a handle that allows nothing else.
    fn next(&mut self, of: Program, after: u64) -> Result<Told, Error> {
        let space = Object::Space(of.space);
        let handle = self.machine.install(self.watcher, space, Rights::READ);
        let topic = [InfoTopic::Member as u64, after, 0, 0, 0, 0];
        let told = self
            .machine
            .call(self.watcher, Call::Info, handle, topic)
            .unwrap();
        told.map(|regs| Told {
            number: regs.rdi,
            state: ThreadState::from_word(regs.rsi),
            endpoint: regs.r9,
            thread: regs.r10,
            space: regs.r12,
            serves: regs.r13,
            until_ns: regs.r14,
        })
    }

    fn first(&mut self, of: Program) -> Told {
        self.next(of, 0).unwrap()
    }

    fn recv(&mut self) -> Option<u64> {
        let got = self
            .machine
            .call(self.server, Call::Recv, self.receive, NOTHING);
        got.map(|got| got.unwrap().r8)
    }

    /// The client sends, and waits.
    fn send(&mut self) {
        let args = [0, Tag::new(1).0, 0, 0, 0, 0];
        let sent = self.machine.call(self.client, Call::Send, self.send, args);
        assert!(sent.is_none());
    }
}

fn number(program: Program) -> u64 {
    program.thread.number()
}

#[test]
fn whom_a_thread_waits_for_is_told_in_each_state() {
    let mut scene = Scene::new();
    let (server, client) = (scene.server, scene.client);
    let [endpoint, nobody, nowhere] = scene.endpoint();
    assert!(endpoint != 0);
    assert_eq!((nobody, nowhere), (0, 0), "nobody has received there");

    let runs = scene.first(client);
    assert_eq!(runs.state, ThreadState::Runnable);
    assert_eq!((runs.endpoint, runs.thread, runs.space), (0, 0, 0));

    scene.send();
    let queued = scene.first(client);
    assert_eq!(queued.state, ThreadState::Sending);
    assert_eq!(
        (queued.endpoint, queued.thread, queued.space),
        (endpoint, 0, 0)
    );

    let token = scene.recv().expect("a message");
    let received = scene.first(client);
    assert_eq!(received.state, ThreadState::AwaitingReply);
    let owed = (0, number(server), server.space.number());
    assert_eq!((received.endpoint, received.thread, received.space), owed);
    assert_eq!(scene.first(server).serves, endpoint);

    let args = [token, 0, 0, 0, 0, 0];
    scene.machine.ok(server, Call::Reply, Handle::NONE, args);
    scene.send();
    let queued = scene.first(client);
    let busy = (endpoint, number(server), server.space.number());
    assert_eq!((queued.endpoint, queued.thread, queued.space), busy);
    assert_eq!(scene.endpoint_as(server), [busy.0, busy.1, busy.2]);

    scene.recv().expect("the second message");
    assert!(scene.recv().is_none(), "there is no third");
    let waits = scene.first(server);
    assert_eq!(waits.state, ThreadState::Receiving);
    assert_eq!((waits.endpoint, waits.thread), (endpoint, 0));
    scene.machine.finish();
}

impl Scene {
    /// The same as `endpoint`, asked by somebody else.
    fn endpoint_as(&mut self, program: Program) -> [u64; 3] {
        let topic = [InfoTopic::Endpoint as u64, 0, 0, 0, 0, 0];
        let receive = self.receive;
        let regs = self.machine.ok(program, Call::Info, receive, topic);
        [regs.rdi, regs.rsi, regs.rdx]
    }
}

#[test]
fn the_space_still_owes_the_answer_when_the_thread_that_received_is_gone() {
    let mut scene = Scene::new();
    let (server, client) = (scene.server, scene.client);
    let space = Object::Space(server.space);
    let own = scene.machine.install(server, space, Rights::SPACE);
    let create = [0, 1, 0, 0, 0, 0];
    let second = scene.machine.ok(server, Call::ThreadCreate, own, create);
    let args = [0x1000, 0x2000, 0, 0, 0, 0];
    let second = Handle(second.rdi as u32);
    scene.machine.ok(server, Call::ThreadStart, second, args);
    scene.send();
    scene.recv().expect("a message");
    scene
        .machine
        .raw_call(server.thread, Call::ThreadExit as u64, NOTHING);
    let told = scene.first(client);
    assert_eq!(told.state, ThreadState::AwaitingReply);
    assert_eq!((told.thread, told.space), (0, server.space.number()));
    scene.machine.finish();
}

#[test]
fn sleep_and_deadlines_are_told_with_their_ends() {
    let mut scene = Scene::new();
    let client = scene.client;
    let args = [500, Tag::new(1).with_deadline().0, 0, 0, 0, 0];
    let sent = scene.machine.call(client, Call::Send, scene.send, args);
    assert!(sent.is_none());
    assert_eq!(scene.first(client).until_ns, 500);
    let until = [700, 0, 0, 0, 0, 0];
    let sleeper = scene.server;
    let slept = scene
        .machine
        .call(sleeper, Call::Yield, Handle::NONE, until);
    assert!(slept.is_none());
    let told = scene.first(sleeper);
    assert_eq!((told.state, told.until_ns), (ThreadState::Sleeping, 700));
    scene.machine.finish();
}

#[test]
fn a_faulted_thread_waits_for_its_supervisor() {
    let mut scene = Scene::new();
    let (server, receive) = (scene.server, scene.receive);
    let spaces = &scene.machine.kernel.spaces;
    let entry = spaces.get(server.space).unwrap().handles.get(receive);
    let Object::Endpoint(endpoint) = entry.unwrap().object else {
        panic!("no endpoint");
    };
    let supervisor = Supervisor { endpoint, badge: 3 };
    let faulty = scene.machine.supervised_program(Some(supervisor));
    scene.machine.run(faulty.thread);
    scene.machine.page_fault(0x10, Access::Read);
    let told = scene.first(faulty);
    assert_eq!(told.state, ThreadState::Faulted);
    assert_eq!(told.endpoint, endpoint.number());
    scene.recv().expect("the fault");
    let told = scene.first(faulty);
    assert_eq!(told.state, ThreadState::Faulted);
    assert_eq!((told.endpoint, told.thread), (0, number(server)));

    let handle = Object::Space(faulty.space);
    let handle = scene.machine.install(scene.watcher, handle, Rights::READ);
    let topic = [InfoTopic::Registers as u64, told.number, 0, 0, 0, 0];
    let place = scene.machine.ok(scene.watcher, Call::Info, handle, topic);
    assert_eq!((place.rdi, place.rsi, place.rdx), (0x1000, 0x2000, 0));
    scene.machine.finish();
}

#[test]
fn the_threads_of_a_space_are_told_in_the_order_of_their_numbers_which_are_never_used_again() {
    let mut scene = Scene::new();
    let program = scene.client;
    let own = Object::Space(program.space);
    let own = scene.machine.install(program, own, Rights::SPACE);
    let mut seen = std::collections::BTreeSet::from([number(program)]);
    for _ in 0..3 {
        let made: Vec<Handle> = (0..5)
            .map(|_| {
                let args = [0, 1, 0, 0, 0, 0];
                let made = scene.machine.ok(program, Call::ThreadCreate, own, args);
                Handle(made.rdi as u32)
            })
            .collect();
        let mut listed = vec![scene.first(program).number];
        loop {
            match scene
                .next(program, listed[listed.len() - 1])
                .unwrap()
                .number
            {
                0 => break,
                next => listed.push(next),
            }
        }
        assert_eq!(listed.len(), 6);
        assert!(listed.is_sorted());
        assert!(listed[1..].iter().all(|&next| seen.insert(next)), "again");
        for thread in made {
            scene.machine.ok(program, Call::Kill, thread, NOTHING);
        }
        assert_eq!(scene.next(program, listed[3]), Err(Error::Died));
        let rest = scene.next(program, listed[0]).unwrap();
        assert_eq!(rest.number, 0);
    }
    let stranger = number(scene.server);
    for no_member in [stranger, 1, u64::MAX, stranger + (1 << 24), stranger ^ 8] {
        assert_eq!(scene.next(program, no_member), Err(Error::Died));
    }
    scene.machine.finish();
}

#[test]
fn the_number_of_a_space_is_that_of_who_owes_the_reply() {
    let mut scene = Scene::new();
    let space = Object::Space(scene.server.space);
    let handle = scene.machine.install(scene.watcher, space, Rights::READ);
    let topic = [InfoTopic::Commit as u64, 0, 0, 0, 0, 0];
    let told = scene.machine.ok(scene.watcher, Call::Info, handle, topic);
    assert_eq!(told.r9, scene.server.space.number());
    scene.machine.finish();
}

#[test]
fn topics_of_inspection_check_their_handles_and_places() {
    let mut scene = Scene::new();
    let (watcher, client) = (scene.watcher, scene.client);
    let space = Object::Space(client.space);
    let [read, blind] = [Rights::READ, Rights::all() - Rights::READ]
        .map(|rights| scene.machine.install(watcher, space, rights));
    let system = scene
        .machine
        .install(watcher, Object::System, Rights::SYSTEM);
    let entry = scene.machine.kernel.spaces.get(client.space).unwrap();
    let endpoint = entry.handles.get(scene.send).unwrap().object;
    let mute = scene
        .machine
        .install(watcher, endpoint, Rights::all() - Rights::SEND);
    let ask = |machine: &mut Machine, handle, topic: InfoTopic, place| {
        let args = [topic as u64, place, 0, 0, 0, 0];
        machine.call(watcher, Call::Info, handle, args).unwrap()
    };
    let topics = [
        InfoTopic::Member,
        InfoTopic::Range,
        InfoTopic::Pages,
        InfoTopic::Registers,
    ];
    let machine = &mut scene.machine;
    for topic in topics {
        assert_eq!(ask(machine, Handle::NONE, topic, 0), Err(Error::BadHandle));
        assert_eq!(ask(machine, system, topic, 0), Err(Error::WrongType));
        assert_eq!(ask(machine, mute, topic, 0), Err(Error::WrongType));
        assert_eq!(ask(machine, blind, topic, 0), Err(Error::Denied));
    }
    assert_eq!(
        ask(machine, read, InfoTopic::Endpoint, 0),
        Err(Error::WrongType)
    );
    assert_eq!(
        ask(machine, mute, InfoTopic::Endpoint, 0),
        Err(Error::Denied)
    );
    for (topic, unaligned) in [(InfoTopic::Range, 1), (InfoTopic::Pages, 4096)] {
        assert_eq!(ask(machine, read, topic, unaligned), Err(Error::Unaligned));
        for outside in [USER_END, u64::MAX, 1 << 63] {
            assert_eq!(ask(machine, read, topic, outside), Err(Error::BadArgument));
        }
    }
    for nobody in [0, u64::MAX, number(watcher)] {
        let told = ask(machine, read, InfoTopic::Registers, nobody);
        assert_eq!(told, Err(Error::Died));
    }
    machine.kernel.kill_space(client.space);
    for topic in topics {
        let told = ask(machine, read, topic, 0).unwrap();
        assert_eq!((told.rdi, told.rsi, told.rdx), (0, 0, 0), "the dead answer");
    }
    scene.machine.finish();
}

#[test]
fn a_range_is_told_with_its_rights() {
    let mut scene = Scene::new();
    let space = Object::Space(scene.client.space);
    let read = scene.machine.install(scene.watcher, space, Rights::READ);
    let mut ask = |place| {
        let args = [InfoTopic::Range as u64, place, 0, 0, 0, 0];
        scene.machine.ok(scene.watcher, Call::Info, read, args)
    };
    let below = ask(0);
    assert_eq!(RangeKind::from_word(below.rsi), RangeKind::Empty);
    assert!(below.rdi <= BUFFER);
    let buffer = ask(BUFFER);
    assert_eq!(RangeKind::from_word(buffer.rsi), RangeKind::Private);
    assert_eq!(
        (buffer.rdi, buffer.rdx),
        (BUFFER + BUFFER_LEN, Perm::RW.bits())
    );
    assert_eq!((buffer.r8, buffer.r9), (1, 0));
    scene.machine.finish();
}
