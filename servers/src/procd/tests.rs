//! The process server over the fake kernel: protocol, policy, hostile requests.

use std::cell::RefCell;
use std::rc::Rc;

use libipc::abi::Call;
use libipc::fake;
use libipc::message::{Message, ReplyToken};
use libipc::server::Service;
use libipc::service::{Mismatch, mismatch};
use libipc::services::Error;
use libipc::services::console::ConsoleClient;
use libipc::services::files::{FilesClient, FilesServer, Options};
use libipc::services::init::InitClient;
use libipc::services::memstat::MemstatClient;
use libipc::services::names::{NamesClient, NamesServer};
use libipc::services::procd::{ProcdClient, ProcdServer};
use libipc::{Commit, ErrorCode, Handle, System};

use super::programs::Programs;
use super::*;
use crate::files::Files;
use crate::files::clients::Limits;
use crate::files::memory::{Machine, Memory, Mover};
use crate::loader::Stage;
use crate::loader::plan::tests::small_program;
use crate::names::Names;

/// Handles of process 1, 2, 3 and so on to the process server.
fn handle(pid: u64) -> Handle {
    Handle(100 + pid as u32)
}

fn as_process(pid: u64) -> libipc::Borrowed<'static, ProcdClient> {
    ProcdClient::borrow(handle(pid))
}

/// A process server with a file server that has the program `/bin/x`.
fn procd() -> Rc<RefCell<ProcdServer<Procd>>> {
    let program = std::fs::read("/proc/self/exe").unwrap();
    let archive = crate::archive::tests::tar(&[
        ("bin/x", b"not ELF"),
        ("bin/self", &program),
        ("bin/small", &small_program()),
    ]);
    let memory = Memory::new(Machine::new(Mover::start().unwrap()));
    let files = Files::new(archive.leak(), memory, Limits::of_machine(1 << 20)).unwrap();
    let files = Rc::new(RefCell::new(FilesServer::new(files)));
    fake::serve(Handle(3), 0, files);
    crate::init::keeper::tests::serve(Handle(8));
    let names = Names::new(InitClient::new(Endpoint::from_raw(Handle(8)))).unwrap();
    let names = NamesServer::new(names);
    fake::serve(Handle(4), 0, Rc::new(RefCell::new(names)));
    let endpoint = |number| Endpoint::from_raw(Handle(number));
    let maker = Maker {
        system: System::from_raw(Handle(1)),
        own: endpoint(2),
        console: ConsoleClient::new(endpoint(9)),
        names: NamesClient::new(endpoint(4)),
        files: FilesClient::new(endpoint(3)),
        memstat: MemstatClient::new(endpoint(9)),
        stage: Stage::new().unwrap(),
        programs: Programs::default(),
    };
    let procd = Rc::new(RefCell::new(ProcdServer::new(Procd::new(
        maker,
        endpoint(5),
        InitClient::new(endpoint(9)),
    ))));
    for pid in 1..10 {
        fake::serve(handle(pid), pid, procd.clone());
    }
    procd
}

/// Adds a process without memory.
fn add(procd: &Rc<RefCell<ProcdServer<Procd>>>, parent: u64) -> u64 {
    let procd = &mut procd.borrow_mut().state;
    let vacancy = procd.table.vacancy().unwrap();
    let process = Process::new(Space::from_raw(Handle(50 + vacancy.pid as u32)));
    procd.table.add(
        vacancy,
        parent,
        *b"test\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        process,
    );
    vacancy.pid
}

fn killed_spaces() -> Vec<u32> {
    let kills = fake::asked()
        .into_iter()
        .filter(|asked| asked.call == Call::Kill);
    kills.map(|asked| asked.handle.0).collect()
}

/// How the server does not understand this message.
fn mismatch_of(pid: u64, message: Message, data: &[u8]) -> Option<Mismatch> {
    let process = as_process(pid);
    let sent = process.as_endpoint().send(message, data, &mut []).unwrap();
    mismatch(sent.reply.label())
}

