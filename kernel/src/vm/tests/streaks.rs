//! Runs of pages that one fault breaks: how long they are, where they end, and that nobody notices.

use core::cell::RefCell;

use super::{A, PAGE, TABLE, assert_all_free, check, fork, peek, put, share, space, with_spaces};
use cowslip_abi::{Access, Commit, Perm, ShareMode};

use crate::{
    mm::{Flush, FlushPages, Frame, Mm, PhysAddr, sim, sim::Cpu, sim::SimMemory},
    vm::{
        Fault, PageTable,
        cursor::Cursor,
        entry::Kind,
        fault, reap,
        sim::{user_read, user_write},
        streak, write_user,
    },
};

/// How many pages the parent has written.
const NR_PAGES: u64 = 700;
/// What it wrote.
const OLD: u8 = 1;
/// What is written after the fork.
const NEW: u8 = 2;

/// The first pages of the runs of who writes to a hundred pages in order, and how long they are.
const RUNS: [(u64, u64); 10] = [
    (0, 1),
    (1, 2),
    (3, 4),
    (7, 8),
    (15, 16),
    (31, 16),
    (47, 16),
    (63, 16),
    (79, 16),
    (95, 16),
];

/// A parent that has written to its pages from [`A`] on, and its child.
struct Family<'m> {
    sim: &'m SimMemory,
    mm: &'m Mm,
    parent: PageTable,
    child: PageTable,
}

/// The address of a page.
const fn at(page: u64) -> u64 {
    A + page * PAGE
}

