//! Processes: what fork, exec, wait and kill promise, a thousand times and a hundred deep.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use libipc::abi::Error as KernelError;
use libipc::services::memstat::MemstatClient;
use libipc::services::procd::{ProcdClient, Reason};
use libipc::services::{Error, Refusal};
use libipc::{Endpoint, Space, getpid, getppid, process, start};
use user_apps::scenario::assert_err;
use user_apps::scenario::frames::assert_exact;
use user_apps::scenario::memory::{PAGE, SCRATCH, map};
use user_apps::scenario::peer::{child, expect_status, status_of, thread, until};

user_apps::scenarios![
    a_thousand_children_cost_nothing,
    a_child_knows_itself_and_its_parent,
    a_child_asks_for_handles_of_its_own,
    a_small_process_has_four_tables,
    exit_statuses_arrive_whole,
    waiting_for_one_leaves_the_others,
    waiting_for_any_finds_each_once,
    whoever_has_no_children_does_not_wait,
    orphans_go_to_init,
    killed_children_say_so,
    only_descendants_can_be_killed,
    a_hundred_generations,
    thirty_children_at_once,
    exec_replaces_the_program,
    exec_of_nothing_changes_nothing,
    spawned_programs_get_their_arguments,
    numbers_are_not_used_again,
    a_fault_ends_the_process_with_its_reason,
    handles_do_not_pass_to_the_child,
    fork_in_a_thread_leaves_the_other_threads_behind,
];

fn a_thousand_children_cost_nothing() {
    let mut round = 0;
    assert_exact(|| {
        for _ in 0..500 {
            round += 1;
            let status = round & 0x7f;
            expect_status(status, || status);
        }
    });
}

fn a_child_knows_itself_and_its_parent() {
    let parent = getpid();
    let pid =
        child(|| i32::from(getppid() == parent && getpid() != parent && start::ppid() == parent));
    assert_ne!(pid, parent);
    assert_eq!(status_of(pid), 1);
}

/// What a process gets on demand is its own: a child asks again, and numbers of its parent mean nothing.
fn a_child_asks_for_handles_of_its_own() {
    let system = process::system().expect("system");
    let parent = [start::memstat(), start::files(), start::names()];
    let handles = || Space::own().info().expect("info").handles;
    let before = handles();
    expect_status(0, move || {
        let few = handles();
        assert!(few < before && system.handle().is_none());
        let memory = MemstatClient::borrow(start::memstat());
        memory.query().expect("memstat");
        libipc::names::lookup("nobody").expect_err("no such name");
        assert_eq!(handles(), few + 2);
        0
    });
    assert_eq!([start::memstat(), start::files(), start::names()], parent);
}

/// Program, stack, heap and a small buffer: a root and one table of each level.
fn a_small_process_has_four_tables() {
    expect_status(0, || {
        let buffer = libipc::PageBuffer::new(1).expect("buffer");
        let boxed = alloc::boxed::Box::new(7);
        let info = Space::own().info().expect("info");
        assert_eq!(info.table_frames, 4);
        i32::from(buffer[0] + *boxed - 7)
    });
}

fn exit_statuses_arrive_whole() {
    for status in [0, 1, 127, 255, 256, -1, i32::MAX, i32::MIN] {
        expect_status(status, || status);
    }
}

fn waiting_for_one_leaves_the_others() {
    let pids = [1, 2, 3].map(|status| child(move || status));
    assert_eq!(status_of(pids[1]), 2);
    assert_eq!(status_of(pids[2]), 3);
    assert_eq!(status_of(pids[0]), 1);
    assert_err(process::wait(pids[0]), Error::Refused(Refusal::NoChild));
}

fn waiting_for_any_finds_each_once() {
    let mut left = [0; 10];
    for (status, pid) in left.iter_mut().enumerate() {
        *pid = child(move || status as i32);
    }
    for _ in 0..left.len() {
        let ended = process::wait_any().expect("a child");
        assert_eq!(left[ended.status as usize], ended.pid);
        left[ended.status as usize] = 0;
    }
    assert_err(process::wait_any(), Error::Refused(Refusal::NoChild));
}

