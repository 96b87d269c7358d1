//! Spaces that share tables, used by several CPUs at once.
//!
//! Each thread is a CPU, and has some of the spaces for a while. It reads and writes their pages, changes what is
//! mapped, ends them, forks them into whichever space is vacant, its own or another's, and works off what is dead; all of that under
//! the locks of the spaces that it needs, and no other. So tables of all levels have several names, and those who have them fault on
//! them at the same time. A model that copies at every fork says what must be read. In between everything is counted again.

use std::{
    ops::Range,
    sync::{Barrier, Mutex, MutexGuard, TryLockError},
    thread,
};

use cowslip_abi::{Access, Error, FoundEntry, PAGE_SIZE, Perm, ShareMode};
use kernel::{
    mm::{
        Flush, Mm,
        phys::{INDEX_BITS, NR_ENTRIES},
        sim::{Cpu, SimMemory},
    },
    vm::{
        Fault, PageTable, Sharing, USER_END,
        audit::audit,
        fault, reap, reap_some,
        sim::{user_read, user_write},
    },
};

const PAGE: u64 = PAGE_SIZE as u64;
const NR_CPUS: usize = 4;
const NR_SPACES: usize = 8;
/// How often all CPUs stop and everything is counted, and what each does in between.
const NR_STOPS: usize = if cfg!(miri) { 2 } else { 20 };
const NR_STEPS: usize = if cfg!(miri) { 12 } else { 400 };

/// What a page must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Empty,
    /// Readable, or writable as well, with this number at both ends.
    Mapped(bool, u64),
}

/// A space, and what must be in it.
struct Space {
    table: PageTable,
    pages: Vec<Page>,
}

/// The pages that are used: two entries of a table of each level, as far as there are so many.
fn addresses() -> Vec<u64> {
    let coverage = |level: u32| 1_u64 << (12 + INDEX_BITS * level);
    let at = |number: u64| {
        (0..4)
            .map(|level| (number >> level & 1) * coverage(level))
            .sum()
    };
    (0..16).map(at).filter(|addr| *addr < USER_END).collect()
}

/// Numbers that look like chance, the same in every run.
struct Chance(u64);

impl Chance {
    /// One below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

impl Space {
    fn new(mm: &Mm) -> Mutex<Self> {
        Mutex::new(Self {
            table: PageTable::new(mm, &[0; 256]).unwrap(),
            pages: vec![Page::Empty; addresses().len()],
        })
    }

    fn is_vacant(&self) -> bool {
        self.table.is_empty()
    }

    /// Maps everything.
    fn fill(&mut self, mm: &Mm) -> Result<(), Error> {
        self.table.map_zero(mm, 0, USER_END, Perm::RW)?;
        self.pages.fill(Page::Mapped(true, 0));
        Ok(())
    }

    fn clear(&mut self, mm: &Mm) -> Result<(), Error> {
        self.table.unmap(mm, 0, USER_END)?;
        self.pages.fill(Page::Empty);
        Ok(())
    }

    /// Ends the space. Another one begins in its place.
    fn end(&mut self, mm: &Mm) -> Result<(), Error> {
        let next = PageTable::new(mm, &[0; 256])?;
        let ended = std::mem::replace(&mut self.table, next);
        // As a CPU does that leaves a page table, before others work it off.
        let _ = mm.flush(&Flush::all(ended.root()));
        ended.destroy(mm);
        self.pages.fill(Page::Empty);
        Ok(())
    }

    /// Reads a page, which must be as the model says.
    fn read(&self, mm: &Mm, number: usize) -> Result<(), Fault> {
        let addr = addresses()[number];
        let mut numbers = [[0; 8]; 2];
        let [first, last] = &mut numbers;
        let read = |addr, bytes: &mut [u8]| user_read(mm, &self.table, Cpu(0), addr, bytes);
        let result = read(addr, first).and_then(|()| read(addr + PAGE - 8, last));
        match self.pages[number] {
            Page::Empty => assert_eq!(result, Err(Fault::Denied(FoundEntry::Empty))),
            Page::Mapped(_, number) => {
                result?;
                assert_eq!(numbers.map(u64::from_le_bytes), [number; 2]);
            }
        }
        Ok(())
    }

