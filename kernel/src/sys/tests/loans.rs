//! Who runs at whose priority, and until when.

use std::collections::HashMap;

use cowslip_abi::{Call, Error, FaultVerdict, Handle, Rights, Tag, ThreadField};

use super::machine::{BUFFER, Machine, ORDERS, Program, START};
use crate::object::{Id, Object, State, Supervisor, Thread};

const NOTHING: [u64; 6] = [0; 6];

/// Programs with a priority of their own, each with an endpoint to receive at, and handles to those of others.
struct Town {
    machine: Machine,
    receive: HashMap<usize, Handle>,
}

impl Town {
    fn new() -> Self {
        Self {
            machine: Machine::new(4096),
            receive: HashMap::new(),
        }
    }

    /// A program of this priority.
    fn add(&mut self, priority: u64) -> Program {
        let program = self.machine.program();
        self.set_base(program, priority);
        program
    }

    fn set_base(&mut self, program: Program, priority: u64) {
        let thread = self.machine.kernel.threads.get(program.thread);
        if matches!(thread.unwrap().state, State::Runnable) {
            let args = [ThreadField::Priority as u64, priority, 0, 0, 0, 0];
            self.machine
                .ok(program, Call::ThreadSet, Handle::NONE, args);
        } else {
            let other = self.machine.program();
            let rights = Rights::MANAGE;
            let handle = self
                .machine
                .install(other, Object::Thread(program.thread), rights);
            let args = [ThreadField::Priority as u64, priority, 0, 0, 0, 0];
            self.machine.ok(other, Call::ThreadSet, handle, args);
            self.machine.kernel.kill_space(other.space);
        }
    }

    /// The handle with which a program receives at the endpoint of a server, of which it is a part.
    fn receive(&mut self, server: Program) -> Handle {
        let index = server.space.index();
        if let Some(handle) = self.receive.get(&index) {
            return *handle;
        }
        let made = self
            .machine
            .ok(server, Call::EndpointCreate, Handle::NONE, NOTHING);
        let handle = Handle(made.rdi as u32);
        self.receive.insert(index, handle);
        handle
    }

    /// The endpoint of a server.
    fn endpoint(&mut self, server: Program) -> Object {
        let receive = self.receive(server);
        let space = self.machine.kernel.spaces.get(server.space).unwrap();
        space.handles.get(receive).unwrap().object
    }

    /// A new handle with which a program sends to a server.
    fn way_to(&mut self, server: Program, client: Program) -> Handle {
        let object = self.endpoint(server);
        self.machine.install(client, object, Rights::SEND)
    }

    /// A program waits for a message, or gets the one that waits: then its token.
    fn recv(&mut self, server: Program) -> Option<u64> {
        let handle = self.receive(server);
        let result = self.machine.call(server, Call::Recv, handle, NOTHING)?;
        Some(result.unwrap().r8)
    }

    /// A program sends to another one, and waits.
    fn send(&mut self, client: Program, server: Program) {
        let handle = self.way_to(server, client);
        let result = self.machine.call(client, Call::Send, handle, NOTHING);
        assert!(result.is_none(), "{result:?}");
    }

    /// A program receives a message of another one, so that it owes an answer. Returns the token.
    fn serve(&mut self, server: Program, client: Program) -> u64 {
        assert_eq!(self.recv(server), None);
        self.send(client, server);
        self.machine.result(server.thread).unwrap().unwrap().r8
    }

    fn reply(&mut self, server: Program, token: u64) {
        let args = [token, 0, 0, 0, 0, 0];
        self.machine.ok(server, Call::Reply, Handle::NONE, args);
    }

    /// Another thread of a program.
    fn sibling(&mut self, program: Program) -> Program {
        let kernel = &mut self.machine.kernel;
        let thread = kernel.create_thread(program.space, None, 1).unwrap();
        kernel.start_thread(thread, &START).unwrap();
        Program { thread, ..program }
    }

    fn priority(&self, of: Program) -> u8 {
        self.thread(of.thread).priority
    }

    fn priorities<const N: usize>(&self, of: [Program; N]) -> [u8; N] {
        of.map(|program| self.priority(program))
    }

    fn thread(&self, id: Id<Thread>) -> &Thread {
        self.machine.kernel.threads.get(id).unwrap()
    }

