use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NR_CPUS: usize = 3;
const NR_PAGES: usize = 2;
/// More than a CPU has ASIDs.
const NR_ROOTS: usize = NR_ASIDS + 3;

fn root() -> Table {
    [const { AtomicU64::new(0) }; 512]
}

const fn addr(root: usize) -> PhysAddr {
    PhysAddr((root as u64 + 1) * 4096)
}

#[test]
fn what_has_not_changed_is_kept() {
    let (generations, asids) = (Generations::new(), Asids::new());
    let roots = [root(), root()];
    let come_to = |number: usize| asids.choose(addr(number), generations.of(&roots[number]));
    let [first, second] = [0, 1].map(come_to);
    assert!(!first.keeps && !second.keeps && first.asid != second.asid);
    for _ in 0..3 {
        for (number, asid) in [(0, first.asid), (1, second.asid)] {
            assert_eq!(come_to(number), Choice { asid, keeps: true });
        }
    }
}

#[test]
fn what_has_changed_elsewhere_is_forgotten_once() {
    let (generations, asids) = (Generations::new(), Asids::new());
    let root = root();
    let come = || asids.choose(addr(0), generations.of(&root)).keeps;
    assert!(!come() && come());
    let _ = generations.replace(&root);
    assert!(!come() && come());
}

#[test]
fn who_has_forgotten_what_changed_keeps_the_rest() {
    let (generations, asids) = (Generations::new(), Asids::new());
    let root = root();
    let come = || asids.choose(addr(0), generations.of(&root)).keeps;
    assert!(!come());
    asids.follow(addr(0), generations.replace(&root));
    assert!(come());
}

/// Another CPU's change, of which this one has not heard, comes first.
#[test]
fn who_has_missed_a_change_does_not_follow_the_next() {
    let (generations, asids) = (Generations::new(), Asids::new());
    let root = root();
    let come = || asids.choose(addr(0), generations.of(&root)).keeps;
    assert!(!come());
    let _ = generations.replace(&root);
    asids.follow(addr(0), generations.replace(&root));
    assert!(!come());
}

#[test]
fn a_root_in_a_frame_of_an_earlier_one_is_another_page_table() {
    let (generations, asids) = (Generations::new(), Asids::new());
    let first = root();
    let come = |root: &Table| asids.choose(addr(0), generations.of(root)).keeps;
    assert!(!come(&first) && come(&first));
    assert!(!come(&root()));
}

#[test]
fn the_asid_that_was_chosen_first_is_given_away_first() {
    let (generations, asids) = (Generations::new(), Asids::new());
    let roots = [const { root }; NR_ASIDS + 1].map(|root| root());
    let come_to = |number: usize| asids.choose(addr(number), generations.of(&roots[number]));
    let chosen: Vec<_> = (0..NR_ASIDS).map(|number| come_to(number).asid).collect();
    assert_eq!(chosen, (0..NR_ASIDS).collect::<Vec<_>>());
    assert_eq!(
        come_to(NR_ASIDS),
        Choice {
            asid: 0,
            keeps: false
        }
    );
    assert!(come_to(1).keeps && !come_to(0).keeps);
}

#[test]
fn a_generation_maps_nothing() {
    let (generations, root) = (Generations::new(), root());
    for _ in 0..10 {
        let _ = generations.replace(&root);
        assert_eq!(root[PLACE].load(Relaxed) & 1, 0);
    }
}

/// What may happen, each with numbers of CPUs, roots and pages.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A CPU comes to a page table.
    Switch { cpu: usize, root: usize },
    /// A CPU reads a page.
    Read { cpu: usize, page: usize },
    /// A CPU changes a page of a page table that it need not use, and asks those that do, who have not answered yet.
    Change {
        cpu: usize,
        root: usize,
        page: usize,
    },
    /// A CPU does what it was asked for.
    Answer { cpu: usize },
    /// A page table goes, and another one comes into its frame.
    Renew { root: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let (cpu, root, page) = (0..NR_CPUS, 0..NR_ROOTS, 0..NR_PAGES);
    prop_oneof![
        4 => (cpu.clone(), root.clone()).prop_map(|(cpu, root)| Step::Switch { cpu, root }),
        4 => (cpu.clone(), page.clone()).prop_map(|(cpu, page)| Step::Read { cpu, page }),
        2 => (cpu.clone(), root.clone(), page).prop_map(|(cpu, root, page)| Step::Change { cpu, root, page }),
        2 => cpu.prop_map(|cpu| Step::Answer { cpu }),
        1 => root.prop_map(|root| Step::Renew { root }),
    ]
}

/// What may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The generation stays.
    DoesNotReplace,
    /// Nobody is asked.
    DoesNotAsk,
    /// A CPU that has missed a change follows the next.
    FollowsAny,
}

struct Cpu {
    asids: Asids,
    /// The ASID and the root in use.
    now: Option<(usize, usize)>,
    /// What was found by ASID and page.
    tlb: HashMap<(usize, usize), u64>,
    /// The roots and pages that it was asked to forget.
    asked: Vec<(usize, usize)>,
}

impl Cpu {
    fn uses(&self, root: usize) -> bool {
        self.now.is_some_and(|(_, now)| now == root)
    }

