//! Address spaces that copy everything at once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use cowslip_abi::{Access, Commit, Error, FoundEntry, PAGE_SIZE, Perm, ShareMode};
use kernel::mm::phys::INDEX_BITS;
use kernel::vm::{CopyError, Side, Transfer};

use super::ops::PAGE;

#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) perm: Perm,
    pub(crate) ceiling: Perm,
    pub(crate) bytes: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// Nobody sees the same bytes, whatever the model saves by counting references.
    Private(Rc<Vec<u8>>),
    Shared(Rc<RefCell<Vec<u8>>>),
}

impl Bytes {
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Bytes::Shared(_))
    }

    /// A page of zeros.
    fn zero() -> Self {
        thread_local! {
            static ZERO: Rc<Vec<u8>> = Rc::new(vec![0; PAGE_SIZE]);
        }
        Bytes::Private(ZERO.with(Rc::clone))
    }

    pub(crate) fn to_vec(&self) -> Rc<Vec<u8>> {
        match self {
            Bytes::Private(bytes) => Rc::clone(bytes),
            Bytes::Shared(bytes) => Rc::new(bytes.borrow().clone()),
        }
    }

    fn write(&mut self, offset: usize, from: &[u8]) {
        match self {
            Bytes::Private(bytes) => {
                Rc::make_mut(bytes)[offset..][..from.len()].copy_from_slice(from);
            }
            Bytes::Shared(bytes) => {
                bytes.borrow_mut()[offset..][..from.len()].copy_from_slice(from);
            }
        }
    }
}

/// A space: its pages by address.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) pages: BTreeMap<u64, Page>,
    pub(crate) class: Commit,
    pub(crate) budget: u64,
}

impl Space {
    pub(crate) fn new(class: Commit, budget: u64) -> Self {
        Self {
            pages: BTreeMap::new(),
            class,
            budget,
        }
    }

    /// Counted from scratch: pages, and tables that have a page below them.
    pub(crate) fn commit(&self) -> u64 {
        commit_of(self.pages.keys().copied())
    }

    /// Whether the budget allows these pages as well.
    fn check_budget(&self, more: impl Iterator<Item = u64>) -> Result<(), Error> {
        let all: BTreeSet<u64> = self.pages.keys().copied().chain(more).collect();
        let is_allowed = all.len() == self.pages.len() || commit_of(all.into_iter()) <= self.budget;
        if is_allowed {
            Ok(())
        } else {
            Err(Error::OverBudget)
        }
    }

    pub(crate) fn map(&mut self, addr: u64, len: u64, perm: Perm) -> Result<(), Error> {
        if self.pages.range(addr..addr + len).next().is_some() {
            return Err(Error::Occupied);
        }
        self.check_budget((addr..addr + len).step_by(PAGE_SIZE))?;
        for page in (addr..addr + len).step_by(PAGE_SIZE) {
            let bytes = Bytes::zero();
            self.pages.insert(
                page,
                Page {
                    perm,
                    ceiling: perm,
                    bytes,
                },
            );
        }
        Ok(())
    }

    pub(crate) fn unmap(&mut self, addr: u64, len: u64) {
        self.pages
            .retain(|page, _| !(addr..addr + len).contains(page));
    }

    pub(crate) fn protect(&mut self, addr: u64, len: u64, perm: Perm) -> Result<(), Error> {
        for page in (addr..addr + len).step_by(PAGE_SIZE) {
            let page = self.pages.get(&page).ok_or(Error::NotMapped)?;
            if !page.ceiling.contains(perm) {
                return Err(Error::Denied);
            }
        }
        for (_, page) in self.pages.range_mut(addr..addr + len) {
            page.perm = perm;
        }
        Ok(())
    }

    pub(crate) fn allows(&self, addr: u64, access: Access) -> Result<(), FoundEntry> {
        let page = self
            .pages
            .get(&(addr / PAGE * PAGE))
            .ok_or(FoundEntry::Empty)?;
        let allowed = match access {
            Access::Read => true,
            Access::Write => page.perm == Perm::RW,
            Access::Execute => page.perm == Perm::RX,
        };
        let found = match page.perm {
            Perm::RW => FoundEntry::ReadWrite,
            Perm::RX => FoundEntry::ReadExecute,
            _ => FoundEntry::ReadOnly,
        };
        if allowed { Ok(()) } else { Err(found) }
    }

    pub(crate) fn check_writable(&self, addr: u64, len: u64) -> Result<(), Error> {
        for (at, _) in chunks(addr, len) {
            match self.allows(at, Access::Write) {
                Ok(()) => {}
                Err(FoundEntry::Empty) => return Err(Error::NotMapped),
                Err(_) => return Err(Error::NotWritable),
            }
        }
        Ok(())
    }

