//! The kernel's memory management beside the model, and everything that must hold between them.

use cowslip_abi::{Access, Commit, Error, PAGE_SIZE, Perm, ShareMode};
use kernel::{
    mm::{Frame, PhysAddr, phys::NR_ENTRIES, sim::Cpu, sim::SimMemory},
    vm::{
        self, CopyError, Fault, NO_BUDGET, PageTable, Passage, Sharing, Side, Transfer, USER_END,
        audit::audit,
        sim::{user_access, user_read, user_write},
    },
};

use super::{
    ops::{BASE, NR_PAGES, NR_SPACES, Op, PAGE, Pages, Step, Terms},
    reference::{self, Share, Space},
};

/// Blocks of 2 MiB, the part of a count node, and how many frames of each are memory.
const NR_BLOCKS: usize = match NR_ENTRIES {
    2 => 1,
    4 => 3,
    _ => 8,
};
const FRAMES_PER_BLOCK: u64 = match NR_ENTRIES {
    2 => 200,
    4 => 400,
    _ => 24,
};
const CPUS: [Cpu; 2] = [Cpu(0), Cpu(1)];

/// What an operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Error(Error),
    Copy(CopyError),
    Fault(Fault),
}

impl Outcome {
    fn is_out_of_memory(self) -> bool {
        let copy = CopyError {
            side: Side::Memory,
            error: Error::NoMemory,
        };
        [
            Outcome::Error(Error::NoMemory),
            Outcome::Copy(copy),
            Outcome::Fault(Fault::OutOfMemory),
        ]
        .contains(&self)
    }
}

impl From<Result<(), Error>> for Outcome {
    fn from(result: Result<(), Error>) -> Self {
        result.map_or_else(Outcome::Error, |()| Outcome::Done)
    }
}

impl From<Result<(), CopyError>> for Outcome {
    fn from(result: Result<(), CopyError>) -> Self {
        result.map_or_else(Outcome::Copy, |()| Outcome::Done)
    }
}

impl From<Result<(), Fault>> for Outcome {
    fn from(result: Result<(), Fault>) -> Self {
        result.map_or_else(Outcome::Fault, |()| Outcome::Done)
    }
}

pub(crate) struct World {
    sim: SimMemory,
    tables: Vec<PageTable>,
    model: Vec<Space>,
    /// Frames kept away to make memory short.
    hoard: Vec<Frame>,
}

