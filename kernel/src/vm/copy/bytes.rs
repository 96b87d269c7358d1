//! The bytes of a message that are copied: ragged ends, buffers that lie at different offsets in their pages,
//! and pages of shared memory.

use core::ops::Range;

use cowslip_abi::{Error, PAGE_SIZE};

use super::{CopyError, Job, Needs, Side, Transfer};
use crate::{
    mm::{Departing, Flushed, Frame, Reserve, phys::FRAME_SIZE},
    vm::{
        Effort,
        access::{check_writable, offset_in, page_of, pieces},
        cursor::{Cursor, coverage},
        entry::{Entry, Kind},
        open::{Edit, open},
        own,
    },
};

impl Job<'_> {
    /// Checks both sides of what is copied, and counts the frames that it takes. Returns the address
    /// where the effort ends.
    pub(super) fn plan_bytes(
        &self,
        range: &Range<u64>,
        needs: &mut Needs<'_>,
    ) -> Result<u64, CopyError> {
        let (mut src, mut dst) = self.cursors();
        let mut reached = range.start;
        let (mut is_own, mut table_end) = (true, range.start);
        for (page, part) in pieces(range.clone()) {
            if needs.left.is_spent() {
                break;
            }
            needs.left.spend(Effort::BYTES, 1);
            // The page of the source in which the part before ended was looked at with it.
            let source = self.source_of(&part);
            let is_known = part.start > range.start && page_of(source.start) != source.start;
            let mut source_page = page_of(source.start) + if is_known { FRAME_SIZE } else { 0 };
            while source_page < source.end {
                if src.get(source_page).is_empty() {
                    return Err(CopyError::new(Side::Source, Error::NotMapped));
                }
                source_page += FRAME_SIZE;
            }
            let entry = dst.get(page);
            check_writable(entry).map_err(|error| CopyError::new(Side::Destination, error))?;
            if part.start >= table_end {
                is_own = needs.dst.add(page, 0);
                table_end = end_of_table(page);
            }
            needs.nr_pages += usize::from(own::needs_frame(self.mm, entry, is_own));
            reached = part.end;
        }
        if self.transfer == Transfer::Move {
            for page in self.left_pages(&(range.start..reached)).step_by(PAGE_SIZE) {
                if let Kind::Private(_) = src.get(page).kind() {
                    needs.src.add(page, 0);
                }
            }
        }
        Ok(reached)
    }

    /// Pass 1 of what is copied: takes what others share out of reach.
    pub(super) fn detach(
        &self,
        range: &Range<u64>,
        reserve: &mut Reserve<'_>,
        departing: &mut Departing<'_>,
    ) {
        let mut pages = pieces(range.clone()).map(|(page, _)| page).peekable();
        while let Some(&first) = pages.peek() {
            let leaf = open(self.mm, self.dst, first, 0, Edit::Keep, reserve, departing);
            let table_end = end_of_table(first);
            while let Some(page) = pages.next_if(|page| *page < table_end) {
                own::detach(self.mm, self.dst, page, leaf.slot(page), departing.flush());
            }
        }
    }

    /// Pass 2 of what is copied. Returns how many pages.
    pub(super) fn write(
        &self,
        range: &Range<u64>,
        reserve: &mut Reserve<'_>,
        flushed: &Flushed,
    ) -> u64 {
        let (mut src, mut dst) = self.cursors();
        let mut nr_pages = 0;
        for (page, part) in pieces(range.clone()) {
            let fill = |frame| self.copy_bytes(&part, &mut src, frame);
            let frames = || reserve.take();
            let slot = dst.open_slot(page);
            let fills_all = is_whole(&part);
            own::write(
                self.mm,
                slot,
                self.class(),
                fills_all,
                frames,
                flushed,
                fill,
            );
            nr_pages += 1;
        }
        nr_pages
    }

    /// The last step of a move in which bytes were copied: private pages that were not remapped
    /// become demand-zero too.
    #[inline(never)]
    pub(super) fn empty_source(&self, range: Range<u64>, reserve: &mut Reserve<'_>) {
        let mut departing = Departing::new(self.mm, self.classes[0]);
        let mut src = Cursor::new(&self.mm.map, self.src);
        for page in self.left_pages(&range).step_by(PAGE_SIZE) {
            let entry = src.get(page);
            if let Kind::Private(frame) = entry.kind() {
                let leaf = open(
                    self.mm,
                    self.src,
                    page,
                    0,
                    Edit::Keep,
                    reserve,
                    &mut departing,
                );
                departing.flush().add(self.src, page);
                leaf.slot(page).set(Entry::zero(entry.rights()));
                departing.add(frame);
            }
        }
        departing.finish();
    }

    /// The whole pages of the source.
    fn left_pages(&self, range: &Range<u64>) -> Range<u64> {
        let range = self.source_of(range);
        range.start.next_multiple_of(FRAME_SIZE)..page_of(range.end)
    }

    /// Fills `part` of a destination page, whose frame is `to`.
    fn copy_bytes(&self, part: &Range<u64>, src: &mut Cursor<'_>, to: Frame) {
        let mut offset = offset_in(page_of(part.start), part.start);
        for (source, from_part) in pieces(self.source_of(part)) {
            let len = offset_in(from_part.start, from_part.end);
            match src.get(source).kind() {
                Kind::Private(from) | Kind::Shared(from) | Kind::Condemned(from) => {
                    let from_offset = offset_in(source, from_part.start);
                    self.mm.map.copy_bytes(from, from_offset, to, offset, len);
                }
                Kind::Zero => self.mm.map.zero_bytes(to, offset, len),
                Kind::Empty => unreachable!("source pages were checked"),
            }
            offset += len;
        }
    }
}

/// The end of what the table of pages for `page` covers.
const fn end_of_table(page: u64) -> u64 {
    (page | (coverage(1) - 1)) + 1
}

fn is_whole(part: &Range<u64>) -> bool {
    part.end - part.start == PAGE_SIZE as u64
}