    fn kill(&mut self, program: Program) {
        self.machine.kernel.kill_space(program.space);
        self.machine.assert_settled();
    }
}

#[test]
fn a_queued_sender_lends_until_it_is_answered() {
    let mut town = Town::new();
    let (server, low, high) = (town.add(2), town.add(3), town.add(9));
    let first = town.serve(server, low);
    assert_eq!(town.priority(server), 3);
    town.send(high, server);
    assert_eq!(town.priority(server), 9, "while it works for another");
    town.reply(server, first);
    assert_eq!(town.priority(server), 9, "until it comes to the message");
    let second = town.recv(server).expect("it is queued");
    assert_eq!(town.priority(server), 9);
    town.reply(server, second);
    assert_eq!(town.priority(server), 2);
    town.machine.finish();
}

#[test]
fn the_highest_priority_is_received_first_and_equals_in_their_order() {
    let mut town = Town::new();
    let (server, busy) = (town.add(1), town.add(1));
    let clients = [4, 9, 4, 9, 6].map(|priority| town.add(priority));
    town.serve(server, busy);
    for client in clients {
        town.send(client, server);
    }
    for expected in [1, 3, 4, 0, 2] {
        let token = town.recv(server).expect("five are queued");
        let is_received = |client: &Program| {
            matches!(
                town.thread(client.thread).state,
                State::AwaitingReply { .. }
            )
        };
        assert_eq!(clients.iter().filter(|c| is_received(c)).count(), 1);
        assert!(is_received(&clients[expected]), "not {expected}");
        town.reply(server, token);
    }
    town.machine.finish();
}

#[test]
fn a_chain_of_three_runs_at_the_priority_of_who_waits_for_it() {
    let mut town = Town::new();
    let [back, middle, front] = [1, 2, 3].map(|priority| town.add(priority));
    let [x, y, z, high] = [1, 1, 1, 12].map(|priority| town.add(priority));
    // Each is busy with another client when the next one queues.
    town.serve(back, x);
    town.serve(middle, y);
    town.serve(front, z);
    town.send(middle, back);
    town.send(front, middle);
    assert_eq!(town.priorities([back, middle, front]), [3, 3, 3]);
    town.send(high, front);
    assert_eq!(town.priorities([back, middle, front]), [12, 12, 12]);
    town.kill(high);
    assert_eq!(town.priorities([back, middle, front]), [3, 3, 3]);
    town.machine.finish();
}

#[test]
fn a_chain_goes_on_over_messages_that_were_received() {
    let mut town = Town::new();
    let [back, front, high] = [1, 2, 12].map(|priority| town.add(priority));
    let low = town.add(1);
    town.serve(front, low);
    let token = town.serve(back, front);
    town.send(high, front);
    assert_eq!(town.priorities([back, front]), [12, 12]);
    town.reply(back, token);
    assert_eq!(town.priorities([back, front]), [1, 12]);
    town.machine.finish();
}

#[test]
fn a_sender_takes_its_place_among_the_queued_by_what_it_is_lent() {
    let mut town = Town::new();
    let [server, low, middle, high] = [1, 2, 3, 12].map(|priority| town.add(priority));
    let busy = [town.add(1), town.add(1)];
    town.serve(server, busy[0]);
    town.serve(low, busy[1]);
    town.send(middle, server);
    town.send(low, server);
    town.send(high, low);
    town.recv(server).expect("two are queued");
    let state = town.thread(low.thread).state;
    assert!(matches!(state, State::AwaitingReply { .. }), "{state:?}");
    town.machine.finish();
}

#[test]
fn a_cycle_keeps_nobody_busy_and_gives_back_when_it_is_broken() {
    let mut town = Town::new();
    let ring = [1, 2, 3].map(|priority| town.add(priority));
    let [x, y, z, high] = [1, 1, 1, 12].map(|priority| town.add(priority));
    for (server, client) in ring.iter().zip([x, y, z]) {
        town.serve(*server, client);
    }
    for i in 0..3 {
        town.send(ring[i], ring[(i + 1) % 3]);
    }
    assert_eq!(town.priorities(ring), [3; 3]);
    town.send(high, ring[0]);
    assert_eq!(town.priorities(ring), [12; 3]);
    assert!(town.machine.kernel.reap(), "nothing goes round and round");
    // They keep it among themselves, and cannot use it.
    town.kill(high);
    assert!(town.machine.kernel.reap());
    town.kill(ring[0]);
    assert_eq!(town.priorities([ring[1], ring[2]]), [2, 3]);
    town.machine.finish();
}

