//! Named tests: what other systems got wrong, and the shortcuts that fail.
//!
//! Their addresses are those of page tables of 512 entries: with small ones there is nothing at them.

mod aliases;
mod commit;
mod corners;
mod failure;
mod invariants;
mod lazy;
mod lessons;
mod orders;
mod ranges;
mod shortcuts;
mod streaks;
mod tables;
mod transfer;

use cowslip_abi::{Access, Error, FoundEntry, PAGE_SIZE, Perm, ShareMode, USER_END};

use super::{
    CopyError, Fault, PageTable, Passage, Sharing, Transfer, VmError,
    audit::audit,
    cursor::walk,
    entry::{Entry, Slot},
    fault, reap,
    sim::{user_read, user_write},
    table::nr_user_entries,
};
use crate::mm::{
    Frame, Mm,
    sim::{Cpu, SimMemory},
};

const PAGE: u64 = PAGE_SIZE as u64;
/// Where the tests map memory.
const A: u64 = 0x40_0000;
/// Another place, at the other end of user memory.
const B: u64 = 0x7f00_0000_0000;
/// What a table of pages covers.
const TABLE: u64 = 512 * PAGE;
/// What a table of those covers.
const GIB: u64 = 512 * TABLE;

/// Runs a test with two spaces. At the end every frame must be free again.
fn with_spaces(test: impl FnOnce(&Mm, &PageTable, &PageTable)) {
    with_spaces_in(128, test);
}

/// The same with so many frames.
fn with_spaces_in(nr_frames: usize, test: impl FnOnce(&Mm, &PageTable, &PageTable)) {
    let sim = SimMemory::new(nr_frames);
    let mm = sim.mm();
    let (one, two) = (space(mm), space(mm));
    test(mm, &one, &two);
    check(mm, &[&one, &two]);
    sim.check_tlbs();
    one.destroy(mm);
    two.destroy(mm);
    assert_all_free(mm);
}

/// How many frames are free when all that is dead is worked off.
fn free_count(mm: &Mm) -> u64 {
    while !reap(mm) {}
    mm.frames.free_count()
}

fn assert_all_free(mm: &Mm) {
    let free = free_count(mm);
    assert_eq!(free + mm.counts.nodes(), mm.frames.total_count());
    assert_eq!(mm.counts.shared(), 0);
}

/// Counts everything again. `spaces` must be all that there are.
fn check(mm: &Mm, spaces: &[&PageTable]) {
    let named = audit(mm, spaces.iter().copied()).len() as u64;
    let used = mm.counts.nodes() + named;
    assert_eq!(mm.frames.free_count() + used, mm.frames.total_count());
}

/// The place of the entry of this level for `addr`.
fn slot<'m>(mm: &'m Mm, table: &PageTable, addr: u64, level: u32) -> Slot<'m> {
    match walk(&mm.map, table.root(), addr, level) {
        Ok(node) => node.slot(addr),
        Err(_) => panic!("there is no table of level {level} for {addr:#x}"),
    }
}

/// The entry of this level for `addr`.
fn entry(mm: &Mm, table: &PageTable, addr: u64, level: u32) -> Entry {
    slot(mm, table, addr, level).get()
}

/// How many entries name the table below the entry of this level.
fn table_count(mm: &Mm, table: &PageTable, addr: u64, level: u32) -> u64 {
    let below = entry(mm, table, addr, level).table_below().unwrap();
    mm.counts.get(below)
}

/// The entries of a table that are the space's own.
fn user_entries(mm: &Mm, table: Frame, level: u32) -> impl Iterator<Item = Slot<'_>> {
    mm.map.table(table)[..nr_user_entries(level)]
        .iter()
        .map(Slot::new)
}

fn space(mm: &Mm) -> PageTable {
    PageTable::new(mm, &[0; 256]).unwrap()
}

/// User code writes a byte, on the first CPU.
fn put(mm: &Mm, table: &PageTable, addr: u64, byte: u8) {
    user_write(mm, table, Cpu(0), addr, &[byte]).unwrap();
}

