//! Parents, children and grandchildren that write to what they share.

use super::*;
use libipc::{Endpoint, Message, Perm, Received, ShareMode, Space, start};
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{child, expect_status, status_of};

pub(crate) fn a_childs_writes_stay_with_the_child() {
    let _memory = filled(NR_PAGES, 7);
    expect_status(0, || {
        check(SCRATCH, NR_PAGES, 7);
        write_all(SCRATCH, NR_PAGES, 1000);
        check(SCRATCH, NR_PAGES, 1000);
        0
    });
    check(SCRATCH, NR_PAGES, 7);
}

pub(crate) fn a_parents_writes_stay_with_the_parent() {
    let _memory = filled(NR_PAGES, 7);
    let inbox = Endpoint::borrow(start::inbox());
    let parent = libipc::getpid();
    let pid = child(move || {
        let _ = libipc::course::send(parent, &[], &mut []);
        check(SCRATCH, NR_PAGES, 7);
        0
    });
    let Ok(Received::Message(incoming)) = inbox.recv(&mut []) else {
        panic!("no message")
    };
    write_all(SCRATCH, NR_PAGES, 2000);
    incoming.token.reply(Message::new(0), &[]).expect("reply");
    assert_eq!(status_of(pid), 0);
    check(SCRATCH, NR_PAGES, 2000);
}

pub(crate) fn grandchildren_see_their_own_ancestors() {
    let _memory = filled(8, 1);
    expect_status(0, || {
        poke(SCRATCH, 100);
        expect_status(0, || {
            poke(SCRATCH + PAGE, 200);
            expect_status(0, || {
                assert_eq!(peek(SCRATCH), 100);
                assert_eq!(peek(SCRATCH + PAGE), 200);
                assert_eq!(peek(SCRATCH + 2 * PAGE), 3);
                poke(SCRATCH + 2 * PAGE, 300);
                0
            });
            assert_eq!(peek(SCRATCH + 2 * PAGE), 3);
            0
        });
        assert_eq!(peek(SCRATCH + PAGE), 2);
        0
    });
    check(SCRATCH, 8, 1);
}

/// Parent, child and grandchild write the same page in each of the six orders; who has written sees
/// its own value, who has not sees the first one. They take turns by a word of shared memory.
pub(crate) fn families_write_in_every_order() {
    let turn = SCRATCH + (1 << 24);
    let _turn = map(turn, 1);
    poke(turn, 0);
    let own = Space::own();
    own.share(
        &own,
        turn,
        turn + PAGE,
        PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let _memory = filled(3, 50);
        poke(turn, 0);
        let act = move |who: u64| {
            let mut own_value = 50;
            for (step, writer) in order.into_iter().enumerate() {
                user_apps::scenario::peer::until("turn", || peek(turn) >= 10 * step as u64);
                assert_eq!(peek(SCRATCH), own_value);
                if writer == who {
                    own_value = 1000 + who;
                    poke(SCRATCH, own_value);
                    poke(turn, 10 * (step as u64 + 1));
                }
            }
            user_apps::scenario::peer::until("end", || peek(turn) >= 30);
            assert_eq!(peek(SCRATCH), own_value);
            check(SCRATCH + PAGE, 2, 51);
        };
        let pid = child(move || {
            let pid = child(move || {
                act(2);
                0
            });
            act(1);
            status_of(pid)
        });
        act(0);
        assert_eq!(status_of(pid), 0);
    }
    own.unmap(turn + PAGE, PAGE).expect("unmap");
}
