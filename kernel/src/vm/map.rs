//! Editing one address space: map, unmap, protect.

use core::ops::Range;

use cowslip_abi::{Commit, Error, Perm};

use crate::{
    mm::{Departing, Flush, Frame, Mm, PerClass, Reserve, phys::FRAME_SIZE},
    vm::{
        Beginning, Effort, PageTable, VmError,
        commit::{Loss, of_vacant},
        cursor::{Node, coverage, highest_level, is_vacant, shift, walk, walk_to_page},
        drop::{empty, frames_to_empty},
        entry::{Entry, Kind, Rights, Slot},
        open::{Edit, Plan, open},
        reap::{reserve, twice},
    },
};

impl PageTable {
    /// Makes the pages from `addr` on demand-zero.
    ///
    /// Takes an entry for each largest aligned piece of the range, so a terabyte is a handful.
    ///
    /// # Errors
    ///
    /// `Occupied`: a page is not empty. `OverBudget`: the space would have more than its budget.
    /// `NoMemory`: too few frames for the tables; in a strict space, for all that it maps.
    pub fn map_zero(&self, mm: &Mm, addr: u64, len: u64, perm: Perm) -> Result<(), VmError> {
        if len == FRAME_SIZE && self.map_page(mm, addr, perm) {
            return Ok(());
        }
        let entry = Entry::zero(Rights::new(perm));
        twice(|| self.map_zeros(mm, addr..addr + len, entry))
    }

    /// Makes one page demand-zero, if it is empty, its table is there and plainly this space's own, and
    /// its charge is granted. Otherwise nothing has changed.
    #[inline(always)]
    pub fn map_page(&self, mm: &Mm, addr: u64, perm: Perm) -> bool {
        let Ok(leaf) = walk_to_page(&mm.map, self.root(), addr) else {
            return false;
        };
        if !leaf.is_exclusive()
            || !leaf.slot(addr).get().is_empty()
            || self.grow_by_page(mm).is_err()
        {
            return false;
        }
        fill_empty(leaf, addr, Entry::zero(Rights::new(perm)));
        true
    }

    fn map_zeros(&self, mm: &Mm, range: Range<u64>, entry: Entry) -> Result<(), VmError> {
        if !is_vacant(&mm.map, self.root(), &range) {
            return Err(Error::Occupied);
        }
        let mut plan = Plan::new(mm, self.root());
        for piece in pieces(range.clone()) {
            plan.add(piece.addr, piece.level);
        }
        let charge = of_vacant(mm, self.root(), &range);
        let mut reserve = self.charge_and_reserve(mm, charge, plan.nr_frames())?;
        let mut departing = Departing::new(mm, self.class());
        for piece in pieces(range) {
            let table = open(
                mm,
                self.root(),
                piece.addr,
                piece.level,
                Edit::Keep,
                &mut reserve,
                &mut departing,
            );
            let run = table.run(piece.addr, piece.nr_entries);
            run.iter().for_each(|place| Slot::new(place).set(entry));
            table.add_used(run.len());
        }
        departing.finish();
        Ok(())
    }

    /// Makes the page at `addr` a private page with this frame.
    ///
    /// The caller gives away its reference to the frame, which must be the only one.
    ///
    /// # Errors
    ///
    /// `Occupied`: the page is not empty. `OverBudget`: the space would have more than its budget.
    /// `NoMemory`: too few frames for the tables. The caller keeps the frame then.
    pub fn map_frame(&self, mm: &Mm, addr: u64, frame: Frame, perm: Perm) -> Result<(), VmError> {
        twice(|| self.map_frame_at(mm, addr, frame, perm))
    }

    fn map_frame_at(&self, mm: &Mm, addr: u64, frame: Frame, perm: Perm) -> Result<(), VmError> {
        if !self.lookup(mm, addr).is_empty() {
            return Err(Error::Occupied);
        }
        let mut plan = Plan::new(mm, self.root());
        plan.add(addr, 0);
        let charge = of_vacant(mm, self.root(), &(addr..addr + FRAME_SIZE));
        let mut reserve = self.charge_and_reserve(mm, charge, plan.nr_frames())?;
        if self.class() == Commit::Strict {
            // The page has its frame already.
            mm.frames.forgo(1);
        }
        let mut departing = Departing::new(mm, self.class());
        let root = self.root();
        let leaf = open(mm, root, addr, 0, Edit::Keep, &mut reserve, &mut departing);
        departing.finish();
        let entry = Entry::private(frame, Rights::new(perm), true);
        fill_empty(leaf, addr, entry);
        Ok(())
    }

