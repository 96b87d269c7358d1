//! Waiting for the clock: sleep, and calls that give up.

use std::sync::atomic::Ordering;

use cowslip_abi::{Access, Call, Error, Handle, MessageKind, Perm, RecvFlags, Tag};
use proptest::prelude::*;

use super::machine::{Machine, Program, kind};
use crate::object::{State, Supervisor};
use crate::sys;

const NOTHING: [u64; 6] = [0; 6];
const TIMED: u64 = Tag::new(5).with_deadline().0;

/// A server and a client.
struct Pair {
    machine: Machine,
    server: Program,
    receive: Handle,
    client: Program,
    send: Handle,
}

impl Pair {
    fn new() -> Self {
        let mut machine = Machine::new(1000);
        let (server, client) = (machine.program(), machine.program());
        let (receive, send) = machine.service(server, client, 7);
        Self {
            machine,
            server,
            receive,
            client,
            send,
        }
    }

    /// The client sends, and gives up at a time. It has to wait.
    fn send_until(&mut self, deadline_ns: u64) {
        let args = [deadline_ns, TIMED, 0, 0, 0, 0];
        let sent = self.machine.call(self.client, Call::Send, self.send, args);
        assert!(sent.is_none(), "it did not wait: {sent:?}");
    }

    /// The server receives, and gives up at a time. It has to wait.
    fn recv_until(&mut self, deadline_ns: u64) {
        let args = [deadline_ns, RecvFlags::DEADLINE.bits(), 0, 0, 0, 0];
        let got = self
            .machine
            .call(self.server, Call::Recv, self.receive, args);
        assert!(got.is_none(), "it did not wait: {got:?}");
    }

    /// The server receives. The token of what is there; `None` if it waits.
    fn recv(&mut self) -> Option<u64> {
        let got = self
            .machine
            .call(self.server, Call::Recv, self.receive, NOTHING);
        got.map(|got| got.expect("a message").r8)
    }

    fn reply(&mut self, token: u64) -> Result<(), Error> {
        let args = [token, 0, 0, 0, 0, 0];
        let replied = self
            .machine
            .call(self.server, Call::Reply, Handle::NONE, args);
        replied.expect("a reply does not wait").map(|_| ())
    }

    fn timed_out(&self, program: Program) -> bool {
        matches!(
            self.machine.result(program.thread),
            Some(Err(Error::TimedOut))
        )
    }
}

impl Machine {
    /// The clock comes to a time, and the timer runs out if it is due.
    fn until(&mut self, now_ns: u64) {
        self.platform.now_ns.store(now_ns, Ordering::Relaxed);
        while self
            .kernel
            .next_deadline()
            .is_some_and(|deadline| deadline <= now_ns)
        {
            sys::tick(&mut self.kernel);
            self.kernel.reap();
        }
        self.assert_settled();
    }
}

#[test]
fn a_sleeper_wakes_at_its_time_and_not_before() {
    let mut machine = Machine::new(256);
    let program = machine.program();
    let slept = machine.call(program, Call::Yield, Handle::NONE, [100, 0, 0, 0, 0, 0]);
    assert!(slept.is_none());
    let thread = machine.kernel.threads.get(program.thread).unwrap();
    assert!(matches!(thread.state, State::Sleeping));
    assert_eq!(sys::next(&mut machine.kernel).timer, Some(100));
    machine.until(99);
    assert!(machine.result(program.thread).is_none());
    machine.until(100);
    assert!(machine.result(program.thread).unwrap().is_ok());
    assert_eq!(machine.kernel.next_deadline(), None);
    machine.finish();
}

#[test]
fn a_time_that_has_passed_is_slept_through_at_once() {
    let mut machine = Machine::new(256);
    let program = machine.program();
    machine.until(1_000);
    machine.call(program, Call::Yield, Handle::NONE, [1, 0, 0, 0, 0, 0]);
    assert_eq!(sys::next(&mut machine.kernel).timer, Some(1));
    machine.until(1_000);
    assert!(machine.result(program.thread).unwrap().is_ok());
    machine.finish();
}

#[test]
fn a_send_that_nobody_receives_gives_up_and_leaves_no_trace() {
    let mut pair = Pair::new();
    pair.send_until(100);
    pair.machine.until(100);
    assert!(pair.timed_out(pair.client));
    assert_eq!(pair.recv(), None, "a message that nobody waits with");
    pair.machine.finish();
}

#[test]
fn a_send_that_nobody_answers_gives_up_and_its_token_is_stale() {
    let mut pair = Pair::new();
    pair.send_until(100);
    let token = pair.recv().unwrap();
    pair.machine.until(99);
    assert!(!pair.timed_out(pair.client));
    pair.machine.until(100);
    assert!(pair.timed_out(pair.client));
    assert_eq!(pair.reply(token), Err(Error::StaleToken));
    // The next request has another token.
    pair.send_until(200);
    let next = pair.recv().unwrap();
    assert_eq!(pair.reply(token), Err(Error::StaleToken));
    assert_eq!(pair.reply(next), Ok(()));
    assert!(pair.machine.result(pair.client.thread).unwrap().is_ok());
    pair.machine.finish();
}

