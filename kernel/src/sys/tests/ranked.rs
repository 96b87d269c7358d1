//! Threads by priority, compared with a vector that is sorted after each step.

use proptest::prelude::*;

use super::machine::Machine;
use crate::object::{Id, Ranked, Thread, Threads};

const NR_THREADS: usize = 12;

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(usize),
    PushFront(usize),
    Pop,
    Remove(usize),
    Rank(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NR_THREADS;
    prop_oneof![
        4 => who().prop_map(Step::Push),
        1 => who().prop_map(Step::PushFront),
        1 => Just(Step::Pop),
        2 => who().prop_map(Step::Remove),
        2 => (who(), 0u8..4).prop_map(|(who, priority)| Step::Rank(who, priority)),
    ]
}

/// Takes all threads out, and puts them in again.
fn in_order(ranked: &mut Ranked, threads: &mut Threads) -> Vec<Id<Thread>> {
    let order: Vec<_> = core::iter::from_fn(|| ranked.pop(threads)).collect();
    for id in &order {
        ranked.push_back(threads, *id);
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 128 }, ..Default::default() })]

    #[test]
    fn threads_are_in_the_order_of_a_stable_sort(
        priorities in prop::collection::vec(0u8..4, NR_THREADS),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut machine = Machine::new(256);
        let space = machine.kernel.create_space(None, None).unwrap();
        let ids: Vec<_> = priorities
            .iter()
            .map(|priority| machine.kernel.create_thread(space, None, *priority).unwrap())
            .collect();
        let threads = &mut machine.kernel.threads;
        let mut ranked = Ranked::new();
        let mut model: Vec<Id<Thread>> = Vec::new();
        for step in steps {
            let at = |who: usize| model.iter().position(|id| *id == ids[who]);
            match step {
                Step::Push(who) if at(who).is_none() => {
                    model.push(ids[who]);
                    ranked.push_back(threads, ids[who]);
                }
                Step::PushFront(who) if at(who).is_none() => {
                    model.insert(0, ids[who]);
                    ranked.push_front(threads, ids[who]);
                }
                Step::Pop if !model.is_empty() => {
                    prop_assert_eq!(ranked.pop(threads), Some(model.remove(0)));
                }
                Step::Remove(who) => {
                    if let Some(at) = at(who) {
                        ranked.remove(threads, model.remove(at));
                    }
                }
                Step::Rank(who, to) => {
                    if let Some(at) = at(who) {
                        let id = model.remove(at);
                        let is_lowered = to < threads.get(id).unwrap().priority;
                        model.insert(if is_lowered { 0 } else { model.len() }, id);
                        ranked.rank(threads, id, to);
                    }
                }
                _ => {}
            }
            model.sort_by_key(|id| u8::MAX - threads.get(*id).unwrap().priority);
            prop_assert_eq!(&in_order(&mut ranked, threads), &model);
        }
        in_order(&mut ranked, threads).into_iter().for_each(|id| ranked.remove(threads, id));
        machine.finish();
    }
}
