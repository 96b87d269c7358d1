//! Families that write to what they share, in every order.

use libipc::{Perm, ShareMode, Space};
use user_apps::scenario::memory::{PAGE, SCRATCH, map, peek, poke};
use user_apps::scenario::peer::{child, status_of, until};

use super::{OTHER, TABLE, check, filled};

/// How many write.
const FAMILY: usize = 4;

/// Pages of the family, in three tables.
const NR_PAGES: u64 = 1026;

/// The page that all write to is in the first table; one of each member's own is in another.
const COMMON: u64 = SCRATCH + 7 * PAGE;
const fn own_page(who: usize) -> u64 {
    SCRATCH + (1 + who as u64 % 2) * TABLE + who as u64 / 2 * PAGE
}

/// What the common page is at the beginning.
const SEED: u64 = 50;

type Order = [usize; FAMILY];

/// All orders, each once.
fn orders() -> impl Iterator<Item = Order> {
    let all = (0..FAMILY.pow(FAMILY as u32))
        .map(|number| core::array::from_fn(|place| number / FAMILY.pow(place as u32) % FAMILY));
    all.filter(|order: &Order| (0..FAMILY).all(|who| order.contains(&who)))
}

/// A word that all members see, which says how many have written.
struct Turn;

impl Turn {
    const AT: u64 = OTHER;

    fn is(step: usize) -> bool {
        peek(Self::AT) >= step as u64
    }

    fn pass_on(step: usize) {
        poke(Self::AT, step as u64 + 1);
    }
}

/// Lets a family write in each order; `start` makes the members, each of which acts, and returns in
/// the first one when all others have ended.
fn in_every_order(start: impl Fn(&dyn Fn(usize))) {
    let turn = map(Turn::AT, 1);
    let (own, alias) = (Space::own(), Turn::AT + TABLE);
    own.share(
        &own,
        Turn::AT,
        alias,
        PAGE,
        ShareMode::Shared,
        Some(Perm::RW),
    )
    .expect("share");
    let mut nr_orders = 0;
    for order in orders() {
        poke(Turn::AT, 0);
        let memory = filled(SCRATCH, NR_PAGES, SEED);
        start(&|who| act(who, order));
        drop(memory);
        nr_orders += 1;
    }
    assert_eq!(nr_orders, 24);
    own.unmap(alias, PAGE).expect("unmap");
    drop(turn);
}

/// A member's part: it writes in its turn, and sees its own writes and no others.
fn act(who: usize, order: Order) {
    let common = |has_written| {
        if has_written {
            1000 + who as u64
        } else {
            SEED + 7
        }
    };
    let mut has_written = false;
    for (step, writer) in order.into_iter().enumerate() {
        until("turn", || Turn::is(step));
        assert_eq!(peek(COMMON), common(has_written), "{who} in {order:?}");
        if writer == who {
            has_written = true;
            poke(COMMON, common(true));
            poke(own_page(who), who as u64);
            Turn::pass_on(step);
        }
    }
    until("end", || Turn::is(FAMILY));
    assert_eq!(peek(COMMON), common(true), "{who} in {order:?}");
    assert_eq!(peek(own_page(who)), who as u64);
    // All else is as it was: put back, the whole range is.
    poke(COMMON, SEED + 7);
    poke(own_page(who), SEED + (own_page(who) - SCRATCH) / PAGE);
    check(SCRATCH, NR_PAGES, SEED);
}

/// Each is the child of the one before.
pub(crate) fn four_generations_write_in_every_order() {
    fn from(who: usize, act: &dyn Fn(usize)) {
        let next = who + 1;
        let younger = (next < FAMILY).then(|| {
            child(|| {
                from(next, act);
                0
            })
        });
        act(who);
        if let Some(younger) = younger {
            assert_eq!(status_of(younger), 0);
        }
    }
    in_every_order(|act| from(0, act));
}

/// One parent and its three children.
pub(crate) fn a_parent_and_three_children_write_in_every_order() {
    in_every_order(|act| {
        let children = [1, 2, 3].map(|who| {
            child(|| {
                act(who);
                0
            })
        });
        act(0);
        for child in children {
            assert_eq!(status_of(child), 0);
        }
    });
}
