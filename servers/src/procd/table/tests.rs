//! Families, waiting, and the ends of both.

use super::*;

fn add(table: &mut Table<()>, parent: u64) -> u64 {
    let vacancy = table.vacancy().unwrap();
    table.add(vacancy, parent, [0; 24], ());
    vacancy.pid
}

fn ended(pid: u64, status: i32) -> Result<Waiting, Refusal> {
    Ok(Waiting::Ready(Ended { pid, status }))
}

fn reply(token: u64) -> WaitReply {
    Reply::new(libipc::ReplyToken::from_raw(token))
}

#[test]
fn a_status_is_told_once() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let child = add(&mut table, parent);
    assert_eq!(table.wait(parent, 0), Ok(Waiting::Blocked));
    assert!(table.end(child, 7).is_some());
    assert!(table.end(child, 8).is_none());
    assert_eq!(table.wait(parent, child), ended(child, 7));
    table.reap(child);
    assert_eq!(table.wait(parent, 0), Err(Refusal::NoChild));
}

#[test]
fn only_children_are_waited_for() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let child = add(&mut table, parent);
    let grandchild = add(&mut table, child);
    assert_eq!(table.wait(parent, grandchild), Err(Refusal::NoChild));
    assert_eq!(table.wait(parent, parent), Err(Refusal::NoChild));
    assert_eq!(table.wait(parent, 99), Err(Refusal::NoChild));
}

#[test]
fn orphans_are_inits() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let (a, b) = (add(&mut table, parent), add(&mut table, parent));
    table.end(a, 1);
    table.end(parent, 0);
    assert_eq!(
        (table.parent(a), table.parent(b)),
        (Some(INIT_PID), Some(INIT_PID))
    );
    assert_eq!(table.wait(INIT_PID, a), ended(a, 1));
    assert!(!table.is_ancestor(parent, b));
    assert!(table.is_ancestor(INIT_PID, b));
}

#[test]
fn relatives_are_near() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let stranger = add(&mut table, INIT_PID);
    let (a, b) = (add(&mut table, parent), add(&mut table, parent));
    let grandchild = add(&mut table, a);
    assert!(table.are_relatives(a, parent) && table.are_relatives(parent, a));
    assert!(table.are_relatives(a, b));
    assert!(!table.are_relatives(grandchild, parent) && !table.are_relatives(grandchild, b));
    assert!(!table.are_relatives(stranger, parent) && !table.are_relatives(a, a));
    assert!(table.is_ancestor(parent, grandchild) && !table.is_ancestor(b, grandchild));
}

#[test]
fn waiters_are_woken_by_what_they_wait_for() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let (a, b) = (add(&mut table, parent), add(&mut table, parent));
    table.block(parent, b, reply(1)).unwrap();
    table.end(a, 0);
    assert!(table.take_ready().is_none());
    table.end(b, 5);
    let (waiter, outcome) = table.take_ready().unwrap();
    assert_eq!(
        (waiter.reply.into_token().into_raw(), outcome),
        (1, Ok(Ended { pid: b, status: 5 }))
    );
    assert!(table.take_ready().is_none());
}

#[test]
fn two_waiters_for_one_child_both_hear() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let child = add(&mut table, parent);
    table.block(parent, child, reply(1)).unwrap();
    table.block(parent, 0, reply(2)).unwrap();
    table.end(child, 3);
    assert_eq!(
        table.take_ready().unwrap().1,
        Ok(Ended {
            pid: child,
            status: 3
        })
    );
    table.reap(child);
    assert_eq!(table.take_ready().unwrap().1, Err(Refusal::NoChild));
}

#[test]
fn the_dead_do_not_wait() {
    let mut table = Table::new();
    let parent = add(&mut table, INIT_PID);
    let child = add(&mut table, parent);
    table.block(parent, child, reply(1)).unwrap();
    table.end(parent, 0);
    table.end(child, 0);
    assert!(table.take_ready().is_none());
}

#[test]
fn numbers_are_never_used_again() {
    let mut table = Table::new();
    let mut last = INIT_PID;
    for _ in 0..1000 {
        let pid = add(&mut table, INIT_PID);
        assert!(pid > last);
        last = pid;
        table.end(pid, 0);
        table.reap(pid);
    }
}

#[test]
fn a_full_table_refuses() {
    let mut table = Table::new();
    for _ in 0..MAX_PROCESSES {
        add(&mut table, INIT_PID);
    }
    assert_eq!(table.vacancy(), Err(Refusal::Full));
    assert_eq!(
        core::iter::successors(table.next_after(0), |e| table.next_after(e.pid)).count(),
        MAX_PROCESSES
    );
}

#[test]
fn slots_are_used_again() {
    let mut table = Table::new();
    let pids: Vec<u64> = (0..MAX_PROCESSES)
        .map(|_| add(&mut table, INIT_PID))
        .collect();
    assert_eq!(table.vacancy(), Err(Refusal::Full));
    for &pid in pids.iter().rev() {
        assert!(table.end(pid, 0).is_some());
        table.reap(pid);
        assert!(table.name(pid).is_none());
    }
    assert_eq!(table.running().count(), 0);
    let first = add(&mut table, INIT_PID);
    let second = add(&mut table, INIT_PID);
    assert!(table.end(first, 0).is_some());
    table.reap(first);
    assert_eq!(table.vacancy().unwrap().slot, 0);
    assert!(table.get(second).is_some());
}
