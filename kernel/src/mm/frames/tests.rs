//! Frames are handed out once, and all come back.

use std::collections::BTreeSet;

use super::*;
use crate::mm::sim::SimMemory;

#[test]
fn every_frame_is_handed_out_once_and_comes_back() {
    let sim = SimMemory::at(0, 16);
    let frames = &sim.mm().frames;
    let total = frames.total_count();
    assert_eq!(total, 15, "frame 0 is left out");
    for _ in 0..3 {
        let taken: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
        assert_eq!(taken.len() as u64, total);
        assert_eq!(frames.free_count(), 0);
        taken.into_iter().for_each(|frame| frames.free(frame));
        assert_eq!(frames.free_count(), total);
    }
}

#[test]
fn memory_above_four_gib() {
    let start = 100 << 40;
    let sim = SimMemory::at(start, 4);
    let frame = sim.mm().frames.alloc_zeroed().unwrap();
    assert_eq!(frame.addr(), PhysAddr(start));
    assert_eq!(sim.mm().frames.free_count(), 3);
    sim.mm().frames.free(frame);
    assert_eq!(sim.mm().frames.free_count(), 4);
}

#[test]
fn ragged_ends_and_empty_ranges_are_left_out() {
    assert_eq!(
        whole_frames(PhysAddr(0), PhysAddr(0x2fff)),
        Some((0x1000, 0x2000))
    );
    assert_eq!(whole_frames(PhysAddr(0x1001), PhysAddr(0x2fff)), None);
    assert_eq!(whole_frames(PhysAddr(0x3000), PhysAddr(0x1000)), None);
}

#[test]
fn adjacent_and_too_many_ranges() {
    let sim = SimMemory::empty(4 * MAX_RANGES);
    let frames = &sim.mm().frames;
    let add = |first: u64, nr_frames: u64| {
        frames.add_range(
            PhysAddr(first * FRAME_SIZE),
            PhysAddr((first + nr_frames) * FRAME_SIZE),
        );
    };
    add(10, 2);
    add(12, 3);
    add(8, 2);
    assert_eq!(frames.pool.lock().nr_ranges, 1);
    for n in 0..MAX_RANGES as u64 + 10 {
        add(20 + 2 * n, 1);
    }
    let total = 7 + MAX_RANGES as u64 + 10;
    assert_eq!((frames.free_count(), frames.total_count()), (total, total));
    let taken: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
    assert_eq!(taken.len() as u64, total);
}

#[test]
fn a_book_of_frames_comes_back_at_once() {
    let sim = SimMemory::at(0, 2000);
    let frames = &sim.mm().frames;
    let map = &sim.mm().map;
    for len in [0, 1, 300, BOOK_LEN] {
        let free = frames.free_count();
        let book = frames.alloc().unwrap();
        for place in &map.table(book)[1..=len] {
            // As in a page-table entry.
            let entry = frames.alloc().unwrap().addr().0 | 0x8010_0000_0000_0000 | 0x67;
            place.store(entry, Relaxed);
        }
        assert_eq!(frames.free_count(), free - 1 - len as u64);
        frames.free_book(book, len, Commit::Overcommit);
        assert_eq!(frames.free_count(), free);
        let taken: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
        assert_eq!(taken.len() as u64, frames.total_count());
        frames.free_all(taken, Commit::Overcommit);
        assert_eq!(frames.free_count(), free);
    }
}

/// Memory whose CPUs use their stocks.
fn shared(nr_frames: usize) -> SimMemory {
    let sim = SimMemory::at(0, nr_frames);
    sim.mm().frames.set_shared(true);
    sim
}

#[test]
fn memory_is_not_short_while_another_cpu_has_some_at_hand() {
    let sim = shared(2 * CAPACITY + 1);
    let frames = &sim.mm().frames;
    let hoard = || {
        let taken: Vec<_> = (0..CAPACITY).filter_map(|_| frames.alloc()).collect();
        taken.into_iter().for_each(|frame| frames.free(frame));
    };
    let elsewhere = |act: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| scope.spawn(act).join().expect("it does not panic"));
    };
    elsewhere(&hoard);
    let taken: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
    assert_eq!((taken.len(), frames.free_count()), (2 * CAPACITY, 0));
    frames.free_all(taken, Commit::Overcommit);
    elsewhere(&hoard);
    let all = frames.reserve(2 * CAPACITY, Commit::Overcommit);
    assert_eq!(all.expect("they are there").len(), 2 * CAPACITY);
    elsewhere(&hoard);
    frames.promise(2 * CAPACITY as u64).expect("they are there");
    frames.forgo(2 * CAPACITY as u64);
    assert_eq!(frames.free_count(), 2 * CAPACITY as u64);
}

#[test]
fn what_is_set_aside_at_hand_is_nobody_elses() {
    let sim = shared(9);
    let frames = &sim.mm().frames;
    let mut reserve = frames.reserve(3, Commit::Overcommit).unwrap();
    assert!(reserve.left < 0);
    let others: BTreeSet<_> = std::thread::scope(|scope| {
        let all = scope.spawn(|| core::iter::from_fn(|| frames.alloc()).collect());
        all.join().expect("it does not panic")
    });
    assert_eq!(
        (others.len(), frames.free_count(), frames.alloc()),
        (5, 0, None)
    );
    let own = [reserve.take(), reserve.take_zeroed()];
    assert!(own.iter().all(|frame| !others.contains(frame)));
    reserve.release();
    assert_eq!(frames.free_count(), 1);
    frames.free_all(others.into_iter().chain(own), Commit::Overcommit);
    assert_eq!(frames.free_count(), 8);
}