    /// Charges frames, and reserves some of them.
    pub(super) fn charge_and_reserve<'m>(
        &self,
        mm: &'m Mm,
        charge: u64,
        nr_frames: usize,
    ) -> Result<Reserve<'m>, VmError> {
        self.grow(mm, charge)?;
        let reserved = reserve(mm, nr_frames, self.class());
        reserved.map_err(|error| {
            self.shrink(mm, charge);
            error.into()
        })
    }

    /// Empties the pages from `addr` on. Empty ones stay so.
    ///
    /// Takes time for the ends of the range; what is between them goes as a whole, and is released
    /// [later](fn@super::reap).
    ///
    /// # Errors
    ///
    /// `NoMemory`: an end lies in a table that others share or in a larger piece of demand-zero
    /// memory, and there are too few frames for tables of one's own.
    pub fn unmap(&self, mm: &Mm, addr: u64, len: u64) -> Result<(), VmError> {
        if len == FRAME_SIZE && self.unmap_page(mm, addr) {
            return Ok(());
        }
        twice(|| self.unmap_range(mm, addr..addr + len))
    }

    fn unmap_range(&self, mm: &Mm, range: Range<u64>) -> Result<(), VmError> {
        let root = self.root();
        let nr_frames = frames_to_empty(mm, root, &range);
        let mut reserve = reserve(mm, nr_frames, self.class())?;
        let loss = Loss {
            mm,
            is_filled: &|_| false,
        };
        let charge = loss.of(root, &range);
        let mut departing = Departing::new(mm, self.class());
        empty(mm, root, &range, &mut reserve, &mut departing);
        departing.finish();
        self.shrink(mm, charge);
        Ok(())
    }

    /// Empties a page, unless that leaves its table empty or its table is not plainly this space's own:
    /// then nothing has changed.
    #[inline(always)]
    pub fn unmap_page(&self, mm: &Mm, addr: u64) -> bool {
        let leaf = match walk_to_page(&mm.map, self.root(), addr) {
            Ok(leaf) => leaf,
            Err(gap) => return gap.entry(addr).is_empty(),
        };
        let slot = leaf.slot(addr);
        let entry = slot.get();
        if entry.is_empty() {
            return true;
        }
        let Some(named_by) = leaf.named_by.filter(|_| leaf.is_exclusive()) else {
            return false;
        };
        let table = named_by.get().with_fewer_used(1);
        if table.nr_used() == 0 || table.is_plain() {
            return false;
        }
        slot.set(Entry::EMPTY);
        named_by.set(table);
        self.shrink(mm, 1);
        if let Kind::Private(frame) | Kind::Shared(frame) = entry.kind() {
            let flushed = mm.flush(&Flush::page(self.root(), addr));
            mm.release(frame, self.class(), &flushed);
        }
        true
    }

    /// Changes what user code may do with the pages from `addr` on.
    ///
    /// # Errors
    ///
    /// For the first page that is at fault: `NotMapped`, or `Denied` if it was mapped with fewer
    /// rights. `NoMemory`: too few frames for the tables.
    pub fn protect(&self, mm: &Mm, addr: u64, len: u64, perm: Perm) -> Result<(), VmError> {
        self.protect_within(mm, Effort::MAX, addr, len, perm)
            .map(|_| ())
    }

    /// The same, if it takes no more than so much effort. `false`: it takes more, and nothing has
    /// changed.
    ///
    /// # Errors
    ///
    /// As for [`protect`](Self::protect); beyond the effort nothing is checked.
    pub fn protect_within(
        &self,
        mm: &Mm,
        limit: Effort,
        addr: u64,
        len: u64,
        perm: Perm,
    ) -> Result<bool, VmError> {
        twice(|| {
            let (planned, nr_frames) = self.plan_protect(mm, limit, addr, len, perm)?;
            if planned < len {
                return Ok(false);
            }
            self.protect_range(mm, addr, len, perm, nr_frames)?;
            Ok(true)
        })
    }

    /// The same for the beginning, as far as so much effort goes. What it needs of the frames that are
    /// set aside for all goes back first. Returns how many bytes.
    ///
    /// # Errors
    ///
    /// As for [`protect`](Self::protect), for these bytes.
    pub fn protect_some(
        &self,
        mm: &Mm,
        limit: Effort,
        addr: u64,
        len: u64,
        perm: Perm,
        aside: &mut PerClass,
    ) -> Result<u64, VmError> {
        twice(|| {
            let (len, nr_frames) = self.plan_protect(mm, limit, addr, len, perm)?;
            mm.frames.draw(aside, PerClass::of(self.class(), nr_frames));
            self.protect_range(mm, addr, len, perm, nr_frames)?;
            Ok(len)
        })
    }

    /// As planned.
    fn protect_range(
        &self,
        mm: &Mm,
        addr: u64,
        len: u64,
        perm: Perm,
        nr_frames: usize,
    ) -> Result<(), VmError> {
        let mut reserve = reserve(mm, nr_frames, self.class())?;
        let root = self.root();
        let mut departing = Departing::new(mm, self.class());
        let edit = if perm == Perm::RW {
            Edit::Keep
        } else {
            Edit::Change
        };
        let mut rest = addr..addr + len;
        while let Some(Run { piece, .. }) = next_run(mm, root, &mut rest) {
            let Piece {
                addr,
                level,
                nr_entries,
            } = piece;
            let table = open(mm, root, addr, level, edit, &mut reserve, &mut departing);
            let mut loses = false;
            for slot in table.run(addr, nr_entries).iter().map(Slot::new) {
                let before = slot.get();
                let after = protected(before, perm);
                slot.set(after);
                loses |= before.needs_flush(after);
            }
            if loses {
                let end = addr + nr_entries * coverage(level);
                departing.flush().add_range(root, addr, end);
            }
        }
        departing.finish();
        Ok(())
    }

    /// Checks the beginning of what [`protect`](Self::protect) is asked for, as far as so much effort
    /// goes, which is a page at least.
    ///
    /// # Errors
    ///
    /// As for [`protect`](Self::protect), for what was checked, but `NoMemory`.
    pub fn check_protect(
        &self,
        mm: &Mm,
        limit: Effort,
        addr: u64,
        len: u64,
        perm: Perm,
    ) -> Result<Beginning, VmError> {
        let (len, nr_frames) = self.plan_protect(mm, limit, addr, len, perm)?;
        Ok(Beginning {
            len,
            nr_frames: PerClass::of(self.class(), nr_frames),
            charge: 0,
        })
    }

    /// Returns how many bytes were checked, and how many frames they take.
    #[inline]
    fn plan_protect(
        &self,
        mm: &Mm,
        limit: Effort,
        addr: u64,
        len: u64,
        perm: Perm,
    ) -> Result<(u64, usize), VmError> {
        let (root, mut left) = (self.root(), limit);
        let mut plan = Plan::new(mm, root);
        let mut rest = addr..addr + len;
        while !left.is_spent()
            && let Some(run) = next_run(mm, root, &mut rest)
        {
            left.spend(Effort::PAGE, run.piece.nr_entries as usize);
            for entry in run.entries() {
                if entry.is_empty() {
                    return Err(Error::NotMapped);
                }
                if !entry.rights().ceiling().contains(perm) {
                    return Err(Error::Denied);
                }
            }
            plan.add(run.piece.addr, run.piece.level);
        }
        Ok((rest.start - addr, plan.nr_frames()))
    }
}