    /// Writes to a page if that is allowed.
    fn write(&mut self, mm: &Mm, number: usize, value: u64) -> Result<(), Fault> {
        let (table, addr) = (&self.table, addresses()[number]);
        match &mut self.pages[number] {
            Page::Mapped(true, old) => {
                // The page is there then, and its own.
                user_write(mm, table, Cpu(0), addr, &value.to_le_bytes())?;
                user_write(mm, table, Cpu(0), addr + PAGE - 8, &value.to_le_bytes())?;
                *old = value;
            }
            Page::Mapped(false, _) => {
                let result = fault(mm, table, addr, Access::Write);
                assert_eq!(result, Fault::Denied(FoundEntry::ReadOnly));
            }
            Page::Empty => {}
        }
        Ok(())
    }

    /// Unmaps a page that is there, or maps one that is not.
    fn toggle(&mut self, mm: &Mm, number: usize) -> Result<(), Error> {
        let addr = addresses()[number];
        if self.pages[number] == Page::Empty {
            self.table.map_zero(mm, addr, PAGE, Perm::RW)?;
            self.pages[number] = Page::Mapped(true, 0);
        } else {
            self.table.unmap(mm, addr, PAGE)?;
            self.pages[number] = Page::Empty;
        }
        Ok(())
    }

    /// Takes the right to write to a page, or gives it back.
    fn protect(&mut self, mm: &Mm, number: usize) -> Result<(), Error> {
        if let Page::Mapped(may_write, _) = &mut self.pages[number] {
            let perm = if *may_write { Perm::R } else { Perm::RW };
            self.table.protect(mm, addresses()[number], PAGE, perm)?;
            *may_write = !*may_write;
        }
        Ok(())
    }

    /// Forks the space into a vacant one: all of it, or a part.
    fn fork(&self, mm: &Mm, child: &mut Self, nr_pages: usize) -> Result<(), Error> {
        let len = if nr_pages == self.pages.len() {
            USER_END
        } else {
            addresses()[nr_pages]
        };
        let sharing = Sharing {
            mm,
            dst: &child.table,
            to: 0,
            src: &self.table,
            from: 0,
            len,
            mode: ShareMode::CopyOnWrite,
            perm: None,
        };
        sharing.share()?;
        child.pages[..nr_pages].copy_from_slice(&self.pages[..nr_pages]);
        Ok(())
    }
}

/// Memory may be out for a moment. Then nothing has changed.
fn allow_out_of_memory<E: PartialEq + core::fmt::Debug>(result: Result<(), E>, error: E) {
    if let Err(found) = result {
        assert_eq!(found, error);
    }
}

fn try_lock(space: &Mutex<Space>) -> Option<MutexGuard<'_, Space>> {
    match space.try_lock() {
        Ok(space) => Some(space),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(_)) => panic!("another CPU has failed"),
    }
}

/// One CPU, which has every `NR_CPUS`th space: only it has translations of theirs.
fn act(mm: &Mm, spaces: &[Mutex<Space>], cpu: usize, seed: u64) {
    let mut chance = Chance(seed << 8 | cpu as u64);
    for step in 0..NR_STEPS {
        let own = cpu + NR_CPUS * chance.below(NR_SPACES / NR_CPUS);
        let mut space = spaces[own].lock().unwrap();
        let number = chance.below(space.pages.len());
        let memory = match chance.below(20) {
            0 => space.clear(mm),
            1 | 2 => space.toggle(mm, number),
            3 => space.protect(mm, number),
            4..7 => {
                let other = chance.below(NR_SPACES);
                let nr_pages = [number, space.pages.len()][chance.below(2)];
                match (other != own).then(|| try_lock(&spaces[other])).flatten() {
                    Some(mut child) if child.is_vacant() && nr_pages > 0 => {
                        space.fork(mm, &mut child, nr_pages)
                    }
                    _ => Ok(()),
                }
            }
            7 => {
                drop(space);
                reap_some(mm, 20);
                continue;
            }
            8 if space.is_vacant() => space.fill(mm),
            14 => space.end(mm),
            8..14 => {
                let value = seed << 32 | (cpu * NR_STEPS + step + 1) as u64;
                allow_out_of_memory(space.write(mm, number, value), Fault::OutOfMemory);
                Ok(())
            }
            _ => {
                allow_out_of_memory(space.read(mm, number), Fault::OutOfMemory);
                Ok(())
            }
        };
        allow_out_of_memory(memory, Error::NoMemory);
    }
}