impl World {
    /// Spaces that are mapped everywhere, over memory of which every 2 MiB block (the part of a
    /// count node) has a few frames.
    pub(crate) fn new() -> Self {
        let sim = SimMemory::empty(NR_BLOCKS * 512);
        let mm = sim.mm();
        for block in 0..NR_BLOCKS as u64 {
            let start = block * 512 * PAGE + PAGE;
            mm.frames
                .add_range(PhysAddr(start), PhysAddr(start + FRAMES_PER_BLOCK * PAGE));
        }
        let end = PhysAddr(NR_BLOCKS as u64 * 512 * PAGE);
        mm.cover(PhysAddr(0), end).unwrap();
        let tables: Vec<_> = (0..NR_SPACES)
            .map(|_| PageTable::new(mm, &[0; 256]).unwrap())
            .collect();
        let classes = [Commit::Strict, Commit::Overcommit, Commit::Strict];
        let mut model: Vec<_> = classes
            .into_iter()
            .map(|class| Space::new(class, NO_BUDGET))
            .collect();
        for (table, model) in tables.iter().zip(&mut model) {
            table.set_class(model.class).unwrap();
            table.map_zero(mm, BASE, NR_PAGES * PAGE, Perm::RW).unwrap();
            model.map(BASE, NR_PAGES * PAGE, Perm::RW).unwrap();
        }
        Self {
            sim,
            tables,
            model,
            hoard: Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        if step.clear {
            self.clear_target(&step.op);
        }
        let mut done = None;
        if let Some(free_frames) = step.free_frames {
            self.hoard_all_but(free_frames);
            done = Some(self.perform(&step.op)).filter(|outcome| !outcome.is_out_of_memory());
            if done.is_none() {
                assert!(!self.is_promised(&step.op), "{step:?} broke a promise");
                self.check();
            }
            self.give_back();
        }
        let done = done.unwrap_or_else(|| self.perform(&step.op));
        let expected = self.expect(&step.op);
        assert_eq!(done, expected, "{step:?}");
        self.check();
    }

    /// Whether memory cannot be too short for the operation: a strict space needs frames for it and for
    /// nothing that was not charged before.
    fn is_promised(&self, op: &Op) -> bool {
        let is_strict = |space: usize| self.model[space].class == Commit::Strict;
        match *op {
            Op::Unmap { space, .. }
            | Op::Protect { space, .. }
            | Op::Write { space, .. }
            | Op::Touch { space, .. }
            | Op::Read { space, .. }
            | Op::Execute { space, .. }
            | Op::KernelWrite { space, .. } => is_strict(space),
            Op::Copy {
                dst, src, transfer, ..
            } => is_strict(dst) && (is_strict(src) || transfer == Transfer::Copy),
            Op::Map { .. } | Op::Share { .. } | Op::Fork { .. } => false,
            Op::Threshold { .. } | Op::Reap { .. } | Op::Destroy { .. } => true,
        }
    }

    /// Unmaps what the operation would find occupied.
    fn clear_target(&mut self, op: &Op) {
        let (space, pages) = match *op {
            Op::Map { space, pages, .. } => (space, pages),
            Op::Share { dst, to, pages, .. } => (dst, Pages { first: to, ..pages }),
            _ => return,
        };
        let unmapped = self.tables[space].unmap(self.sim.mm(), pages.addr(), pages.len());
        unmapped.expect("memory is not short yet");
        self.model[space].unmap(pages.addr(), pages.len());
    }

    /// Destroys everything; every frame must be free again.
    pub(crate) fn finish(mut self) {
        let mm = self.sim.mm();
        self.tables.drain(..).for_each(|table| table.destroy(mm));
        while !vm::reap(mm) {}
        assert_eq!(
            mm.frames.free_count() + mm.counts.nodes(),
            mm.frames.total_count()
        );
        assert_eq!((mm.counts.shared(), mm.frames.promised()), (0, 0));
    }

    fn hoard_all_but(&mut self, free_frames: u64) {
        let frames = &self.sim.mm().frames;
        while frames.spare_count() > free_frames {
            self.hoard.extend(frames.alloc());
        }
    }

    fn give_back(&mut self) {
        self.hoard
            .drain(..)
            .for_each(|frame| self.sim.mm().frames.free(frame));
    }

    /// An empty space instead of this one. Without memory for a root, the old one is emptied.
    fn replace(&mut self, space: usize, terms: Terms) {
        let mm = self.sim.mm();
        let table = &mut self.tables[space];
        match PageTable::new(mm, &[0; 256]) {
            Ok(fresh) => std::mem::replace(table, fresh).destroy(mm),
            Err(_) => table.unmap(mm, 0, USER_END).unwrap(),
        }
        table.set_class(terms.class).unwrap();
        table.set_budget(terms.budget);
        self.model[space] = Space::new(terms.class, terms.budget);
    }

    /// Does it for real.
    fn perform(&mut self, op: &Op) -> Outcome {
        if let Op::Destroy { space, terms }
        | Op::Fork {
            dst: space, terms, ..
        } = *op
            && !matches!(*op, Op::Fork { dst, src, .. } if dst == src)
        {
            self.replace(space, terms);
        }
        let (mm, tables) = (self.sim.mm(), &self.tables);
        match *op {
            Op::Map { space, pages, perm } => tables[space]
                .map_zero(mm, pages.addr(), pages.len(), perm)
                .into(),
            Op::Unmap { space, pages } => tables[space].unmap(mm, pages.addr(), pages.len()).into(),
            Op::Protect { space, pages, perm } => tables[space]
                .protect(mm, pages.addr(), pages.len(), perm)
                .into(),
            Op::Share {
                dst,
                to,
                src,
                pages,
                mode,
                perm,
            } => {
                let sharing = Sharing {
                    mm,
                    dst: &tables[dst],
                    to: BASE + to * PAGE,
                    src: &tables[src],
                    from: pages.addr(),
                    len: pages.len(),
                    mode,
                    perm,
                };
                sharing.share().into()
            }
            Op::Fork { dst, src, .. } => {
                let everything = Sharing {
                    mm,
                    dst: &tables[dst],
                    to: 0,
                    src: &tables[src],
                    from: 0,
                    len: USER_END,
                    mode: ShareMode::CopyOnWrite,
                    perm: None,
                };
                everything.share().into()
            }
            Op::Copy {
                dst,
                to,
                src,
                from,
                len,
                transfer,
            } => {
                let passage = Passage {
                    mm,
                    dst: &tables[dst],
                    to: BASE + to,
                    src: &tables[src],
                    from: BASE + from,
                    len,
                    transfer,
                };
                passage.copy().into()
            }
            Op::Write {
                space,
                cpu,
                offset,
                len,
                byte,
            } => {
                let bytes = &pattern(byte, len)[..within_page(offset, len)];
                user_write(mm, &tables[space], Cpu(cpu), BASE + offset, bytes).into()
            }
            Op::Read {
                space,
                cpu,
                offset,
                len,
            } => {
                let mut bytes = vec![0; within_page(offset, len)];
                let result = user_read(mm, &tables[space], Cpu(cpu), BASE + offset, &mut bytes);
                if result.is_ok() {
                    let expected = self.model[space].read(BASE + offset, bytes.len() as u64);
                    assert!(bytes == expected, "{op:?} read other bytes");
                }
                result.into()
            }
            Op::Touch { space, cpu, pages } => {
                let table = &tables[space];
                let touch = |addr| user_access(mm, table, Cpu(cpu), addr, Access::Write);
                pages
                    .addresses()
                    .try_for_each(|addr| touch(addr).map(|_| ()))
                    .into()
            }
            Op::Execute { space, cpu, page } => {
                let addr = BASE + page * PAGE;
                user_access(mm, &tables[space], Cpu(cpu), addr, Access::Execute)
                    .map(|_| ())
                    .into()
            }
            Op::KernelWrite {
                space,
                offset,
                len,
                byte,
            } => {
                let bytes = pattern(byte, within_arena(offset, len));
                vm::write_user(mm, &tables[space], BASE + offset, &bytes).into()
            }
            Op::Threshold { nr_pages } => {
                mm.set_remap_min_pages(nr_pages);
                Outcome::Done
            }
            Op::Reap { nr_references } => {
                vm::reap_some(mm, nr_references);
                Outcome::Done
            }
            Op::Destroy { .. } => Outcome::Done,
        }
    }

    /// Does it in the model.
    fn expect(&mut self, op: &Op) -> Outcome {
        let model = &mut self.model;
        match *op {
            Op::Map { space, pages, perm } => {
                model[space].map(pages.addr(), pages.len(), perm).into()
            }
            Op::Unmap { space, pages } => {
                model[space].unmap(pages.addr(), pages.len());
                Outcome::Done
            }
            Op::Protect { space, pages, perm } => {
                model[space].protect(pages.addr(), pages.len(), perm).into()
            }
            Op::Share {
                dst,
                to,
                src,
                pages,
                mode,
                perm,
            } => {
                let (to, from, len) = (BASE + to * PAGE, pages.addr(), pages.len());
                reference::share(
                    model,
                    &Share {
                        dst,
                        to,
                        src,
                        from,
                        len,
                        mode,
                        perm,
                    },
                )
                .into()
            }
            Op::Fork { dst, src, .. } => {
                let (to, from, len) = (0, 0, USER_END);
                let (mode, perm) = (ShareMode::CopyOnWrite, None);
                reference::share(
                    model,
                    &Share {
                        dst,
                        to,
                        src,
                        from,
                        len,
                        mode,
                        perm,
                    },
                )
                .into()
            }
            Op::Copy {
                dst,
                to,
                src,
                from,
                len,
                transfer,
            } => {
                let (to, from) = ((dst, BASE + to), (src, BASE + from));
                reference::copy(model, to, from, len, transfer).into()
            }
            Op::Write {
                space,
                offset,
                len,
                byte,
                ..
            } => {
                let bytes = &pattern(byte, len)[..within_page(offset, len)];
                let allowed = model[space].allows(BASE + offset, Access::Write);
                if allowed.is_ok() {
                    model[space].write(BASE + offset, bytes);
                }
                allowed.map_err(Fault::Denied).into()
            }
            Op::Read { space, offset, .. } => model[space]
                .allows(BASE + offset, Access::Read)
                .map_err(Fault::Denied)
                .into(),
            Op::Touch { space, pages, .. } => pages
                .addresses()
                .try_for_each(|addr| model[space].allows(addr, Access::Write))
                .map_err(Fault::Denied)
                .into(),
            Op::Execute { space, page, .. } => model[space]
                .allows(BASE + page * PAGE, Access::Execute)
                .map_err(Fault::Denied)
                .into(),
            Op::KernelWrite {
                space,
                offset,
                len,
                byte,
            } => {
                let bytes = pattern(byte, within_arena(offset, len));
                let allowed = model[space].check_writable(BASE + offset, bytes.len() as u64);
                if allowed.is_ok() {
                    model[space].write(BASE + offset, &bytes);
                }
                allowed.into()
            }
            Op::Destroy { .. } | Op::Threshold { .. } | Op::Reap { .. } => Outcome::Done,
        }
    }

    fn check(&self) {
        if cfg!(miri) {
            return; // It would take five times as long as the operations, and is done without Miri.
        }
        self.sim.check_tlbs();
        let mm = self.sim.mm();
        let named = audit(mm, &self.tables);
        for (table, model) in self.tables.iter().zip(&self.model) {
            self.check_statistics(table, model);
            for addr in (BASE..BASE + NR_PAGES * PAGE).step_by(PAGE_SIZE) {
                self.check_page(table, model, addr);
            }
        }
        let used = mm.counts.nodes() + (named.len() + self.hoard.len()) as u64;
        assert_eq!(
            mm.frames.free_count() + used,
            mm.frames.total_count(),
            "frames lost"
        );
        self.check_charges();
    }

    /// The audit has counted from the page tables what spaces are charged and strict ones promised. Here
    /// it is compared with the model's pages.
    fn check_charges(&self) {
        for (table, model) in self.tables.iter().zip(&self.model) {
            assert_eq!(table.commit(), model.commit(), "commit");
            assert_eq!((table.class(), table.budget()), (model.class, model.budget));
        }
        let frames = &self.sim.mm().frames;
        assert!(frames.free_count() as i64 >= frames.promised());
    }

    fn check_statistics(&self, table: &PageTable, model: &Space) {
        let stats = table.statistics(self.sim.mm());
        let nr_pages = stats.private + stats.cow_shared + stats.shared + stats.zero;
        assert_eq!(nr_pages, model.pages.len() as u64);
        let nr_shared = model
            .pages
            .values()
            .filter(|page| page.bytes.is_shared())
            .count();
        assert_eq!(stats.shared, nr_shared as u64);
    }

    fn check_page(&self, table: &PageTable, model: &Space, addr: u64) {
        let mm = self.sim.mm();
        let entry = table.lookup(mm, addr);
        let mut bytes = [0; PAGE_SIZE];
        let seen = CPUS.map(|cpu| cpu.translate(mm, table.root(), addr, Access::Read));
        let Some(page) = model.pages.get(&addr) else {
            assert!(
                entry.is_empty() && seen == [None; 2],
                "{addr:#x} should be empty"
            );
            return;
        };
        let rights = entry.rights();
        assert_eq!(
            (rights.perm(), rights.ceiling()),
            (page.perm, page.ceiling),
            "{addr:#x}"
        );
        let expected = page.bytes.to_vec();
        vm::read_user(mm, table, addr, &mut bytes).unwrap();
        assert!(bytes[..] == expected[..], "{addr:#x} has other bytes");
        for (cpu, frame) in CPUS.into_iter().zip(seen) {
            if let Some(frame) = frame {
                mm.map.read_bytes(frame, 0, &mut bytes);
                assert!(
                    bytes[..] == expected[..],
                    "{cpu:?} sees other bytes at {addr:#x}"
                );
            }
        }
    }
}

fn pattern(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| byte.wrapping_add(n as u8)).collect()
}

/// How much of a range lies in the page in which it starts.
fn within_page(offset: u64, len: usize) -> usize {
    len.min((PAGE - offset % PAGE) as usize)
}

/// How much of a range lies in the pages that are played with.
fn within_arena(offset: u64, len: usize) -> usize {
    len.min((NR_PAGES * PAGE - offset) as usize)
}