#[test]
fn exit_wait_and_kill_go_through_the_protocol() {
    let procd = procd();
    let parent = add(&procd, INIT_PID);
    let child = add(&procd, parent);
    assert_eq!(as_process(parent).wait(0, false), Ok(None));
    as_process(parent).kill(child).unwrap();
    assert_eq!(killed_spaces(), [50 + child as u32]);
    let ended = as_process(parent).wait(child, true).unwrap().unwrap();
    assert_eq!((ended.pid, ended.status), (child, 137));
    assert_eq!(
        as_process(parent).wait(0, true),
        Err(Refusal::NoChild.into())
    );
    // Nobody answers who has ended.
    assert!(as_process(parent).exit(-3).is_err());
    let ended = as_process(1).wait(0, false).unwrap().unwrap();
    assert_eq!((ended.pid, ended.status), (parent, -3));
}

#[test]
fn a_waiter_is_answered_when_the_child_ends() {
    let procd = procd();
    let parent = add(&procd, INIT_PID);
    let child = add(&procd, parent);
    let _ = fake::replies();
    let blocked = as_process(parent).wait(child, true);
    assert_eq!(blocked, Err(Error::Kernel(libipc::Error::WouldBlock)));
    let _ = as_process(child).exit(5);
    let (_, message, _) = &fake::replies()[0];
    assert_eq!(message.words[..3], [1, child, 5]);
}

#[test]
fn strangers_are_left_alone() {
    let procd = procd();
    let (a, b) = (add(&procd, INIT_PID), add(&procd, INIT_PID));
    let child = add(&procd, b);
    let denied = Err(Refusal::Denied.into());
    assert_eq!(as_process(a).kill(b), denied);
    assert_eq!(as_process(a).kill(child), denied);
    assert_eq!(as_process(child).kill(b), denied);
    assert_eq!(as_process(a).kill(INIT_PID), denied);
    assert_eq!(as_process(a).kill(77), Err(Refusal::NotFound.into()));
    assert_eq!(as_process(a).endpoint(b), Err(Refusal::Denied.into()));
    assert!(as_process(b).endpoint(child).is_ok());
    assert_eq!(as_process(a).foreground(child), denied);
}

#[test]
fn a_fault_ends_the_process() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let fault = Fault {
        badge: pid,
        kind: Some(libipc::abi::FaultKind::Page),
        address: 0,
        ip: 1,
        access: libipc::abi::Access::Read,
        found: libipc::abi::FoundEntry::Empty,
        sp: 2,
        token: ReplyToken::from_raw(9),
    };
    procd.borrow_mut().fault(fault);
    assert_eq!(as_process(1).wait(0, false).unwrap().unwrap().status, 139);
}

#[test]
fn interrupts_end_the_foreground() {
    let procd = procd();
    let shell = add(&procd, INIT_PID);
    let child = add(&procd, shell);
    let grandchild = add(&procd, child);
    let other = add(&procd, shell);
    procd.borrow_mut().notification(INTERRUPT_BIT);
    as_process(shell).foreground(child).unwrap();
    procd.borrow_mut().notification(INTERRUPT_BIT);
    procd.borrow_mut().notification(INTERRUPT_BIT);
    assert_eq!(
        as_process(shell).wait(0, false).unwrap().unwrap().status,
        130
    );
    let procd = &procd.borrow().state;
    assert!(procd.table.get(shell).is_some() && procd.table.get(other).is_some());
    assert!(procd.table.get(grandchild).is_none());
}

