use core::sync::atomic::{AtomicPtr, AtomicU64};

use super::*;
use crate::mm::sim::SimMemory;

type Small = Pool<[u64; 60], 4, 2>;

#[test]
fn an_id_that_outlived_its_object_finds_nothing() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let first = pool.insert(memory.mm(), [1; 60]).unwrap();
    assert_eq!(pool.remove(memory.mm(), first), Some([1; 60]));
    let second = pool.insert(memory.mm(), [2; 60]).unwrap();
    assert_eq!(first.index(), second.index());
    assert!(pool.get(first).is_none());
    assert_eq!(pool.get(second), Some(&[2; 60]));
}

#[test]
fn a_pool_owns_no_frame_without_objects() {
    let memory = SimMemory::new(16);
    let before = memory.mm().frames.free_count();
    let mut pool = Small::new();
    let ids: Vec<_> = (0..Small::CAPACITY)
        .map(|i| pool.insert(memory.mm(), [i as u64; 60]).unwrap())
        .collect();
    assert_eq!(memory.mm().frames.free_count(), before - 4);
    assert!(matches!(
        pool.insert(memory.mm(), [0; 60]),
        Err((PoolError::Full, _))
    ));
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(pool.get(*id), Some(&[i as u64; 60]));
    }
    for id in ids.into_iter().rev() {
        assert!(pool.remove(memory.mm(), id).is_some());
    }
    assert_eq!(memory.mm().frames.free_count(), before);
    assert!(pool.is_empty());
}

#[test]
fn a_full_pool_takes_an_object_into_the_slot_that_became_free() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let ids: Vec<_> = (0..Small::CAPACITY)
        .map(|_| pool.insert(memory.mm(), [0; 60]).unwrap())
        .collect();
    pool.remove(memory.mm(), ids[4]);
    assert_eq!(
        pool.insert(memory.mm(), [9; 60]).unwrap().index(),
        ids[4].index()
    );
}

#[test]
fn the_head_of_a_chunk_is_no_object() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let id = pool.insert(memory.mm(), [0; 60]).unwrap();
    assert_ne!(id.index(), 0);
    assert!(pool.id_at(0).is_none());
    assert!(pool.id_at(usize::MAX).is_none());
}

#[test]
fn next_id_visits_every_object_once() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let ids: Vec<_> = (0..Small::CAPACITY / 2)
        .map(|_| pool.insert(memory.mm(), [0; 60]).unwrap())
        .collect();
    pool.remove(memory.mm(), ids[0]);
    pool.remove(memory.mm(), ids[5]);
    let mut seen = Vec::new();
    let mut index = 0;
    while let Some(id) = pool.next_id(index) {
        seen.push(id);
        index = id.index() + 1;
    }
    let expected: Vec<_> = ids
        .iter()
        .copied()
        .filter(|id| *id != ids[0] && *id != ids[5])
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_pinned_object_is_found_until_another_is_pinned_there() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    assert!(pool.pinned().is_none() && pool.pinned_id().is_none());
    let [a, b] = [1, 2].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    pool.pin(Some(a));
    assert_eq!((pool.pinned_id(), pool.pinned()), (Some(a), Some(&[1; 60])));

    pool.enter(1);
    assert_eq!((pool.pinned_id(), pool.pinned_on(0)), (None, Some(a)));
    pool.pin(Some(b));
    pool.pinned_mut().unwrap()[0] = 3;
    assert_eq!(pool.get(b).unwrap()[0], 3);
    pool.unpin_on(0);
    assert_eq!((pool.pinned_on(0), pool.pinned_on(1)), (None, Some(b)));
    assert_eq!(pool.remove(memory.mm(), a), Some([1; 60]));
    pool.pin(None);
    assert!(pool.pinned().is_none() && pool.pinned_mut().is_none());
    assert!(pool.remove(memory.mm(), b).is_some());
}

#[test]
#[should_panic(expected = "is pinned")]
fn what_is_pinned_is_not_removed() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let id = pool.insert(memory.mm(), [1; 60]).unwrap();
    pool.pin(Some(id));
    pool.remove(memory.mm(), id);
}

/// What a CPU has of a pool that it has alone.
fn share(pool: &mut Small, cpu: usize) -> (Claims<'_, [u64; 60], 4, 2>, Pinned<'_, [u64; 60]>) {
    // SAFETY: the pool is ours alone as long as it is borrowed.
    unsafe { Small::share(pool, pool.pin_of(cpu)) }
}