#[test]
fn a_deadline_counts_for_one_call_and_no_longer() {
    let mut pair = Pair::new();
    pair.send_until(100);
    let token = pair.recv().unwrap();
    pair.reply(token).unwrap();
    assert_eq!(pair.machine.kernel.next_deadline(), None);
    let args = [0, 5, 0, 0, 0, 0];
    let sent = pair.machine.call(pair.client, Call::Send, pair.send, args);
    assert!(sent.is_none());
    pair.machine.until(1_000_000);
    assert!(!pair.timed_out(pair.client));
    pair.machine.finish();
}

#[test]
fn a_receive_gives_up_and_gets_nothing_that_comes_later() {
    let mut pair = Pair::new();
    pair.recv_until(100);
    pair.machine.until(100);
    assert!(pair.timed_out(pair.server));
    pair.send_until(200);
    assert!(
        pair.timed_out(pair.server),
        "its registers are its own again"
    );
    assert!(pair.recv().is_some());
    pair.machine.finish();
}

#[test]
fn a_receive_with_a_deadline_gets_what_comes_before() {
    let mut pair = Pair::new();
    pair.recv_until(100);
    pair.send_until(200);
    let got = pair.machine.result(pair.server.thread).unwrap().unwrap();
    assert_eq!((got.rdi, got.rsi), (7, 5), "badge and tag, no more");
    pair.machine.until(100);
    assert!(pair.machine.result(pair.server.thread).unwrap().is_ok());
    pair.reply(got.r8).unwrap();
    pair.machine.finish();
}

#[test]
fn a_notification_ends_a_wait_with_a_deadline() {
    let mut pair = Pair::new();
    pair.recv_until(100);
    pair.machine
        .ok(pair.client, Call::Notify, pair.send, NOTHING);
    let got = pair.machine.result(pair.server.thread).unwrap().unwrap();
    assert_eq!((kind(&got), got.r12), (MessageKind::Notification, 7));
    assert_eq!(pair.machine.kernel.next_deadline(), None);
    pair.machine.finish();
}

#[test]
fn a_fault_ends_a_wait_with_a_deadline() {
    let mut pair = Pair::new();
    let space = pair.machine.kernel.spaces.get(pair.server.space).unwrap();
    let crate::object::Object::Endpoint(endpoint) = space.handles.get(pair.receive).unwrap().object
    else {
        panic!("no endpoint");
    };
    let supervisor = Supervisor { endpoint, badge: 3 };
    let faulty = pair.machine.supervised_program(Some(supervisor));
    pair.recv_until(100);
    pair.machine.run(faulty.thread);
    pair.machine.page_fault(0xdead_0000, Access::Read);
    let got = pair.machine.result(pair.server.thread).unwrap().unwrap();
    assert_eq!((kind(&got), got.rdi), (MessageKind::Fault, 3));
    assert_eq!(pair.machine.kernel.next_deadline(), None);
    pair.machine.finish();
}

#[test]
fn who_gives_up_lends_no_priority_any_more() {
    let mut pair = Pair::new();
    let low = [0, 2, 0, 0, 0, 0];
    pair.machine
        .ok(pair.server, Call::ThreadSet, Handle::NONE, low);
    pair.recv_until(50);
    pair.send_until(100);
    let priority = |pair: &Pair| {
        let server = pair.machine.kernel.threads.get(pair.server.thread);
        server.unwrap().priority
    };
    assert_eq!(priority(&pair), 16);
    pair.machine.until(100);
    assert_eq!(priority(&pair), 2);
    pair.machine.finish();
}

#[test]
fn the_dead_have_no_deadlines() {
    let mut pair = Pair::new();
    pair.recv_until(50);
    pair.machine.kernel.kill_thread(pair.server.thread);
    pair.machine
        .call(pair.client, Call::Yield, Handle::NONE, [70, 0, 0, 0, 0, 0]);
    pair.machine.kernel.kill_space(pair.client.space);
    assert_eq!(pair.machine.kernel.next_deadline(), None);
    pair.machine.finish();
}

#[test]
fn a_dead_endpoint_is_told_before_the_deadline() {
    let mut pair = Pair::new();
    pair.send_until(100);
    pair.machine.kernel.kill_space(pair.server.space);
    let result = pair.machine.result(pair.client.thread).unwrap();
    assert_eq!(result.unwrap_err(), Error::Died);
    assert_eq!(pair.machine.kernel.next_deadline(), None);
    pair.machine.finish();
}

/// Where both have more memory than one step copies, not at the same offset in the page.
const AREA: u64 = 0x4000_0000;
const LEN: u64 = 40 * 4096;

impl Pair {
    fn with_areas() -> Self {
        let pair = Self::new();
        for program in [pair.server, pair.client] {
            let table = &pair.machine.kernel.spaces.get(program.space).unwrap().table;
            table
                .map_zero(pair.machine.kernel.mm, AREA, LEN + 4096, Perm::RW)
                .unwrap();
        }
        pair.machine
            .write(pair.client, AREA + 8, &[1; LEN as usize]);
        pair.machine.write(pair.server, AREA, &[2; LEN as usize]);
        pair
    }
}