#[test]
fn hostile_requests_are_errors() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let refusal = |message: Message, data: &[u8]| {
        let sent = as_process(pid)
            .as_endpoint()
            .send(message, data, &mut [])
            .unwrap();
        Refusal::from_label(sent.reply.label())
    };
    for label in [1, 13, 99, ProcdClient::SPAWN - 1, ProcdClient::HANDLE + 1] {
        let mismatch = mismatch_of(pid, Message::new(label), &[]);
        assert_eq!(mismatch, Some(Mismatch::Unknown));
    }
    let spawn = Message::new(ProcdClient::SPAWN);
    assert_eq!(refusal(spawn, &[]), Some(Refusal::BadRequest));
    assert_eq!(refusal(spawn, b"\0\0\0"), Some(Refusal::IsDirectory));
    assert_eq!(refusal(spawn, &[b'x'; 3072]), Some(Refusal::BadRequest));
    assert_eq!(refusal(spawn, &[0xff; 100]), Some(Refusal::BadRequest));
    assert_eq!(refusal(spawn, b"/bin/nothing\0"), Some(Refusal::NotFound));
    assert_eq!(refusal(spawn, b"/bin/x\0"), Some(Refusal::NotExecutable));
    // A program of the host's: position-independent, which Cowslip's are not.
    assert_eq!(refusal(spawn, b"/bin/self\0"), Some(Refusal::NotExecutable));
    let wait = Message::new(ProcdClient::WAIT).with_words([u64::MAX, 1]);
    assert_eq!(refusal(wait, &[]), Some(Refusal::NoChild));
    // The table has only what was there before.
    let (_, count) = as_process(pid).entries(0).unwrap();
    assert_eq!(count, 1);
    let malformed = Some(Mismatch::Malformed);
    let handle = Message::new(ProcdClient::HANDLE);
    assert_eq!(mismatch_of(pid, handle, &[]), malformed);
    let wait = wait.with_words([u64::MAX, u64::MAX]);
    assert_eq!(mismatch_of(pid, wait, &[]), malformed);
    // Init is no process that could fork, become another program, or end.
    let init = as_process(1);
    for label in [ProcdClient::FORK, ProcdClient::EXIT] {
        let reply = init.as_endpoint().call(Message::new(label)).unwrap();
        assert_eq!(Refusal::from_label(reply.label()), Some(Refusal::Denied));
    }
    assert!(
        FilesClient::borrow(Handle(3))
            .open(Options::READ, "/bin/x")
            .is_ok()
    );
}

fn count(asked: &[fake::Asked], call: Call) -> usize {
    asked.iter().filter(|asked| asked.call == call).count()
}

#[test]
fn programs_are_read_once() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let spawn = || {
        let _ = fake::asked();
        as_process(pid)
            .spawn(Commit::Overcommit, Streams::CONSOLE, b"/bin/small\0")
            .unwrap();
        fake::asked()
    };
    // One space for the process, and at first one for the program.
    assert_eq!(count(&spawn(), Call::SpaceCreate), 2);
    let asked = spawn();
    assert_eq!(count(&asked, Call::SpaceCreate), 1);
    // The program, and the stack's first page.
    assert_eq!(count(&asked, Call::Share), 2);
}

#[test]
fn a_space_is_strict_before_anything_is_mapped_in_it() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let spawn = |class| {
        let _ = fake::asked();
        as_process(pid)
            .spawn(class, Streams::CONSOLE, b"/bin/small\0")
            .unwrap();
        fake::asked()
    };
    assert_eq!(count(&spawn(Commit::Overcommit), Call::SpaceSet), 0);
    let asked = spawn(Commit::Strict);
    let set = asked.iter().position(|asked| asked.call == Call::SpaceSet);
    let share = asked.iter().position(|asked| asked.call == Call::Share);
    assert!(set.is_some() && set < share);
    let [class, value, ..] = asked[set.unwrap()].args;
    assert_eq!((class, value), (0, Commit::Strict as u64));
    let wrong = Message::new(ProcdClient::SPAWN).with_words([2]);
    assert_eq!(
        mismatch_of(pid, wrong, b"/bin/small\0"),
        Some(Mismatch::Malformed)
    );
}