/// User code reads a byte, on both CPUs.
fn peek(mm: &Mm, table: &PageTable, addr: u64) -> u8 {
    let [one, two] = [Cpu(0), Cpu(1)].map(|cpu| {
        let mut byte = [0];
        user_read(mm, table, cpu, addr, &mut byte).unwrap();
        byte[0]
    });
    assert_eq!(one, two, "the CPUs disagree");
    one
}

/// All arguments of [`Sharing`] in a row.
#[allow(
    clippy::too_many_arguments,
    reason = "so many tests share that a line for each argument would hide what they do"
)]
fn share(
    mm: &Mm,
    dst: &PageTable,
    to: u64,
    src: &PageTable,
    from: u64,
    len: u64,
    mode: ShareMode,
    perm: Option<Perm>,
) -> Result<(), VmError> {
    Sharing {
        mm,
        dst,
        to,
        src,
        from,
        len,
        mode,
        perm,
    }
    .share()
}

/// All arguments of [`Passage`] in a row.
fn copy(
    mm: &Mm,
    dst: &PageTable,
    to: u64,
    src: &PageTable,
    from: u64,
    len: u64,
    transfer: Transfer,
) -> Result<(), CopyError> {
    Passage {
        mm,
        dst,
        to,
        src,
        from,
        len,
        transfer,
    }
    .copy()
}

/// Everything, copy-on-write, at the same addresses.
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

/// A message whose sender keeps the bytes.
fn copy_bytes(
    mm: &Mm,
    dst: &PageTable,
    dst_addr: u64,
    src: &PageTable,
    src_addr: u64,
    len: u64,
) -> Result<(), CopyError> {
    copy(mm, dst, dst_addr, src, src_addr, len, Transfer::Copy)
}

/// One page of `src` at [`A`], shared with `dst` at [`B`].
fn share_page(mm: &Mm, dst: &PageTable, src: &PageTable, mode: ShareMode, perm: Option<Perm>) {
    share(mm, dst, B, src, A, PAGE, mode, perm).unwrap();
}

#[test]
fn map_and_unmap_is_neutral() {
    with_spaces(|mm, one, _| {
        let free = mm.frames.free_count();
        for addr in [0, A, 0x7fff_0000_0000, USER_END - 4 * PAGE] {
            one.map_zero(mm, addr, 4 * PAGE, Perm::RW).unwrap();
            assert_eq!(
                one.map_zero(mm, addr + PAGE, PAGE, Perm::R),
                Err(Error::Occupied)
            );
            put(mm, one, addr + PAGE, 1);
            one.unmap(mm, addr, 4 * PAGE).unwrap();
            assert_eq!(free_count(mm), free);
        }
        one.unmap(mm, 0, USER_END).unwrap();
        assert_eq!(one.statistics(mm).tables, 1);
    });
}

#[test]
fn the_kernel_half_is_copied_and_survives() {
    let sim = SimMemory::new(16);
    let mm = sim.mm();
    let kernel_half = core::array::from_fn(|n| n as u64 * 8);
    let table = PageTable::new(mm, &kernel_half).unwrap();
    let upper =
        |n: usize| mm.map.table(table.root())[n].load(core::sync::atomic::Ordering::Relaxed);
    table.map_zero(mm, A, PAGE, Perm::RW).unwrap();
    table.unmap(mm, 0, USER_END).unwrap();
    assert_eq!(
        (upper(255), upper(256), upper(257), upper(511)),
        (0, 0, 8, 255 * 8)
    );
    table.destroy(mm);
    assert_all_free(mm);
}

