//! Calls with garbage in every register, thousands of them, the same in every run.

use libipc::abi::{Call, Handle, Rights, Tag};
use libipc::object::copy_handle;
use libipc::raw::{self, Args};
use libipc::services::procd::ProcdClient;
use libipc::{Endpoint, Space, start};
use user_apps::scenario::frames;
use user_apps::scenario::memory::{PAGE, SCRATCH, map};
use user_apps::scenario::peer::{child, expect_status, status_of};
use user_apps::scenario::rng::Rng;
use user_apps::scenario::twin::system;

const ROUNDS: u32 = 20_000;
const SEED: u64 = 0x5eed_c0ff_ee00;

/// Numbers at the edges of everything.
const EDGES: [u64; 20] = [
    1,
    PAGE,
    PAGE - 1,
    2 * PAGE,
    1 << 30,
    1 << 32,
    SCRATCH,
    SCRATCH + 8,
    SCRATCH + PAGE,
    SCRATCH + 3 * PAGE,
    0x7fff_ffff_e000,
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_f000,
    0xffff_8000_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_ffff_f000,
    u64::MAX,
    u64::MAX - 1,
];

/// What the process has for others to name: objects that may break, and nothing that would end it or
/// make it wait for ever.
struct Toys {
    handles: [Handle; 6],
    /// Handles of the process itself, which garbage must not name.
    own: [Handle; 9],
}

impl Toys {
    fn new() -> Self {
        let system = system();
        let endpoint = Endpoint::create().expect("endpoint");
        let space = system.create_space(None).expect("space");
        let thread = space.create_thread(None, 1).expect("thread");
        let copy = |handle, rights| copy_handle(handle, Handle::NONE, rights, 0).expect("copy");
        Toys {
            handles: [
                copy(
                    endpoint.handle(),
                    Rights::NOTIFY | Rights::COPY | Rights::MINT,
                ),
                space.into_raw(),
                thread.into_raw(),
                copy(system.handle(), Rights::CREATE | Rights::COPY),
                copy(start::space(), Rights::READ),
                copy(start::thread(), Rights::READ),
            ],
            own: [
                start::space(),
                start::thread(),
                start::inbox(),
                start::procd(),
                start::supervisor(),
                start::console(),
                start::names(),
                start::files(),
                start::memstat(),
            ],
        }
    }

    /// A word that is often almost right.
    fn word(&self, rng: &mut Rng) -> u64 {
        let word = match rng.below(8) {
            0 => rng.word(),
            1 => rng.below(40),
            2 | 3 => rng.pick(&EDGES),
            4 => u64::from(rng.pick(&self.handles).0),
            5 => 1 << rng.below(64),
            6 => rng.below(64) * PAGE,
            _ => 0,
        };
        // No argument may name the process's own objects by chance.
        if self.own.iter().any(|own| u64::from(own.0) == word) {
            0
        } else {
            word
        }
    }

    fn handle(&self, rng: &mut Rng) -> Handle {
        match rng.below(4) {
            0 => Handle(rng.word() as u32 | 1 << 31),
            1 => Handle::NONE,
            _ => rng.pick(&self.handles),
        }
    }

    fn round(&mut self, rng: &mut Rng) {
        let number = rng.below(30) as u32;
        let call = Call::from_number(number);
        // To end is legitimate, and to wait for nobody too.
        if matches!(call, Some(Call::ThreadExit)) {
            return;
        }
        let mut args: Args = core::array::from_fn(|_| self.word(rng));
        // Nor is it wrong to sleep until a time that nobody lives to see; but this one has passed.
        if matches!(call, Some(Call::Yield)) {
            args[0] = args[0].min(1);
        }
        let handle = self.handle(rng);
        // The process's own memory is its own to lose.
        let own_memory = matches!(call, Some(Call::Share)) && args[0] == 0;
        if own_memory && !(SCRATCH..SCRATCH + 8 * PAGE).contains(&args[1]) {
            return;
        }
        let words = core::array::from_fn(|_| self.word(rng));
        let (code, results, _) = raw::message_call(number, handle, args, words);
        match call {
            // One that could be received on would be waited at.
            Some(Call::EndpointCreate) if code == 0 => close(results[0]),
            Some(Call::SpaceCreate) if code == 0 => self.replace(1, results[0]),
            Some(Call::ThreadCreate) if code == 0 => self.replace(2, results[0]),
            Some(Call::HandleCopy) if code == 0 && args[0] == 0 => close(results[0]),
            _ => {}
        }
    }

    fn replace(&mut self, index: usize, handle: u64) {
        close(self.handles[index].0.into());
        self.handles[index] = Handle(handle as u32);
    }
}

fn close(handle: u64) {
    raw::call(Call::HandleClose as u32, Handle(handle as u32), [0; 6]);
}

/// Runs rounds in processes of a few hundred each: what one breaks of its own, the next has again.
pub(crate) fn garbage_in_all_registers_hurts_nobody() {
    for seed in 0..u64::from(ROUNDS / 500) {
        expect_status(0, || {
            let mut rng = Rng::new(SEED + seed);
            let _memory = map(SCRATCH, 4);
            let mut toys = Toys::new();
            for _ in 0..500 {
                toys.round(&mut rng);
            }
            0
        });
    }
    assert!(frames::counters().total > 0, "the servers answer");
}

/// Messages whose buffers lie anywhere; somebody is there to take them.
pub(crate) fn garbage_pointers_hurt_nobody() {
    let endpoint = Endpoint::borrow(start::inbox());
    let echo = child(|| {
        let parent = ProcdClient::borrow(start::procd()).endpoint(libipc::getppid());
        let parent: Handle = parent.expect("endpoint").into();
        let _memory = map(SCRATCH, 4);
        let mut rng = Rng::new(SEED);
        for _ in 0..4000 {
            let mut word = || {
                if rng.one_in(3) {
                    rng.word()
                } else {
                    rng.pick(&EDGES)
                }
            };
            let args = [0, Tag::new(0).0, word(), word(), word(), word()];
            raw::call(Call::Send as u32, parent, args);
        }
        0
    });
    // Receives into garbage as well, and answers from it, until the other has ended.
    let mut rng = Rng::new(SEED + 1);
    let _memory = map(SCRATCH, 4);
    loop {
        let mut word = || {
            if rng.one_in(3) {
                rng.word()
            } else {
                rng.pick(&EDGES)
            }
        };
        let args = [0, 1, 0, 0, word(), word()];
        let (code, results) = raw::call(Call::Recv as u32, endpoint.handle(), args);
        if code == 0 && results[3] != 0 {
            let reply = [results[3], Tag::new(0).0, word(), word(), 0, 0];
            if raw::call(Call::Reply as u32, Handle::NONE, reply).0 != 0 {
                let plain = [results[3], 0, 0, 0, 0, 0];
                assert_eq!(raw::call(Call::Reply as u32, Handle::NONE, plain).0, 0);
            }
        }
        if libipc::process::try_wait()
            .expect("a child")
            .is_some_and(|ended| {
                assert_eq!((ended.pid, ended.status), (echo, 0));
                true
            })
        {
            break;
        }
    }
    assert!(Space::own().info().is_ok());
    let _ = status_of;
}