#[test]
fn a_fork_and_another_program_have_the_terms_of_the_process() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let space = || {
        let procd = &procd.borrow().state;
        u64::from(procd.table.get(pid).unwrap().space.handle().0)
    };
    let original = space();
    let like = || {
        let asked = fake::asked();
        let made = asked.iter().find(|asked| asked.call == Call::SpaceCreate);
        made.unwrap().args[2]
    };
    let _ = as_process(pid).fork(0, 0, 0);
    assert_eq!(like(), original);
    let _ = as_process(pid).exec(b"/bin/small\0");
    assert_eq!(like(), original);
    assert_ne!(space(), original);
}

#[test]
fn deaths_and_faults_are_told_by_the_slot_and_the_pid() {
    let procd = procd();
    let parent = add(&procd, INIT_PID);
    let _ = fake::asked();
    let pid = as_process(parent)
        .spawn(Commit::Overcommit, Streams::CONSOLE, b"/bin/small\0")
        .unwrap();
    let asked = fake::asked();
    let own = |call| asked.iter().find(|asked| asked.call == call).unwrap().args;
    // The second slot. The handle is the server's own, of which no copy is made but for the process.
    assert_eq!(own(Call::SpaceCreate)[..2], [2, death_bit(1)]);
    let [supervisor, _, badge, ..] = own(Call::ThreadCreate);
    assert_eq!([supervisor, badge], [2, pid]);
    let copies = asked.iter().filter(|asked| asked.call == Call::HandleCopy);
    assert!(copies.map(|copy| copy.args[0]).all(|space| space != 0));
}

#[test]
fn programs_are_given_up_when_memory_is_short() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let spawn = || as_process(pid).spawn(Commit::Overcommit, Streams::CONSOLE, b"/bin/small\0");
    let is_kept = || {
        procd
            .borrow()
            .state
            .maker
            .programs
            .find("/bin/small")
            .is_some()
    };
    spawn().unwrap();
    assert!(is_kept());
    fake::fail(Call::Share, Some(libipc::Error::NoMemory));
    assert_eq!(spawn(), Err(Refusal::NoMemory.into()));
    fake::fail(Call::Share, None);
    assert!(!is_kept());
    spawn().unwrap();
    assert!(is_kept());
    procd.borrow_mut().fault(out_of_memory(pid));
    assert!(!is_kept());
    assert_eq!(as_process(1).wait(pid, false), Ok(None));
    // Nothing is left to be given up.
    procd.borrow_mut().fault(out_of_memory(pid));
    let ended = as_process(1).wait(pid, false).unwrap().unwrap();
    assert_eq!(ended.status, 135);
}

fn out_of_memory(pid: u64) -> Fault {
    Fault {
        badge: pid,
        kind: Some(FaultKind::OutOfMemory),
        address: 0,
        ip: 1,
        access: libipc::abi::Access::Write,
        found: libipc::abi::FoundEntry::ReadWrite,
        sp: 2,
        token: ReplyToken::from_raw(9),
    }
}

#[test]
fn a_child_with_other_numbers_is_no_copy() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let _ = fake::asked();
    // The fake kernel numbers handles anew in each table.
    let reply = as_process(pid)
        .as_endpoint()
        .call(Message::new(ProcdClient::FORK))
        .unwrap();
    assert_eq!(Refusal::from_label(reply.label()), Some(Refusal::Broken));
    // What has a handle to itself does not die by being dropped.
    assert_eq!(killed_spaces().len(), 1);
    let (_, count) = as_process(pid).entries(0).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn few_handles_come_by_themselves() {
    let procd = procd();
    let pid = add(&procd, INIT_PID);
    let forgets = || {
        let process = as_process(pid);
        process.handle(Thing::Files).unwrap();
        procd.borrow().state.table.get(pid).unwrap().knows_names
    };
    assert!(!forgets());
    as_process(pid).handle(Thing::Names).unwrap();
    assert!(forgets());
    let _ = fake::asked();
    for _ in 0..2 {
        as_process(pid).handle(Thing::Inbox).unwrap();
    }
    assert_eq!(count(&fake::asked(), Call::EndpointCreate), 1);
    let odd = Message::new(ProcdClient::HANDLE).with_words([99]);
    assert_eq!(mismatch_of(pid, odd, &[]), Some(Mismatch::Malformed));
    assert_eq!(
        as_process(1).handle(Thing::Inbox),
        Err(Refusal::Denied.into())
    );
}

