//! Messages that take more than one step: others run in between, and may be killed.

use cowslip_abi::{Call, Error, Handle, Perm, Rights, Tag};

use super::machine::{Machine, Program, START};
use crate::object::State;

/// Where every program has more memory than one step copies.
const AREA: u64 = 0x4000_0000;
const AREA_LEN: u64 = 64 * 4096;
/// Not at the same offset in the page on both sides: bytes are copied.
const FROM: u64 = AREA + 8;
const LEN: u64 = 40 * 4096;

struct Pair {
    machine: Machine,
    server: Program,
    receive: Handle,
    client: Program,
    send: Handle,
}

/// A server and a client with written memory.
fn pair() -> Pair {
    let mut machine = Machine::new(1000);
    let (server, client) = (program(&mut machine), program(&mut machine));
    let (receive, send) = machine.service(server, client, 7);
    machine.write(client, FROM, &contents(1));
    machine.write(server, AREA, &contents(2));
    Pair {
        machine,
        server,
        receive,
        client,
        send,
    }
}

fn program(machine: &mut Machine) -> Program {
    let program = machine.program();
    let table = &machine.kernel.spaces.get(program.space).unwrap().table;
    table
        .map_zero(machine.kernel.mm, AREA, AREA_LEN, Perm::RW)
        .unwrap();
    program
}

fn contents(seed: u8) -> Vec<u8> {
    (0..LEN).map(|n| (n / 1000) as u8 ^ seed).collect()
}

impl Pair {
    fn receive(&mut self) {
        let args = [0, 0, 0, 0, AREA, AREA_LEN];
        assert!(
            self.machine
                .call(self.server, Call::Recv, self.receive, args)
                .is_none()
        );
    }

    fn begin_send(&mut self) {
        let args = [0, 9, FROM, LEN, AREA, AREA_LEN];
        self.machine.begin(self.client, Call::Send, self.send, args);
    }

    fn queue(&mut self, client: Program, send: Handle) {
        let args = [0, 9, FROM, LEN, AREA, AREA_LEN];
        let sent = self.machine.call(client, Call::Send, send, args);
        assert!(sent.is_none());
    }

    /// Another client with the same right to send.
    fn another(&mut self) -> (Program, Handle) {
        let handles = &self
            .machine
            .kernel
            .spaces
            .get(self.server.space)
            .unwrap()
            .handles;
        let object = handles.get(self.receive).unwrap().object;
        let other = program(&mut self.machine);
        let send = self.machine.install(other, object, Rights::SEND);
        (other, send)
    }

    /// Steps until the bytes are on their way.
    fn reach_the_bytes(&mut self, caller: Program, target: Program) {
        let untouched = self.machine.read(target, AREA, LEN as usize);
        while self.machine.read(target, AREA, LEN as usize) == untouched {
            assert!(self.machine.is_long(caller.thread), "done in one step");
            self.machine.step(caller.thread);
        }
        assert!(self.machine.is_long(caller.thread), "done in one step");
    }

    fn finish_call(&mut self, caller: Program) {
        while self.machine.is_long(caller.thread) {
            self.machine.step(caller.thread);
        }
    }

    fn kill(&mut self, program: Program) {
        self.machine.kernel.kill_thread(program.thread);
    }

    fn expect_message(&self) {
        let got = self.machine.result(self.server.thread).unwrap().unwrap();
        assert_eq!((Tag(got.rsi).label(), got.rdx), (9, LEN));
        let bytes = self.machine.read(self.server, AREA, LEN as usize);
        assert!(bytes == contents(1), "other bytes");
    }

    fn state(&self, program: Program) -> State {
        self.machine
            .kernel
            .threads
            .get(program.thread)
            .unwrap()
            .state
    }
}

#[test]
fn lesson_20_a_sender_takes_steps_and_the_message_arrives_whole() {
    let mut pair = pair();
    pair.receive();
    pair.begin_send();
    pair.reach_the_bytes(pair.client, pair.server);
    assert!(pair.machine.result(pair.server.thread).is_none());
    pair.finish_call(pair.client);
    pair.expect_message();
    pair.machine.finish();
}

