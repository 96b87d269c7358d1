use super::*;
use crate::mm::sim::SimMemory;

type Small = Pool<[u64; 60], 4>;

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
fn a_pinned_object_is_found_until_it_is_removed() {
    let memory = SimMemory::new(16);
    let mut pool = Small::new();
    assert!(pool.pinned().is_none() && pool.pinned_id().is_none());
    let [a, b] = [1, 2].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    pool.pin(Some(a));
    assert_eq!((pool.pinned_id(), pool.pinned()), (Some(a), Some(&[1; 60])));

    assert!(pool.pair(a).is_none(), "an object is no pair");
    let mut pair = pool.pair(b).unwrap();
    let (first, second) = pair.both();
    core::mem::swap(first, second);
    assert_eq!(pair.pin_other(), &[1; 60]);
    assert_eq!((pool.pinned_id(), pool.get(a)), (Some(b), Some(&[2; 60])));

    pool.remove(memory.mm(), a);
    assert_eq!(pool.pinned_id(), Some(b));
    assert!(pool.pair(a).is_none());
    pool.remove(memory.mm(), b);
    assert!(pool.pinned().is_none() && pool.pinned_mut().is_none());
}

#[test]
fn a_hint_finds_nothing_once_anything_is_removed() {
    let memory = SimMemory::new(16);
    let (mut pool, mut other) = (Small::new(), Small::new());
    let [a, b] = [1, 2].map(|n| pool.insert(memory.mm(), [n; 60]).unwrap());
    let hint = pool.hint(a).unwrap();
    assert_eq!(pool.hinted_mut(hint), Some((a, &mut [1; 60])));
    assert_eq!(pool.hinted(hint), Some((a, &[1; 60])));
    assert!(
        other.hinted_mut(hint).is_none(),
        "epochs belong to one pool"
    );
    assert!(pool.hinted_mut(Hint::NONE).is_none());

    pool.remove(memory.mm(), b);
    assert!(pool.hinted_mut(hint).is_none() && !pool.is_current(hint));
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
        let other = pool.pair_at(place).map(|mut pair| *pair.both().1);
        assert!(other.is_none_or(|object| object == [7; 60]), "{place:#x}");
    }
    assert_eq!(pool.id_at_place(b.place()), Some(b));
}