fn whoever_has_no_children_does_not_wait() {
    assert_err(process::wait_any(), Error::Refused(Refusal::NoChild));
    assert_err(process::wait(getpid()), Error::Refused(Refusal::NoChild));
    assert_err(process::wait(1), Error::Refused(Refusal::NoChild));
    assert_err(process::wait(u64::MAX), Error::Refused(Refusal::NoChild));
    assert_err(process::try_wait(), Error::Refused(Refusal::NoChild));
    let pid = child(forever);
    assert_eq!(process::try_wait().expect("a child"), None);
    process::kill(pid).expect("kill");
    assert_eq!(status_of(pid), Reason::Killed.status());
}

/// Receives what nobody sends.
fn forever() -> i32 {
    let inbox = Endpoint::borrow(start::inbox());
    loop {
        let _ = inbox.recv(&mut []);
    }
}

/// The grandchild sees its parent change: the middle process has ended then.
fn orphans_go_to_init() {
    let middle = child(|| {
        let middle = getpid();
        child(move || {
            until("another parent", || getppid() != middle);
            i32::from(getppid() != libipc::services::procd::INIT_PID)
        });
        0
    });
    assert_eq!(status_of(middle), 0);
    until("end of the orphan", || {
        let list = ProcdClient::borrow(start::procd()).entries(getpid());
        list.expect("list").1 == 0
    });
}

fn killed_children_say_so() {
    let pid = child(forever);
    process::kill(pid).expect("kill");
    assert_eq!(status_of(pid), Reason::Killed.status());
    // One that runs and never waits for anything.
    let pid = child(|| {
        loop {
            core::hint::spin_loop();
        }
    });
    process::kill(pid).expect("kill");
    assert_eq!(status_of(pid), Reason::Killed.status());
    assert_err(process::kill(pid), Error::Refused(Refusal::NotFound));
    // Oneself.
    let pid = child(|| {
        let _ = process::kill(getpid());
        1
    });
    assert_eq!(status_of(pid), Reason::Killed.status());
}

fn only_descendants_can_be_killed() {
    assert_err(
        process::kill(start::ppid()),
        Error::Refused(Refusal::Denied),
    );
    assert_err(process::kill(1), Error::Refused(Refusal::Denied));
    assert_err(process::kill(u64::MAX), Error::Refused(Refusal::NotFound));
    let brother = child(forever);
    expect_status(0, move || {
        assert_err(process::kill(brother), Error::Refused(Refusal::Denied));
        0
    });
    process::kill(brother).expect("kill");
    assert_eq!(status_of(brother), Reason::Killed.status());
    // A grandchild is a descendant.
    let grandchild = map(SCRATCH, 1);
    let middle = child(|| {
        let inner = child(forever);
        let parent = ProcdClient::borrow(start::procd()).endpoint(getppid());
        let parent = Endpoint::from_raw(parent.expect("endpoint").into());
        let _ = parent.call(libipc::Message::new(0).with_words([inner]));
        status_of(inner)
    });
    let received = Endpoint::borrow(start::inbox())
        .recv(grandchild.bytes())
        .expect("recv");
    let libipc::Received::Message(incoming) = received else {
        panic!("{received:?}")
    };
    assert_eq!(incoming.badge, middle);
    process::kill(incoming.message.words[0]).expect("kill");
    incoming
        .token
        .reply(libipc::Message::new(0), &[])
        .expect("reply");
    assert_eq!(status_of(middle), Reason::Killed.status());
}

fn a_hundred_generations() {
    let page = map(SCRATCH, 2);
    page.bytes().fill(1);
    fn generation(depth: u8, bytes: &mut [u8]) -> i32 {
        if depth == 100 {
            return 0;
        }
        bytes[usize::from(depth)] = depth;
        let status = status_of(child(|| {
            assert!((0..=depth).all(|at| bytes[usize::from(at)] == at));
            assert_eq!(bytes[PAGE as usize], 1);
            generation(depth + 1, bytes)
        }));
        assert_eq!(
            bytes[usize::from(depth) + 1],
            1,
            "a descendant's write came through"
        );
        status
    }
    assert_eq!(generation(0, page.bytes()), 0);
}