#[test]
fn a_death_in_the_middle_of_a_chain_ends_the_loan_beyond() {
    let mut town = Town::new();
    let [back, middle, front, high] = [1, 2, 3, 12].map(|priority| town.add(priority));
    let [x, y, z] = [1, 1, 1].map(|priority| town.add(priority));
    town.serve(back, x);
    town.serve(middle, y);
    town.serve(front, z);
    town.send(middle, back);
    town.send(front, middle);
    town.send(high, front);
    town.kill(middle);
    assert_eq!(town.priorities([back, front]), [1, 12]);
    assert_eq!(
        town.machine.result(front.thread),
        Some(Err(Error::Died)),
        "its message is lost"
    );
    town.kill(high);
    assert_eq!(town.priority(front), 3);
    town.machine.finish();
}

#[test]
fn an_endpoint_that_ends_gives_back_what_was_lent_there() {
    let mut town = Town::new();
    let [server, low, high] = [1, 2, 12].map(|priority| town.add(priority));
    let token = town.serve(server, low);
    town.send(high, server);
    let receive = town.receive(server);
    town.machine.ok(server, Call::HandleClose, receive, NOTHING);
    assert_eq!(town.machine.result(high.thread), Some(Err(Error::Died)));
    assert_eq!(town.priority(server), 2, "the other one waits still");
    town.reply(server, token);
    assert_eq!(town.priority(server), 1);
    town.machine.finish();
}

#[test]
fn a_change_of_the_own_priority_counts_once_nothing_higher_is_lent() {
    let mut town = Town::new();
    let [server, low, high] = [5, 2, 12].map(|priority| town.add(priority));
    let first = town.serve(server, low);
    town.send(high, server);
    town.set_base(server, 3);
    assert_eq!(town.priority(server), 12);
    town.set_base(high, 8);
    assert_eq!(town.priority(server), 8, "a lender's counts at once");
    town.set_base(high, 14);
    assert_eq!(town.priority(server), 14);
    town.reply(server, first);
    let second = town.recv(server).unwrap();
    town.set_base(high, 10);
    assert_eq!(town.priority(server), 10, "a received one's too");
    town.reply(server, second);
    assert_eq!(town.priority(server), 3);
    town.machine.finish();
}

#[test]
fn a_server_with_several_unanswered_runs_at_the_highest_that_is_left() {
    for order in ORDERS {
        let mut town = Town::new();
        let server = town.add(1);
        let clients = [9, 4, 6].map(|priority| town.add(priority));
        let tokens = clients.map(|client| town.serve(server, client));
        assert_eq!(town.priority(server), 9);
        let mut waiting = vec![9, 4, 6];
        for which in order {
            town.reply(server, tokens[which]);
            waiting.retain(|priority| *priority != [9, 4, 6][which]);
            let highest = waiting.iter().copied().max().unwrap_or(1);
            assert_eq!(town.priority(server), highest, "{order:?}");
        }
        town.machine.finish();
    }
}

#[test]
fn a_client_that_is_killed_takes_its_priority_back() {
    let mut town = Town::new();
    let server = town.add(1);
    let clients = [9, 4, 6].map(|priority| town.add(priority));
    for client in clients {
        town.serve(server, client);
    }
    for (client, left) in [(0, 6), (2, 4), (1, 1)] {
        town.kill(clients[client]);
        assert_eq!(town.priority(server), left);
    }
    town.machine.finish();
}

#[test]
fn an_answer_of_a_sibling_ends_the_loan_to_who_has_received() {
    let mut town = Town::new();
    let (server, client) = (town.add(1), town.add(9));
    let sibling = town.sibling(server);
    let token = town.serve(server, client);
    town.reply(sibling, token);
    assert_eq!(town.priorities([server, sibling]), [1, 1]);
    town.machine.finish();
}

