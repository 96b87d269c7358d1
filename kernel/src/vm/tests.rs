//! Named tests: what other systems got wrong, and the shortcuts that fail.

use cowslip_abi::{Access, Error, FoundEntry, PAGE_SIZE, Perm, ShareMode, USER_END};

use super::{
    CopyError, Fault, PageTable, Side, copy, fault, read_user, share,
    sim::{user_access, user_read, user_write},
    write_user,
};
use crate::mm::{
    Frame, Mm, PhysAddr,
    sim::{Cpu, SimMemory},
};

const PAGE: u64 = PAGE_SIZE as u64;
/// Where the tests map memory.
const A: u64 = 0x40_0000;
/// Another place, at the other end of user memory.
const B: u64 = 0x7f00_0000_0000;
const RW: Perm = Perm::RW;
const R: Perm = Perm::R;

/// Two spaces over a small memory. Every frame is free again at the end.
struct World {
    sim: SimMemory,
}

impl World {
    fn new() -> Self {
        Self {
            sim: SimMemory::new(128),
        }
    }

    fn run(test: impl FnOnce(&Mm, &PageTable, &PageTable)) {
        let world = Self::new();
        let mm = world.sim.mm();
        let (one, two) = (space(mm), space(mm));
        test(mm, &one, &two);
        one.destroy(mm);
        two.destroy(mm);
        assert_eq!(
            mm.frames.free_count() + mm.counts.nodes(),
            mm.frames.total_count()
        );
        assert_eq!(mm.counts.shared(), 0);
    }
}

fn space(mm: &Mm) -> PageTable {
    PageTable::new(mm, &[0; 256]).unwrap()
}

fn put(mm: &Mm, table: &PageTable, addr: u64, byte: u8) {
    user_write(mm, table, Cpu(0), addr, &[byte]).unwrap();
}

fn peek(mm: &Mm, table: &PageTable, addr: u64) -> u8 {
    let mut bytes = [0; 2];
    user_read(mm, table, Cpu(0), addr, &mut bytes[..1]).unwrap();
    user_read(mm, table, Cpu(1), addr, &mut bytes[1..]).unwrap();
    assert_eq!(bytes[0], bytes[1], "the CPUs disagree");
    bytes[0]
}

fn fork(mm: &Mm, child: &PageTable, parent: &PageTable) {
    share(
        mm,
        child,
        0,
        parent,
        0,
        USER_END,
        ShareMode::CopyOnWrite,
        None,
    )
    .unwrap();
}

#[test]
fn map_and_unmap_is_neutral() {
    World::run(|mm, one, _| {
        let free = mm.frames.free_count();
        for addr in [0, A, 0x7fff_0000_0000, USER_END - 4 * PAGE] {
            one.map_zero(mm, addr, 4 * PAGE, RW).unwrap();
            assert_eq!(one.map_zero(mm, addr + PAGE, PAGE, R), Err(Error::Occupied));
            put(mm, one, addr + PAGE, 1);
            one.unmap(mm, addr, 4 * PAGE);
            assert_eq!(mm.frames.free_count(), free);
        }
        one.unmap(mm, 0, USER_END);
        assert_eq!(one.statistics(mm).tables, 1);
    });
}

#[test]
fn fork_isolates_both_sides() {
    World::run(|mm, one, two| {
        one.map_zero(mm, A, 4 * PAGE, RW).unwrap();
        put(mm, one, A, 1);
        fork(mm, two, one);
        put(mm, one, A, 2);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 1));
        put(mm, two, A, 3);
        assert_eq!((peek(mm, one, A), peek(mm, two, A)), (2, 3));
        assert_eq!(
            (mm.stats.cow_broken.get(), mm.stats.reclaimed.get()),
            (1, 1)
        );
    });
}
