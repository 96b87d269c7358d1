//! Messages that need no plan: what they change is at hand, and they take no frame.

use cowslip_abi::PAGE_SIZE;

use super::{Job, Transfer};
use crate::{
    mm::{Departing, Flush, Frame, Mm},
    vm::{
        access::{offset_in, page_of},
        copy::exchange::exchange,
        cursor::{Node, walk_to_page},
        entry::{Entry, Kind},
        remap::Run,
    },
};

/// Copies a few bytes between two spaces, if that takes no more than writing to one page where it
/// is. `false`: it takes more, and nothing has changed.
///
/// Neither space need be locked: each entry on the way is looked at once. If others change them at the same time, their
/// flush is not over before this is.
#[must_use]
pub fn copy_in_place(
    mm: &Mm,
    dst: Frame,
    dst_addr: u64,
    src: Frame,
    src_addr: u64,
    len: u64,
) -> bool {
    let (to_page, from_page) = (page_of(dst_addr), page_of(src_addr));
    let (to_offset, from_offset) = (offset_in(to_page, dst_addr), offset_in(from_page, src_addr));
    let len = len as usize;
    let is_within_pages = to_offset + len <= PAGE_SIZE && from_offset + len <= PAGE_SIZE;
    // A whole page is to be remapped, and buffers in one space may overlap.
    if !is_within_pages || len == PAGE_SIZE || dst == src {
        return false;
    }
    let map = &mm.map;
    let (Ok(to), Ok(from)) = (
        walk_to_page(map, dst, to_page),
        walk_to_page(map, src, from_page),
    ) else {
        return false;
    };
    if !to.is_exclusive() {
        return false;
    }
    let (to, from) = (to.slot(to_page).get(), from.slot(from_page).get());
    match (to.kind(), from.kind()) {
        (
            Kind::Private(to_frame) | Kind::Shared(to_frame),
            Kind::Private(frame) | Kind::Shared(frame),
        ) if to.is_writable() => {
            mm.map
                .copy_bytes(frame, from_offset, to_frame, to_offset, len);
            mm.stats.copied.add(1);
            true
        }
        _ => false,
    }
}

impl<'m> Job<'m> {
    /// The tables of pages on both sides, if both are there and this space's alone where they change.
    #[inline(always)]
    fn tables_of(&self, page: u64) -> Option<(Node<'m>, Node<'m>)> {
        let map = &self.mm.map;
        let from = walk_to_page(map, self.src, self.to_src(page)).ok()?;
        let to = walk_to_page(map, self.dst, page).ok()?;
        let is_own = to.is_exclusive() && (self.transfer == Transfer::Copy || from.is_exclusive());
        is_own.then_some((from, to))
    }

    /// Remaps one private page in place of another; or copies it, if one page is too short to be
    /// remapped. `false`: it is not that simple, and nothing has changed.
    #[inline(always)]
    pub(super) fn give_page(&self, page: u64) -> bool {
        let mm = self.mm;
        let Some((from, to)) = self.tables_of(page) else {
            return false;
        };
        let (from, to) = (from.slot(self.to_src(page)), to.slot(page));
        let (entry, replaced) = (from.get(), to.get());
        let (Kind::Private(frame), Kind::Private(old)) = (entry.kind(), replaced.kind()) else {
            return false;
        };
        if !replaced.may_write() {
            return false;
        }
        let old_count = mm.counts.of(old);
        let mut flush = Flush::page(self.dst, page);
        match self.transfer {
            Transfer::Copy if mm.remap_min_pages() > 1 && old_count.is_one() => {
                mm.stats.copied.add(1);
                mm.map.copy_frame(frame, old);
                return true;
            }
            Transfer::Copy if frame == old => {
                mm.stats.remapped.add(1);
                return true;
            }
            Transfer::Copy => {
                let is_second = mm.counts.of(frame).increment();
                mm.counts.add_shared(is_second.into());
                if entry.is_writable() {
                    from.set(entry.with_writable(false));
                    flush.add(self.src, self.to_src(page));
                }
                to.set(Entry::private(frame, replaced.rights(), false));
            }
            Transfer::Move => {
                from.set(Entry::zero(entry.rights()));
                flush.add(self.src, self.to_src(page));
                to.set(Entry::private(
                    frame,
                    replaced.rights(),
                    entry.is_writable(),
                ));
            }
        }
        mm.stats.remapped.add(1);
        let flushed = mm.flush(&flush);
        mm.release_counted(old, old_count, self.class(), &flushed);
        true
    }

    /// The same for several pages that lie in one table of each side.
    #[inline(never)]
    pub(super) fn give_run(&self, page: u64, nr_pages: u64) -> bool {
        let Some((from, to)) = self.tables_of(page) else {
            return false;
        };
        let source = from.run(self.to_src(page), nr_pages);
        let run = Run::of(source, to.run(page, nr_pages));
        let is_whole = run.len() as u64 == nr_pages && nr_pages >= self.mm.remap_min_pages();
        if !is_whole || !run.is_ordinary() {
            return false;
        }
        let mut departing = Departing::new(self.mm, self.class());
        let nr_remapped = exchange(self, from, to, run, page, &mut departing);
        departing.finish();
        self.mm.stats.remapped.add(nr_remapped);
        true
    }
}