#[test]
fn answers_that_a_thread_leaves_are_its_siblings_to_give() {
    let mut town = Town::new();
    let server = town.add(1);
    let sibling = town.sibling(server);
    let clients = [9, 4, 6].map(|priority| town.add(priority));
    let tokens = clients.map(|client| town.serve(server, client));
    town.machine.kernel.kill_thread(server.thread);
    for client in clients {
        let state = town.thread(client.thread).state;
        assert!(matches!(state, State::AwaitingReply { .. }), "{state:?}");
    }
    town.reply(sibling, tokens[1]);
    assert!(town.machine.result(clients[1].thread).unwrap().is_ok());
    town.kill(clients[0]);
    town.set_base(clients[2], 2);
    town.kill(server);
    assert_eq!(
        town.machine.result(clients[2].thread),
        Some(Err(Error::Died))
    );
    town.machine.finish();
}

#[test]
fn all_who_serve_an_endpoint_borrow_up_to_the_eight_that_came_last() {
    let mut town = Town::new();
    let server = town.add(1);
    let mut pool = vec![server];
    pool.extend((1..10).map(|_| town.sibling(server)));
    for worker in &pool {
        let busy = town.add(1);
        town.serve(*worker, busy);
    }
    let high = town.add(12);
    town.send(high, server);
    let count = |town: &Town, of: &[Program]| {
        let raised = of.iter().filter(|worker| town.priority(**worker) == 12);
        raised.count()
    };
    assert_eq!((count(&town, &pool[..2]), count(&town, &pool[2..])), (0, 8));
    // One goes to serve another endpoint, and one that came before is the eighth.
    let made = town
        .machine
        .ok(pool[9], Call::EndpointCreate, Handle::NONE, NOTHING);
    let elsewhere = Handle(made.rdi as u32);
    let waits = town.machine.call(pool[9], Call::Recv, elsewhere, NOTHING);
    assert!(waits.is_none());
    assert_eq!((town.priority(pool[9]), count(&town, &pool)), (1, 8));
    town.machine.kernel.kill_thread(pool[8].thread);
    town.machine.assert_settled();
    assert_eq!((count(&town, &pool[..8]), town.priority(pool[0])), (8, 12));
    town.recv(pool[3]).expect("one is queued");
    assert_eq!((count(&town, &pool[..8]), town.priority(pool[3])), (1, 12));
    town.machine.finish();
}

#[test]
fn a_rise_goes_a_bounded_way_and_a_fall_all_of_it() {
    const NR: usize = 70;
    let mut town = Town::new();
    let chain: Vec<_> = (0..NR).map(|_| town.add(1)).collect();
    for server in &chain {
        let client = town.add(1);
        town.serve(*server, client);
    }
    for i in 1..NR {
        town.send(chain[i], chain[i - 1]);
    }
    let high = town.add(12);
    town.send(high, chain[NR - 1]);
    while !town.machine.kernel.reap() {}
    let nr_raised = |town: &Town| chain.iter().filter(|c| town.priority(**c) == 12).count();
    assert_eq!(nr_raised(&town), 64);
    // What came further by another event goes back too.
    town.set_base(chain[3], 2);
    town.kill(high);
    while !town.machine.kernel.reap() {}
    assert_eq!(nr_raised(&town), 0);
    assert_eq!(town.priorities([chain[0], chain[3], chain[4]]), [2, 2, 1]);
    town.machine.finish();
}

#[test]
fn a_thread_with_a_fault_lends_like_a_sender() {
    let mut town = Town::new();
    let (server, low) = (town.add(1), town.add(2));
    town.serve(server, low);
    let Object::Endpoint(endpoint) = town.endpoint(server) else {
        panic!("no endpoint");
    };
    let supervisor = Supervisor { endpoint, badge: 7 };
    let faulty = town.machine.supervised_program(Some(supervisor));
    town.machine.run(faulty.thread);
    town.machine
        .page_fault(0x6666_0000, cowslip_abi::Access::Write);
    assert_eq!(town.priority(server), 16);
    let token = town.recv(server).expect("the report is queued");
    assert_eq!(town.priority(server), 16);
    let kill = FaultVerdict::Kill as u64;
    let args = [token, kill, 0, 0, 0, 0];
    town.machine.ok(server, Call::Reply, Handle::NONE, args);
    assert_eq!(town.priority(server), 2);
    town.machine.finish();
}