#[test]
fn a_sender_gives_up_while_its_message_is_on_its_way() {
    let mut pair = Pair::with_areas();
    let free = pair.machine.kernel.mm.frames.free_count();
    let args = [100, TIMED, AREA + 8, LEN, 0, 0];
    let sent = pair.machine.call(pair.client, Call::Send, pair.send, args);
    assert!(sent.is_none());
    let args = [0, 0, 0, 0, AREA, LEN];
    pair.machine
        .begin(pair.server, Call::Recv, pair.receive, args);
    pair.machine.until(100);
    assert!(pair.timed_out(pair.client));
    while pair.machine.is_long(pair.server.thread) {
        pair.machine.step(pair.server.thread);
    }
    assert!(
        pair.machine.result(pair.server.thread).is_none(),
        "it waits"
    );
    assert_eq!(pair.machine.kernel.mm.frames.free_count(), free);
    pair.machine.finish();
}

#[test]
fn a_receiver_gives_up_while_a_message_is_on_its_way_to_it() {
    let mut pair = Pair::with_areas();
    let args = [100, RecvFlags::DEADLINE.bits(), 0, 0, AREA, LEN];
    let got = pair
        .machine
        .call(pair.server, Call::Recv, pair.receive, args);
    assert!(got.is_none());
    let args = [0, 5, AREA + 8, LEN, 0, 0];
    pair.machine.begin(pair.client, Call::Send, pair.send, args);
    pair.machine.until(100);
    assert!(pair.timed_out(pair.server));
    while pair.machine.is_long(pair.client.thread) {
        pair.machine.step(pair.client.thread);
    }
    assert!(
        pair.machine.result(pair.client.thread).is_none(),
        "it waits"
    );
    let args = [0, 0, 0, 0, AREA, LEN];
    let got = pair.machine.ok(pair.server, Call::Recv, pair.receive, args);
    assert_eq!(got.rdx, LEN);
    assert!(pair.machine.read(pair.server, AREA, LEN as usize) == [1; LEN as usize]);
    pair.machine.finish();
}

#[test]
fn a_long_send_that_gets_through_too_late_gives_up_after_it() {
    let mut pair = Pair::with_areas();
    let args = [0, 0, 0, 0, AREA, LEN];
    assert!(
        pair.machine
            .call(pair.server, Call::Recv, pair.receive, args)
            .is_none()
    );
    let args = [100, TIMED, AREA + 8, LEN, 0, 0];
    pair.machine.begin(pair.client, Call::Send, pair.send, args);
    pair.machine.until(200);
    while pair.machine.is_long(pair.client.thread) {
        pair.machine.step(pair.client.thread);
    }
    pair.machine.until(200);
    assert!(pair.timed_out(pair.client));
    let got = pair.machine.result(pair.server.thread).unwrap().unwrap();
    assert_eq!(pair.reply(got.r8), Err(Error::StaleToken));
    pair.machine.finish();
}

#[test]
fn many_deadlines_that_come_at_once_are_served_in_steps() {
    const MANY: usize = 200;
    let mut machine = Machine::new(4000);
    let programs: Vec<_> = (0..MANY).map(|_| machine.program()).collect();
    for program in &programs {
        machine.call(*program, Call::Yield, Handle::NONE, [100, 0, 0, 0, 0, 0]);
    }
    machine.platform.now_ns.store(100, Ordering::Relaxed);
    let awake = |machine: &Machine| {
        let is_awake = |program: &&Program| machine.result(program.thread).is_some();
        programs.iter().filter(is_awake).count()
    };
    for step in 1.. {
        sys::tick(&mut machine.kernel);
        assert_eq!(awake(&machine), MANY.min(step * 64));
        if awake(&machine) == MANY {
            break;
        }
        assert_eq!(sys::next(&mut machine.kernel).timer, Some(100));
    }
    assert_eq!(machine.kernel.next_deadline(), None);
    machine.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, ..Default::default() })]

    /// Sleepers, some of which are killed: the earliest is always the next.
    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines(
        deadlines in prop::collection::vec(1..1000u64, 1..40),
        killed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut machine = Machine::new(2000);
        let mut asleep: Vec<_> = deadlines
            .into_iter()
            .map(|deadline| {
                let program = machine.program();
                let args = [deadline, 0, 0, 0, 0, 0];
                machine.call(program, Call::Yield, Handle::NONE, args);
                (deadline, program)
            })
            .collect();
        for index in killed {
            if !asleep.is_empty() {
                let (_, program) = asleep.swap_remove(index.index(asleep.len()));
                machine.kernel.kill_thread(program.thread);
            }
        }
        asleep.sort_by_key(|(deadline, _)| *deadline);
        while let Some((deadline, _)) = asleep.first() {
            prop_assert_eq!(machine.kernel.next_deadline(), Some(*deadline));
            machine.until(*deadline);
            asleep.retain(|(_, program)| machine.result(program.thread).is_none());
            let earliest = asleep.first().map(|(deadline, _)| *deadline);
            prop_assert_eq!(machine.kernel.next_deadline(), earliest);
        }
        machine.finish();
    }
}