#[test]
fn lesson_20_a_receiver_takes_steps_and_the_message_arrives_whole() {
    let mut pair = pair();
    pair.queue(pair.client, pair.send);
    let args = [0, 0, 0, 0, AREA, AREA_LEN];
    pair.machine
        .begin(pair.server, Call::Recv, pair.receive, args);
    pair.reach_the_bytes(pair.server, pair.server);
    pair.finish_call(pair.server);
    pair.expect_message();
    assert!(matches!(
        pair.state(pair.client),
        State::AwaitingReply { .. }
    ));
    pair.machine.finish();
}

#[test]
fn a_reply_and_the_next_message_take_steps_in_one_call() {
    let mut pair = pair();
    pair.receive();
    pair.begin_send();
    pair.finish_call(pair.client);
    let token = pair.machine.result(pair.server.thread).unwrap().unwrap().r8;
    let (other, send) = pair.another();
    pair.machine.write(other, FROM, &contents(1));
    pair.queue(other, send);
    // The reply goes from an odd place to an even one, and is what arrived.
    pair.machine.write(pair.server, AREA + 3, &contents(4));
    let args = [token, 5, AREA + 3, LEN, AREA, AREA_LEN];
    pair.machine
        .begin(pair.server, Call::ReplyRecv, pair.receive, args);
    pair.finish_call(pair.server);
    let reply = pair.machine.result(pair.client.thread).unwrap().unwrap();
    assert_eq!((Tag(reply.rsi).label(), reply.rdx), (5, LEN));
    assert!(pair.machine.read(pair.client, AREA, LEN as usize) == contents(4));
    pair.expect_message();
    assert!(matches!(pair.state(other), State::AwaitingReply { .. }));
    pair.machine.finish();
}

#[test]
fn lesson_17_a_sender_that_is_killed_between_steps_leaves_the_receiver_waiting() {
    for steps in 0..6 {
        let mut pair = pair();
        pair.receive();
        pair.begin_send();
        (0..steps).for_each(|_| pair.machine.step(pair.client.thread));
        pair.kill(pair.client);
        assert!(matches!(pair.state(pair.server), State::Receiving { .. }));
        let (other, send) = pair.another();
        pair.machine.write(other, FROM, &contents(1));
        let args = [0, 9, FROM, LEN, AREA, AREA_LEN];
        pair.machine.begin(other, Call::Send, send, args);
        pair.finish_call(other);
        pair.expect_message();
        pair.machine.finish();
    }
}

#[test]
fn lesson_17_a_receiver_that_is_killed_between_steps_leaves_the_message_to_the_next() {
    for steps in 0..6 {
        let mut pair = pair();
        pair.queue(pair.client, pair.send);
        let receiver = pair.second_receiver();
        let args = [0, 0, 0, 0, AREA, AREA_LEN];
        pair.machine.begin(receiver, Call::Recv, pair.receive, args);
        (0..steps).for_each(|_| pair.machine.step(receiver.thread));
        pair.machine.kernel.kill_thread(receiver.thread);
        pair.finish_call(pair.client);
        assert!(matches!(pair.state(pair.client), State::Sending { .. }));
        pair.machine
            .begin(pair.server, Call::Recv, pair.receive, args);
        pair.finish_call(pair.server);
        pair.expect_message();
        pair.machine.finish();
    }
}

#[test]
fn a_sender_whose_receiver_is_killed_between_steps_finds_another() {
    let mut pair = pair();
    let receiver = pair.second_receiver();
    let args = [0, 0, 0, 0, AREA, AREA_LEN];
    assert!(
        pair.machine
            .call(receiver, Call::Recv, pair.receive, args)
            .is_none()
    );
    pair.begin_send();
    pair.reach_the_bytes(pair.client, pair.server);
    pair.machine.kernel.kill_thread(receiver.thread);
    pair.machine.write(pair.server, AREA, &contents(2));
    pair.receive_later();
    pair.finish_call(pair.client);
    pair.finish_call(pair.server);
    pair.expect_message();
    pair.machine.finish();
}

#[test]
fn what_comes_while_a_receiver_is_bound_is_not_lost() {
    let mut pair = pair();
    pair.receive();
    pair.begin_send();
    pair.machine.step(pair.client.thread);
    let (other, send) = pair.another();
    pair.machine.write(other, FROM, &contents(1));
    pair.queue(other, send);
    pair.kill(pair.client);
    // The other one makes its call again, and finds the receiver.
    pair.finish_call(other);
    pair.expect_message();
    pair.machine.finish();
}