fn all_act_on(nr_frames: usize) {
    let sim = SimMemory::new(nr_frames);
    let mm = sim.mm();
    let spaces: Vec<_> = (0..NR_SPACES).map(|_| Space::new(mm)).collect();
    for stop in 0..NR_STOPS {
        mm.frames.set_shared(stop % 2 == 0);
        thread::scope(|scope| {
            for cpu in 0..NR_CPUS {
                let spaces = &spaces;
                scope.spawn(move || act(mm, spaces, cpu, stop as u64 + 1));
            }
        });
        let guards: Vec<_> = spaces.iter().map(|space| space.lock().unwrap()).collect();
        let named = audit(mm, guards.iter().map(|space| &space.table)).len() as u64;
        let used = mm.counts.nodes() + named;
        assert_eq!(mm.frames.free_count() + used, mm.frames.total_count());
    }
    finish(mm, spaces);
}

/// All frames come back.
fn finish(mm: &Mm, spaces: Vec<Mutex<Space>>) {
    for space in spaces {
        space.into_inner().unwrap().table.destroy(mm);
    }
    while !reap(mm) {}
    let free = mm.frames.free_count();
    assert_eq!(free + mm.counts.nodes(), mm.frames.total_count());
    assert_eq!(mm.counts.shared(), 0);
}

/// A space and its forks, one for each CPU, which all write at the same moment: so tables and pages are copied, and
/// given up, by all of them at once. `written` says, for a number of pages, a round and a CPU, which of them it writes to, in order.
fn all_write_at_once(nr_rounds: usize, written: fn(usize, usize, usize) -> Range<usize>) {
    let sim = SimMemory::new(8192);
    let mm = sim.mm();
    let pages: Vec<_> = (0..NR_ENTRIES as u64 * 2)
        .map(|number| number * PAGE)
        .filter(|addr| *addr < USER_END)
        .collect();
    for round in 0..if cfg!(miri) { 2 } else { nr_rounds } {
        mm.frames.set_shared(round % 2 == 0);
        let spaces: Vec<_> = (0..NR_CPUS).map(|_| Space::new(mm)).collect();
        {
            let mut parent = spaces[0].lock().unwrap();
            parent.fill(mm).unwrap();
            for page in &pages {
                user_write(mm, &parent.table, Cpu(0), *page, &[1]).unwrap();
            }
            for child in &spaces[1..] {
                let nr_pages = parent.pages.len();
                parent
                    .fork(mm, &mut child.lock().unwrap(), nr_pages)
                    .unwrap();
            }
        }
        let start = Barrier::new(NR_CPUS);
        thread::scope(|scope| {
            for (cpu, space) in spaces.iter().enumerate() {
                let (start, pages) = (&start, &pages);
                scope.spawn(move || {
                    let space = space.lock().unwrap();
                    start.wait();
                    let (own, value) = (written(pages.len(), round, cpu), cpu as u8 + 2);
                    for page in &pages[own.clone()] {
                        user_write(mm, &space.table, Cpu(0), *page, &[value]).unwrap();
                    }
                    for (number, page) in pages.iter().enumerate() {
                        let mut byte = [0];
                        user_read(mm, &space.table, Cpu(0), *page, &mut byte).unwrap();
                        let expected = if own.contains(&number) { value } else { 1 };
                        assert_eq!(byte[0], expected, "CPU {cpu} at {page:#x}");
                    }
                });
            }
        });
        let guards: Vec<_> = spaces.iter().map(|space| space.lock().unwrap()).collect();
        let _ = audit(mm, guards.iter().map(|space| &space.table));
        drop(guards);
        finish(mm, spaces);
    }
}

#[test]
fn they_copy_the_same_tables_at_once() {
    // The same page in one round, and different ones in the next.
    all_write_at_once(60, |nr_pages, round, cpu| {
        let own = cpu * (round % 2) % nr_pages;
        own..own + 1
    });
}

#[test]
fn they_copy_the_same_runs_at_once() {
    // All of it, or from somewhere on.
    all_write_at_once(20, |nr_pages, round, cpu| cpu * round % nr_pages..nr_pages);
}

#[test]
fn each_space_has_what_it_wrote_and_no_frame_is_lost() {
    all_act_on(2048);
}

#[test]
fn nor_is_one_where_memory_is_short() {
    const { assert!(NR_ENTRIES >= 2) };
    all_act_on(160);
}