#[test]
fn a_cpu_has_no_more_at_hand_than_its_stock_holds() {
    let sim = shared(4 * CAPACITY + 1);
    let frames = &sim.mm().frames;
    let reserve = frames.reserve(CAPACITY, Commit::Overcommit).unwrap();
    let more = frames.reserve(1, Commit::Overcommit).unwrap();
    assert!(reserve.left < 0 && more.left > 0);
    let taken: Vec<_> = core::iter::from_fn(|| frames.alloc()).collect();
    assert_eq!(taken.len(), 3 * CAPACITY - 1);
    // All of it is set aside, so there is no room.
    let book = taken[0];
    let listed = &taken[1..CAPACITY / 2];
    for (place, frame) in sim.mm().map.table(book)[1..].iter().zip(listed) {
        place.store(frame.addr().0, Relaxed);
    }
    frames.free_book(book, listed.len(), Commit::Overcommit);
    frames.free_all(taken[CAPACITY / 2..].iter().copied(), Commit::Overcommit);
    drop((reserve, more));
    assert_eq!(frames.free_count(), 4 * CAPACITY as u64);
}

/// Several CPUs take frames in every way and give them back in every way, while one after the other finds memory short, and stocks
/// come into use and go out of use.
#[test]
fn nothing_is_lost_and_nothing_had_twice_where_stocks_are_gathered_meanwhile() {
    let nr_rounds = if cfg!(miri) { 10 } else { 3_000 };
    let sim = shared(200);
    let frames = &sim.mm().frames;
    let owners: Vec<_> = (0..200).map(|_| AtomicUsize::new(0)).collect();
    let own = |frame: Frame| {
        assert_eq!(owners[frame.number() as usize].swap(1, Relaxed), 0);
        frame
    };
    let disown = |frame: Frame| {
        assert_eq!(owners[frame.number() as usize].swap(0, Relaxed), 1);
        frame
    };
    std::thread::scope(|scope| {
        for cpu in 0..4_usize {
            let (own, disown) = (&own, &disown);
            scope.spawn(move || {
                for round in 0..nr_rounds {
                    frames.set_shared((round + cpu) % 16 != 0);
                    let nr_frames = (round * 7 + cpu * 3) % 70;
                    let mut taken = Vec::new();
                    if let Ok(mut reserve) = frames.reserve(nr_frames, Commit::Overcommit) {
                        taken.extend((0..nr_frames - nr_frames / 4).map(|_| own(reserve.take())));
                    }
                    taken.extend((0..nr_frames).filter_map(|_| frames.alloc()).map(own));
                    let rest = taken.split_off(taken.len() / 2);
                    taken
                        .into_iter()
                        .for_each(|frame| frames.free(disown(frame)));
                    frames.free_all(rest.into_iter().map(disown), Commit::Overcommit);
                }
            });
        }
    });
    assert_eq!((frames.free_count(), frames.total_count()), (199, 199));
    let all: BTreeSet<_> = core::iter::from_fn(|| frames.alloc()).collect();
    assert_eq!(all.len(), 199);
}

#[test]
fn a_reserve_is_all_or_nothing_and_gives_back_the_rest() {
    let sim = SimMemory::at(0, 11);
    let frames = &sim.mm().frames;
    assert!(frames.reserve(11, Commit::Overcommit).is_err());
    assert_eq!(frames.free_count(), 10);
    let mut reserve = frames.reserve(10, Commit::Overcommit).unwrap();
    assert_eq!((frames.free_count(), frames.alloc()), (0, None));
    let taken = reserve.take_zeroed();
    assert_eq!((reserve.len(), frames.free_count()), (9, 0));
    reserve.release();
    assert_eq!(frames.free_count(), 9);
    frames.free(taken);
    assert_eq!(frames.free_count(), 10);
}

/// One CPU takes all that is there for everybody, again and again, while another takes a frame that is promised
/// and gives it back.
#[test]
fn what_a_strict_space_gives_back_is_promised_before_anybody_can_take_it() {
    let nr_rounds = if cfg!(miri) { 20 } else { 20_000 };
    let sim = SimMemory::at(0, 9);
    let frames = &sim.mm().frames;
    frames.promise(3).unwrap();
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            for _ in 0..nr_rounds {
                let taken: Vec<_> = core::iter::from_fn(|| frames.alloc()).collect();
                assert!(taken.len() <= 5);
                frames.free_all(taken, Commit::Overcommit);
            }
        });
        while !greedy.is_finished() {
            let reserve = frames.reserve(2, Commit::Strict);
            let mut reserve = reserve.expect("three are promised");
            let (first, second) = (reserve.take(), reserve.take());
            frames.free_of(first, Commit::Strict);
            frames.free_all([second], Commit::Strict);
        }
    });
    assert_eq!((frames.promised(), frames.spare_count()), (3, 5));
}

#[test]
fn what_is_freed_meanwhile_is_not_the_reserves() {
    let sim = SimMemory::at(0, 9);
    let frames = &sim.mm().frames;
    let mut used: BTreeSet<_> = (0..4).filter_map(|_| frames.alloc()).collect();
    let mut reserve = frames.reserve(4, Commit::Overcommit).unwrap();
    let freed = used.pop_first().unwrap();
    frames.free(freed);
    assert_eq!(frames.free_count(), 1);
    assert_eq!(frames.alloc(), Some(freed));
    assert_eq!(frames.alloc(), None);
    used.insert(freed);
    used.extend((0..4).map(|_| reserve.take()));
    assert_eq!((used.len(), reserve.len()), (8, 0));
}

#[test]
#[should_panic(expected = "more frames taken than reserved")]
fn a_reserve_has_no_more_than_was_reserved() {
    let sim = SimMemory::at(0, 9);
    let mut reserve = sim.mm().frames.reserve(1, Commit::Overcommit).unwrap();
    let _ = (reserve.take(), reserve.take());
}