    /// Forgets a page of this page table, if it is the one in use. Returns whether it is.
    fn forget(&mut self, root: usize, page: usize) -> bool {
        let asid = self.now.filter(|(_, now)| *now == root);
        if let Some((asid, _)) = asid {
            self.tlb.remove(&(asid, page));
        }
        asid.is_some()
    }
}

/// Does these steps on CPUs that find each page as it is, or as they found it last. Panics if it is another one by then, and the CPU was not
/// asked to forget it, or has answered.
fn run(steps: &[Step], fault: Fault) {
    let generations = Generations::new();
    let mut roots: Vec<_> = (0..NR_ROOTS).map(|_| root()).collect();
    // What each page of each root names: never the same twice.
    let mut pages = [[0; NR_PAGES]; NR_ROOTS];
    let mut nr_names = 0;
    let mut name = || {
        nr_names += 1;
        nr_names
    };
    let mut cpus: Vec<_> = (0..NR_CPUS)
        .map(|_| Cpu {
            asids: Asids::new(),
            now: None,
            tlb: HashMap::new(),
            asked: Vec::new(),
        })
        .collect();
    for step in steps {
        match *step {
            Step::Switch { cpu, root } => {
                let cpu = &mut cpus[cpu];
                let choice = cpu.asids.choose(addr(root), generations.of(&roots[root]));
                if !choice.keeps {
                    cpu.tlb.retain(|(asid, _), _| *asid != choice.asid);
                }
                cpu.now = Some((choice.asid, root));
            }
            Step::Read { cpu, page } => {
                let cpu = &mut cpus[cpu];
                let Some((asid, root)) = cpu.now else {
                    continue;
                };
                let found = *cpu.tlb.entry((asid, page)).or_insert(pages[root][page]);
                let may_be_old = cpu.asked.contains(&(root, page));
                let is_as_it_is = found == pages[root][page];
                assert!(is_as_it_is || may_be_old, "a CPU knows what is no more");
            }
            Step::Change { cpu, root, page } => {
                pages[root][page] = name();
                let mut both = [Generation::NONE; 2];
                if fault != Fault::DoesNotReplace {
                    both = generations.replace(&roots[root]);
                }
                if fault == Fault::FollowsAny {
                    let mut known = cpus[cpu].asids.known.iter().map(Cell::get);
                    let known = known.find(|known| known.root == addr(root));
                    both[0] = known.map_or(both[0], |known| known.generation);
                }
                for (number, other) in cpus.iter_mut().enumerate() {
                    if number == cpu {
                        if other.forget(root, page) {
                            other.asids.follow(addr(root), both);
                        }
                    } else if fault != Fault::DoesNotAsk && other.uses(root) {
                        other.asked.push((root, page));
                    }
                }
            }
            Step::Answer { cpu } => {
                let cpu = &mut cpus[cpu];
                for (root, page) in std::mem::take(&mut cpu.asked) {
                    cpu.forget(root, page);
                }
            }
            Step::Renew { root: number } => {
                if !cpus.iter().any(|cpu| cpu.uses(number)) {
                    roots[number] = root();
                    pages[number] = [(); NR_PAGES].map(|()| name());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_cpu_knows_what_is_no_more(
        steps in prop::collection::vec(steps(), 0..if cfg!(miri) { 40 } else { 400 }),
    ) {
        run(&steps, Fault::None);
    }
}

/// Does steps after which a CPU knows what is no more if, and only if, there is this fault.
fn fails_only_with(fault: Fault, steps: &[Step]) {
    run(steps, Fault::None);
    let result = std::panic::catch_unwind(|| run(steps, fault));
    assert!(result.is_err(), "nothing has failed");
}

/// CPU 0 comes to root 0, and finds its page 0.
const FINDS: [Step; 2] = [
    Step::Switch { cpu: 0, root: 0 },
    Step::Read { cpu: 0, page: 0 },
];

/// CPU 1 changes that page.
const CHANGES: Step = Step::Change {
    cpu: 1,
    root: 0,
    page: 0,
};

#[test]
fn a_flush_must_replace_the_generation() {
    let [comes, reads] = FINDS;
    let leaves = Step::Switch { cpu: 0, root: 1 };
    let steps = [comes, reads, leaves, CHANGES, comes, reads];
    fails_only_with(Fault::DoesNotReplace, &steps);
}

#[test]
fn a_flush_must_ask_who_uses_the_page_table() {
    let [comes, reads] = FINDS;
    let steps = [comes, reads, CHANGES, reads];
    fails_only_with(Fault::DoesNotAsk, &steps);
}

/// Two change one page table at once: the first has not heard of the other's change when it leaves.
#[test]
fn only_who_knew_the_last_generation_may_follow() {
    let [comes, reads] = FINDS;
    let steps = [
        comes,
        reads,
        CHANGES,
        Step::Change {
            cpu: 0,
            root: 0,
            page: 1,
        },
        Step::Switch { cpu: 0, root: 1 },
        Step::Answer { cpu: 0 },
        comes,
        reads,
    ];
    fails_only_with(Fault::FollowsAny, &steps);
}