#[test]
fn what_is_claimed_or_pinned_cannot_be_claimed() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let [a, b] = [1, 2].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    pool.pin(Some(a));
    let (claims, mut pinned) = share(&mut pool, 0);
    assert!(claims.claim(a).is_none() && claims.claim_at(a.place()).is_none());
    let mut claim = claims.claim(b).unwrap();
    assert!(claims.claim(b).is_none() && claims.claim_at(b.place()).is_none());
    claim[0] = 7;
    let replaced = pinned.replace(claim).unwrap();
    assert_eq!((pinned.id(), pinned.get_mut().unwrap()[0]), (Some(b), 7));
    assert_eq!(replaced.id(), a);
    assert!(claims.claim(b).is_none() && claims.claim(a).is_none());
    drop(replaced);
    assert!(claims.claim(a).is_some() && claims.claim_at(a.place()).is_some());
    assert_eq!((pool.pinned_id(), pool.get(b).unwrap()[0]), (Some(b), 7));
}

#[test]
fn what_waits_in_a_berth_is_found_there_and_nowhere_else() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let [a, b] = [1, 2].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    let mut berth = Berth::new();
    pool.park(&mut berth, a);
    assert_eq!(berth.id(), Some(a));
    let (claims, mut pinned) = share(&mut pool, 0);
    assert!(claims.claim(a).is_none() && claims.claim_at(a.place()).is_none());
    assert!(claims.claim_empty_berth(&berth, || 0).is_none());

    let mut found = claims.claim_berth(&berth).unwrap();
    assert!(claims.claim_berth(&berth).is_none());
    assert!(claims.claim_empty_berth(&berth, || 0).is_none());
    found.get_mut().unwrap()[0] = 7;
    drop(found);
    let mut found = claims.claim_berth(&berth).unwrap();
    assert_eq!((found.id(), found.get_mut().unwrap()[0]), (Some(a), 7));
    pinned.replace(found.take().unwrap());
    drop(found);
    assert!(claims.claim(a).is_none());

    assert!(claims.claim_empty_berth(&berth, || 1).is_none());
    let mut found = claims.claim_empty_berth(&berth, || 0).unwrap();
    assert!(claims.claim_berth(&berth).is_none());
    let claimed = claims.claim(b).unwrap();
    found.put(pinned.replace(claimed).unwrap());
    drop(found);
    assert!(claims.claim(a).is_none() && claims.claim(b).is_none());
    assert_eq!(
        (pool.pinned_id(), pool.unpark(&mut berth)),
        (Some(b), Some(a))
    );
    assert!(berth.is_empty() && pool.unpark(&mut berth).is_none());
    assert!(share(&mut pool, 0).0.claim(a).is_some());
}

#[test]
fn what_is_pinned_when_it_comes_to_wait_stays_claimed_when_it_is_unpinned() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let id = pool.insert(memory.mm(), [1; 60]).unwrap();
    let mut berth = Berth::new();
    pool.pin(Some(id));
    pool.park(&mut berth, id);
    pool.pin(None);
    assert!(share(&mut pool, 0).0.claim(id).is_none());
    assert_eq!(pool.unpark(&mut berth), Some(id));
    assert!(share(&mut pool, 0).0.claim(id).is_some());
}

#[test]
#[should_panic(expected = "waits")]
fn what_waits_in_a_berth_is_not_removed() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let id = pool.insert(memory.mm(), [1; 60]).unwrap();
    let mut berth = Berth::new();
    pool.park(&mut berth, id);
    pool.remove(memory.mm(), id);
}

#[test]
fn one_cpu_at_a_time_has_an_object() {
    const ROUNDS: u64 = if cfg!(miri) { 40 } else { 10_000 };
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let ids = [0, 0].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    let place = AtomicPtr::new(&raw mut pool);
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let place = &place;
            scope.spawn(move || {
                // SAFETY: the pool is shared by these two until both have ended.
                let (claims, mut pinned) = unsafe {
                    let pool = place.load(Relaxed);
                    Small::share(pool, (*pool).pin_of(cpu))
                };
                let mut nr_done = 0;
                while nr_done < ROUNDS {
                    let id = ids[(nr_done % 2) as usize];
                    let Some(mut object) = claims.claim(id) else {
                        // The other one may want what is pinned here.
                        pinned.release();
                        std::thread::yield_now();
                        continue;
                    };
                    let before = *object;
                    *object = before.map(|n| n + 1);
                    nr_done += 1;
                    if nr_done % 4 == 0 {
                        pinned.replace(object);
                    }
                }
                pinned.release();
            });
        }
    });
    for id in ids {
        assert_eq!(pool.get(id), Some(&[ROUNDS; 60]));
    }
}