/// Runs a test with a family of this class. At the end every frame must be free again.
fn with_family(class: Commit, prepare: fn(&Mm, &PageTable), test: impl FnOnce(&Family<'_>)) {
    let sim = SimMemory::new(2 * NR_PAGES as usize + 64);
    let mm = sim.mm();
    let (parent, child) = (space(mm), space(mm));
    for table in [&parent, &child] {
        table.set_class(class).unwrap();
    }
    parent.map_zero(mm, A, NR_PAGES * PAGE, Perm::RW).unwrap();
    for page in 0..NR_PAGES {
        put(mm, &parent, at(page), OLD);
    }
    prepare(mm, &parent);
    fork(mm, &child, &parent);
    let _ = sim.take_flushes();
    let family = Family {
        sim: &sim,
        mm,
        parent,
        child,
    };
    test(&family);
    check(mm, &[&family.parent, &family.child]);
    sim.check_tlbs();
    let Family { parent, child, .. } = family;
    parent.destroy(mm);
    child.destroy(mm);
    assert_all_free(mm);
    assert_eq!(mm.frames.promised(), 0);
}

/// The same with pages that were written and nothing else.
fn with_forked(test: impl FnOnce(&Family<'_>)) {
    with_family(Commit::Overcommit, |_, _| (), test);
}

impl Family<'_> {
    /// The parent writes to a page. Returns how many pages were copied, and how many taken back.
    fn write(&self, page: u64) -> (u64, u64) {
        let counters = || {
            let stats = &self.mm.stats;
            (stats.cow_broken.get(), stats.reclaimed.get())
        };
        let before = counters();
        put(self.mm, &self.parent, at(page), NEW);
        let after = counters();
        (after.0 - before.0, after.1 - before.1)
    }

    /// The parent writes to a hundred pages in order. Returns at which of them something was done, and to how many.
    fn runs(&self) -> Vec<(u64, (u64, u64))> {
        let writes = (0..100).map(|page| (page, self.write(page)));
        writes.filter(|(_, done)| *done != (0, 0)).collect()
    }

    /// How many pages are copied by writes to these, one after the other. There are no other spaces.
    fn copied<const N: usize>(&self, pages: [u64; N]) -> [u64; N] {
        pages.map(|page| {
            let (nr_copied, _) = self.write(page);
            check(self.mm, &[&self.parent, &self.child]);
            nr_copied
        })
    }

    /// Lets the child write to pages, not in order: then the parent is their last owner, and does not know it.
    fn leave_to_parent(&self, pages: impl DoubleEndedIterator<Item = u64>) {
        for page in pages.rev() {
            put(self.mm, &self.child, at(page), NEW);
        }
    }

    /// How many pages are taken back by writes to these, one after the other, of which none is copied.
    fn taken_back<const N: usize>(&self, pages: [u64; N]) -> [u64; N] {
        pages.map(|page| {
            let (nr_copied, nr_reclaimed) = self.write(page);
            check(self.mm, &[&self.parent, &self.child]);
            assert_eq!(nr_copied, 0);
            nr_reclaimed
        })
    }

    /// Whether the parent owns a page, whose table is its own.
    fn is_own(&self, page: u64) -> bool {
        self.parent.lookup(self.mm, at(page)).is_writable()
    }

    fn assert_child_is_as_it_was(&self) {
        for page in 0..NR_PAGES {
            assert_eq!(peek(self.mm, &self.child, at(page)), OLD, "page {page}");
        }
    }
}

/// Takes all free frames but so many.
fn hoard_all_but(mm: &Mm, nr_frames: u64) -> Vec<Frame> {
    let rest = mm.frames.spare_count() - nr_frames;
    (0..rest).map(|_| mm.frames.alloc().unwrap()).collect()
}

fn give_back(mm: &Mm, hoard: Vec<Frame>) {
    hoard.into_iter().for_each(|frame| mm.frames.free(frame));
}

#[test]
fn each_break_that_goes_on_where_the_last_one_ended_is_twice_as_long() {
    with_forked(|family| {
        let copied = RUNS.map(|(page, nr_pages)| (page, (nr_pages, 0)));
        assert_eq!(family.runs(), copied);
        family.assert_child_is_as_it_was();
        for page in 0..NR_PAGES {
            let expected = if page < 100 { NEW } else { OLD };
            assert_eq!(peek(family.mm, &family.parent, at(page)), expected);
        }
    });
}

#[test]
fn who_stops_writing_has_had_fewer_pages_copied_in_vain_than_it_wrote_and_fewer_than_sixteen() {
    with_forked(|family| {
        let mut nr_copied = 0;
        for nr_written in 1..=100 {
            nr_copied += family.write(nr_written - 1).0;
            let nr_in_vain = nr_copied - nr_written;
            assert!(nr_in_vain < nr_written.min(streak::MAX), "{nr_written}");
        }
    });
}

#[test]
fn a_break_anywhere_else_takes_one_page() {
    with_forked(|family| {
        // Backwards, one page left out, the same pages again.
        assert_eq!(family.copied([9, 8, 7, 5]), [1; 4]);
        assert_eq!(family.copied([100, 102, 104, 106]), [1; 4]);
        assert_eq!(family.copied([9, 8, 7, 5]), [0; 4]);
        // In order, elsewhere, on where it was before, in order.
        assert_eq!(family.copied([200, 201, 300, 203, 204]), [1, 2, 1, 1, 2]);
        // The page before the last break's first, and its last.
        assert_eq!(family.copied([202, 205, 400]), [0, 0, 1]);
    });
}

#[test]
fn writes_to_pages_of_ones_own_do_not_break_a_streak() {
    with_forked(|family| {
        assert_eq!(family.copied([20, 21, 20, 22, 23]), [1, 2, 0, 0, 4]);
    });
}

#[test]
fn a_run_ends_where_its_table_does() {
    with_forked(|family| {
        // The first page of the next table comes with the copy of the table.
        assert_eq!(family.copied([508, 509, 511, 512, 513]), [1, 2, 1, 1, 2]);
        assert!(!family.is_own(515));
    });
}

#[test]
fn a_run_ends_before_what_a_write_would_not_break() {
    let ends: [fn(&Mm, &PageTable); 4] = [
        |mm, parent| parent.unmap(mm, at(2), PAGE).unwrap(),
        |mm, parent| {
            parent.unmap(mm, at(2), PAGE).unwrap();
            parent.map_zero(mm, at(2), PAGE, Perm::RW).unwrap();
        },
        |mm, parent| parent.protect(mm, at(2), PAGE, Perm::R).unwrap(),
        |mm, parent| {
            let (to, mode) = (at(NR_PAGES + 5), ShareMode::Shared);
            share(mm, parent, to, parent, at(2), PAGE, mode, None).unwrap();
        },
    ];
    for end in ends {
        with_family(Commit::Overcommit, end, |family| {
            assert_eq!(family.copied([0]), [1]);
            let entry = family.parent.lookup(family.mm, at(2));
            assert_eq!(family.copied([1]), [1]);
            assert_eq!(family.parent.lookup(family.mm, at(2)), entry);
            assert!(!family.is_own(3));
        });
    }
}

#[test]
fn a_run_ends_before_a_page_that_was_written_already() {
    with_forked(|family| {
        assert_eq!(family.copied([2, 0, 1]), [1, 1, 1]);
        assert!(!family.is_own(3));
    });
}

#[test]
fn a_page_without_another_owner_is_taken_back_in_a_run() {
    with_forked(|family| {
        let Family {
            mm, parent, child, ..
        } = family;
        for page in [12, 14, 16] {
            put(mm, child, at(page), NEW);
        }
        let free = mm.frames.free_count();
        assert_eq!(
            [10, 11, 13].map(|page| family.write(page)),
            [(1, 0), (1, 1), (2, 2)]
        );
        assert_eq!(mm.frames.free_count(), free - 4);
        for page in [12, 14, 16] {
            assert_eq!(peek(mm, parent, at(page)), OLD);
            put(mm, parent, at(page), 3);
            assert_eq!(peek(mm, child, at(page)), NEW);
        }
    });
}

#[test]
fn pages_that_are_taken_back_in_order_are_so_in_runs_without_frame_or_flush() {
    with_forked(|family| {
        family.leave_to_parent(0..120);
        // Its tables are its own after that.
        assert_eq!(family.write(200), (1, 0));
        let free = family.mm.frames.free_count();
        let _ = family.sim.take_flushes();
        let taken_back = RUNS.map(|(page, nr_pages)| (page, (0, nr_pages)));
        assert_eq!(family.runs(), taken_back);
        assert_eq!(family.mm.frames.free_count(), free);
        assert!(family.sim.take_flushes().is_empty());
    });
}

#[test]
fn a_run_of_pages_that_are_taken_back_ends_before_one_that_others_name() {
    with_forked(|family| {
        family.leave_to_parent((0..8).filter(|page| *page != 4));
        family.write(100);
        assert_eq!(family.taken_back([0, 1]), [1, 2]);
        // Four would be next: page 4 is the child's, too.
        assert_eq!(family.taken_back([3]), [1]);
        assert!(!family.is_own(4) && !family.is_own(5));
        // What goes on there copies it, and takes the next one back.
        assert_eq!(family.write(4), (1, 1));
        assert_eq!(peek(family.mm, &family.child, at(4)), OLD);
    });
}

#[test]
fn a_run_of_pages_that_are_taken_back_ends_before_what_a_write_would_not_break() {
    with_forked(|family| {
        family.leave_to_parent(0..20);
        family.write(100);
        let (mm, parent) = (family.mm, &family.parent);
        parent.protect(mm, at(4), PAGE, Perm::R).unwrap();
        parent.unmap(mm, at(10), PAGE).unwrap();
        assert_eq!(family.taken_back([0, 1, 3]), [1, 2, 1]);
        assert_eq!(family.taken_back([5, 6, 8]), [1, 2, 2]);
        let read_only = parent.lookup(mm, at(4));
        assert!(!read_only.is_writable() && !read_only.permits(Access::Write));
        assert_eq!(parent.lookup(mm, at(10)).kind(), Kind::Empty);
    });
}

#[test]
fn a_cpu_that_knows_pages_from_before_they_were_taken_back_writes_to_them_all_the_same() {
    with_forked(|family| {
        let (mm, parent) = (family.mm, &family.parent);
        family.leave_to_parent(0..20);
        family.write(100);
        for page in 0..20 {
            user_read(mm, parent, Cpu(1), at(page), &mut [0]).unwrap();
        }
        assert_eq!(family.taken_back([0, 1, 3, 7]), [1, 2, 4, 8]);
        for page in 0..15 {
            user_write(mm, parent, Cpu(1), at(page), &[3]).unwrap();
            assert_eq!(peek(mm, parent, at(page)), 3);
            assert_eq!(peek(mm, &family.child, at(page)), NEW);
        }
    });
}

#[test]
fn a_run_is_flushed_at_once() {
    with_forked(|family| {
        family.copied([0, 1, 3]);
        for cpu in [Cpu(0), Cpu(1)] {
            for page in 0..40 {
                user_read(family.mm, &family.parent, cpu, at(page), &mut [0]).unwrap();
            }
        }
        let _ = family.sim.take_flushes();
        let resolved = fault(family.mm, &family.parent, at(7) + 5, Access::Write);
        assert_eq!(resolved, Fault::Resolved);
        let flushes = family.sim.take_flushes();
        let [flush] = &flushes[..] else {
            panic!("{} flushes", flushes.len());
        };
        let mut expected = Flush::none();
        expected.add_range(family.parent.root(), at(7), at(15));
        assert_eq!(*flush, expected);
        family.sim.check_tlbs();
    });
}

#[test]
fn a_run_for_which_there_are_not_enough_frames_is_the_page_alone() {
    with_forked(|family| {
        let mm = family.mm;
        for nr_free in 1..=8 {
            let first = nr_free * 40;
            assert_eq!(family.copied([first, first + 1, first + 3]), [1, 2, 4]);
            let hoard = hoard_all_but(mm, nr_free);
            let nr_copied = if nr_free < 8 { 1 } else { 8 };
            assert_eq!(family.write(first + 7), (nr_copied, 0));
            assert_eq!(mm.frames.free_count(), nr_free - nr_copied);
            give_back(mm, hoard);
        }
    });
}

#[test]
fn a_run_does_not_work_off_what_is_dead() {
    with_forked(|family| {
        let mm = family.mm;
        assert_eq!(family.copied([0, 1, 3]), [1, 2, 4]);
        let gone = space(mm);
        gone.map_zero(mm, 0, TABLE, Perm::RW).unwrap();
        put(mm, &gone, 0, OLD);
        gone.destroy(mm);
        let hoard = hoard_all_but(mm, 3);
        assert_eq!(family.write(7), (1, 0));
        assert!(!mm.dead.is_empty());
        assert_eq!(mm.frames.free_count(), 2);
        while !reap(mm) {}
        give_back(mm, hoard);
    });
}

#[test]
fn without_a_frame_a_streak_fails_and_goes_on_later() {
    with_forked(|family| {
        let (mm, parent) = (family.mm, &family.parent);
        assert_eq!(family.copied([0, 1, 3]), [1, 2, 4]);
        let before: Vec<_> = (0..40).map(|page| parent.lookup(mm, at(page))).collect();
        let hoard = hoard_all_but(mm, 0);
        let failed = user_write(mm, parent, Cpu(0), at(7), &[NEW]);
        assert_eq!(failed, Err(Fault::OutOfMemory));
        let after: Vec<_> = (0..40).map(|page| parent.lookup(mm, at(page))).collect();
        assert!(before == after, "a failure changed something");
        give_back(mm, hoard);
        assert_eq!(family.copied([7]), [8]);
    });
}

#[test]
fn runs_of_strict_spaces_take_what_was_promised_to_them() {
    with_family(
        Commit::Strict,
        |_, _| (),
        |family| {
            let mm = family.mm;
            let hoard = hoard_all_but(mm, 0);
            let promised = mm.frames.promised();
            let nr_copied: u64 = (0..NR_PAGES).map(|page| family.write(page).0).sum();
            assert_eq!(nr_copied, NR_PAGES);
            // The pages, and the tables on the way to them.
            assert_eq!(mm.frames.promised(), promised - NR_PAGES as i64 - 4);
            family.assert_child_is_as_it_was();
            give_back(mm, hoard);
        },
    );
}

#[test]
fn runs_of_others_take_nothing_that_was_promised() {
    with_forked(|family| {
        let mm = family.mm;
        assert_eq!(family.copied([0, 1, 3]), [1, 2, 4]);
        let eager = space(mm);
        eager.set_class(Commit::Strict).unwrap();
        let mut end = 0;
        while mm.frames.spare_count() > 7 {
            eager.map_zero(mm, end, PAGE, Perm::RW).unwrap();
            end += PAGE;
        }
        let promised = mm.frames.promised();
        assert!(mm.frames.free_count() > 100, "frames that are promised");
        assert_eq!(family.write(7), (1, 0));
        assert_eq!(mm.frames.promised(), promised);
        eager.destroy(mm);
        while !reap(mm) {}
    });
}

#[test]
fn demand_zero_memory_is_not_filled_ahead() {
    with_forked(|family| {
        let (mm, parent) = (family.mm, &family.parent);
        family.copied([0, 1, 3]);
        parent.unmap(mm, at(7), 100 * PAGE).unwrap();
        parent.map_zero(mm, at(7), 100 * PAGE, Perm::RW).unwrap();
        let free = mm.frames.free_count();
        for page in 7..20 {
            put(mm, parent, at(page), NEW);
        }
        assert_eq!(mm.frames.free_count(), free - 13);
        assert_eq!(parent.lookup(mm, at(20)).kind(), Kind::Zero);
    });
}

#[test]
fn two_threads_that_write_towards_each_other_meet() {
    with_forked(|family| {
        let (mm, parent) = (family.mm, &family.parent);
        for page in 0..20 {
            for (cpu, page) in [(Cpu(0), page), (Cpu(1), 39 - page)] {
                user_write(mm, parent, cpu, at(page), &[NEW]).unwrap();
                check(mm, &[parent, &family.child]);
            }
        }
        assert!((0..40).all(|page| peek(mm, parent, at(page)) == NEW));
        // Each break was somewhere else than the last: nothing was taken ahead.
        assert_eq!(mm.stats.cow_broken.get(), 40);
        assert!(!family.is_own(40));
        family.assert_child_is_as_it_was();
    });
}

#[test]
fn a_streak_of_one_cpu_is_gone_on_with_by_another() {
    with_forked(|family| {
        let (mm, parent) = (family.mm, &family.parent);
        for page in 0..100 {
            let cpu = Cpu((page % 2) as u8);
            user_write(mm, parent, cpu, at(page), &[NEW]).unwrap();
        }
        assert!((0..100).all(|page| peek(mm, parent, at(page)) == NEW));
        assert_eq!(mm.stats.cow_broken.get(), 111);
        family.assert_child_is_as_it_was();
    });
}

#[test]
fn a_space_that_has_broken_nothing_begins_with_one_page() {
    with_spaces(|mm, one, _| {
        one.map_zero(mm, 0, 2 * PAGE, Perm::RW).unwrap();
        [0, PAGE]
            .into_iter()
            .for_each(|addr| put(mm, one, addr, OLD));
        share(mm, one, A, one, 0, 2 * PAGE, ShareMode::CopyOnWrite, None).unwrap();
        put(mm, one, 0, NEW);
        assert_eq!(mm.stats.cow_broken.get(), 1);
    });
}

/// A space, and which of its pages were out of reach whenever they were flushed.
struct Watched {
    mm: &'static Mm,
    root: Frame,
    flushed: Vec<(u64, bool)>,
}

std::thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

fn flush_and_look(flush: &Flush) {
    WATCHED.with_borrow_mut(|watched| {
        let Some(Watched { mm, root, flushed }) = watched else {
            return;
        };
        for space in flush.spaces().filter(|space| space.root == *root) {
            let FlushPages::Range { start, end } = space.pages else {
                panic!("all pages are flushed");
            };
            for page in (start..end).step_by(PAGE as usize) {
                let entry = Cursor::new(&mm.map, *root).get(page);
                flushed.push((page, matches!(entry.kind(), Kind::Condemned(_))));
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "leaks memory")]
fn a_page_is_out_of_reach_while_it_is_flushed_alone_or_in_a_run() {
    // They live as long as the flush may look at them.
    let sim: &'static SimMemory = Box::leak(Box::new(SimMemory::empty(64)));
    let mm: &'static Mm = Box::leak(Box::new(Mm::new(sim.mm().map, flush_and_look, sim::here)));
    mm.frames.add_range(PhysAddr(PAGE), PhysAddr(64 * PAGE));
    mm.cover(PhysAddr(0), PhysAddr(64 * PAGE)).unwrap();
    let (parent, child) = (space(mm), space(mm));
    parent.map_zero(mm, A, 16 * PAGE, Perm::RW).unwrap();
    write_user(mm, &parent, A, &[OLD; 16 * PAGE as usize]).unwrap();
    fork(mm, &child, &parent);
    WATCHED.set(Some(Watched {
        mm,
        root: parent.root(),
        flushed: Vec::new(),
    }));
    for page in [0, 10, 11] {
        let resolved = fault(mm, &parent, at(page), Access::Write);
        assert_eq!(resolved, Fault::Resolved);
    }
    let flushed = WATCHED.take().unwrap().flushed;
    assert_eq!(flushed, [0, 10, 11, 12].map(|page| (at(page), true)));
}