#[test]
fn faults_say_what_was_found() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, A, PAGE, Perm::R).unwrap();
        one.map_zero(mm, A + PAGE, PAGE, Perm::RX).unwrap();
        one.map_zero(mm, A + 2 * PAGE, PAGE, Perm::RW).unwrap();
        let denied = |addr, access, found| {
            assert_eq!(fault(mm, one, addr, access), Fault::Denied(found));
        };
        for _ in 0..2 {
            denied(A + 8, Access::Write, FoundEntry::ReadOnly);
            denied(A + 8, Access::Execute, FoundEntry::ReadOnly);
            denied(A + PAGE, Access::Write, FoundEntry::ReadExecute);
            denied(A + 2 * PAGE, Access::Execute, FoundEntry::ReadWrite);
            denied(A - 1, Access::Read, FoundEntry::Empty);
            denied(B, Access::Read, FoundEntry::Empty);
            denied(USER_END, Access::Read, FoundEntry::NotUser);
            denied(u64::MAX, Access::Write, FoundEntry::NotUser);
            for addr in [A, A + PAGE, A + 2 * PAGE] {
                peek(mm, one, addr);
            }
        }
        assert_eq!(fault(mm, one, A + PAGE, Access::Execute), Fault::Resolved);
        assert_eq!(mm.stats.zero_filled.get(), 3);
    });
}

#[test]
fn a_frame_can_be_given_to_a_space() {
    with_spaces(|mm, one, _| {
        let frame = mm.frames.alloc_zeroed().unwrap();
        mm.map.write_bytes(frame, 3, b"boot");
        one.map_frame(mm, A, frame, Perm::R).unwrap();
        assert_eq!(one.map_frame(mm, A, frame, Perm::R), Err(Error::Occupied));
        assert_eq!(peek(mm, one, A + 4), b'o');
        assert_eq!(
            user_write(mm, one, Cpu(0), A, b"x"),
            Err(Fault::Denied(FoundEntry::ReadOnly))
        );
    });
}

#[test]
fn protect_stays_below_the_ceiling() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, PAGE, Perm::RW).unwrap();
        one.map_zero(mm, A + PAGE, PAGE, Perm::RX).unwrap();
        let protect = |addr, len, perm| one.protect(mm, addr, len, perm);
        assert_eq!(protect(A, PAGE, Perm::RX), Err(Error::Denied));
        assert_eq!(protect(A, 2 * PAGE, Perm::RW), Err(Error::Denied));
        assert_eq!(protect(A, 3 * PAGE, Perm::R), Err(Error::NotMapped));
        put(mm, one, A, 1);
        assert_eq!(protect(A, 2 * PAGE, Perm::R), Ok(()));
        let denied = Err(Fault::Denied(FoundEntry::ReadOnly));
        assert_eq!(user_write(mm, one, Cpu(0), A, b"x"), denied);
        assert_eq!(protect(A, PAGE, Perm::RW), Ok(()));
        put(mm, one, A, 2);
        // A copy of one's own may have any rights; shared memory may not.
        let share = |mode, perm| share(mm, two, B, one, A + PAGE, PAGE, mode, Some(perm));
        assert_eq!(share(ShareMode::Shared, Perm::RW), Err(Error::Denied));
        assert_eq!(share(ShareMode::CopyOnWrite, Perm::RW), Ok(()));
        put(mm, two, B, 3);
        assert_eq!(peek(mm, one, A + PAGE), 0);
    });
}

#[test]
fn statistics_count_by_kind() {
    with_spaces(|mm, one, two| {
        one.map_zero(mm, A, 8 * PAGE, Perm::RW).unwrap();
        (0..4).for_each(|n| put(mm, one, A + n * PAGE, 1));
        share_page(mm, two, one, ShareMode::Shared, None);
        share(
            mm,
            two,
            B + PAGE,
            one,
            A + PAGE,
            PAGE,
            ShareMode::CopyOnWrite,
            None,
        )
        .unwrap();
        let stats = one.statistics(mm);
        assert_eq!((stats.private, stats.cow_shared, stats.shared), (2, 1, 1));
        assert_eq!((stats.zero, stats.tables), (4, 4));
    });
}

#[test]
fn emptiness_is_fast() {
    with_spaces(|mm, one, two| {
        let nr_times = if cfg!(miri) { 1 } else { 1000 };
        for _ in 0..nr_times {
            one.unmap(mm, 0, USER_END).unwrap();
            fork(mm, two, one);
        }
    });
}
