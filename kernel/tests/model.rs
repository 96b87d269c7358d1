//! Random sequences of memory operations, compared with a model that really copies.
//!
//! The model has no frames, no counts and no copy-on-write: a private page is an array of bytes,
//! and a page of shared memory an array that several spaces point at. After every operation:
//!
//! - every byte, right and ceiling is as in the model, and so is every error;
//! - two CPUs whose TLBs forget nothing before a flush see what the model says, and nothing more;
//! - all references are counted from scratch and equal the reference counts;
//! - free frames, count nodes, tables and named frames add up to all of memory;
//! - each space's commit is that of the model's pages, counted from scratch, and no budget is exceeded;
//! - what strict spaces are promised is their commit less the frames that they have, those frames are
//!   theirs alone, and so many frames are free.
//!
//! Some operations run with next to no free frames but those that are promised. If they fail, they must not
//! be those of strict spaces that need only what was promised; everything must be as before, and
//! they are tried again with enough memory. `PROPTEST_CASES` sets how many sequences are tried.

mod model {
    pub(crate) mod ops;
    pub(crate) mod reference;
    pub(crate) mod world;
}

use std::ops::Range;

use model::{ops, world::World};
use proptest::{prelude::*, test_runner::RngAlgorithm};

/// How many operations a sequence has. Miri takes some eight seconds for one, so there it is one short sequence.
const LEN: Range<usize> = if cfg!(miri) { 12..13 } else { 1..60 };

fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if cfg!(miri) {
        config.cases = 1;
        // Drawing numbers should not take longer than what is done with them.
        config.rng_algorithm = RngAlgorithm::XorShift;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn operations_agree_with_the_model(steps in prop::collection::vec(ops::step(), LEN)) {
        let mut world = World::new();
        for step in steps {
            world.step(&step);
        }
        world.finish();
    }
}
