//! One page that needs no plan: both tables are there, and it takes no frame.

use cowslip_abi::{Error, Perm, ShareMode};

use super::Share;
use crate::{
    mm::{Flush, Mm},
    vm::{
        PageTable, VmError,
        cursor::walk_to_page,
        entry::{Entry, Kind, Rights},
    },
};

impl Share<'_> {
    /// The whole of it for one page, if that takes no frame and both tables are there.
    #[inline]
    pub(super) fn one_page(&self, page: u64) -> Option<Result<(), VmError>> {
        let to = walk_to_page(&self.mm.map, self.dst, self.to_dst(page)).ok()?;
        let from = walk_to_page(&self.mm.map, self.src, page).ok()?;
        let is_own = from.is_exclusive();
        if !to.is_exclusive() || self.mode != ShareMode::CopyOnWrite && (!is_own || from.is_plain())
        {
            return None;
        }
        let (source, target) = (from.slot(page), to.slot(self.to_dst(page)));
        let entry = source.get();
        if !target.get().is_empty() {
            return Some(Err(Error::Occupied));
        }
        if entry.is_empty() || self.takes_frame(entry, is_own) {
            return None;
        }
        if let Err(error) = self.check_rights(entry) {
            return Some(Err(error));
        }
        let rights = self.rights(entry);
        let frame = match (self.mode, entry.kind()) {
            (ShareMode::Shared, Kind::Private(frame) | Kind::Shared(frame))
            | (ShareMode::CopyOnWrite, Kind::Private(frame)) => frame,
            _ => return None,
        };
        if let Err(error) = self.tables[1].grow_by_page(self.mm) {
            return Some(Err(error));
        }
        self.mm.counts.increment(frame);
        let made = if self.mode == ShareMode::Shared {
            if !entry.is_shared() {
                source.set(Entry::shared(frame, entry.rights()));
            }
            Entry::shared(frame, rights)
        } else {
            if entry.is_writable() {
                source.set(entry.with_writable(false));
                self.mm.flush(&Flush::page(self.src, page));
            }
            Entry::private(frame, rights, false)
        };
        target.set(made);
        to.add_used(1);
        Some(Ok(()))
    }
}

/// Maps a page of shared memory once more, with the rights `perm`, if that takes no more than an entry
/// of a table that is there. `false`: it takes more, or cannot be, and nothing has changed.
#[must_use]
#[inline(always)]
pub fn share_in_place(
    mm: &Mm,
    dst: &PageTable,
    dst_page: u64,
    src: &PageTable,
    src_page: u64,
    perm: Perm,
) -> bool {
    let (Ok(to), Ok(from)) = (
        walk_to_page(&mm.map, dst.root(), dst_page),
        walk_to_page(&mm.map, src.root(), src_page),
    ) else {
        return false;
    };
    let (source, target) = (from.slot(src_page).get(), to.slot(dst_page));
    let Kind::Shared(frame) = source.kind() else {
        return false;
    };
    if !from.is_exclusive()
        || !to.is_exclusive()
        || !target.get().is_empty()
        || !source.rights().ceiling().contains(perm)
        || dst.crosses(src)
        || dst.grow_by_page(mm).is_err()
    {
        return false;
    }
    mm.counts.increment(frame);
    target.set(Entry::shared(frame, Rights::new(perm)));
    to.add_used(1);
    true
}
