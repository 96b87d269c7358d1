//! The short paths of `map`, `unmap` and `share` of one page, and that of all calls on memory at the same time as other CPUs, against
//! the general one: the same calls, the same state.

use cowslip_abi::{Call, Error, Handle, Perm, Rights, ShareMode};
use proptest::prelude::*;

use super::machine::{BUFFER, Machine, Program};
use crate::object::{Here, Kernel, Object, Registers};
use crate::sys;

const PAGE: u64 = 4096;
/// Where pages are mapped, in a table of the buffer's and in one of their own.
const PLACES: [u64; 7] = [
    BUFFER,
    BUFFER + PAGE,
    BUFFER + 0x10_0000,
    BUFFER + 0x1_0000,
    0x4000_0000,
    0x4000_0000 + PAGE,
    0x7fff_ffff_f000,
];

/// A call on memory of the pager's.
#[derive(Clone, Copy, Debug)]
struct Step {
    call: Call,
    /// Which of the handles to spaces; beyond the last, a bad one.
    spaces: [usize; 2],
    addrs: [u64; 2],
    len: u64,
    mode: u64,
    perm: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop_oneof![
        8 => Just(Call::Share),
        2 => Just(Call::Unmap),
        2 => Just(Call::Map),
        1 => Just(Call::Protect),
    ];
    let addr = || {
        prop_oneof![
            20 => prop::sample::select(PLACES.as_slice()),
            1 => prop::sample::select([1, BUFFER + 8, 1 << 47, u64::MAX - PAGE + 1].as_slice()),
        ]
    };
    (
        call,
        [0..SPACES + 1, 0..SPACES + 1],
        [addr(), addr()],
        prop_oneof![8 => Just(PAGE), 1 => Just(2 * PAGE)],
        prop_oneof![6 => Just(ShareMode::Shared as u64), 2 => Just(ShareMode::CopyOnWrite as u64), 1 => 0u64..4],
        prop_oneof![6 => Just(1u64), 2 => Just(3), 2 => Just(0), 1 => 0u64..9],
    )
        .prop_map(|(call, spaces, addrs, len, mode, perm)| Step {
            call,
            spaces,
            addrs,
            len,
            mode,
            perm,
        })
}

/// How many handles to spaces the pager has.
const SPACES: usize = 5;

/// What is tried first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Long,
    /// The short path for a page.
    Short,
    /// The path of a CPU that shares the kernel.
    AmongOthers,
}

/// A pager and its client.
struct World {
    machine: Machine,
    pager: Program,
    client: Program,
    handles: [Handle; SPACES],
    path: Path,
    /// How many calls did not take the long path.
    nr_short: usize,
}

impl World {
    fn new(path: Path) -> Self {
        let mut machine = Machine::new(512);
        let (pager, client) = (machine.program(), machine.program());
        let own = Object::Space(pager.space);
        let other = Object::Space(client.space);
        let handles = [
            (own, Rights::SPACE),
            (other, Rights::SPACE),
            (own, Rights::READ),
            (other, Rights::MAP),
        ]
        .map(|(space, rights)| machine.install(pager, space, rights));
        let [a, b, c, d] = handles;
        Self {
            machine,
            pager,
            client,
            handles: [a, b, c, d, Handle::NONE],
            path,
            nr_short: 0,
        }
    }

    /// Limits the client to so many frames more than it has.
    fn limit_client(&mut self, nr_frames: u64) {
        let space = self.machine.kernel.spaces.get(self.client.space).unwrap();
        let budget = space.table.commit() + nr_frames;
        space.table.set_budget(budget);
    }

    /// Lets the pager make a call, as the entry code would.
    fn take(&mut self, step: Step) {
        let [handle, from_space] = step
            .spaces
            .map(|number| *self.handles.get(number).unwrap_or(&Handle(0x7fff_ffff)));
        let Step { addrs, len, .. } = step;
        let args = match step.call {
            Call::Share => [
                from_space.0.into(),
                addrs[0],
                addrs[1],
                len,
                step.mode,
                step.perm,
            ],
            _ => [addrs[0], len, step.perm, 0, 0, 0],
        };
        self.machine.run(self.pager.thread);
        let before = self.snapshot();
        let kernel = &mut self.machine.kernel;
        let regs = &mut kernel.threads.get_mut(self.pager.thread).unwrap().regs;
        [regs.rdi, regs.rsi, regs.rdx, regs.r8, regs.r9, regs.r10] = args;
        regs.rax = step.call as u64 | u64::from(handle.0) << 32;
        let is_done = match self.path {
            Path::Long => false,
            Path::Short => is_done_short(kernel, step),
            Path::AmongOthers => is_done_among_others(kernel),
        };
        if is_done {
            self.nr_short += 1;
            return;
        }
        assert_eq!(before, self.snapshot(), "given up after a change");
        sys::syscall(&mut self.machine.kernel);
    }

    /// The memory of both.
    fn snapshot(&self) -> String {
        let kernel = &self.machine.kernel;
        let mut text = format!("free {}\n", self.machine.free());
        for program in [self.pager, self.client] {
            let table = &kernel.spaces.get(program.space).unwrap().table;
            let statistics = table.statistics(kernel.mm);
            text += &format!("{} {statistics:?}\n", table.commit());
            for place in PLACES {
                text += &format!("{:?}\n", table.lookup(kernel.mm, place));
            }
        }
        text
    }