#[test]
fn a_process_that_asks_gets_the_thread_that_was_started() {
    let procd = procd();
    let parent = add(&procd, INIT_PID);
    let pid = as_process(parent)
        .spawn(Commit::Overcommit, Streams::CONSOLE, b"/bin/small\0")
        .unwrap();
    let asked = fake::asked();
    let start = asked.iter().find(|asked| asked.call == Call::ThreadStart);
    as_process(pid).handle(Thing::Thread).unwrap();
    let copies = fake::asked();
    let copy = copies.iter().find(|asked| asked.call == Call::HandleCopy);
    assert_eq!(copy.unwrap().handle, start.unwrap().handle);
}

#[test]
fn lists_page() {
    let procd = procd();
    let pids: Vec<u64> = (0..40).map(|_| add(&procd, INIT_PID)).collect();
    let mut seen = Vec::new();
    loop {
        let last = seen.last().copied().unwrap_or(0);
        let (entries, count) = as_process(2).entries(last).unwrap();
        if count == 0 {
            break;
        }
        seen.extend(entries[..count].iter().map(|entry| entry.pid));
        assert_eq!(entries[0].name(), "test");
    }
    assert_eq!(seen, pids);
}

#[test]
fn only_itself_and_its_ancestors_look_into_a_process() {
    let procd = procd();
    let parent = add(&procd, INIT_PID);
    let child = add(&procd, parent);
    let stranger = add(&procd, INIT_PID);
    let look = |by, at| {
        let ranges = as_process(by).ranges(at, 0, &mut [0; LIST_LEN]).map(|_| ());
        let stack = as_process(by).stack(at, 1, &mut [0; LIST_LEN]).map(|_| ());
        assert_eq!(ranges, stack, "{by} into {at}");
        ranges
    };
    for by in [INIT_PID, parent, child] {
        assert_eq!(look(by, child), Ok(()), "{by}");
    }
    let denied = Err(Error::Refused(Refusal::Denied));
    for (by, at) in [(stranger, child), (child, parent), (child, stranger)] {
        assert_eq!(look(by, at), denied);
    }
    for server in [INIT_PID, FIRST_SERVER, FIRST_SERVER + 4] {
        assert_eq!(look(parent, server), denied);
        assert_eq!(look(INIT_PID, server), denied);
    }
    assert_eq!(look(parent, 99), Err(Error::Refused(Refusal::NotFound)));
}

#[test]
fn all_may_see_threads_and_memory_of_what_is_there() {
    let procd = procd();
    let (one, other) = (add(&procd, INIT_PID), add(&procd, INIT_PID));
    assert!(
        as_process(one)
            .threads(other, 0, &mut [0; LIST_LEN])
            .is_ok()
    );
    assert!(as_process(one).memory(other, 0).is_ok());
    let not_found = Error::Refused(Refusal::NotFound);
    // Init has no spaces of servers here.
    for nobody in [0, INIT_PID, 99, FIRST_SERVER, FIRST_SERVER + 5, u64::MAX] {
        assert!(
            as_process(one)
                .threads(nobody, 0, &mut [0; LIST_LEN])
                .is_err()
        );
        assert!(as_process(one).memory(nobody, 0).is_err());
    }
    as_process(INIT_PID).kill(other).unwrap();
    let gone = as_process(one).threads(other, 0, &mut [0; LIST_LEN]);
    assert_eq!(gone.err(), Some(not_found));
    assert_eq!(as_process(one).memory(other, 0).err(), Some(not_found));
}