    pub(crate) fn read(&self, addr: u64, len: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, len) in chunks(addr, len) {
            let page = self.pages[&(at / PAGE * PAGE)].bytes.to_vec();
            bytes.extend_from_slice(&page[(at % PAGE) as usize..][..len]);
        }
        bytes
    }

    /// What a move leaves behind.
    fn clear_whole_pages(&mut self, addr: u64, len: u64) {
        for (at, len) in chunks(addr, len) {
            if let Some(page) = self.pages.get_mut(&at)
                && len == PAGE_SIZE
                && !page.bytes.is_shared()
            {
                page.bytes = Bytes::zero();
            }
        }
    }

    pub(crate) fn write(&mut self, addr: u64, from: &[u8]) {
        for (at, len) in chunks(addr, from.len() as u64) {
            let page = self.pages.get_mut(&(at / PAGE * PAGE)).unwrap();
            page.bytes
                .write((at % PAGE) as usize, &from[(at - addr) as usize..][..len]);
        }
    }
}

/// The root, pages at these addresses, and all tables on the way to them.
fn commit_of(pages: impl Iterator<Item = u64>) -> u64 {
    let blocks = |page: u64| (0..4).map(move |level| (level, page >> (12 + INDEX_BITS * level)));
    1 + pages.flat_map(blocks).collect::<BTreeSet<_>>().len() as u64
}

/// The parts of a byte range that lie in one page each.
fn chunks(addr: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let mut at = addr;
    std::iter::from_fn(move || {
        let chunk = (at, (PAGE - at % PAGE).min(addr + len - at) as usize);
        at += chunk.1 as u64;
        (chunk.1 > 0).then_some(chunk)
    })
}

/// The arguments of a share.
pub(crate) struct Share {
    pub(crate) dst: usize,
    pub(crate) to: u64,
    pub(crate) src: usize,
    pub(crate) from: u64,
    pub(crate) len: u64,
    pub(crate) mode: ShareMode,
    pub(crate) perm: Option<Perm>,
}

pub(crate) fn share(spaces: &mut [Space], args: &Share) -> Result<(), Error> {
    let &Share {
        dst,
        to,
        src,
        from,
        len,
        mode,
        perm,
    } = args;
    if dst == src && to.abs_diff(from) < len {
        return Err(Error::Overlap);
    }
    let crosses = spaces[dst].class != spaces[src].class;
    if crosses && mode != ShareMode::CopyOnWrite {
        return Err(Error::BadState);
    }
    if spaces[dst].pages.range(to..to + len).next().is_some() {
        return Err(Error::Occupied);
    }
    let mut expected = from;
    for (&addr, page) in spaces[src].pages.range(from..from + len) {
        if perm.is_some() && addr != expected {
            return Err(Error::NotMapped);
        }
        expected = addr + PAGE;
        let stays_shared =
            mode == ShareMode::Shared || mode == ShareMode::Move && page.bytes.is_shared();
        if stays_shared && perm.is_some_and(|perm| !page.ceiling.contains(perm)) {
            return Err(Error::Denied);
        }
        if crosses && perm.is_none() && page.bytes.is_shared() {
            return Err(Error::BadState);
        }
    }
    if perm.is_some() && expected != from + len {
        return Err(Error::NotMapped);
    }
    let addresses: Vec<_> = spaces[src]
        .pages
        .range(from..from + len)
        .map(|(a, _)| *a)
        .collect();
    spaces[dst].check_budget(addresses.iter().map(|addr| addr - from + to))?;
    for addr in addresses {
        let source = spaces[src].pages.get_mut(&addr).unwrap();
        if mode == ShareMode::Shared && !source.bytes.is_shared() {
            source.bytes = Bytes::Shared(Rc::new(RefCell::new(source.bytes.to_vec().to_vec())));
        }
        let mut page = source.clone();
        if let Some(perm) = perm {
            (page.perm, page.ceiling) = (perm, perm);
            if mode == ShareMode::CopyOnWrite {
                page.bytes = Bytes::Private(page.bytes.to_vec());
            }
        }
        if mode == ShareMode::Move {
            spaces[src].pages.remove(&addr);
        }
        spaces[dst].pages.insert(addr - from + to, page);
    }
    Ok(())
}

pub(crate) fn copy(
    spaces: &mut [Space],
    (dst, to): (usize, u64),
    (src, from): (usize, u64),
    len: u64,
    transfer: Transfer,
) -> Result<(), CopyError> {
    let fail = |side, error| Err(CopyError { side, error });
    if dst == src && to.abs_diff(from) < len {
        return fail(Side::Destination, Error::Overlap);
    }
    for (at, len) in chunks(to, len) {
        for (source, _) in chunks(at - to + from, len as u64) {
            if spaces[src].allows(source, Access::Read).is_err() {
                return fail(Side::Source, Error::NotMapped);
            }
        }
        if let Err(error) = spaces[dst].check_writable(at, len as u64) {
            return fail(Side::Destination, error);
        }
    }
    for (at, len) in chunks(to, len) {
        for (source, len) in chunks(at - to + from, len as u64) {
            let bytes = spaces[src].read(source, len as u64);
            spaces[dst].write(source - from + to, &bytes);
        }
    }
    if transfer == Transfer::Move {
        spaces[src].clear_whole_pages(from, len);
    }
    Ok(())
}