/// Neighbouring entries of one table, as many as lie in a range with all that they cover.
#[derive(Clone, Copy)]
struct Piece {
    addr: u64,
    level: u32,
    nr_entries: u64,
}

impl Piece {
    /// From the start of the range on, of this level. The range then starts behind it.
    fn take(range: &mut Range<u64>, level: u32) -> Self {
        let addr = range.start;
        let table_end = (addr | (coverage(level + 1) - 1)) + 1;
        let nr_entries = (range.end.min(table_end) - addr) >> shift(level);
        range.start += nr_entries << shift(level);
        Self {
            addr,
            level,
            nr_entries,
        }
    }
}

/// The fewest pieces that the range consists of.
fn pieces(mut range: Range<u64>) -> impl Iterator<Item = Piece> {
    core::iter::from_fn(move || {
        let level = highest_level(range.start, range.end);
        (!range.is_empty()).then(|| Piece::take(&mut range, level))
    })
}

/// A piece, and what is there: entries that are not those of tables.
struct Run<'m> {
    piece: Piece,
    found: Result<Node<'m>, Entry>,
}

impl Run<'_> {
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let Piece {
            addr, nr_entries, ..
        } = self.piece;
        let (places, gap) = match self.found {
            Ok(table) => (table.run(addr, nr_entries), None),
            Err(entry) => (&[][..], Some(entry)),
        };
        places.iter().map(|place| Slot::new(place).get()).chain(gap)
    }
}

/// The next piece of the range, of the highest level at which there are no tables. The range then
/// starts behind it.
fn next_run<'m>(mm: &'m Mm, root: Frame, range: &mut Range<u64>) -> Option<Run<'m>> {
    if range.is_empty() {
        return None;
    }
    let addr = range.start;
    let mut level = highest_level(addr, range.end);
    let found = loop {
        match walk(&mm.map, root, addr, level) {
            Ok(table) if level == 0 || table.slot(addr).get().table_below().is_none() => {
                break Ok(table);
            }
            Ok(_) => level -= 1,
            Err(gap) => break Err(gap.entry(addr)),
        }
    };
    let mut piece = Piece::take(range, level);
    if level > 0
        && let Ok(table) = found
    {
        let places = table.run(addr, piece.nr_entries).iter();
        let nr_before = places.take_while(|place| Slot::new(place).get().table_below().is_none());
        piece.nr_entries = nr_before.count() as u64;
        range.start = addr + (piece.nr_entries << shift(level));
    }
    Some(Run { piece, found })
}

/// Writes the entry for `addr`, which is empty, in its table.
#[inline]
fn fill_empty(leaf: Node<'_>, addr: u64, entry: Entry) {
    leaf.slot(addr).set(entry);
    leaf.add_used(1);
}

/// The entry with other rights. A private page does not become writable for the hardware: others
/// may share the frame, and the first write finds out.
fn protected(entry: Entry, perm: Perm) -> Entry {
    let rights = entry.rights().with_perm(perm);
    match entry.kind() {
        Kind::Shared(frame) => Entry::shared(frame, rights),
        _ => entry.with_rights(rights),
    }
}
