//! Shared memory: what either space writes, both see.

use cowslip_abi::PAGE_SIZE;

use super::Share;
use crate::{
    mm::{Departing, Flushed, Reserve},
    vm::{
        cursor::{Cursor, walk_to_page},
        entry::{Entry, Kind, Slot},
        open::{Edit, open},
    },
};

impl Share<'_> {
    /// Shared memory, pass 1: opens the tables of both sides, and turns the pages of the source into
    /// it, unless they must be copied first. Those are taken out of reach.
    pub(super) fn detach_shared(&self, reserve: &mut Reserve<'_>) -> Flushed {
        let mut departing = Departing::new(self.mm, self.class());
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let at = self.to_dst(part.addr);
            open(
                self.mm,
                self.dst,
                at,
                0,
                Edit::Keep,
                reserve,
                &mut departing,
            );
            let from = open(
                self.mm,
                self.src,
                part.addr,
                0,
                Edit::Change,
                reserve,
                &mut departing,
            );
            let places = from.run(part.addr, part.nr_entries).iter();
            for (slot, page) in places.map(Slot::new).zip((part.addr..).step_by(PAGE_SIZE)) {
                if self.detach_page(slot, reserve) {
                    departing.flush().add(self.src, page);
                }
            }
        }
        departing.finish()
    }

    /// Returns whether the page was taken out of reach.
    fn detach_page(&self, slot: Slot<'_>, reserve: &mut Reserve<'_>) -> bool {
        let entry = slot.get();
        let frame = match entry.kind() {
            Kind::Zero => {
                self.mm.stats.zero_filled.add(1);
                reserve.take_zeroed()
            }
            Kind::Private(frame) if !self.mm.counts.is_one(frame) => {
                slot.set(entry.condemned());
                return true;
            }
            Kind::Private(frame) | Kind::Shared(frame) => frame,
            Kind::Empty | Kind::Condemned(_) => return false,
        };
        slot.set(Entry::shared(frame, entry.rights()));
        self.mm.counts.increment(frame);
        false
    }

    /// Pass 2: makes the pages of the destination.
    pub(super) fn attach_shared(&self, reserve: &mut Reserve<'_>, flushed: &Flushed) {
        let mut src = Cursor::new(&self.mm.map, self.src);
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let at = self.to_dst(part.addr);
            let Ok(to) = walk_to_page(&self.mm.map, self.dst, at) else {
                unreachable!("pass 1 has made the table");
            };
            let mut nr_made = 0;
            for page in (part.addr..part.end()).step_by(PAGE_SIZE) {
                let slot = src.open_slot(page);
                if !slot.get().is_empty() {
                    let entry = self.attached(slot, reserve, flushed);
                    to.slot(self.to_dst(page)).set(entry);
                    nr_made += 1;
                }
            }
            to.add_used(nr_made);
        }
    }

    fn attached(&self, slot: Slot<'_>, reserve: &mut Reserve<'_>, flushed: &Flushed) -> Entry {
        let source = slot.get();
        let frame = match source.kind() {
            Kind::Condemned(old) => {
                let frame = reserve.take();
                self.mm.map.copy_frame(old, frame);
                self.mm.stats.cow_broken.add(1);
                self.mm.counts.increment(frame);
                slot.set(Entry::shared(frame, source.rights()));
                self.mm.release(old, self.class(), flushed);
                frame
            }
            Kind::Shared(frame) => frame,
            _ => unreachable!("pass 1 left shared and condemned pages"),
        };
        Entry::shared(frame, self.rights(source))
    }
}