#[test]
fn a_reply_to_a_client_that_is_killed_between_steps_is_stale() {
    let mut pair = pair();
    pair.receive();
    pair.begin_send();
    pair.finish_call(pair.client);
    let token = pair.machine.result(pair.server.thread).unwrap().unwrap().r8;
    let args = [token, 5, AREA + 3, LEN, 0, 0];
    pair.machine
        .begin(pair.server, Call::Reply, Handle::NONE, args);
    pair.reach_the_bytes(pair.server, pair.client);
    pair.kill(pair.client);
    pair.finish_call(pair.server);
    let failed = pair.machine.result(pair.server.thread).unwrap();
    assert_eq!(failed.unwrap_err(), Error::StaleToken);
    pair.machine.finish();
}

#[test]
fn lesson_12_a_long_message_with_a_bad_end_moves_nothing() {
    let mut pair = pair();
    pair.receive();
    let before = pair.machine.read(pair.server, AREA, AREA_LEN as usize);
    let args = [0, 9, FROM, AREA_LEN, 0, 0];
    pair.machine.begin(pair.client, Call::Send, pair.send, args);
    pair.finish_call(pair.client);
    let failed = pair.machine.result(pair.client.thread).unwrap();
    assert_eq!(failed.unwrap_err(), Error::NotMapped);
    assert!(pair.machine.read(pair.server, AREA, AREA_LEN as usize) == before);
    // The receiver waits as before.
    pair.begin_send();
    pair.finish_call(pair.client);
    pair.expect_message();
    pair.machine.finish();
}

#[test]
fn lesson_12_a_long_message_without_the_memory_moves_nothing() {
    let mut pair = pair();
    let table = &pair
        .machine
        .kernel
        .spaces
        .get(pair.server.space)
        .unwrap()
        .table;
    let mm = pair.machine.kernel.mm;
    table.unmap(mm, AREA, AREA_LEN).unwrap();
    table.map_zero(mm, AREA, AREA_LEN, Perm::RW).unwrap();
    pair.receive();
    pair.machine.free();
    let mut hoard = Vec::new();
    while mm.frames.free_count() > LEN / 4096 - 1 {
        hoard.extend(mm.frames.alloc());
    }
    pair.begin_send();
    pair.finish_call(pair.client);
    let failed = pair.machine.result(pair.client.thread).unwrap();
    assert_eq!(failed.unwrap_err(), Error::NoMemory);
    assert_eq!(mm.frames.free_count(), LEN / 4096 - 1);
    hoard.into_iter().for_each(|frame| mm.frames.free(frame));
    pair.begin_send();
    pair.finish_call(pair.client);
    pair.expect_message();
    pair.machine.finish();
}

#[test]
fn a_long_move_leaves_zeros_all_over() {
    let mut pair = pair();
    pair.receive();
    let tag = Tag::new(9).moving_pages().0;
    let args = [0, tag, FROM, LEN, AREA, AREA_LEN];
    pair.machine.begin(pair.client, Call::Send, pair.send, args);
    pair.finish_call(pair.client);
    pair.expect_message();
    let left = pair
        .machine
        .read(pair.client, AREA + 4096, LEN as usize - 4096);
    assert!(left.iter().all(|byte| *byte == 0), "not all is zero");
    pair.machine.finish();
}

#[test]
fn a_receiver_fails_if_its_endpoint_dies_between_steps() {
    let mut pair = pair();
    pair.receive();
    pair.begin_send();
    pair.machine.step(pair.client.thread);
    pair.machine
        .kernel
        .close(pair.server.space, pair.receive)
        .unwrap();
    pair.finish_call(pair.client);
    for program in [pair.client, pair.server] {
        let failed = pair.machine.result(program.thread).unwrap();
        assert_eq!(failed.unwrap_err(), Error::Died);
    }
    pair.machine.finish();
}

impl Pair {
    /// Another thread of the server.
    fn second_receiver(&mut self) -> Program {
        let kernel = &mut self.machine.kernel;
        let space = self.server.space;
        let thread = kernel.create_thread(space, None, 16).unwrap();
        kernel.start_thread(thread, &START).unwrap();
        Program { space, thread }
    }

    /// The server receives: nobody has found it yet.
    fn receive_later(&mut self) {
        self.receive();
        assert!(matches!(self.state(self.server), State::Receiving { .. }));
    }
}
