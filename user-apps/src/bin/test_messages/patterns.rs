//! Patterns of all lengths at all alignments, with guard bytes around them on both sides.

use crate::rig::{Plan, ROOM, Rig, at};
use libipc::abi::PAGE_SIZE;
use user_apps::scenario::memory::Window;
use user_apps::scenario::rng::Rng;

pub(crate) const NR_RANDOM: usize = 1000;

pub(crate) fn all_sizes_around_pages_arrive() {
    let mut rig = Rig::new();
    for pages in [0, 1, 2, 16] {
        for extra in [-2, -1, 0, 1, 2] {
            let Some(len) = (pages * PAGE_SIZE).checked_add_signed(extra) else {
                continue;
            };
            for offset in [0, 1, PAGE_SIZE - 1] {
                let window = at(offset, len);
                rig.exchange(Plan {
                    data: window,
                    target: window,
                    answer: window,
                    reply: window,
                    seed: len as u64,
                });
            }
        }
    }
    rig.stop();
}

pub(crate) fn all_alignments_arrive() {
    let mut rig = Rig::new();
    let offsets = [0, 1, 8, 100, 2048, PAGE_SIZE - 1];
    for from in offsets {
        for to in offsets {
            for len in [100, PAGE_SIZE, 3 * PAGE_SIZE + 7] {
                let (data, target) = (at(from, len), at(to, len));
                rig.exchange(Plan {
                    data,
                    target,
                    answer: target,
                    reply: data,
                    seed: 40,
                });
            }
        }
    }
    rig.stop();
}

pub(crate) fn both_sides_learn_of_truncation() {
    let mut rig = Rig::new();
    for (len, room) in [
        (1, 0),
        (100, 99),
        (PAGE_SIZE, 1),
        (5 * PAGE_SIZE, 2 * PAGE_SIZE),
        (8193, 8192),
    ] {
        for offset in [0, 3] {
            let (long, short) = (at(offset, len), at(offset, room));
            rig.exchange(Plan {
                data: long,
                target: short,
                answer: long,
                reply: short,
                seed: 3,
            });
            rig.exchange(Plan {
                data: short,
                target: long,
                answer: short,
                reply: long,
                seed: 4,
            });
        }
    }
    rig.stop();
}

/// Random sizes and alignments, and not one frame less afterwards.
pub(crate) fn a_thousand_random_messages() {
    let mut rig = Rig::new();
    let mut rng = Rng::new(0x00c0_511b);
    let size = |rng: &mut Rng| {
        let limit = rng.pick(&[1, 64, 5000, 20_000, 70_000, 300_000]);
        rng.below(limit + 1) as usize
    };
    for _ in 0..NR_RANDOM {
        let len = size(&mut rng);
        let answer_len = size(&mut rng);
        // Most buffers fit; some are too small, some too large.
        let room = |rng: &mut Rng, len: usize| match rng.below(4) {
            0 => size(rng),
            1 => len + rng.below(5000) as usize,
            _ => len,
        };
        let (target, reply) = (room(&mut rng, len), room(&mut rng, answer_len));
        let mut window = |len| Window::random(&mut rng, len, ROOM);
        let plan = Plan {
            data: window(len),
            target: window(target),
            answer: window(answer_len),
            reply: window(reply),
            seed: 0,
        };
        rig.exchange(Plan {
            seed: rng.below(1000),
            ..plan
        });
    }
    rig.stop();
}

pub(crate) fn lesson_14_a_buffer_longer_than_the_message_keeps_its_rest() {
    let mut rig = Rig::new();
    for len in [0, 1, PAGE_SIZE, 2 * PAGE_SIZE] {
        let (short, long) = (at(0, len), at(0, 10 * PAGE_SIZE));
        rig.exchange(Plan {
            data: short,
            target: long,
            answer: short,
            reply: long,
            seed: 9,
        });
    }
    rig.stop();
}