    fn result(&self) -> u64 {
        let thread = self.machine.kernel.threads.get(self.pager.thread);
        thread.unwrap().regs.rax
    }
}

/// Whether the running thread's call, which is this one, went the short way.
fn is_done_short(kernel: &mut Kernel, step: Step) -> bool {
    let short = match step.call {
        Call::Share => sys::share_page as fn(&Kernel) -> Option<&Registers>,
        Call::Map => sys::map_page as _,
        Call::Unmap => sys::unmap_page as _,
        _ => return false,
    };
    let is_done = step.len == PAGE && short(kernel).is_some();
    if is_done {
        kernel.threads.pinned_mut().unwrap().regs.rax = 0;
    }
    is_done
}

/// Whether it could be done apart from the kernel, though there are no other CPUs.
fn is_done_among_others(kernel: &mut Kernel) -> bool {
    let seat = kernel.seat(0);
    // SAFETY: the kernel is borrowed, and nobody else uses it.
    let here = unsafe { Here::share(kernel, seat) };
    let is_done = sys::LockedCall::of(&here).is_some_and(|call| call.make().is_some());
    if is_done {
        kernel.threads.pinned_mut().unwrap().regs.rax = 0;
    }
    is_done
}

/// The pager gives its first page to its client, which has room for it.
const FIRST: Step = Step {
    call: Call::Share,
    spaces: [1, 0],
    addrs: [BUFFER, PLACES[2]],
    len: PAGE,
    mode: ShareMode::Shared as u64,
    perm: Perm::R.bits(),
};

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 128 }, ..Default::default() })]

    #[test]
    fn a_page_goes_the_short_way_as_the_long_way(
        steps in prop::collection::vec(step(), 1..60),
        budget in 0u64..20,
    ) {
        compare(Path::Short, &steps, budget)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 64 }, ..Default::default() })]

    #[test]
    fn a_call_among_others_does_what_it_does_alone(
        steps in prop::collection::vec(step(), 1..60),
        budget in 0u64..20,
    ) {
        compare(Path::AmongOthers, &steps, budget)?;
    }
}

/// Takes the steps on this path and on the long one.
fn compare(path: Path, steps: &[Step], budget: u64) -> Result<(), TestCaseError> {
    // A kernel is large, so they are not on the stack.
    let mut worlds = [Path::Long, path].map(|path| Box::new(World::new(path)));
    for world in &mut worlds {
        world.take(FIRST);
        world.limit_client(budget);
    }
    for step in steps {
        for world in &mut worlds {
            world.take(*step);
        }
        prop_assert_eq!(worlds[0].result(), worlds[1].result());
        prop_assert_eq!(worlds[0].snapshot(), worlds[1].snapshot());
    }
    for world in &mut worlds {
        world.machine.finish();
    }
    Ok(())
}

#[test]
fn a_page_that_is_shared_already_goes_the_short_way() {
    let mut world = World::new(Path::Short);
    world.take(FIRST);
    assert_eq!((world.result(), world.nr_short), (0, 0), "it was private");
    for (number, place) in [BUFFER + 0x10_1000, BUFFER + 0x10_2000]
        .into_iter()
        .enumerate()
    {
        let addrs = [BUFFER, place];
        world.take(Step { addrs, ..FIRST });
        assert_eq!((world.result(), world.nr_short), (0, number + 1));
        let page = |program, addr| world.machine.read(program, addr, 8);
        assert_eq!(page(world.pager, BUFFER), page(world.client, place));
    }
    world.machine.finish();
}

#[test]
fn the_short_way_gives_no_more_than_the_mapping_was_made_with() {
    let mut world = World::new(Path::Short);
    world.take(FIRST);
    // What the client was given to read, the pager takes back from there to write. The first call finds
    // the way, the second knows it.
    for _ in 0..2 {
        world.take(Step {
            spaces: [0, 1],
            addrs: [PLACES[2], BUFFER + 0x1_0000],
            perm: Perm::RW.bits(),
            ..FIRST
        });
        assert_eq!(world.result(), Error::Denied as u64);
    }
    assert_eq!(world.nr_short, 0);
    world.machine.finish();
}

/// A fork of the pager's table of pages, at another address.
const FORK: Step = Step {
    call: Call::Share,
    spaces: [1, 0],
    addrs: [BUFFER, BUFFER + 0x10_1000],
    len: PAGE,
    mode: ShareMode::CopyOnWrite as u64,
    perm: 0,
};

#[test]
fn calls_on_memory_are_done_among_others_unless_a_page_table_is_in_use() {
    let mut world = World::new(Path::AmongOthers);
    let unmap = Step {
        call: Call::Unmap,
        addrs: [FORK.addrs[1], 0],
        ..FORK
    };
    for locked in [None, Some(world.pager), Some(world.client)] {
        let nr_short = world.nr_short;
        // SAFETY: no space comes or goes while this is used.
        let lock = locked.map(|program| unsafe {
            let space = &raw const *world.machine.kernel.spaces.get(program.space).unwrap();
            (*space).table.try_lock().expect("it is free")
        });
        world.take(FORK);
        drop(lock);
        assert_eq!(world.result(), 0);
        assert_eq!(world.nr_short - nr_short, usize::from(locked.is_none()));
        world.take(unmap);
        assert_eq!(world.result(), 0);
    }
    world.machine.finish();
}
