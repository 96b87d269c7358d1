//! Moving: only the destination has the range afterwards.

use super::Share;
use crate::{
    mm::{Departing, Reserve},
    vm::{
        drop::prune,
        entry::{Entry, Kind, Slot},
        open::{Edit, open},
    },
};

impl Share<'_> {
    /// Moves everything, and takes away the tables of the source that are empty then.
    pub(super) fn take(&self, reserve: &mut Reserve<'_>) {
        let mut departing = Departing::new(self.mm, self.class());
        let mut is_emptied = false;
        let mut rest = self.range.clone();
        while let Some(part) = self.next_part(&mut rest) {
            let (at, level) = (self.to_dst(part.addr), part.level);
            let (src, dst) = (self.src, self.dst);
            let to = open(self.mm, dst, at, level, Edit::Keep, reserve, &mut departing);
            let from = open(
                self.mm,
                src,
                part.addr,
                level,
                Edit::Change,
                reserve,
                &mut departing,
            );
            let targets = to.run(at, part.nr_entries);
            let mut nr_moved = 0;
            for (source, target) in from.run(part.addr, part.nr_entries).iter().zip(targets) {
                let source = Slot::new(source);
                let entry = source.get();
                if !entry.is_empty() {
                    source.set(Entry::EMPTY);
                    Slot::new(target).set(self.moved(entry, level));
                    nr_moved += 1;
                }
            }
            from.subtract_used(nr_moved);
            is_emptied |= from.nr_used() == 0;
            to.add_used(nr_moved);
            departing.flush().add_range(src, part.addr, part.end());
        }
        if is_emptied {
            prune(self.mm, self.src, &self.range, &mut departing);
        }
        departing.finish();
    }

    fn moved(&self, source: Entry, level: u32) -> Entry {
        if level > 0 && source.table_below().is_some() {
            return source;
        }
        let rights = self.rights(source);
        match source.kind() {
            Kind::Shared(frame) => Entry::shared(frame, rights),
            Kind::Private(frame) => Entry::private(frame, rights, source.is_writable()),
            _ => Entry::zero(rights),
        }
    }
}