#[test]
fn a_message_lends_what_its_sender_has_when_all_of_it_has_arrived() {
    let mut town = Town::new();
    let (server, high, other) = (town.add(1), town.add(9), town.add(1));
    let to_itself = town.way_to(server, server);
    let endpoint = town.endpoint(server);
    let receive = town.machine.install(other, endpoint, Rights::RECV);
    town.serve(server, high);
    // Queued where it serves, it lends to itself, and goes on with that when nobody else lends.
    let gift = town.machine.install(server, Object::System, Rights::COPY);
    let tag = Tag::new(0).with_handles(1).moving_handles().0;
    town.machine
        .set_words(server.thread, [0, 0, gift.0.into(), 0]);
    let sent = [0, tag, 0, 0, 0, 0];
    let sent = town.machine.call(server, Call::Send, to_itself, sent);
    assert!(sent.is_none());
    town.machine.kernel.kill_space(high.space);
    assert_eq!(town.priority(server), 9);
    // That ends when it is received, before the handle has moved.
    town.machine.ok(other, Call::Recv, receive, NOTHING);
    assert_eq!((town.priority(server), town.priority(other)), (1, 1));
    town.machine.finish();
}

#[test]
fn who_is_bound_to_a_long_message_lends_and_takes_back() {
    let mut town = Town::new();
    let (server, low, other) = (town.add(12), town.add(1), town.add(1));
    let receive = town.receive(server);
    let send = town.way_to(server, low);
    const LONG: u64 = 40 * 4096;
    for program in [server, low] {
        let table = &town.machine.kernel.spaces.get(program.space).unwrap().table;
        let at = BUFFER + 0x10_0000;
        let rw = cowslip_abi::Perm::RW;
        table
            .map_zero(town.machine.kernel.mm, at, 2 * LONG, rw)
            .unwrap();
        for page in (at..at + 2 * LONG).step_by(4096) {
            crate::vm::write_user(town.machine.kernel.mm, table, page, &[1]).unwrap();
        }
    }
    let (data, buffer) = (BUFFER + 0x10_0001, BUFFER + 0x10_0000);
    let waits = town
        .machine
        .call(server, Call::Recv, receive, [0, 0, 0, 0, buffer, LONG]);
    assert!(waits.is_none());
    let args = [0, Tag::new(1).0, data, LONG, 0, 0];
    town.machine.begin(low, Call::Send, send, args);
    assert_eq!(town.priority(low), 12, "the receiver waits for it");
    town.kill(server);
    assert_eq!(town.priorities([low, other]), [1, 1]);
    town.machine.finish();
}

/// The thread of the highest priority that waits for the CPU.
fn first_in_queue(town: &Town) -> Option<Id<Thread>> {
    town.machine.kernel.cpus.here().run_queue.first()
}

#[test]
fn a_loan_that_comes_and_goes_costs_no_turn() {
    let mut town = Town::new();
    let [server, other, low] = [5, 5, 1].map(|priority| town.add(priority));
    town.serve(server, low);
    town.machine.run(other.thread);
    assert_eq!(first_in_queue(&town), Some(server.thread));
    let [high, top] = [9, 15].map(|priority| town.add(priority));
    town.send(high, server);
    assert_eq!(town.priority(server), 9);
    town.machine.run(top.thread);
    assert_eq!(first_in_queue(&town), Some(server.thread));
    town.kill(high);
    assert_eq!(town.priority(server), 5);
    assert_eq!(first_in_queue(&town), Some(server.thread));
    town.machine.finish();
}

#[test]
fn a_thread_keeps_its_turn_if_its_priority_is_set_to_what_it_is() {
    let mut town = Town::new();
    let [first, second, runs] = [5, 5, 5].map(|priority| town.add(priority));
    town.machine.run(runs.thread);
    assert_eq!(first_in_queue(&town), Some(first.thread));
    let rights = Rights::MANAGE;
    let handle = town
        .machine
        .install(runs, Object::Thread(first.thread), rights);
    let args = [ThreadField::Priority as u64, 5, 0, 0, 0, 0];
    town.machine.ok(runs, Call::ThreadSet, handle, args);
    assert_eq!(first_in_queue(&town), Some(first.thread));
    town.machine.kernel.kill_thread(first.thread);
    assert_eq!(first_in_queue(&town), Some(second.thread));
    town.machine.finish();
}