#[test]
fn a_hint_finds_nothing_once_anything_is_removed() {
    let memory = SimMemory::new(16);
    let (mut pool, other) = (Small::new(), Small::new());
    let [a, b] = [1, 2].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    let hint = pool.hint(a).unwrap();
    assert_eq!(pool.hinted(hint), Some((a, &[1; 60])));
    assert!(other.hinted(hint).is_none(), "epochs belong to one pool");
    assert!(pool.hinted(Hint::NONE).is_none());

    pool.remove(memory.mm(), b);
    assert!(pool.hinted(hint).is_none() && !pool.is_current(hint));
    let hint = pool.hint(a).unwrap();
    pool.end_epoch();
    assert!(pool.hinted(hint).is_none());
    pool.remove(memory.mm(), a);
    assert!(pool.hint(a).is_none());
}

#[test]
fn any_number_is_a_place_and_never_within_an_object() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    let [a, b] = [u64::MAX, 7].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    pool.pin(Some(a));
    for place in (0..5 << CHUNK_SHIFT).step_by(8).chain([u64::MAX, 1 << 40]) {
        let found = pool.id_at_place(place);
        assert!(found.is_none_or(|id| id == a || id == b), "{place:#x}");
        let (claims, _) = share(&mut pool, 1);
        let other = claims.claim_at(place).map(|claim| *claim);
        assert!(other.is_none_or(|object| object == [7; 60]), "{place:#x}");
    }
    assert_eq!(pool.id_at_place(b.place()), Some(b));
}

#[test]
fn what_is_added_beside_others_is_found_complete_or_not_at_all() {
    const NR_OBJECTS: u64 = Small::CAPACITY as u64 - 1;
    let memory = SimMemory::new(16);
    let before = memory.mm().frames.free_count();
    let mut pool = Small::new();
    let first = pool.insert(memory.mm(), [0; 60]).unwrap();
    let added: Vec<_> = (0..NR_OBJECTS).map(|_| AtomicU64::new(0)).collect();
    let (mm, shared) = (memory.mm(), AtomicPtr::new(&raw mut pool));
    std::thread::scope(|scope| {
        let (shared, added) = (&shared, &added);
        let adder = scope.spawn(move || {
            for (number, said) in (1..).zip(added) {
                // SAFETY: the pool stays, and nobody else adds anything.
                let room = unsafe { (*shared.load(Relaxed)).room(mm) }.expect("room");
                let id = room.fill(|_| [number; 60]);
                said.store(Id::word(Some(id)), Relaxed);
            }
        });
        // Any place that somebody alleges, and ids that were heard of.
        // SAFETY: it is shared in this way, and the pin is used by nobody else.
        let (pool, (claims, _pinned)) = unsafe {
            let pool = shared.load(Relaxed);
            (&*pool, Small::share(pool, (*pool).pin_of(0)))
        };
        while !adder.is_finished() {
            for index in 0..Small::INDEX_END as u64 {
                if let Some(claim) = claims.claim_at(index << slot_shift::<[u64; 60]>()) {
                    assert!(claim.iter().all(|word| *word == claim[0]));
                }
            }
            for said in added {
                let id = Id::from_bits(said.load(Relaxed));
                if let Some(object) = id.and_then(|id| pool.get_beside(id)) {
                    assert!(object.iter().all(|word| *word == object[0]));
                }
            }
            std::thread::yield_now();
        }
    });
    assert_eq!(pool.len() as u64, NR_OBJECTS + 1);
    assert_eq!(pool.remove(memory.mm(), first), Some([0; 60]));
    for (number, id) in (1..).zip(added) {
        let id = Id::from_bits(id.into_inner()).unwrap();
        assert_eq!(pool.remove(memory.mm(), id), Some([number; 60]));
    }
    assert_eq!(memory.mm().frames.free_count(), before);
}

#[test]
fn room_at_hand_takes_no_frame() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    // SAFETY: nobody else uses the pool.
    assert!(unsafe { pool.room_at_hand() }.is_none());
    let first = pool.insert(memory.mm(), [1; 60]).unwrap();
    let before = memory.mm().frames.free_count();
    let mut nr_more = 0;
    // SAFETY: as above.
    while let Some(room) = unsafe { pool.room_at_hand() } {
        room.fill(|_| [2; 60]);
        nr_more += 1;
    }
    assert_eq!(nr_more, Small::SLOTS - 2);
    assert_eq!(memory.mm().frames.free_count(), before);
    assert!(pool.remove(memory.mm(), first).is_some());
    // SAFETY: as above.
    assert!(unsafe { pool.room_at_hand() }.is_some());
}