fn thirty_children_at_once() {
    let pids: [u64; 30] = core::array::from_fn(|_| child(forever));
    for &pid in &pids {
        process::kill(pid).expect("kill");
    }
    for &pid in &pids {
        assert_eq!(status_of(pid), Reason::Killed.status());
    }
}

fn exec_replaces_the_program() {
    // The name of the case decides, not the program: the one that runs here exits with 2 for it.
    let pid = child(|| {
        let _ = process::exec("/bin/test_fork", &["no such case"]);
        99
    });
    assert_eq!(status_of(pid), 2);
}

fn exec_of_nothing_changes_nothing() {
    let page = map(SCRATCH, 1);
    page.bytes().fill(7);
    assert_err(
        process::exec("/bin/nothing", &["x"]),
        Error::Refused(Refusal::NotFound),
    );
    assert_err(
        process::exec("/boot/kernel.sym", &["x"]),
        Error::Refused(Refusal::NotExecutable),
    );
    assert!(page.bytes().iter().all(|&byte| byte == 7));
    let long = [b'x'; 4000];
    let long = core::str::from_utf8(&long).expect("ASCII");
    assert_err(
        process::exec("/bin/hello", &[long]),
        Error::Refused(Refusal::BadRequest),
    );
}

fn spawned_programs_get_their_arguments() {
    let pid = process::spawn("/bin/test_fork", &["b c", ""]);
    assert_eq!(status_of(pid.expect("spawn")), 2);
    let pid = process::spawn("/bin/test_fork", &["exit_statuses_arrive_whole"]);
    assert_eq!(status_of(pid.expect("spawn")), 0);
    assert_err(
        process::spawn("/bin/nothing", &[]),
        Error::Refused(Refusal::NotFound),
    );
    let nameless = process::spawn("", &[]);
    assert_err(nameless, Error::Refused(Refusal::IsDirectory));
    assert_err(
        process::spawn("/boot/kernel.sym", &["x"]),
        Error::Refused(Refusal::NotExecutable),
    );
}

fn numbers_are_not_used_again() {
    let mut last = getpid();
    for _ in 0..200 {
        let pid = child(|| 0);
        assert!(pid > last, "{pid} after {last}");
        assert_eq!(status_of(pid), 0);
        last = pid;
    }
}

fn a_fault_ends_the_process_with_its_reason() {
    expect_status(Reason::BadAccess.status(), || {
        user_apps::scenario::memory::peek(8) as i32
    });
    expect_status(Reason::BadAccess.status(), || {
        user_apps::scenario::memory::poke(0xffff_8000_0000_0000, 1);
        0
    });
    expect_status(libipc::rt::PANIC_STATUS, || {
        // What a panic does, without its message.
        libipc::rt::PANIC_STATUS
    });
}

/// A handle that the parent made is the parent's alone, although the child has its number.
fn handles_do_not_pass_to_the_child() {
    let endpoint = Endpoint::create().expect("endpoint");
    let number = endpoint.handle();
    expect_status(0, || {
        assert!(endpoint.handle().is_none());
        let result = Endpoint::borrow(number).notify();
        assert!(matches!(
            result,
            Err(KernelError::BadHandle | KernelError::WrongType | KernelError::Denied)
        ));
        0
    });
    endpoint.notify().expect("still the parent's");
}

fn fork_in_a_thread_leaves_the_other_threads_behind() {
    let page = map(SCRATCH, 1);
    let other = thread(|| {
        loop {
            libipc::object::yield_now();
        }
    });
    let forker = thread(move || {
        expect_status(1, || {
            libipc::Space::own()
                .info()
                .map_or(-1, |info| info.threads as i32)
        });
        user_apps::scenario::memory::poke(SCRATCH, 1);
    });
    until("the fork", || {
        user_apps::scenario::memory::peek(page.addr()) == 1
    });
    drop((other, forker));
}
